"""Vehicles: their shapes as fields of height and material, their sizes and colours, and how light falls on them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic.world import Choice, Colour, Light

Floats = NDArray[np.float32]

KINDS = ("car", "van", "truck", "bus")
"""Categories of the truth; vehicles name theirs by its index."""

_FINEST = 0.02
"""Metres per cell of the finest models of vehicles."""

_PAINT, _GLASS, _TRIM, _LAMP, _LOAD = range(5)
"""Materials of a model, in the order of its weights."""


class Vehicle(NamedTuple):
    """A vehicle on the ground: its centre in metres, the angle of its nose, its model and its colours (0..255)."""

    x: float
    y: float
    angle: float
    model: str
    length: float
    width: float
    paint: Colour
    load: Colour
    gloss: float

    @property
    def kind(self) -> int:
        """Index into KINDS."""
        return _MODELS[self.model].kind

    @property
    def height(self) -> float:
        """Metres from the ground to the roof."""
        return _MODELS[self.model].height


@dataclass(frozen=True)
class _Model:
    """A type of vehicle: ranges of length and width in metres, height, and the shape of its cabin.

    cabin: shares of the length, from the tail: foot of the rear window, its top, top of the windscreen, its foot.
    """

    kind: int
    length: tuple[float, float]
    width: tuple[float, float]
    height: float
    belt: float
    cabin: tuple[float, float, float, float]
    rounding: float
    body: str = "cabin"


_MODELS = {
    "hatchback": _Model(0, (3.7, 4.3), (1.66, 1.80), 1.48, 0.98, (0.02, 0.13, 0.56, 0.74), 0.42),
    "saloon": _Model(0, (4.4, 4.95), (1.74, 1.88), 1.44, 0.96, (0.14, 0.29, 0.57, 0.73), 0.45),
    "estate": _Model(0, (4.4, 4.9), (1.74, 1.86), 1.48, 0.97, (0.015, 0.09, 0.56, 0.72), 0.42),
    "offroad": _Model(0, (4.2, 4.8), (1.80, 1.95), 1.70, 1.10, (0.015, 0.08, 0.58, 0.71), 0.36),
    "small": _Model(0, (3.3, 3.7), (1.58, 1.66), 1.50, 0.98, (0.02, 0.12, 0.60, 0.80), 0.44),
    "minivan": _Model(1, (4.7, 5.3), (1.88, 1.98), 1.95, 1.15, (0.01, 0.05, 0.72, 0.86), 0.34),
    "panel van": _Model(1, (5.2, 6.4), (1.96, 2.06), 2.45, 1.30, (0.0, 0.01, 0.76, 0.87), 0.30, "panel"),
    "box truck": _Model(2, (7.0, 9.5), (2.38, 2.52), 3.4, 0.0, (0.0, 0.0, 0.0, 0.0), 0.12, "box"),
    "tipper": _Model(2, (7.0, 8.8), (2.40, 2.52), 2.9, 0.0, (0.0, 0.0, 0.0, 0.0), 0.12, "tipper"),
    "semitrailer": _Model(2, (14.5, 16.5), (2.48, 2.55), 3.9, 0.0, (0.0, 0.0, 0.0, 0.0), 0.12, "box"),
    "bus": _Model(3, (10.5, 12.8), (2.48, 2.55), 3.1, 0.0, (0.0, 0.0, 0.0, 0.0), 0.22, "bus"),
    "articulated bus": _Model(3, (17.0, 18.2), (2.50, 2.55), 3.1, 0.0, (0.0, 0.0, 0.0, 0.0), 0.22, "bus"),
}

RIM = 0.16
"""Metres around a vehicle's length and width in which its mirrors lie."""

LONGEST = 18.2
"""Metres from nose to tail of the longest vehicle."""

_CARS = Choice(("saloon", 0.27), ("hatchback", 0.31), ("estate", 0.17), ("offroad", 0.15), ("small", 0.10))
_LORRIES = Choice(("box truck", 0.5), ("tipper", 0.3), ("semitrailer", 0.2))

_CAR_PAINTS: Choice[Colour] = Choice(
    ((228, 230, 232), 0.22), ((180, 184, 188), 0.18), ((128, 132, 137), 0.09), ((86, 90, 96), 0.10),
    ((34, 36, 40), 0.19), ((38, 55, 100), 0.08), ((72, 110, 165), 0.03), ((165, 32, 34), 0.06), ((96, 22, 30), 0.02),
    ((42, 70, 54), 0.015), ((186, 172, 146), 0.015), ((120, 90, 62), 0.01), ((222, 192, 60), 0.01),
    ((214, 106, 40), 0.005),
)  # fmt: skip
_VAN_PAINTS: Choice[Colour] = Choice(
    ((232, 234, 235), 0.58), ((176, 180, 184), 0.14), ((40, 42, 46), 0.09), ((44, 66, 120), 0.07),
    ((176, 38, 36), 0.05), ((226, 190, 50), 0.04), ((60, 104, 74), 0.03),
)  # fmt: skip
_BUS_PAINTS: Choice[Colour] = Choice(
    ((226, 228, 230), 0.45),
    ((70, 170, 84), 0.15),
    ((226, 196, 56), 0.14),
    ((64, 104, 172), 0.13),
    ((176, 44, 42), 0.13),
)
_LOADS: Choice[Colour] = Choice(
    ((226, 228, 230), 0.5), ((150, 154, 158), 0.15), ((58, 88, 140), 0.12), ((160, 52, 46), 0.08),
    ((120, 100, 76), 0.1), ((72, 74, 78), 0.05),
)  # fmt: skip


def draw(
    roll: random.Random, share: tuple[float, float, float, float]
) -> tuple[str, float, float, Colour, Colour, float]:
    """Model, length, width, paint, load and gloss of a vehicle at random.

    share: of cars, vans, trucks and buses, adding up to 1.
    """
    at = roll.random()
    kind = 0 if at < share[0] else 1 if at < share[0] + share[1] else 2 if at < 1 - share[3] else 3
    if kind == 0:
        name = _CARS.draw(roll)
    elif kind == 1:
        name = "minivan" if roll.random() < 0.45 else "panel van"
    elif kind == 2:
        name = _LORRIES.draw(roll)
    else:
        name = "bus" if roll.random() < 0.75 else "articulated bus"
    model = _MODELS[name]
    paints = (_CAR_PAINTS, _VAN_PAINTS, _VAN_PAINTS, _BUS_PAINTS)[kind]
    red, green, blue = paints.draw(roll)
    tone = roll.uniform(0.88, 1.08)
    paint = (red * tone + roll.uniform(-5, 5), green * tone + roll.uniform(-5, 5), blue * tone + roll.uniform(-5, 5))
    load = _LOADS.draw(roll)
    # Few sizes, so that shapes can be kept.
    length, width = round(roll.uniform(*model.length) / 0.2) * 0.2, round(roll.uniform(*model.width), 1)
    return name, round(length, 1), width, paint, load, roll.uniform(0.3, 1.0)


class _Shape(NamedTuple):
    """A model as cells of `cell` metres, nose to the right: normals [3, h, w], weights of materials [h, w, 5],
    coverage in 0..1 and height in metres, [h, w]."""

    cell: float
    normals: Floats
    materials: Floats
    coverage: Floats
    height: Floats


class Sprite(NamedTuple):
    """A vehicle from straight above, nose to the right, in cells of `cell` metres: colours float32 [h, w, 3] in
    0..255, coverage in 0..1 and height in metres, float32 [h, w]."""

    cell: float
    colours: Floats
    coverage: Floats
    height: Floats


def sprite(vehicle: Vehicle, light: Light, cell: float) -> Sprite:
    """The vehicle in sunlight, in cells of about `cell` metres, or of _FINEST if that is more."""
    level = max(0, round(math.log2(cell / _FINEST)))
    shape = _shape(vehicle.model, vehicle.length, vehicle.width, level)
    cos, sin = math.cos(vehicle.angle), math.sin(vehicle.angle)
    east, south, up = light.direction
    along, across = east * cos + south * sin, -east * sin + south * cos
    nx, ny, nz = shape.normals
    sunny = np.maximum(nx * along + ny * across + nz * up, 0)
    brightest = math.sqrt(2 + 2 * up)
    mirror = (nx * along + ny * across + nz * (up + 1)) / brightest
    colours = np.array([vehicle.paint, (38, 44, 52), (26, 27, 29), (205, 205, 200), vehicle.load], np.float32)
    base = shape.materials @ colours
    shade = (0.30 + 0.20 * nz) + 0.60 / up * sunny
    glossy = shape.materials[..., _PAINT] * vehicle.gloss + shape.materials[..., _GLASS]
    glint = np.maximum(mirror, 0) ** 24 * 70 * glossy
    sky = (1 - nz) * 26 * glossy
    lit = np.minimum(base * shade[..., None] + (glint + sky)[..., None], 262)
    return Sprite(shape.cell, lit.astype(np.float32, copy=False), shape.coverage, shape.height)


@lru_cache(maxsize=256)
def _shape(name: str, length: float, width: float, level: int) -> _Shape:
    """The shape of a model of one size, in cells of _FINEST * 2 ** level metres."""
    import cv2

    model = _MODELS[name]
    # Drawn twice as fine as wanted, so that edges are smooth.
    cell = _FINEST * 2**level
    step = cell / 2
    columns, rows = (math.ceil((edge + 2 * RIM) / cell) * 2 for edge in (length, width))
    x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * step
    y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * step
    x, y = np.meshgrid(x, y)
    outline = _outline(x, y, length, width, model)
    inside = outline > 0
    height, materials = _BODIES[model.body](x, y, outline, length, width, model)
    height = np.where(inside, height, 0.5 * model.height).astype(np.float32)
    if model.body in ("cabin", "panel"):
        mirrors = (np.abs(x - (model.cabin[3] - 0.5) * length + 0.25) < 0.09) & (np.abs(np.abs(y) - width / 2) < 0.13)
        _put(materials, mirrors & ~inside, _TRIM)
        inside = inside | mirrors
    height = np.asarray(cv2.GaussianBlur(height, (0, 0), 0.035 / step), np.float32)
    slope_y, slope_x = np.gradient(height, step)
    slopes = np.stack([-slope_x, -slope_y, np.ones_like(slope_x)])
    steep = np.hypot(slope_x, slope_y)
    slopes[:2] *= np.minimum(1, 1.6 / np.maximum(steep, 1e-6))
    normals = slopes / np.linalg.norm(slopes, axis=0)
    size = (columns // 2, rows // 2)
    layers = [*normals, *np.moveaxis(materials, -1, 0), inside, height]
    small = [cv2.resize(layer.astype(np.float32), size, interpolation=cv2.INTER_AREA) for layer in layers]
    return _Shape(cell, np.stack(small[:3]), np.ascontiguousarray(np.stack(small[3:8], axis=-1)), *small[8:])


def _outline(x: Floats, y: Floats, length: float, width: float, model: _Model) -> Floats:
    """Distance in metres from the edge of the body, positive inside: a rectangle whose corners are round and whose
    ends bulge."""
    bulge = 0.14 * model.rounding / 0.4
    half = length / 2 - bulge * (2 * y / width) ** 2
    narrowing = 0.05 * model.rounding / 0.4 * np.abs(2 * x / length) ** 4 * width
    radius = model.rounding
    dx = np.abs(x) - (half - radius)
    dy = np.abs(y) - (width / 2 - narrowing - radius)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(radius - outside - np.minimum(np.maximum(dx, dy), 0), np.float32)


def _one(material: int) -> Floats:
    weights = np.zeros(5, np.float32)
    weights[material] = 1
    return weights


def _all(like: Floats, material: int) -> Floats:
    return np.broadcast_to(_one(material), (*like.shape, 5)).copy()


def _put(materials: Floats, where: NDArray[np.bool_], material: int) -> None:
    materials[where] = _one(material)


def _rounded_edge(outline: Floats, radius: float) -> Floats:
    """How far the edge of a body falls away, 1 at its rim and 0 further in than `radius` metres."""
    return np.clip(1 - outline / radius, 0, 1) ** 2


def _cabin_body(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, model: _Model
) -> tuple[Floats, Floats]:
    """A car: bonnet, boot, and a cabin whose sloping sides are windows between pillars."""
    feet = [(share - 0.5) * length for share in model.cabin]
    deck = model.belt - 0.30 * _rounded_edge(outline, 0.30) - 0.06 * np.maximum(2 * x / length, 0) ** 2
    rise = model.height - model.belt
    tumble = 0.13 * width
    side = (width / 2 * 0.94 - np.abs(y)) / tumble
    bow = 0.10 * (2 * y / width) ** 2 * length / 4.5
    front = (feet[3] - bow - x) / (feet[3] - feet[2])
    rear = (x - feet[0]) / (feet[1] - feet[0])
    slope = np.minimum(np.minimum(front, rear), side)
    dome = 0.05 * (1 - (2 * y / width) ** 2) - 0.03 * (2 * x / length) ** 2
    height = np.maximum(deck, np.minimum(model.belt + rise * slope, model.height + dome * (slope >= 1)))
    materials = _all(x, _PAINT)
    glass = (slope > 0.10) & (slope < 0.93)
    # Where two windows meet there is a pillar.
    ends = np.minimum(front, rear)
    pillar = np.abs(ends - side) < 0.22
    middle = (side < ends) & (np.abs(x - (feet[1] + feet[2]) / 2) < 0.06)
    _put(materials, glass & ~pillar & ~middle, _GLASS)
    if model.kind == 0 and round(length * 10) % 7 == 0:
        _put(materials, (slope > 1.0) & (np.abs(x - feet[2] + 0.55) < 0.35) & (np.abs(y) < 0.30 * width), _GLASS)
    lamps = (outline < 0.22) & (outline > 0.04) & (np.abs(y) > 0.30 * width) & (x > 0.42 * length)
    _put(materials, lamps, _LAMP)
    return np.asarray(height, np.float32), materials


def _panel_body(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, model: _Model
) -> tuple[Floats, Floats]:
    """A panel van: one long roof with beads, a windscreen, a short bonnet."""
    height, materials = _cabin_body(x, y, outline, length, width, model)
    roof = height > model.height - 0.25
    beads = 0.03 * (np.sin(x / 0.45 * 2 * math.pi) > 0.6) * (np.abs(y) < 0.36 * width)
    behind = x < (model.cabin[2] - 0.5) * length - 0.9
    _put(materials, behind & (outline > 0.05), _PAINT)
    return np.asarray(height + roof * beads, np.float32), materials


def _lorry_cab(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, height: Floats, materials: Floats, tall: float
) -> None:
    """A cab over the front 2.1 m, with its windscreen, and the gap behind it."""
    nose = length / 2
    cab = x > nose - 2.1
    fall = np.clip((nose - x) / 0.28, 0, 1)
    side = np.clip((width / 2 - np.abs(y)) / 0.20, 0, 1)
    height[cab] = (1.6 + (tall - 1.6) * np.minimum(fall, side))[cab]
    _put(materials, cab, _PAINT)
    _put(materials, cab & (x > nose - 0.30) & (x < nose - 0.07) & (np.abs(y) < 0.44 * width), _GLASS)
    _put(materials, cab & (np.abs(x - nose + 1.25) < 0.3) & (np.abs(y) < 0.2), _TRIM)
    gap = (x <= nose - 2.1) & (x > nose - 2.5)
    height[gap] = 1.0
    _put(materials, gap, _TRIM)


def _box_body(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, model: _Model
) -> tuple[Floats, Floats]:
    """A lorry with a closed box."""
    height = np.full_like(x, model.height) - 0.05 * _rounded_edge(outline, 0.1)
    height += 0.012 * (np.sin(x / 1.2 * 2 * math.pi) > 0.9)
    materials = _all(x, _LOAD)
    _put(materials, outline < 0.05, _TRIM)
    _lorry_cab(x, y, outline, length, width, height, materials, 2.9)
    return height, materials


def _tipper_body(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, model: _Model
) -> tuple[Floats, Floats]:
    """A lorry with an open body and what lies in it."""
    height = np.full_like(x, 1.5) + 0.25 * np.sin(1.7 * x + 0.6) * np.cos(2.1 * y)
    materials = _all(x, _LOAD) * np.float32(0.72)
    rim = (outline < 0.14) | ((x < length / 2 - 2.5) & (x > length / 2 - 2.65))
    height[rim] = 2.4
    _put(materials, rim, _PAINT)
    _lorry_cab(x, y, outline, length, width, height, materials, model.height)
    return np.asarray(height, np.float32), materials


def _bus_body(
    x: Floats, y: Floats, outline: Floats, length: float, width: float, model: _Model
) -> tuple[Floats, Floats]:
    """A bus: a long roof with hatches and cooling units, in two parts with bellows where it is long."""
    height = model.height - 0.5 * _rounded_edge(outline, 0.35)
    materials = _all(x, _PAINT)
    _put(materials, (outline < 0.16) & (np.abs(y) > 0.3 * width), _GLASS)
    _put(materials, (x > length / 2 - 0.42) & (x < length / 2 - 0.12) & (np.abs(y) < 0.45 * width), _GLASS)
    for centre, half in ((0.26, 0.085), (-0.20, 0.06)):
        unit = (np.abs(x - centre * length) < half * length) & (np.abs(y) < 0.33 * width)
        height = height + 0.22 * unit
        _put(materials, unit & (np.abs(y) < 0.24 * width), _LOAD)
    for centre in (0.05, -0.36):
        _put(materials, (np.abs(x - centre * length) < 0.35) & (np.abs(y) < 0.4), _LAMP)
    if length > 14:
        bellows = np.abs(x + 0.07 * length) < 0.65
        height = height + bellows * 0.06 * np.sin(x / 0.22 * 2 * math.pi)
        _put(materials, bellows, _TRIM)
    return np.asarray(height, np.float32), materials


_BODIES = {
    "cabin": _cabin_body,
    "panel": _panel_body,
    "box": _box_body,
    "tipper": _tipper_body,
    "bus": _bus_body,
}
