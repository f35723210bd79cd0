"""GeoJSON to the letter of RFC 7946: WGS 84, counter-clockwise rings, 7 decimals, bbox, split at the antimeridian.

Written here rather than by GDAL, which takes boxes wider than 180 degrees for narrow ones, and gives features on both
sides of the antimeridian a bbox around the whole Earth unless one of them crosses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import UntransformableCRS
from slicedet.outputs.table import Column, counter_clockwise, nan_to_none, table

if TYPE_CHECKING:
    from slicedet.detections import Detections
    from slicedet.outputs.layer import Layer
    from slicedet.raster.georeference import Georeference

Array = NDArray[np.float64]
Ring = list[list[float]]

DECIMALS = 7
"""About a centimetre on the ground; RFC 7946 advises no more than this."""

_STEPS = 16
"""Points per side by which boxes far across longitudes are followed, so that neighbouring points are close together."""


def write(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes the detections as a FeatureCollection, one feature a line, and then the bbox of all.

    Raises NotGeoreferenced or UntransformableCRS where they, or single boxes, have no longitude and latitude.
    """
    extent, count = _Extent(), 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for detections in pieces:
            shapes = _located(layer, detections, count)
            extent.add(shapes.spans)
            for feature in _features(shapes, table(layer, detections, count + 1)):
                file.write((",\n" if count else "\n") + feature)
                count += 1
        file.write(f'\n],"bbox":{_numbers(extent.bbox())}}}\n' if count else "\n]}\n")


def _located(layer: Layer, detections: Detections, before: int) -> _Shapes:
    """Shapes of the boxes that come after `before` others.

    Raises NotGeoreferenced or UntransformableCRS where they, or single boxes, have no longitude and latitude.
    """
    place = layer.georeference
    corners = place.corners(detections.boxes)
    lonlat = place.to_lonlat(corners)
    lost = np.count_nonzero(~np.isfinite(lonlat).all(axis=(1, 2)))
    if lost:
        raise UntransformableCRS(
            f"{layer.scene.source}: {lost} of the first {before + len(detections)} boxes have no longitude and "
            "latitude, which .geojson needs; write .gpkg, .fgb or .parquet instead"
        )
    return _shapes(place, corners, lonlat)


class _Shapes(NamedTuple):
    """Boxes as rings of longitude and latitude, not closed.

    rings: [N, 4, 2]. split: the rings instead of these for boxes far across longitudes. spans: [N, 4], west, south,
    east and north, where east is beyond 180 if a box crosses the antimeridian.
    """

    rings: Array
    split: dict[int, list[Ring]]
    spans: Array


def _shapes(place: Georeference, corners: Array, lonlat: Array) -> _Shapes:
    """Shapes of boxes from their corners, in the CRS and in longitude and latitude, both [N, 4, 2]."""
    lonlat = np.round(lonlat, DECIMALS) + 0.0
    spans = np.concatenate([lonlat.min(axis=1), lonlat.max(axis=1)], axis=1)
    jumps = np.abs(np.diff(lonlat[..., 0], axis=1, append=lonlat[:, :1, 0])).max(axis=1)
    special = np.flatnonzero((jumps >= 90) | (spans[:, 0] < -180) | (spans[:, 2] > 180))
    split = {}
    for i, outline in zip(special.tolist(), _outlines(place, corners[special]), strict=True):
        split[i] = _split(outline)
        spans[i] = [*outline.min(axis=0), *outline.max(axis=0)]
    return _Shapes(counter_clockwise(lonlat), split, spans)


def _outlines(place: Georeference, corners: Array) -> Iterator[Array]:
    """Each box as a ring [K, 2] whose longitudes run on past 180 rather than jump, the westernmost in -180..180.

    A box around a pole runs once around the Earth and back along the pole.
    """
    part = np.linspace(0, 1, _STEPS, endpoint=False)[:, None]
    sides = corners[:, :, None] * (1 - part) + np.roll(corners, -1, axis=1)[:, :, None] * part
    followed = place.to_lonlat(sides.reshape(-1, 4 * _STEPS, 2))
    followed = np.concatenate([followed, followed[:, :1]], axis=1)
    followed[..., 0] = np.unwrap(followed[..., 0], period=360, axis=1)
    for ring in followed:
        if abs(ring[-1, 0] - ring[0, 0]) > 180:
            pole = np.copysign(90, ring[:, 1].mean())
            outline = np.vstack([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])
        else:
            outline = ring[:-1:_STEPS]
        outline = np.round(outline, DECIMALS)
        outline[:, 0] -= 360 * np.floor((outline[:, 0].min() + 180) / 360)
        yield counter_clockwise(np.round(outline, DECIMALS)[None])[0] + 0.0


def _split(outline: Array) -> list[Ring]:
    """A ring cut where it passes 180 degrees, each part within -180..180."""
    import shapely

    if outline[:, 0].max() <= 180:
        return [outline.tolist()]
    rings = []
    for shift in (0, 360):
        half = shapely.intersection(shapely.polygons(outline), shapely.box(-180 + shift, -90, 180 + shift, 90))
        for part in shapely.get_parts(half):
            if part.area > 0:
                ring = np.round(shapely.get_coordinates(part)[:-1] - [shift, 0], DECIMALS)
                rings.append((counter_clockwise(ring[None])[0] + 0.0).tolist())
    return rings


class _Extent:
    """The longitudes and latitudes that spans cover; longitudes as intervals apart from each other, in their order."""

    def __init__(self) -> None:
        self._starts = self._ends = np.empty(0)
        self._south, self._north = np.inf, -np.inf

    def add(self, spans: Array) -> None:
        """Adds spans [N, 4] as in `_Shapes`."""
        west, south, east, north = spans.T
        beyond = east > 180
        starts = np.concatenate([self._starts, west, np.full(beyond.sum(), -180.0)])
        ends = np.concatenate([self._ends, np.minimum(east, 180), east[beyond] - 360])
        order = np.argsort(starts)
        starts, ends = starts[order], np.maximum.accumulate(ends[order])
        apart = starts[1:] > ends[:-1]
        self._starts, self._ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
        self._south, self._north = min(self._south, float(south.min())), max(self._north, float(north.max()))

    def bbox(self) -> list[float]:
        """The smallest bbox around all; west is greater than east where it crosses the antimeridian."""
        starts, ends = self._starts, self._ends
        gaps = starts[1:] - ends[:-1]
        low, high = self._south, self._north
        if len(gaps) and gaps.max() > starts[0] + 360 - ends[-1]:
            widest = int(gaps.argmax())
            return [float(starts[widest + 1]), low, float(ends[widest]), high]
        return [float(starts[0]), low, float(ends[-1]), high]


def _feature_bbox(west: float, south: float, east: float, north: float) -> list[float]:
    if east - west >= 360:
        return [-180.0, south, 180.0, north]
    return [west, south, east if east <= 180 else round(east - 360, DECIMALS), north]


def _features(shapes: _Shapes, columns: dict[str, Column]) -> Iterator[str]:
    rings = [[ring] for ring in shapes.rings.tolist()]
    for i, parts in shapes.split.items():
        rings[i] = parts
    properties = zip(*(_members(name, column) for name, column in columns.items()), strict=True)
    for number, parts, span, members in zip(columns["id"], rings, shapes.spans.tolist(), properties, strict=True):
        yield (
            f'{{"type":"Feature","id":{number},"bbox":{_numbers(_feature_bbox(*span))},'
            f'"properties":{{{",".join(members)}}},"geometry":{_geometry(parts)}}}'
        )


def _members(name: str, column: Column) -> Iterator[str]:
    """The column as members of JSON objects."""
    key = json.dumps(name)
    if column.dtype == object:
        texts = {value: json.dumps(value, ensure_ascii=False) for value in set(column)}
        return (f"{key}:{texts[value]}" for value in column)
    return (f"{key}:{'null' if value is None else value!r}" for value in nan_to_none(column))


def _geometry(rings: list[Ring]) -> str:
    closed = [f"[{','.join(map(_numbers, [*ring, ring[0]]))}]" for ring in rings]
    if len(closed) == 1:
        return f'{{"type":"Polygon","coordinates":[{closed[0]}]}}'
    return f'{{"type":"MultiPolygon","coordinates":[{",".join(f"[{ring}]" for ring in closed)}]}}'


def _numbers(values: list[float]) -> str:
    return f"[{','.join(map(repr, values))}]"
