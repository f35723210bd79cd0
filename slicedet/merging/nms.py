"""Non-maximum suppression: the best box removes every box it matches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slicedet.merging.order import best_first
from slicedet.merging.pairs import Floats, Integers, matches_in_order


def suppress(
    boxes: ArrayLike, scores: ArrayLike, category_ids: ArrayLike | None, metric: str, threshold: float
) -> NDArray[np.int64]:
    """Indices of the boxes that non-maximum suppression keeps, best score first.

    boxes: [N, 4], x1 y1 x2 y2 pixel edges. scores: [N]. category_ids: [N]; None lets every box suppress every other.
    Boxes match where `slicedet.boxes.overlap(a, b, metric) >= threshold` (0 < threshold <= 1), as in SAHI. Equal
    scores go by coordinates, x1, y1, x2, y2 ascending.
    """
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores)
    groups = np.zeros(len(boxes), np.int64) if category_ids is None else np.asarray(category_ids, np.int64)
    order = best_first(scores, boxes)
    owner = suppressors(boxes[order], groups[order], metric, threshold)
    return order[owner == np.arange(len(order))]


def suppressors(boxes: Floats, groups: Integers, metric: str, threshold: float) -> Integers:
    """For boxes given best first, the box that suppresses each; itself where it is kept."""
    owner = np.full(len(boxes), -1)
    view = memoryview(owner)
    for i, j in matches_in_order(boxes, groups, metric, threshold, owner, transitive=False):
        for a, b in zip(memoryview(i), memoryview(j), strict=True):
            if view[b] < 0 and (view[a] < 0 or view[a] == a):
                view[a] = a
                view[b] = a
    return np.where(owner < 0, np.arange(len(owner)), owner)
