"""Region: an area of interest from any vector file, in the pixels of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidRegion
from slicedet.raster.georeference import transformer
from slicedet.raster.orientation import Window
from slicedet.raster.scene import Scene


class Region:
    """The polygons of a vector file, as one geometry in the pixel frame of a scene.

    Raises InvalidRegion where the file cannot be read, holds no polygon or no CRS, or lies beside the scene;
    and NotGeoreferenced or UntransformableCRS where the scene has no place on the ground.
    """

    def __init__(self, path: str | Path, scene: Scene) -> None:
        import shapely

        if scene.georeference is None:
            raise InvalidRegion(f"{path}: a region of interest needs a georeferenced image, {scene.source} has none")
        polygons, crs = _read_polygons(path)
        if crs is None:
            raise InvalidRegion(f"{path}: the file does not say its coordinate reference system")
        to_scene = transformer(crs, scene.georeference.crs)
        to_pixels = ~scene.georeference.transform

        def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = to_scene.transform(points[:, 0], points[:, 1])
            a, b, c, d, e, f = to_pixels[:6]
            return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

        moved = shapely.make_valid(shapely.transform(polygons, pixels))
        self.geometry = shapely.intersection(shapely.union_all(moved), shapely.box(0, 0, scene.width, scene.height))
        if not self.geometry.area:
            raise InvalidRegion(f"{path}: the region of interest does not touch {scene.source}")
        shapely.prepare(self.geometry)

    def touches(self, window: Window) -> bool:
        """Whether a window (column, row, width, height) shares any area with the region."""
        import shapely

        x, y, width, height = window
        return bool(shapely.intersects(self.geometry, shapely.box(x, y, x + width, y + height)))

    def holds(self, boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether the centre of each box [N, 4] lies in the region, [N]."""
        import shapely

        centres = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
        return np.asarray(shapely.intersects_xy(self.geometry, centres), bool)


def _read_polygons(path: str | Path) -> tuple[Any, Any]:
    """Polygons of all layers' features, as shapely geometries, and the CRS as WKT or authority code."""
    import pyogrio
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        meta, _, geometry, _ = pyogrio.raw.read(path, columns=[], force_2d=True)
    except (DataSourceError, DataLayerError) as error:
        reason = "no such file" if "No such file" in str(error) else "not a vector file that GDAL can read"
        raise InvalidRegion(f"{path}: {reason}") from error
    shapes = shapely.from_wkb(geometry if geometry is not None else [])
    shapes = shapes[~shapely.is_missing(shapes)]
    polygons = shapes[np.isin(shapely.get_type_id(shapes), (3, 6))]  # Polygon, MultiPolygon
    if not len(polygons):
        raise InvalidRegion(f"{path}: no polygon in it")
    return polygons, meta["crs"]
