"""Tiles and their edges: which detections share a tile, and which sides of a box a tile cuts. Knows numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slicedet.merging.pairs import Floats, Integers

MARGIN = 0.02
"""How near an edge still counts as at it, as a share of the tile's longer side: detectors place cut edges badly."""


def margins(tiles: Floats) -> Floats:
    """How near the edges of its tile a box counts as at them, in pixels: float64 [N, 1]. tiles: float64 [N, 4]."""
    return MARGIN * (tiles[:, 2:] - tiles[:, :2]).max(1, keepdims=True)


def cut_sides(boxes: Floats, tiles: Floats, frame: Floats) -> NDArray[np.bool_]:
    """Which sides of each box lie at an inner edge of its tile, or beyond: bool [N, 4].

    boxes, tiles: float64 [N, 4]. frame: float64 [4], the rectangle that all tiles cover together.
    """
    # A tile's edge is inner when it is a pixel or more inside the frame; less is the rounding of resampled tiles.
    inner = np.concatenate([tiles[:, :2] >= frame[:2] + 1, tiles[:, 2:] <= frame[2:] - 1], 1)
    near = np.concatenate(
        [boxes[:, :2] <= tiles[:, :2] + margins(tiles), boxes[:, 2:] >= tiles[:, 2:] - margins(tiles)], 1
    )
    return inner & near


def numbered(rows: NDArray[np.generic]) -> Integers:
    """A number for each row of a table [N, K], equal where the rows are; by the rows' values, whatever their order."""
    numbers, kinds = np.zeros(len(rows), np.int64), 1
    for column in rows.T:
        values, inverse = np.unique(column, return_inverse=True)
        if kinds * len(values) > np.iinfo(np.int64).max:
            unique, numbers = np.unique(numbers, return_inverse=True)
            kinds = len(unique)
        numbers, kinds = numbers * len(values) + inverse, kinds * len(values)
    return np.unique(numbers, return_inverse=True)[1]
