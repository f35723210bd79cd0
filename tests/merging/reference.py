"""Merging written as plainly as possible, one pair at a time: what the fast code must equal."""

from __future__ import annotations

import numpy as np

from slicedet.detections import Detections

Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box, metric: str) -> float:
    """IoU or intersection over the smaller area; 0 where a box has no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    whole = area_a + area_b - shared if metric == "iou" else min(area_a, area_b)
    return shared / whole if whole > 0 else 0.0


def union(a: Box, b: Box) -> Box:
    """The smallest box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def is_cut(box: Box, tile: Box, frame: tuple[float, float]) -> bool:
    """Whether a box reaches, but for 2 % of the tile's length, an edge of its tile that is not the frame's."""
    margin = 0.02 * max(tile[2] - tile[0], tile[3] - tile[1])
    return (
        (tile[0] >= 1 and box[0] <= tile[0] + margin)
        or (tile[1] >= 1 and box[1] <= tile[1] + margin)
        or (tile[2] <= frame[0] - 1 and box[2] >= tile[2] - margin)
        or (tile[3] <= frame[1] - 1 and box[3] >= tile[3] - margin)
    )


def merge(
    detections: Detections,
    method: str,
    metric: str,
    threshold: float,
    class_agnostic: bool,
    refused: list[int] | None = None,
    drop: bool = False,
    frame: tuple[float, float] | None = None,
) -> list[tuple[float, Box, int]]:
    """Score, box and category of what remains, by score, then coordinates, then category.

    A box that a grown keeper refuses is noted in `refused`, and stays live unless it is to be dropped, as SAHI does.
    With the `frame` that tiles cover, a keeper grows only where its tile cuts it, by what other tiles saw.
    """
    rows = as_rows(detections)
    tiles = [None] * len(rows) if detections.tiles is None else [tuple(tile) for tile in detections.tiles.tolist()]
    order = sorted(range(len(rows)), key=lambda n: (-rows[n][0], rows[n][1], rows[n][2], tiles[n] or 0))
    rows, tiles = [rows[n] for n in order], [tiles[n] for n in order]
    boxes = [tuple(row[1]) for row in rows]
    grown = list(boxes)
    keeper: list[int | None] = [None] * len(rows)
    for i in range(len(rows)):
        if keeper[i] is None:
            keeper[i] = i
        elif method != "nmm":
            continue
        k = keeper[i]
        for j in range(i + 1, len(rows)):
            if keeper[j] is not None or (rows[i][2] != rows[j][2] and not class_agnostic):
                continue
            if overlap(boxes[i], boxes[j], metric) < threshold:
                continue
            if method == "nms":
                keeper[j] = k
            elif overlap(grown[k], boxes[j], metric) >= threshold:
                keeper[j] = k
                if frame is None or (is_cut(boxes[k], tiles[k], frame) and tiles[k] != tiles[j]):
                    grown[k] = union(grown[k], boxes[j])
            else:
                if refused is not None:
                    refused.append(j)
                if drop:
                    keeper[j] = -1
    kept = [(rows[i][0], grown[i], rows[i][2]) for i in range(len(rows)) if keeper[i] == i]
    return sorted(kept, key=lambda row: (-row[0], row[1], row[2]))


def as_rows(detections: Detections) -> list[tuple[float, Box, int]]:
    """Detections in the form in which `merge` above answers."""
    boxes = [tuple(box) for box in detections.boxes.tolist()]
    return list(zip(detections.scores.tolist(), boxes, detections.category_ids.tolist(), strict=True))


def crowd(seed: int, count: int, size: float = 300, ties: bool = False) -> Detections:
    """A crowd of random boxes of two classes, some of them doubled with a jitter."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, size, (count, 2))
    boxes = np.concatenate([corner, corner + random.lognormal(3, 0.6, (count, 2))], 1)
    doubled = random.integers(0, max(count, 1), count // 2)
    boxes[doubled] = boxes[random.permutation(doubled)] + random.uniform(-3, 3, (len(doubled), 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    boxes = np.maximum(boxes, 0)
    scores = random.uniform(0, 1, count)
    if ties:
        boxes, scores = boxes.round(), scores.round(1)
    return Detections(boxes, scores, random.integers(0, 2, count))
