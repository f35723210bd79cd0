"""The assigners again, point by point and box by box: slow, and close to how the papers put it.

Each returns {point: (box, score)}.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Box = Sequence[float]
Found = dict[int, tuple[int, float]]


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def iou(a: Box, b: Box) -> float:
    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return shared / (area(a) + area(b) - shared) if shared > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    overlap = iou(a, b)
    return overlap - (hull - (area(a) + area(b)) / (1 + overlap)) / hull


def in_box(x: float, y: float, box: Box) -> bool:
    return box[0] < x < box[2] and box[1] < y < box[3]


def near(x: float, y: float, box: Box, reach: float) -> bool:
    return abs(x - (box[0] + box[2]) / 2) < reach and abs(y - (box[1] + box[3]) / 2) < reach


def settled(wanted: Sequence[Sequence[int]], worth: Callable[[int, int], float]) -> dict[int, int]:
    """{point: box} of the points that each box wants; where several do, it goes to the box of the highest worth."""
    owners: dict[int, list[int]] = {}
    for box, points in enumerate(wanted):
        for point in points:
            owners.setdefault(point, []).append(box)
    everyone = range(len(wanted))
    return {
        point: boxes[0] if len(boxes) == 1 else max(everyone, key=lambda box: worth(box, point))
        for point, boxes in owners.items()
    }


def varifocal(scores: np.ndarray, label: int, quality: float) -> float:
    total = 0.0
    for kind, score in enumerate(scores.tolist()):
        target = quality if kind == label else 0.0
        weight = target if target > 0 else 0.75 * score**2
        total -= weight * (target * math.log(score) + (1 - target) * math.log(1 - score))
    return total


def simota(centers, strides, boxes, labels, predicted, scores) -> Found:
    def suited(box: int, point: int) -> bool:
        x, y = centers[point]
        return in_box(x, y, boxes[box]) and near(x, y, boxes[box], 2.5 * strides[point])

    def cost(box: int, point: int) -> float:
        overlap = iou(boxes[box], predicted[point])
        loss = varifocal(scores[:, point], labels[box], overlap) + 6 * (1 - giou(boxes[box], predicted[point]))
        return loss + (0 if suited(box, point) else 1e8)

    valid = [
        point
        for point, (x, y) in enumerate(centers)
        if any(in_box(x, y, box) or near(x, y, box, 2.5 * strides[point]) for box in boxes)
    ]
    wanted = []
    for box in range(len(boxes)):
        overlaps = sorted((iou(boxes[box], predicted[point]) for point in valid), reverse=True)
        count = max(int(sum(overlaps[:10])), 1)
        wanted.append(sorted(valid, key=lambda point: cost(box, point))[:count])
    matched = settled(wanted, lambda box, point: -cost(box, point))
    return {point: (box, iou(boxes[box], predicted[point])) for point, box in matched.items()}


def atss(centers, strides, boxes, predicted) -> Found:
    def anchor(point: int) -> Box:
        (x, y), half = centers[point], 2.5 * strides[point]
        return [x - half, y - half, x + half, y + half]

    wanted = []
    for box in boxes:
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates = []
        for stride in sorted(set(strides)):
            level = [point for point in range(len(centers)) if strides[point] == stride]
            candidates += sorted(level, key=lambda point: math.dist(centers[point], middle))[:9]
        overlaps = [iou(box, anchor(point)) for point in candidates]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        wanted.append([p for p in candidates if iou(box, anchor(p)) > threshold and in_box(*centers[p], box)])
    matched = settled(wanted, lambda box, point: iou(boxes[box], anchor(point)))
    return {point: (box, iou(boxes[box], predicted[point])) for point, box in matched.items()}


def task_aligned(centers, strides, boxes, labels, predicted, scores, centered: bool) -> Found:
    def alignment(box: int, point: int) -> float:
        return scores[labels[box], point] * iou(boxes[box], predicted[point]) ** 6

    wanted = []
    for index, box in enumerate(boxes):
        inside = [p for p in range(len(centers)) if in_box(*centers[p], box)]
        around = [p for p in range(len(centers)) if near(*centers[p], box, strides[p])] if centered else []
        bonus = set() if inside else set(around)
        field = range(len(centers)) if centered else inside
        first = sorted(field, key=lambda point: -alignment(index, point) - (point in bonus))[:13]
        worthy = [p for p in first if alignment(index, p) > 0 or p in bonus] if centered else first
        wanted.append([p for p in worthy if p in inside or p in around])
    takers = [set(points) for points in wanted]
    matched = settled(
        wanted,
        lambda box, point: iou(boxes[box], predicted[point]) if not centered or point in takers[box] else -1,
    )
    own = [[point for point, owner in matched.items() if owner == box] for box in range(len(boxes))]
    found = {}
    for point, box in matched.items():
        best_alignment = max(alignment(box, other) for other in own[box])
        best_iou = max(iou(boxes[box], predicted[other]) for other in own[box])
        found[point] = box, alignment(box, point) / (best_alignment + 1e-9) * best_iou
    return found
