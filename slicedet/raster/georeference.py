"""Where pixels lie on the ground: corners, longitude and latitude, metres and square metres of boxes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from slicedet.errors import NotGeoreferenced, UntransformableCRS

if TYPE_CHECKING:
    from pyproj import Transformer
    from rasterio.crs import CRS

Array = NDArray[np.float64]

_SEMI_MAJOR = 6378137.0
_ECCENTRICITY_2 = 1 / 298.257223563 * (2 - 1 / 298.257223563)

_FLAT_M2 = 1e10
"""Area up to which a box counts as flat: 100 km on 100 km, where the Earth's curvature makes 0.01 %."""

_CELLS = 32
"""Cells along each side of a larger box."""

_ASKING = threading.Lock()
"""Held while a CRS is asked: GDAL's are not safe to use in two threads at once."""


@dataclass(frozen=True)
class Georeference:
    """An affine transform from pixel edges (column, row) to the coordinates of a CRS; rotation and south-up allowed.

    `crs` is None where the file has map coordinates but does not say in which system. Threads may share one.
    """

    transform: Affine
    crs: CRS | None

    def corners(self, boxes: NDArray[np.floating]) -> Array:
        """The four corners of each box [N, 4] in CRS coordinates, float64 [N, 4, 2].

        In pixel terms they run (x1, y1), (x2, y1), (x2, y2), (x1, y2).
        """
        corners = np.asarray(boxes, np.float64).reshape(-1, 4)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        return self.from_pixels(corners)

    def from_pixels(self, points: Array) -> Array:
        """CRS coordinates of points (column, row), float64 [..., 2]."""
        a, b, c, d, e, f = self.transform[:6]
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def to_lonlat(self, points: Array) -> Array:
        """WGS 84 longitude and latitude in degrees of CRS coordinates, float64 [..., 2].

        Raises NotGeoreferenced without a CRS, UntransformableCRS where none of PROJ's operations leads there.
        """
        points = np.asarray(points, np.float64)
        lon, lat = self._to_wgs84.transform(points[..., 0], points[..., 1])
        return np.stack([lon, lat], axis=-1)

    def sizes_m(self, boxes: NDArray[np.floating]) -> tuple[Array, Array]:
        """Width and height of each box [N, 4] in metres on the ground: geodesics between the middles of its sides."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        x1, y1, x2, y2 = boxes.T
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        return self._distance(np.stack([x1, y], -1), np.stack([x2, y], -1)), self._distance(
            np.stack([x, y1], -1), np.stack([x, y2], -1)
        )

    def areas_m2(self, boxes: NDArray[np.floating]) -> Array:
        """Area of each box [N, 4] on the WGS 84 ellipsoid in square metres.

        That of the flat quadrilateral between its corners in space, which knows no poles and no antimeridian. Boxes so
        large that the Earth's curvature counts are the sum of their cells.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        areas = self._flat_areas(boxes)
        for i in np.flatnonzero(areas > _FLAT_M2):
            areas[i] = self._flat_areas(_cells(boxes[i])).sum()
        return areas

    def pixel_size_m(self, column: float, row: float) -> tuple[float, float]:
        """Width and height on the ground, in metres, of the pixel around the point (column, row)."""
        half = 0.5
        width, height = self.sizes_m(np.array([[column - half, row - half, column + half, row + half]]))
        return float(width[0]), float(height[0])

    def _flat_areas(self, boxes: Array) -> Array:
        lonlat = self.to_lonlat(self.corners(boxes))
        lonlat[~np.isfinite(lonlat)] = np.nan  # Off the Earth.
        lon, lat = np.moveaxis(np.radians(lonlat), -1, 0)
        across = _SEMI_MAJOR / np.sqrt(1 - _ECCENTRICITY_2 * np.sin(lat) ** 2)
        east, north = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon)
        points = across[..., None] * np.stack([east, north, (1 - _ECCENTRICITY_2) * np.sin(lat)], -1)
        diagonals = points[:, 2:] - points[:, :2]
        return np.linalg.norm(np.cross(diagonals[:, 0], diagonals[:, 1]), axis=-1) / 2

    def _distance(self, start: Array, stop: Array) -> Array:
        from pyproj import Geod

        a, b = self.to_lonlat(self.from_pixels(start)), self.to_lonlat(self.from_pixels(stop))
        return np.asarray(Geod(ellps="WGS84").inv(a[:, 0], a[:, 1], b[:, 0], b[:, 1])[2], np.float64)

    @cached_property
    def wkt(self) -> str | None:
        """The CRS as well-known text; None where there is none."""
        with _ASKING:
            return None if self.crs is None else str(self.crs.to_wkt())

    @property
    def _to_wgs84(self) -> Transformer:
        own = self._own.__dict__
        if "to_wgs84" not in own:
            with _ASKING:
                own["to_wgs84"] = transformer(self.crs, "EPSG:4326")
        made: Transformer = own["to_wgs84"]
        return made

    @cached_property
    def _own(self) -> threading.local:
        """What each thread has for itself, since PROJ's transformations serve one at a time."""
        return threading.local()


def _cells(box: Array) -> Array:
    """A box [4] cut into cells [_CELLS ** 2, 4]."""
    x, y = np.linspace(box[0], box[2], _CELLS + 1), np.linspace(box[1], box[3], _CELLS + 1)
    first, last = np.meshgrid(x[:-1], y[:-1]), np.meshgrid(x[1:], y[1:])
    return np.stack([*first, *last], axis=-1).reshape(-1, 4)


def transformer(source: Any, target: Any) -> Transformer:
    """The transformation between two CRSs, x before y. Raises NotGeoreferenced or UntransformableCRS in one line."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    def system(crs: Any) -> CRS:
        return CRS.from_user_input(crs.to_wkt() if hasattr(crs, "to_wkt") else crs)

    if source is None or target is None:
        raise NotGeoreferenced("its coordinates are of no known coordinate reference system")
    try:
        return Transformer.from_crs(system(source), system(target), always_xy=True)
    except ProjError as error:
        name = getattr(source, "name", None) or str(source).split(",")[0].split("[")[-1].strip('"')
        raise UntransformableCRS(f"its coordinate reference system {name!r} has no way to {target}") from error
