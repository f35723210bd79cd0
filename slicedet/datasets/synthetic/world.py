"""What holds for a whole painted scene: its settings, its light and optics, and how its streets bend."""

from __future__ import annotations

import math
import random
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidSetting

Array = NDArray[np.float64]
Point = tuple[float, float]
Colour = tuple[float, float, float]
T = TypeVar("T")

LANDSCAPES = ("mixed", "city", "suburb", "country", "woods", "water", "roofs")
"""What a scene shows; mixed has districts of them all."""

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class SceneSettings:
    """A scene of `width` x `height` pixels of `gsd` metres each.

    seed: scenes of one seed and landscape show the same places, whatever their size.
    vehicles: share of the lanes and parking spaces in use, relative to a busy day; 0 paints none, 1 is the most.
    landscape: one of LANDSCAPES.

    Raises InvalidSetting for an empty scene, a gsd outside 0.02..0.6 m, vehicles outside 0..1 or another landscape.
    """

    width: int = 4000
    height: int = 4000
    gsd: float = 0.15
    seed: int = 0
    vehicles: float = 1.0
    landscape: str = "mixed"

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise InvalidSetting(f"scene of {self.width} x {self.height} pixels: both must be at least 1")
        if not 0.02 <= self.gsd <= 0.6:
            raise InvalidSetting(f"gsd {self.gsd}: scenes are painted with pixels of 0.02 to 0.6 metres")
        if not 0 <= self.vehicles <= 1:
            raise InvalidSetting(f"vehicles {self.vehicles}: expected a share between 0 (none) and 1")
        if self.landscape not in LANDSCAPES:
            raise InvalidSetting(f"landscape {self.landscape!r}: expected one of {', '.join(LANDSCAPES)}")


def dice(*key: int) -> random.Random:
    """A generator of random numbers that depends on `key` alone, the same on every machine."""
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = ((state ^ (part & _MASK)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return random.Random(state)


class Choice(Generic[T]):
    """Things to choose from, each with its weight."""

    def __init__(self, *weighted: tuple[T, float]) -> None:
        self._things = [thing for thing, _ in weighted]
        self._sums = list(accumulate(weight for _, weight in weighted))

    def draw(self, roll: random.Random) -> T:
        """One of them at random."""
        return self._things[min(bisect(self._sums, roll.random() * self._sums[-1]), len(self._things) - 1)]


@dataclass(frozen=True)
class Light:
    """Sun, air and camera of one scene.

    sun: where a point one metre high casts its shadow, metres east and south. lean: where it is seen, likewise;
    tilt: where it is seen if it belongs to a vehicle, for these show their sides at angles at which buildings would
    hide the streets.
    direction: unit vector towards the sun, x to the east, y to the south, z up.
    shade: share of the light left in a shadow, red, green, blue. gains: of the picture's red, green and blue.
    haze: share of white light in the air. blur: of the optics, standard deviation in pixels. noise: likewise in grey
    values.
    """

    sun: Point
    lean: Point
    tilt: Point
    direction: tuple[float, float, float]
    shade: Colour
    gains: Colour
    haze: float
    gamma: float
    blur: float
    noise: float

    @classmethod
    def of(cls, seed: int) -> Light:
        """The light of the scenes of one seed."""
        roll = dice(seed, 1)
        azimuth, elevation = roll.uniform(0, 2 * math.pi), math.radians(roll.uniform(36, 66))
        length = 1 / math.tan(elevation)
        lean, towards = roll.uniform(0.02, 0.16), roll.uniform(0, 2 * math.pi)
        tilt = lean * 2.6
        dark = roll.uniform(0.4, 0.6) if roll.random() < 0.8 else roll.uniform(0.6, 0.85)
        warm = roll.uniform(-0.06, 0.06)
        bright = roll.uniform(0.84, 1.12)
        return cls(
            sun=(-math.cos(azimuth) * length, -math.sin(azimuth) * length),
            lean=(math.cos(towards) * lean, math.sin(towards) * lean),
            tilt=(math.cos(towards) * tilt, math.sin(towards) * tilt),
            direction=(
                math.cos(azimuth) * math.cos(elevation),
                math.sin(azimuth) * math.cos(elevation),
                math.sin(elevation),
            ),
            shade=(dark * 0.95, dark, dark * 1.08),
            gains=(bright * (1 + warm), bright, bright * (1 - warm)),
            haze=roll.uniform(0, 0.22),
            gamma=roll.uniform(0.85, 1.15),
            blur=roll.uniform(0.4, 0.85),
            noise=roll.uniform(0.5, 2.2),
        )


class Warp:
    """The way from the straight plan of a town (u, v), in metres, to the ground (x east, y south) where streets bend.

    A rotation and a sum of long waves, so gentle that it keeps its orientation and nearly its scale.
    """

    def __init__(self, seed: int) -> None:
        roll = dice(seed, 2)
        self._angle = roll.uniform(0, 2 * math.pi)
        self._origin = (roll.uniform(-1, 1) * 20000, roll.uniform(-1, 1) * 20000)
        waves = []
        for amplitude, length in ((16.0, 900.0), (7.0, 420.0), (2.5, 210.0)):
            towards, phase = roll.uniform(0, 2 * math.pi), roll.uniform(0, 2 * math.pi)
            across = towards + math.pi / 2 + roll.uniform(-0.5, 0.5)
            turn = 2 * math.pi / length
            waves.append(
                (
                    turn * math.cos(towards), turn * math.sin(towards), phase,
                    amplitude * math.cos(across), amplitude * math.sin(across),
                )
            )  # fmt: skip
        self._waves = waves
        self._directions = np.array([wave[:2] for wave in waves]).T
        self._phases = np.array([wave[2] for wave in waves])
        self._amplitudes = np.array([wave[3:] for wave in waves])
        self._cos, self._sin = math.cos(self._angle), math.sin(self._angle)
        self._rotation = np.array([[self._cos, self._sin], [-self._sin, self._cos]])

    def to_ground(self, points: Array) -> Array:
        """Ground coordinates of plan points [..., 2]."""
        return (points + self._displacement(points) - self._origin) @ self._rotation

    def _displacement(self, points: Array) -> Array:
        height = np.sin(points @ self._directions + self._phases)
        return np.asarray(height @ self._amplitudes)

    def place(self, u: float, v: float, angle: float = 0.0) -> Place:
        """The frame of a rigid thing that stands at (u, v), turned by `angle` from the plan's u axis."""
        du, dv = math.cos(angle), math.sin(angle)
        x, y, east, south = u - self._origin[0], v - self._origin[1], du, dv
        for ku, kv, phase, au, av in self._waves:
            at = u * ku + v * kv + phase
            height, slope = math.sin(at), math.cos(at) * (du * ku + dv * kv)
            x, y, east, south = x + height * au, y + height * av, east + slope * au, south + slope * av
        cos, sin = self._cos, self._sin
        return Place(x * cos - y * sin, x * sin + y * cos, math.atan2(south, east) + self._angle)

    def plan_bounds(self, x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
        """A rectangle of the plan, u1 v1 u2 v2, that holds all that can lie in a rectangle of the ground."""
        part = np.linspace(0, 1, 9)
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        sides = corners[:, None] * (1 - part)[:, None] + np.roll(corners, -1, axis=0)[:, None] * part[:, None]
        straight = sides.reshape(-1, 2) @ self._rotation.T + self._origin
        points = straight
        # The waves are so gentle that each step leaves less than a third of the error.
        for _ in range(8):
            points = straight - self._displacement(points)
        bulge = 0.02 * max(x2 - x1, y2 - y1) + 0.1
        low, high = points.min(axis=0) - bulge, points.max(axis=0) + bulge
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class Place:
    """A frame on the ground: its origin in metres, and the angle of its first axis."""

    x: float
    y: float
    angle: float

    def points(self, local: list[Point]) -> list[Point]:
        """Ground coordinates of points in this frame."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return [(self.x + a * cos - b * sin, self.y + a * sin + b * cos) for a, b in local]

    def at(self, along: float, across: float, turn: float = 0.0) -> Place:
        """A frame inside this one."""
        ((x, y),) = self.points([(along, across)])
        return Place(x, y, self.angle + turn)
