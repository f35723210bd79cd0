"""Pixels of any window of a scene, and the vehicles seen in it: the same whatever windows they are asked by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic import noise
from slicedet.datasets.synthetic.cell import LAND, MARKS, ROOFS, Cell, Shapes, Tree
from slicedet.datasets.synthetic.layout import Layout
from slicedet.datasets.synthetic.trees import crown
from slicedet.datasets.synthetic.vehicles import LONGEST, RIM, Vehicle, sprite
from slicedet.datasets.synthetic.world import Light
from slicedet.tiling import Tile

Floats = NDArray[np.float32]

BLOCK = 512
"""Edge in pixels of the blocks that are painted as a whole; windows are cut from them."""

_BORDER = 6
"""Pixels painted around a block, so that the blur of its edge knows what lies beyond."""

_FINE = 2
"""Pixels of the drawing along one pixel of the picture."""

_SHIFT = 4
"""Bits behind the point of the coordinates handed to OpenCV."""

_FLAT = ((0.0, 1.0),)
_SLICES = ((0.0, 0.3), (0.2, 0.62), (0.45, 0.9), (0.62, 1.0), (0.8, 1.0), (0.93, 1.0))
"""Slices of a vehicle that is seen aslant: shares of its height, and the brightness of their sides."""

VISIBLE = 0.5
"""Share of a vehicle's pixels that must be seen for it to be in the truth."""


class Painted(NamedTuple):
    """Pixels uint8 RGB [H, W, 3]; boxes float32 [N, 4], x1 y1 x2 y2 around the visible pixels of each vehicle, in
    pixels of the window; kinds int32 [N], indices into KINDS."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    kinds: NDArray[np.int32]


def paint(layout: Layout, gsd: float, window: Tile) -> Painted:
    """A window of the scene with pixels of `gsd` metres whose first pixel lies at the origin of the ground.

    The boxes are those of vehicles of which at least half is seen, inside the window.
    """
    pixels = np.empty((window.height, window.width, 3), np.uint8)
    truth = Truth()
    right, bottom = window.x + window.width, window.y + window.height
    for y in range(window.y // BLOCK * BLOCK, bottom, BLOCK):
        for x in range(window.x // BLOCK * BLOCK, right, BLOCK):
            block = paint_block(layout, gsd, Tile(x, y, BLOCK, BLOCK))
            left, top = max(x, window.x), max(y, window.y)
            part = np.s_[top - y : min(y + BLOCK, bottom) - y, left - x : min(x + BLOCK, right) - x]
            cut = block.pixels[part]
            pixels[top - window.y :, left - window.x :][: cut.shape[0], : cut.shape[1]] = cut
            truth.add(block.owners[part], block.vehicles, left - window.x, top - window.y)
    return Painted(pixels, *truth.boxes(truth.all()))


class Block(NamedTuple):
    """A painted block: pixels uint8 [H, W, 3]; owners int32 [H, W], index into `vehicles` of the vehicle seen in a
    pixel or -1; vehicles, each with the number of pixels it would have if nothing hid it."""

    pixels: NDArray[np.uint8]
    owners: NDArray[np.int32]
    vehicles: list[tuple[Vehicle, int]]


class Truth:
    """Gathers the visible pixels of vehicles over blocks."""

    def __init__(self) -> None:
        self._seen: dict[Vehicle, list[int]] = {}

    def add(self, owners: NDArray[np.int32], vehicles: list[tuple[Vehicle, int]], x: int, y: int) -> None:
        """Adds what is seen in part of a block, whose first pixel is (x, y)."""
        rows, columns = np.nonzero(owners >= 0)
        if not len(rows):
            return
        who = owners[rows, columns]
        order = np.argsort(who, kind="stable")
        who, rows, columns = who[order], rows[order], columns[order]
        starts = np.flatnonzero(np.diff(who, prepend=-1))
        counts = np.diff(starts, append=len(who))
        x1, x2 = np.minimum.reduceat(columns, starts) + x, np.maximum.reduceat(columns, starts) + x + 1
        y1, y2 = np.minimum.reduceat(rows, starts) + y, np.maximum.reduceat(rows, starts) + y + 1
        parts = zip(who[starts].tolist(), *(a.tolist() for a in (x1, y1, x2, y2, counts)), strict=True)
        for owner, left, top, right, bottom, count in parts:
            vehicle, whole = vehicles[owner]
            known = self._seen.setdefault(vehicle, [left, top, right, bottom, 0, whole])
            known[:5] = [
                min(known[0], left),
                min(known[1], top),
                max(known[2], right),
                max(known[3], bottom),
                known[4] + count,
            ]

    def all(self) -> list[Vehicle]:
        """The vehicles seen so far, from north to south."""
        return sorted(self._seen, key=lambda vehicle: (vehicle.y, vehicle.x))

    def above(self, y: float) -> list[Vehicle]:
        """Those that lie wholly above the line `y` metres south of the origin."""
        return [vehicle for vehicle in self.all() if vehicle.y + LONGEST < y]

    def boxes(self, vehicles: list[Vehicle]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Boxes float32 [N, 4] and kinds int32 [N] of those vehicles of which enough is seen; all are forgotten."""
        found = [(vehicle.kind, self._seen.pop(vehicle)) for vehicle in vehicles]
        kept = [(kind, seen[:4]) for kind, seen in found if seen[4] >= VISIBLE * seen[5]]
        boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
        return boxes, np.array([kind for kind, _ in kept], np.int32)


def paint_block(layout: Layout, gsd: float, tile: Tile) -> Block:
    """Paints a tile as a whole. Tiles with different edges may differ by a little where shapes are cut."""
    import cv2

    x, y = tile.x - _BORDER, tile.y - _BORDER
    width, height = tile.width + 2 * _BORDER, tile.height + 2 * _BORDER
    bounds = (x * gsd, y * gsd, (x + width) * gsd, (y + height) * gsd)
    cells = list(layout.cells(*bounds))
    view = _View(x, y, width, height, gsd)
    vehicles = list(_within(cells, bounds))
    fine = np.zeros((height * _FINE, width * _FINE, 4), np.uint8)
    for layer in (LAND, MARKS):
        for cell in cells:
            view.fill(fine, cell.layers[layer])
    shaded = np.zeros(fine.shape[:2], np.uint8)
    for cell in cells:
        view.fill(shaded, cell.shadows, 255)
    shadows = cv2.resize(shaded, (width, height), interpolation=cv2.INTER_AREA)
    for vehicle in vehicles:
        view.shade(shaded, vehicle, layout.light)
    _darken(fine, shaded, layout.light)
    for cell in cells:
        view.fill(fine, cell.layers[ROOFS])
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    grain = noise.window(noise.grain(round(2 * math.log2(gsd))), x, y, width, height) * coarse[..., 3] * 0.4
    picture = np.ascontiguousarray(coarse[..., :3])
    picture += grain[..., None]
    owners = np.full((height, width), -1, np.int32)
    dimming = (1 - np.array(layout.light.shade)) / 255
    light = 1 - shadows.astype(np.float32)[..., None] * dimming.astype(np.float32)
    whole = [
        view.vehicle(picture, owners, number, vehicle, layout.light, light) for number, vehicle in enumerate(vehicles)
    ]
    trees = [tree for cell in cells for tree in cell.trees]
    for tree in sorted(trees, key=lambda tree: tree.height):
        view.tree(picture, owners, tree, layout.light)
    pixels = _photograph(picture, layout.light, x, y)
    inner = np.s_[_BORDER : _BORDER + tile.height, _BORDER : _BORDER + tile.width]
    return Block(np.ascontiguousarray(pixels[inner]), owners[inner], list(zip(vehicles, whole, strict=True)))


def _within(cells: list[Cell], bounds: tuple[float, float, float, float]) -> Iterator[Vehicle]:
    """Vehicles that, or whose shadows, may lie within bounds in metres."""
    reach = LONGEST / 2 + 7
    for cell in cells:
        for vehicle in cell.vehicles:
            if bounds[0] - reach < vehicle.x < bounds[2] + reach and bounds[1] - reach < vehicle.y < bounds[3] + reach:
                yield vehicle


class _View(NamedTuple):
    """Where on the ground a canvas lies: its first pixel, its size in pixels, and metres per pixel."""

    x: int
    y: int
    width: int
    height: int
    gsd: float

    def fixed(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Ground points [N, 2] as fixed-point pixels of the fine canvas."""
        pixels = (points / self.gsd - (self.x, self.y)) * _FINE - 0.5
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def fill(self, canvas: NDArray[np.uint8], shapes: Shapes, value: int | None = None) -> None:
        """Draws those polygons that touch the canvas, one over the other."""
        import cv2

        if not len(shapes.bounds):
            return
        left, top = self.x * self.gsd, self.y * self.gsd
        right, bottom = left + self.width * self.gsd, top + self.height * self.gsd
        x1, y1, x2, y2 = shapes.bounds.T
        touching = np.flatnonzero((x1 <= right) & (x2 >= left) & (y1 <= bottom) & (y2 >= top)).tolist()
        if not touching:
            return
        first = int(shapes.starts[touching[0]])
        points = self.fixed(shapes.points[first : shapes.starts[touching[-1] + 1]])
        starts, colours = (shapes.starts - first).tolist(), shapes.colours.tolist()
        for n in touching:
            colour = colours[n] if value is None else value
            cv2.fillPoly(canvas, [points[starts[n] : starts[n + 1]]], colour, cv2.LINE_8, _SHIFT)

    def shade(self, canvas: NDArray[np.uint8], vehicle: Vehicle, light: Light) -> None:
        """The shadow of a vehicle on the ground, on a fine canvas."""
        import cv2

        a, b = vehicle.length / 2, vehicle.width / 2
        corner = 0.25 * b
        outline = np.array(
            [(a, b - corner), (a - corner, b), (corner - a, b), (-a, b - corner), (-a, corner - b), (corner - a, -b),
             (a - corner, -b), (a, corner - b)]
        )  # fmt: skip
        cos, sin = math.cos(vehicle.angle), math.sin(vehicle.angle)
        base = outline @ np.array([[cos, sin], [-sin, cos]]) + (vehicle.x, vehicle.y)
        # The roof of a car is narrower than its foot.
        top = (base - (vehicle.x, vehicle.y)) * (0.72 if vehicle.kind == 0 else 0.95) + (vehicle.x, vehicle.y)
        points = self.fixed(np.vstack([base, top + np.array(light.sun) * vehicle.height]))
        cv2.fillConvexPoly(canvas, cv2.convexHull(points), 255, cv2.LINE_8, _SHIFT)

    def vehicle(
        self, picture: Floats, owners: NDArray[np.int32], number: int, vehicle: Vehicle, light: Light, lit: Floats
    ) -> int:
        """Paints a vehicle and marks its pixels; returns how many it has, seen or not
        (0: it lies beyond the canvas)."""
        import cv2

        lean = np.array(light.tilt) * vehicle.height
        cos, sin = math.cos(vehicle.angle), math.sin(vehicle.angle)
        long, wide = vehicle.length + 2 * RIM, vehicle.width + 2 * RIM
        half = np.array([abs(long * cos) + abs(wide * sin), abs(long * sin) + abs(wide * cos)]) / 2
        centre = np.array([vehicle.x, vehicle.y])
        low = np.floor((np.minimum(centre, centre + lean) - half) / self.gsd).astype(int)
        high = np.ceil((np.maximum(centre, centre + lean) + half) / self.gsd).astype(int)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        there, here = _overlap(int(low[0]) - self.x, int(low[1]) - self.y, size, self.width, self.height)
        if here is None:
            return 0
        seen = sprite(vehicle, light, self.gsd / _FINE)
        scale = seen.cell * _FINE / self.gsd
        turn = np.array([[cos, -sin], [sin, cos]]) * scale
        rows, columns = seen.coverage.shape
        colour, cover = np.zeros((size[1], size[0], 3), np.float32), np.zeros((size[1], size[0]), np.float32)
        # From above each slice hides those below; aslant they show beside it.
        aslant = np.abs(lean).max() / self.gsd
        slices = _FLAT if aslant < 0.4 else _SLICES[::2] if aslant < 5 else _SLICES
        for share, tone in slices:
            alpha = seen.coverage
            if share:
                alpha = alpha * np.clip((seen.height - share * vehicle.height) * 12 + 0.5, 0, 1)
            slab = np.dstack([seen.colours * (alpha * tone)[..., None], alpha])
            middle = ((centre + lean * share) / self.gsd - low) * _FINE - 0.5
            origin = middle - turn @ [(columns - 1) / 2, (rows - 1) / 2]
            matrix = np.concatenate([turn, origin[:, None]], axis=1)
            big = cv2.warpAffine(slab, matrix, (size[0] * _FINE, size[1] * _FINE), flags=cv2.INTER_LINEAR)
            top = cv2.resize(big, size, interpolation=cv2.INTER_AREA)
            hidden = 1 - top[..., 3]
            colour = colour * hidden[..., None] + top[..., :3]
            cover = cover * hidden + top[..., 3]
        mask = cover >= 0.5
        part = cover[here][..., None]
        picture[there] += colour[here] * lit[there] - picture[there] * part
        owners[there][mask[here]] = number
        return int(np.count_nonzero(mask))

    def tree(self, picture: Floats, owners: NDArray[np.int32], tree: Tree, light: Light) -> None:
        """Paints a crown over what is under it."""
        import cv2

        edge = max(2, round(2 * tree.radius / self.gsd))
        x = round((tree.x + light.lean[0] * tree.height * 0.7) / self.gsd - edge / 2) - self.x
        y = round((tree.y + light.lean[1] * tree.height * 0.7) / self.gsd - edge / 2) - self.y
        there, here = _overlap(x, y, (edge, edge), self.width, self.height)
        if here is None:
            return
        form = crown(light, tree.form, int(tree.angle * 2 / math.pi) % 4)
        how = cv2.INTER_AREA if edge < form.shape[0] else cv2.INTER_LINEAR
        leaves = cv2.resize(form, (edge, edge), interpolation=how)[here]
        cover = leaves[..., 1]
        target = picture[there]
        target *= (1 - cover)[..., None]
        target += (leaves[..., 0] * cover)[..., None] * np.array(tree.leaves, np.float32)
        owners[there][cover > 0.5] = -1


def _overlap(
    x: int, y: int, size: tuple[int, int], width: int, height: int
) -> tuple[tuple[slice, slice], tuple[slice, slice] | None]:
    """Where a patch at (x, y) lies on a canvas, and which part of the patch that is; None where it does not."""
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + size[0], width), min(y + size[1], height)
    there = np.s_[y1:y2, x1:x2]
    return there, np.s_[y1 - y : y2 - y, x1 - x : x2 - x] if x1 < x2 and y1 < y2 else None


def _darken(canvas: NDArray[np.uint8], shaded: NDArray[np.uint8], light: Light) -> None:
    """Takes the sun from the pixels where `shaded` is set."""
    import cv2

    cv2.copyTo(cv2.multiply(canvas, np.array([*light.shade, 0.8])), shaded, canvas)


def _photograph(picture: Floats, light: Light, x: int, y: int) -> NDArray[np.uint8]:
    """What the camera makes of the scene: blur, noise, haze, white balance and contrast."""
    import cv2

    blurred = cv2.GaussianBlur(picture, (0, 0), light.blur)
    height, width = picture.shape[:2]
    shared = noise.window(noise.white(0), x, y, width, height)
    own = np.stack([noise.window(noise.white(0), x + 331 * k, y + 157 * k, width, height) for k in (1, 2, 3)], axis=-1)
    blurred += (shared[..., None] * 0.85 + own * 0.5) * np.float32(light.noise)
    grey = np.clip(blurred + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(grey, _tones(light)))


@lru_cache(maxsize=64)
def _tones(light: Light) -> NDArray[np.uint8]:
    """Output levels by input level and channel, uint8 [1, 256, 3]."""
    levels = 255 * (np.arange(256)[:, None] / 255) ** light.gamma * np.array(light.gains)
    hazy = levels * (1 - light.haze) + light.haze * 215
    return np.clip(np.rint(hazy), 0, 255).astype(np.uint8)[None]
