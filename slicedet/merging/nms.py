"""Non-maximum suppression on plain arrays: the best box removes every box it matches."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slicedet.merging.claims import Claims
from slicedet.merging.order import best_first


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
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    owner, _ = Claims(metric, threshold).make(boxes, groups, rank)
    return order[(owner == np.arange(len(order)))[order]]
