"""What lies in one block of the plan, collected as polygons, trees and vehicles on the ground."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic.vehicles import Vehicle
from slicedet.datasets.synthetic.world import Array, Colour, Light, Place, Point, Warp

LAND, MARKS, ROOFS = range(3)
"""Layers of polygons, from the ground up. Shadows fall on the first two."""


_Polygon = tuple[Array, tuple[float, ...], bool]
"""Points, colour and roughness, and whether the points are of the plan, not yet of the ground."""

_BLACK = (0.0, 0.0, 0.0, 0.0)


class Tree(NamedTuple):
    """A crown: its centre and radius in metres, height, number of its form, angle and colour (0..255)."""

    x: float
    y: float
    radius: float
    height: float
    form: int
    angle: float
    leaves: Colour


class Shapes(NamedTuple):
    """N polygons on the ground: points [P, 2] in metres, where each begins [N + 1], colours and roughness uint8 [N, 4],
    bounds x1 y1 x2 y2 [N, 4]."""

    points: Array
    starts: NDArray[np.int64]
    colours: NDArray[np.uint8]
    bounds: Array


class Cell(NamedTuple):
    """Everything of one block, ready to be painted."""

    layers: tuple[Shapes, ...]
    shadows: Shapes
    trees: tuple[Tree, ...]
    vehicles: tuple[Vehicle, ...]


def _rings() -> list[Array]:
    """Uneven rims of crowns of radius 1, [24, 2] each."""
    turn = np.linspace(0, 2 * np.pi, 25)[:-1]
    rims = [0.92 + 0.06 * np.sin(3 * turn + k) + 0.04 * np.sin((7 + k) * turn) for k in range(4)]
    return [np.stack([np.cos(turn) * rim, np.sin(turn) * rim], axis=-1) for rim in rims]


_RINGS = _rings()


class Builder:
    """Collects what lies in a block. Colours are red, green, blue in 0..255; roughness is the strength of their grain.

    roll: for all that stays; moving: for vehicles, so that the same place without them looks the same.
    """

    def __init__(self, warp: Warp, light: Light, roll: random.Random, moving: random.Random, busy: float) -> None:
        self.warp, self.light, self.roll, self.moving, self.busy = warp, light, roll, moving, busy
        self._layers: tuple[list[_Polygon], ...] = ([], [], [])
        self._shadows: list[_Polygon] = []
        self._far = (light.sun[0] * 0.42, light.sun[1] * 0.42)
        self.ground: Colour = (0, 0, 0)
        self.trees: list[Tree] = []
        self.vehicles: list[Vehicle] = []

    def polygon(self, layer: int, points: Sequence[Point] | Array, colour: Colour, rough: float = 8.0) -> None:
        """A polygon of ground coordinates."""
        self._layers[layer].append((np.asarray(points, np.float64), (*colour, rough), False))

    def plan(self, layer: int, outline: Sequence[Point] | Array, colour: Colour, rough: float = 8.0) -> None:
        """A polygon of the plan."""
        self._layers[layer].append((np.asarray(outline, np.float64), (*colour, rough), True))

    def lay(self, outline: Sequence[Point] | Array, colour: Colour, rough: float) -> None:
        """Ground of the plan on which more will be laid."""
        self.ground = colour
        self.plan(LAND, outline, colour, rough)

    def plan_quads(self, layer: int, quads: Array, colour: Colour, rough: float = 6.0) -> None:
        """Many quadrilaterals of the plan [N, 4, 2] of one colour."""
        self._layers[layer].extend((quad, (*colour, rough), True) for quad in quads)

    def local(
        self, layer: int, place: Place, points: list[Point], colour: Colour, rough: float = 8.0, z: float = 0.0
    ) -> None:
        """A polygon in the frame of `place`, `z` metres above the ground."""
        dx, dy = self.light.lean[0] * z, self.light.lean[1] * z
        self._layers[layer].append(
            (np.array([(x + dx, y + dy) for x, y in place.points(points)]), (*colour, rough), False)
        )

    def box(
        self, layer: int, place: Place, x: float, y: float, length: float, width: float, colour: Colour,
        rough: float = 8.0, z: float = 0.0,
    ) -> None:  # fmt: skip
        """A rectangle around (x, y) in the frame of `place`."""
        a, b = length / 2, width / 2
        self.local(layer, place, [(x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)], colour, rough, z)

    def shadow(self, base: Array, height: float) -> None:
        """The shadow of an upright prism over the convex polygon `base` on the ground."""
        self._shadows.append((hull(np.vstack([base, base + np.array(self.light.sun) * height])), _BLACK, False))

    def tree(self, x: float, y: float, radius: float, leaves: Colour, conifer: bool = False) -> None:
        """A tree or bush at a point on the ground, with its shadow."""
        roll = self.roll
        height = radius * (2.6 if conifer else 1.9) + (1.5 if radius > 1.2 else 0)
        tone = roll.uniform(0.8, 1.15)
        form = roll.randrange(4) + (4 if conifer else 0)
        tinted = (leaves[0] * tone + roll.uniform(-6, 6), leaves[1] * tone, leaves[2] * tone + roll.uniform(-4, 4))
        self.trees.append(Tree(x, y, radius, height, form, roll.uniform(0, 6.2832), tinted))
        ring = _RINGS[form % len(_RINGS)] * radius
        self._shadows.append(
            (
                ring @ self._stretch(0.6 * height / radius) + (x + self._far[0] * height, y + self._far[1] * height),
                _BLACK,
                False,
            )
        )

    def _stretch(self, by: float) -> Array:
        """The matrix that makes shadows longer away from the sun."""
        along = np.array(self.light.sun)
        return np.eye(2) + np.outer(along, along) / math.hypot(*along) * (by / 2)

    def finish(self) -> Cell:
        """All that was collected."""
        layers = tuple(self._shapes(layer) for layer in self._layers)
        return Cell(layers, self._shapes(self._shadows), tuple(self.trees), tuple(self.vehicles))

    def _shapes(self, polygons: list[_Polygon]) -> Shapes:
        if not polygons:
            return Shapes(np.empty((0, 2)), np.zeros(1, np.int64), np.empty((0, 4), np.uint8), np.empty((0, 4)))
        counts = np.array([len(points) for points, _, _ in polygons])
        starts = np.concatenate([[0], np.cumsum(counts)])
        points = np.concatenate([points for points, _, _ in polygons])
        planned = np.repeat([on_plan for _, _, on_plan in polygons], counts)
        points[planned] = self.warp.to_ground(points[planned])
        colours = np.clip(np.rint(np.array([colour for _, colour, _ in polygons])), 0, 255).astype(np.uint8)
        low, high = np.minimum.reduceat(points, starts[:-1]), np.maximum.reduceat(points, starts[:-1])
        return Shapes(points, starts, colours, np.concatenate([low, high], axis=1))


def hull(points: Array) -> Array:
    """The convex polygon around a few points, [K, 2] -> [H, 2]."""
    import cv2

    # Relative to one of them, for single precision does not hold coordinates far from the origin.
    near = (points - points[0]).astype(np.float32)
    return np.asarray(cv2.convexHull(near)[:, 0] + points[0], np.float64)
