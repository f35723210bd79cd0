"""The table with a polygon for each detection, as a stream of Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from slicedet.detections import Detections
from slicedet.outputs.table import rings, table

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

    from slicedet.outputs.layer import Layer

GEOMETRY = "geometry"
"""Name of the column of polygons, in well-known binary (WKB)."""


def schema(layer: Layer) -> Schema:
    """Names and types of the columns. Raises NotGeoreferenced where the detections have no place on a map."""
    return _batch(layer, Detections.empty(), 1).schema


def batches(layer: Layer, pieces: Iterable[Detections]) -> Iterator[RecordBatch]:
    """One batch for each piece, NaN as null. Raises NotGeoreferenced where the detections have no place on a map."""
    first = 1
    for detections in pieces:
        yield _batch(layer, detections, first)
        first += len(detections)


def _batch(layer: Layer, detections: Detections, first: int) -> RecordBatch:
    import pyarrow
    import shapely

    columns = table(layer, detections, first)
    text = pyarrow.large_string()
    arrays = {
        name: pyarrow.array(values, text if values.dtype == object else None, from_pandas=True)
        for name, values in columns.items()
    }
    polygons = shapely.to_wkb(shapely.polygons(rings(layer, detections)))
    arrays[GEOMETRY] = pyarrow.array(polygons, pyarrow.binary())
    return pyarrow.record_batch(list(arrays.values()), list(arrays))
