"""Region: an area of interest from any vector file, in the pixels of a scene."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidRegion, NotGeoreferenced
from slicedet.raster.georeference import Georeference, transformer
from slicedet.raster.orientation import Window
from slicedet.raster.scene import Scene
from slicedet.raster.source import is_local, quiet, shown, unreadable

_SEGMENTS = 64
"""Pieces into which the longest edges are cut, since what is straight in one CRS is bent in another."""


class Region:
    """The polygons of a vector file, as one geometry in the pixel frame of a scene.

    Raises InvalidRegion where the file cannot be read, holds no polygon or no CRS, or lies beside the scene; and where
    the scene has no place on the ground.
    """

    def __init__(self, path: str | Path, scene: Scene) -> None:
        import shapely

        name = shown(str(path))
        place = scene.georeference
        if place is None or place.crs is None:
            raise InvalidRegion(f"{name}: a region of interest needs a georeferenced image; {scene.source} is none")
        frame = shapely.box(0, 0, scene.width, scene.height)
        layers = []
        for polygons, crs in _read_polygons(path):
            try:
                layers.append(_in_pixels(polygons, crs, place, frame))
            except NotGeoreferenced as error:
                raise InvalidRegion(f"{name}: {error}") from error
        inside = shapely.get_parts(shapely.intersection(np.concatenate(layers), frame))
        self.geometry = shapely.union_all(inside[np.isin(shapely.get_type_id(inside), _POLYGONS)])
        if not self.geometry.area:
            raise InvalidRegion(f"{name}: the region of interest does not touch {scene.source}")
        shapely.prepare(self.geometry)

    def touches(self, window: Window) -> bool:
        """Whether a window (column, row, width, height) shares any area with the region."""
        import shapely

        x, y, width, height = window
        rectangle = shapely.box(x, y, x + width, y + height)
        return bool(shapely.intersects(self.geometry, rectangle) and not shapely.touches(self.geometry, rectangle))

    def holds(self, boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether the centre of each box [N, 4] lies in the region, [N]."""
        import shapely

        centres = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
        return np.asarray(shapely.intersects_xy(self.geometry, centres), bool)


_POLYGONS = (3, 6)
"""Shapely's type ids of Polygon and MultiPolygon."""


_FOLDERS = (".gdb", ".kml")
"""Vector files that GDAL keeps as folders."""


def _read_polygons(path: str | Path) -> list[tuple[Any, Any]]:
    """Of each layer that has any: its polygons, as shapely geometries, and its CRS as WKT, authority code or object."""
    from pyogrio.errors import DataLayerError, DataSourceError

    name = shown(str(path))
    if is_local(str(path)) and (reason := unreadable(str(path))):
        raise InvalidRegion(f"{name}: {reason}")
    if os.path.isdir(path) and Path(path).suffix.lower() not in _FOLDERS:
        raise InvalidRegion(f"{name}: a folder; name the vector file in it")
    try:
        layers = list(_parquet(path) if _is_parquet(path) else _layers(path))
    except (DataSourceError, DataLayerError) as error:
        raise InvalidRegion(f"{name}: not a vector file that GDAL can read") from error
    if not layers:
        raise InvalidRegion(f"{name}: no polygon in it")
    if any(crs is None for _, crs in layers):
        raise InvalidRegion(f"{name}: the file does not say its coordinate reference system")
    return layers


def _layers(path: str | Path) -> Iterator[tuple[Any, Any]]:
    import pyogrio
    import shapely

    for layer in pyogrio.list_layers(path)[:, 0]:
        with quiet(RuntimeWarning):  # GDAL says that a ring was not closed, and closes it.
            meta, _, geometry, _ = pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True)
        shapes = shapely.from_wkb(geometry if geometry is not None else [], on_invalid="fix")
        polygons = shapes[np.isin(shapely.get_type_id(shapes), _POLYGONS)]
        if len(polygons):
            yield polygons, meta["crs"]


def _is_parquet(path: str | Path) -> bool:
    return is_local(str(path)) and Path(path).suffix.lower() in (".parquet", ".geoparquet")


def _parquet(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """As `_layers`: many builds of GDAL do not read GeoParquet."""
    import geopandas
    import shapely

    try:
        column = geopandas.read_parquet(path).geometry
    except Exception as error:  # Whatever geopandas, pyarrow, shapely and pyproj raise.
        raise InvalidRegion(f"{path}: not a GeoParquet file ({' '.join(str(error).split())})") from error
    shapes = shapely.force_2d(column.to_numpy())
    polygons = shapes[np.isin(shapely.get_type_id(shapes), _POLYGONS)]
    if len(polygons):
        yield polygons, column.crs


def _in_pixels(polygons: Any, crs: Any, place: Georeference, frame: Any) -> Any:
    """Polygons as valid geometries in pixels. Raises UntransformableCRS where that cannot be."""
    import shapely

    to_scene = transformer(crs, place.crs)
    surroundings = _surroundings(to_scene, place, frame)
    polygons = shapely.make_valid(polygons)
    if _in_degrees(to_scene.source_crs):
        # The scene's longitudes may run from 0 to 360, those of the file from -180 to 180, or the other way round.
        turns = [shapely.transform(polygons, lambda points, turn=turn: points + turn) for turn in _TURNS]
        polygons = np.concatenate(turns)
    polygons = shapely.intersection(polygons, surroundings)
    west, south, east, north = shapely.total_bounds(polygons)
    if np.isfinite(west):
        polygons = shapely.segmentize(polygons, max(east - west, north - south) / _SEGMENTS)
    to_pixels = ~place.transform
    middle = place.from_pixels(np.array(shapely.centroid(frame).coords[0]))[0]

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = to_scene.transform(points[:, 0], points[:, 1])
        if _in_degrees(to_scene.target_crs):
            x = x + 360 * np.rint((middle - x) / (360 + 1e-6))
        return np.stack(to_pixels @ (x, y), axis=-1)

    return shapely.make_valid(shapely.transform(polygons, pixels))


def _surroundings(to_scene: Any, place: Georeference, frame: Any) -> Any:
    """A rectangle in the CRS of a vector file around the scene: far beyond it, the scene's CRS may not reach."""
    import shapely

    def on_map(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return place.from_pixels(points)

    bounds = shapely.bounds(shapely.transform(frame, on_map))
    west, south, east, north = to_scene.transform_bounds(*bounds, direction="INVERSE")
    if west > east:
        west, east = -180.0, 180.0  # Across the antimeridian.
    middle, margin_x, margin_y = (west + east) / 2, (east - west) / 10, (north - south) / 10
    # Beyond half the Earth on either side, it begins again.
    most = 180 if _in_degrees(to_scene.source_crs) else np.inf
    west, east = max(west - margin_x, middle - most), min(east + margin_x, middle + most)
    return shapely.box(west, south - margin_y, east, north + margin_y)


def _in_degrees(crs: Any) -> bool:
    return crs is not None and bool(crs.is_geographic)


_TURNS = np.array([[-360.0, 0.0], [0.0, 0.0], [360.0, 0.0]])
"""By which longitudes may differ and mean the same place."""
