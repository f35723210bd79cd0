"""Noise from a hash of the position: the same on every machine, without any generator's state."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PERIOD = 1024
"""Edge in pixels after which noise repeats."""


@lru_cache(maxsize=32)
def white(key: int, edge: int = PERIOD) -> Floats:
    """Uncorrelated noise of standard deviation 1, nearly normal, float32 [edge, edge]."""
    state = np.arange(edge * edge, dtype=np.uint64) + np.uint64((key + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    # The sum of four uniform numbers.
    total = np.zeros(edge * edge, np.float32)
    for k in range(4):
        total += (state >> np.uint64(16 * k) & np.uint64(0xFFFF)).astype(np.float32)
    return np.asarray((total / 65535 - 2) * math.sqrt(3), np.float32).reshape(edge, edge)


@lru_cache(maxsize=16)
def grain(level: int) -> Floats:
    """Grain of surfaces with pixels of 2 ** (level / 2) metres: noise of many wavelengths, of standard deviation 1,
    float32 [PERIOD, PERIOD]."""
    import cv2

    gsd = 2 ** (level / 2)
    total = np.zeros((PERIOD, PERIOD), np.float32)
    for octave in range(8):
        step = 2**octave
        wavelength = gsd * step
        weight = 0.6 if wavelength < 0.5 else 0.38 if wavelength < 4 else 0.3
        coarse = np.pad(white(octave + 1, PERIOD // step), 2, mode="wrap")
        smooth = coarse if step == 1 else cv2.resize(coarse, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += weight * smooth[2 * step : 2 * step + PERIOD, 2 * step : 2 * step + PERIOD]
    return np.asarray(total / total.std(), np.float32)


def window(pattern: Floats, x: int, y: int, width: int, height: int) -> Floats:
    """A window [height, width] of a pattern that repeats for ever."""
    rows, columns = np.arange(y, y + height) % PERIOD, np.arange(x, x + width) % PERIOD
    return pattern.take(rows, axis=0).take(columns, axis=1)
