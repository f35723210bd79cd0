"""GeoPackage, FlatGeobuf and GeoParquet, in the CRS of the raster, written in pieces."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slicedet.outputs.arrow import GEOMETRY, batches, schema
from slicedet.outputs.table import rings

if TYPE_CHECKING:
    from pyarrow import RecordBatch

    from slicedet.detections import Detections
    from slicedet.outputs.layer import Layer

LAYER = "detections"
"""Name of the layer in a GeoPackage or FlatGeobuf."""

_INDEX_ROWS = f"rtree_{LAYER}_geom_rowid"
"""Table with a row for each entry of a GeoPackage's spatial index, named as SQLite's R*Tree module does."""

_LAST_CHANGE = "1970-01-01T00:00:00.000Z"
"""Stands in every GeoPackage, so that the same detections make the same bytes; the record of the run has its time."""

_PIECES_OF_GROUP = 5
"""Pieces in a row group of GeoParquet, which readers take at once."""

_ROOM = 3
"""Bytes on the disk for each byte of the table that GDAL may need: for its copy, its index and, meanwhile, another."""


def write_gpkg(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a GeoPackage with one layer. Raises NotGeoreferenced where the detections have no place on a map."""
    _write(layer, pieces, path, "GPKG", _finish_gpkg)


def write_fgb(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a FlatGeobuf, its rows in the order of its spatial index. Raises NotGeoreferenced as `write_gpkg`.

    GDAL keeps the index in memory until the end, about 0.2 kB for each detection.
    """
    _write(layer, pieces, path, "FlatGeobuf", _rows_of_fgb)


def write_parquet(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a GeoParquet file, a row group for some pieces. Raises NotGeoreferenced as `write_gpkg`."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    described = schema(layer)
    extents: list[NDArray[np.float64]] = []
    # Numbers and polygons hardly repeat: a dictionary of them in each piece would only make the file larger.
    texts = [field.name for field in described if field.type == pyarrow.large_string()]
    with ParquetWriter(path, described, compression="zstd", use_dictionary=texts) as writer:
        stream = batches(layer, _noting_extents(layer, pieces, extents))
        while group := list(islice(stream, _PIECES_OF_GROUP)):
            writer.write_table(pyarrow.Table.from_batches(group, described))
        writer.add_key_value_metadata({"geo": _geoparquet_metadata(layer, extents)})


def _write(layer: Layer, pieces: Iterable[Detections], path: Path, driver: str, finish: Callable[[Path], int]) -> None:
    """Has GDAL write the table; `finish` returns how many rows the file has. Raises OSError where these are not all."""
    import pyarrow
    import pyogrio

    crs = layer.georeference.wkt
    # Of a path with line breaks, GDAL makes another.
    written = path.with_name(f"{LAYER}{path.suffix}")
    free = shutil.disk_usage(path.parent).free
    rows = handed_over = 0
    failures: list[BaseException] = []

    def stream() -> Iterator[RecordBatch]:
        nonlocal rows, handed_over
        try:
            for batch in batches(layer, pieces):
                rows += batch.num_rows
                handed_over += batch.nbytes
                yield batch
        except (Exception, KeyboardInterrupt) as error:
            failures.append(error)
            raise

    try:
        with ExitStack() as stack:
            if crs is None:
                # Only then, since warnings are caught for all threads at once.
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.write_arrow(
                pyarrow.RecordBatchReader.from_batches(schema(layer), stream()),
                written,
                driver=driver,
                layer=LAYER,
                geometry_name=GEOMETRY,
                geometry_type="Polygon",
                crs=crs,
            )
        # GDAL does not always tell when the last of a file does not fit on the disk.
        if finish(written) != rows:
            raise OSError("it is not whole: rows are missing")
        os.replace(written, path)
    except Exception as error:
        # What stops the stream, be it an interruption, comes back from GDAL as a failure to write.
        if failures:
            raise failures[0] from None
        # GDAL gives up space before it fails, and seldom says that there was none.
        if isinstance(error, OSError | RuntimeError) and free < _ROOM * handed_over:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _finish_gpkg(path: Path) -> int:
    """Dates a GeoPackage, and returns how many rows it has in its layer and its index; -1 where the two disagree."""
    try:
        with closing(sqlite3.connect(path)) as database, database:
            # GDAL takes a date from a setting too, but one that counts for all that the process writes.
            database.execute("UPDATE gpkg_contents SET last_change = ?", [_LAST_CHANGE])
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (indexed,) = database.execute(f"SELECT count(*) FROM {_INDEX_ROWS}").fetchone()
            (rows,) = database.execute(f"SELECT count(*) FROM {LAYER}").fetchone()
    except sqlite3.Error as error:
        raise OSError(f"it is not whole: {error}") from error
    return int(rows) if rows == indexed and state == "ok" else -1


def _rows_of_fgb(path: Path) -> int:
    """How many rows of a FlatGeobuf can be read."""
    import pyogrio

    with pyogrio.open_arrow(path, columns=[], use_pyarrow=True) as (_, reader):
        return sum(batch.num_rows for batch in reader)


def _noting_extents(
    layer: Layer, pieces: Iterable[Detections], extents: list[NDArray[np.float64]]
) -> Iterator[Detections]:
    """The pieces, of each of which the least and the greatest coordinates [2, 2] are added to `extents`."""
    for detections in pieces:
        points = rings(layer, detections).reshape(-1, 2)
        extents.append(np.stack([points.min(axis=0), points.max(axis=0)]))
        yield detections


def _geoparquet_metadata(layer: Layer, extents: Sequence[NDArray[np.float64]]) -> bytes:
    """What geopandas says of a frame in GeoParquet, here of one polygon around all."""
    import geopandas
    import shapely
    from pyarrow.parquet import read_schema

    corners = np.array(extents)
    around = [shapely.box(*corners[:, 0].min(axis=0), *corners[:, 1].max(axis=0))] if len(extents) else []
    frame = geopandas.GeoDataFrame(geometry=around, crs=layer.georeference.wkt)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    metadata: bytes = read_schema(buffer).metadata[b"geo"]
    return metadata
