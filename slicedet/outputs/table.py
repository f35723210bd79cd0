"""The columns that every output of detections shares, as arrays, as a GeoDataFrame and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.errors import NotGeoreferenced

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from slicedet.outputs.layer import Layer
    from slicedet.raster.scene import Scene

Column = NDArray[Any]


def table(layer: Layer, detections: Detections, first: int = 1) -> dict[str, Column]:
    """The columns of all outputs in their order, each [N].

    id (from `first`) and class_id (from 0) are int32; class, source (file name of the image) and model are str objects;
    the rest is float64: score, area_m2, width_m and height_m on the ground (NaN without a known CRS), and the pixel box
    in the scene's native frame, x_min y_min x_max y_max as pixel edges.
    """
    scene, count = layer.scene, len(detections)
    area, width, height = _ground_sizes(scene, detections.boxes)
    columns: dict[str, Column] = {
        "id": np.arange(first, first + count, dtype=np.int32),
        "class": np.array([layer.categories[i] for i in detections.category_ids], object),
        "class_id": detections.category_ids.astype(np.int32),
        "score": np.round(detections.scores.astype(np.float64), 6),
        "area_m2": area,
        "width_m": width,
        "height_m": height,
    }
    pixels = np.round(detections.boxes.astype(np.float64), 3) + 0.0
    columns |= dict(zip(("x_min", "y_min", "x_max", "y_max"), pixels.T, strict=True))
    columns["source"] = np.full(count, scene.name, object)
    columns["model"] = np.full(count, layer.model, object)
    return columns


def to_geopandas(layer: Layer, detections: Detections) -> GeoDataFrame:
    """The table as a GeoDataFrame of polygons [N] in the CRS of the raster, exterior rings counter-clockwise.

    The CRS is None where the raster has map coordinates without one. Raises NotGeoreferenced where it has neither.
    """
    import geopandas
    import shapely

    columns, polygons = table(layer, detections), shapely.polygons(rings(layer, detections))
    frame = geopandas.GeoDataFrame(columns, geometry=polygons, crs=layer.georeference.wkt)
    # Without rows, pandas could not tell that these hold text.
    return frame.astype({name: "string" for name, values in columns.items() if values.dtype == object})


def rings(layer: Layer, detections: Detections) -> NDArray[np.float64]:
    """Corners of the boxes in the CRS of the raster, [N, 4, 2], counter-clockwise.

    Raises NotGeoreferenced where the raster has neither a CRS nor map coordinates.
    """
    return counter_clockwise(layer.georeference.corners(detections.boxes))


def counter_clockwise(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rings of corners [N, K, 2], x to the right and y up, with the clockwise ones reversed."""
    x, y = np.moveaxis(rings - rings[:, :1], -1, 0)
    twice = np.sum(x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y, axis=1)
    return np.where((twice < 0)[:, None, None], rings[:, ::-1], rings)


def write_csv(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes the table as CSV in UTF-8, with longitude and latitude of the centres; unknown values are empty."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*table(layer, Detections.empty()), "lon", "lat"])
        first = 1
        for detections in pieces:
            lonlat = np.round(_centres_lonlat(layer.scene, detections.boxes), 7) + 0.0
            columns = [*table(layer, detections, first).values(), *lonlat.T]
            writer.writerows(zip(*map(nan_to_none, columns), strict=True))
            first += len(detections)


def nan_to_none(column: Column) -> list[Any]:
    """A column as Python values, with None for NaN."""
    values = column.tolist()
    return [None if value != value else value for value in values] if column.dtype.kind == "f" else values


def _ground_sizes(scene: Scene, boxes: NDArray[np.float32]) -> tuple[Column, Column, Column]:
    """Area in square metres, width and height in metres, each [N]; NaN where the CRS does not tell."""
    unknown = np.full(len(boxes), np.nan)
    if scene.georeference is None:
        return unknown, unknown, unknown
    try:
        area, (width, height) = scene.georeference.areas_m2(boxes), scene.georeference.sizes_m(boxes)
    except NotGeoreferenced:
        return unknown, unknown, unknown
    return _rounded(area), _rounded(width), _rounded(height)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four decimals, or six significant digits where these are more, so that tiny objects keep their size."""
    known = np.where(np.isfinite(values), values, np.nan)
    digits = np.floor(np.log10(known, out=np.zeros_like(known), where=known > 0))
    scale = 10.0 ** np.clip(5 - digits, 4, 15)
    return np.round(known * scale) / scale


def _centres_lonlat(scene: Scene, boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Longitude and latitude of the centres of boxes, [N, 2]; NaN where they cannot be told."""
    unknown = np.full((len(boxes), 2), np.nan)
    if scene.georeference is None:
        return unknown
    try:
        lonlat = scene.georeference.to_lonlat(scene.georeference.corners(boxes).mean(axis=1))
    except NotGeoreferenced:
        return unknown
    # Rasters in degrees may count longitudes up to 360.
    with np.errstate(invalid="ignore"):  # Places off the Earth are infinite.
        lonlat[:, 0] -= 360 * np.floor((lonlat[:, 0] + 180) / 360) * (np.abs(lonlat[:, 0]) > 180)
    return np.where(np.isfinite(lonlat).all(axis=1, keepdims=True), lonlat, np.nan)
