"""Task-aligned assignment: points whose class score and box are already right go first (arXiv 2108.07755)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import overlap
from slicedet.training.losses.assignment import Floats, Indices, Matches, Points, best, pairwise_iou, settle

# Keeps a quotient finite.
_EPSILON = 1e-9


@dataclass(frozen=True)
class TaskAligned:
    """A box takes the `candidates` points in it with the highest alignment: class score times the IoU's sixth power.

    A match's score is its alignment, scaled so that each box's best is the best IoU among the box's matches.
    """

    candidates: int = 13

    def __call__(self, points: Points, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats) -> Matches:
        takers, taken = np.nonzero(points.inside(boxes))
        ious = overlap(boxes[takers], predicted[taken], "iou")
        picked = best(takers, _alignment(scores[labels[takers], taken], ious), np.full(len(boxes), self.candidates))
        matched, taken = settle(
            takers[picked], taken[picked], lambda disputed: pairwise_iou(boxes, predicted[disputed])
        )
        return _scored(matched, taken, boxes, labels, predicted, scores)


@dataclass(frozen=True)
class CenteredTaskAligned:
    """Task-aligned assignment for small boxes, whose points may lie outside them (PP-YOLOE+ SOD).

    All points compete for a box. Those of the `candidates` best that lie in the box, or less than `center_radius`
    strides from its centre in x and y, are its matches; where no point lies in the box, those near the centre go first.
    """

    candidates: int = 13
    center_radius: float = 1.0

    def __call__(self, points: Points, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats) -> Matches:
        inside, near = points.inside(boxes), points.near(boxes, self.center_radius)
        ious = pairwise_iou(boxes, predicted)
        preferred = near & ~inside.any(axis=1, keepdims=True)
        takers, taken = np.nonzero((ious > 0) | preferred)
        worth = _alignment(scores[labels[takers], taken], ious[takers, taken]) + preferred[takers, taken]
        picked = best(takers, worth, np.full(len(boxes), self.candidates))
        chosen = np.zeros_like(inside)
        chosen[takers[picked], taken[picked]] = True
        chosen &= inside | near
        takers, taken = np.nonzero(chosen)
        # Unlike elsewhere, a disputed point goes to one of the boxes that disputed it.
        matched, taken = settle(takers, taken, lambda points: np.where(chosen[:, points], ious[:, points], -1))
        return _scored(matched, taken, boxes, labels, predicted, scores)


def _alignment(scores: Floats, ious: NDArray[np.floating]) -> NDArray[np.floating]:
    cubed = ious * ious * ious
    return scores * cubed * cubed


def _scored(
    matched: Indices, taken: Indices, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats
) -> Matches:
    ious = overlap(boxes[matched], predicted[taken], "iou")
    alignment = _alignment(scores[labels[matched], taken], ious)
    best_alignment, best_iou = np.zeros((2, len(boxes)), np.float32)
    np.maximum.at(best_alignment, matched, alignment)
    np.maximum.at(best_iou, matched, ious)
    return Matches(taken, matched, alignment / (best_alignment[matched] + _EPSILON) * best_iou[matched])
