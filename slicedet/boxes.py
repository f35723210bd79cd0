"""Arithmetic on axis-aligned boxes, float arrays [N, 4] of x1 y1 x2 y2 pixel edges. Knows numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]


def area(boxes: Boxes) -> NDArray[np.floating]:
    """Area of each box in square pixels, [N]; 0 where a box is inverted."""
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def intersection_area(a: Boxes, b: Boxes) -> NDArray[np.floating]:
    """Area shared by each box of `a` and the box of `b` in the same row (shapes broadcast), in square pixels."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def overlap(a: Boxes, b: Boxes, metric: str) -> NDArray[np.floating]:
    """Overlap of boxes row by row, in 0..1 (shapes broadcast).

    `metric` is "iou", intersection over union, or "ios", intersection over the smaller of both areas.
    Boxes without area overlap nothing: their value is 0.
    """
    shared = intersection_area(a, b)
    area_a, area_b = area(a), area(b)
    whole = area_a + area_b - shared if metric == "iou" else np.minimum(area_a, area_b)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """The boxes cut to the frame 0..width, 0..height; those outside end up without area."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
