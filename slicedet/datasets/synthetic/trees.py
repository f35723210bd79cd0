"""Crowns of trees from above: heaps of leaves as fields of height, lit by the scene's sun."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic import noise
from slicedet.datasets.synthetic.world import Light, dice

Floats = NDArray[np.float32]

EDGE = 128
"""Cells along each side of a crown's square."""

_BROADLEAVED = 4
"""Forms below this number have round crowns, those above are conifers."""


@lru_cache(maxsize=128)
def crown(light: Light, form: int, quarter: int) -> Floats:
    """Brightness around 1 and coverage in 0..1 of a crown form, turned by quarters, float32 [EDGE, EDGE, 2]."""
    import cv2

    height = np.rot90(_height(form), quarter)
    smooth = cv2.GaussianBlur(height, (0, 0), 1.0)
    slope_y, slope_x = np.gradient(smooth, 2 / EDGE)
    east, south, up = light.direction
    steep = np.sqrt(1 + slope_x**2 + slope_y**2)
    sunny = np.maximum((-slope_x * east - slope_y * south + up) / steep, 0)
    sunlight = 1 - sum(light.shade) / 3
    # Leaves deeper down than those around them see less of the sky.
    depth = np.clip(cv2.GaussianBlur(height, (0, 0), 7.0) - height, -0.15, 0.3)
    grain = cv2.GaussianBlur(noise.white(100 + form, EDGE), (0, 0), 0.8)
    lit = (1 - sunlight) * 0.95 + sunlight * (0.22 + 0.98 * sunny)
    brightness = lit * (1 - 1.6 * depth) * (1 + 0.3 * grain)
    coverage = cv2.GaussianBlur((height > 0.02).astype(np.float32), (0, 0), 0.9)
    return np.stack([brightness.astype(np.float32), coverage], axis=-1)


@lru_cache(maxsize=16)
def _height(form: int) -> Floats:
    """Height of a crown whose radius is 1, float32 [EDGE, EDGE]."""
    roll = dice(20, form)
    axis = (np.arange(EDGE, dtype=np.float32) - (EDGE - 1) / 2) / (EDGE / 2)
    x, y = np.meshgrid(axis, axis)
    height = np.zeros_like(x)
    conifer = form >= _BROADLEAVED
    lobes, phase = roll.choice((2, 3)), roll.uniform(0, 2 * math.pi)
    for _ in range(150 if conifer else 190):
        turn = roll.uniform(0, 2 * math.pi)
        away = roll.random() ** 0.55 * 0.86 * (0.86 + 0.14 * math.sin(lobes * turn + phase))
        u, v, size = away * math.cos(turn), away * math.sin(turn), roll.uniform(0.08, 0.16)
        ground = (1.5 * (1 - away)) if conifer else 0.75 * math.sqrt(max(0.0, 1 - away**2))
        distance = (x - u) ** 2 + (y - v) ** 2
        top = ground + roll.uniform(-0.1, 0.1) + size * 1.1
        blob = np.where(distance < size**2, top - distance / size, 0)
        np.maximum(height, blob, out=height)
    return np.asarray(height * 0.55, np.float32)
