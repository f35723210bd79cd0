"""GeoPackage, FlatGeobuf and GeoParquet, in the CRS of the raster."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from slicedet.outputs.table import to_geopandas

if TYPE_CHECKING:
    from slicedet.prediction import Prediction

LAYER = "detections"
"""Name of the layer in a GeoPackage or FlatGeobuf."""


def write_gpkg(prediction: Prediction, path: Path) -> None:
    """Writes a GeoPackage with one layer. Raises NotGeoreferenced where the detections have no place on a map."""
    _write(prediction, path, "GPKG")


def write_fgb(prediction: Prediction, path: Path) -> None:
    """Writes a FlatGeobuf, its rows in the order of its spatial index. Raises NotGeoreferenced as `write_gpkg`."""
    _write(prediction, path, "FlatGeobuf")


def write_parquet(prediction: Prediction, path: Path) -> None:
    """Writes a GeoParquet file. Raises NotGeoreferenced as `write_gpkg`."""
    to_geopandas(prediction).to_parquet(path, index=False, compression="zstd")


def _write(prediction: Prediction, path: Path, driver: str) -> None:
    """Through memory, since GDAL does not always tell when the last of a file does not fit on the disk."""
    import pyogrio

    frame, buffer = to_geopandas(prediction), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.write_dataframe(
            frame,
            buffer,
            driver=driver,
            layer=LAYER,
            geometry_type="Polygon",
            promote_to_multi=False,
        )
    path.write_bytes(buffer.getvalue())
