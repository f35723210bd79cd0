"""ATSS: points near a box whose anchors overlap it more than usual; predictions do not matter (arXiv 1912.02424)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slicedet.boxes import overlap
from slicedet.training.losses.assignment import Floats, Indices, Matches, Points, pairwise_iou, settle


@dataclass(frozen=True)
class ATSS:
    """Of each level the `candidates` points nearest to a box's centre compete for it.

    A candidate wins if it lies in the box and the IoU of its anchor is above the candidates' mean plus standard
    deviation. anchor_size: edge of the square anchor around each point, in strides. A match's score is the IoU of the
    predicted box.
    """

    candidates: int = 9
    anchor_size: float = 5.0

    def __call__(self, points: Points, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats) -> Matches:
        half = self.anchor_size / 2 * points.strides[:, None]
        anchors = np.concatenate([points.centers - half, points.centers + half], axis=1)
        nearest = self._nearest(points, boxes)
        ious = overlap(boxes[:, None], anchors[nearest], "iou")
        threshold = ious.mean(axis=1) + ious.std(axis=1, ddof=1)
        x, y = np.moveaxis(points.centers[nearest], 2, 0)
        x1, y1, x2, y2 = boxes.T[:, :, None]
        inside = (x1 < x) & (x < x2) & (y1 < y) & (y < y2)
        takers, ranks = np.nonzero(inside & (ious > threshold[:, None]))
        matched, taken = settle(takers, nearest[takers, ranks], lambda disputed: pairwise_iou(boxes, anchors[disputed]))
        return Matches(taken, matched, overlap(boxes[matched], predicted[taken], "iou"))

    def _nearest(self, points: Points, boxes: Floats) -> Indices:
        """The candidates of each box, [G, levels * candidates]."""
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        found = []
        for level in points.levels():
            x, y = points.centers[level].T.copy()
            distances = (centers[:, :1] - x) ** 2 + (centers[:, 1:] - y) ** 2
            number = min(self.candidates, len(x))
            found.append(level.start + np.argpartition(distances, number - 1, axis=1)[:, :number])
        return np.concatenate(found, axis=1)
