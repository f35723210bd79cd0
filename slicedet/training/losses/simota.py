"""SimOTA: a box takes the points that cost it least, more of them where predictions fit well (arXiv 2107.08430)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import area
from slicedet.training.losses.assignment import Floats, Indices, Matches, Points, best, pairwise_iou, settle
from slicedet.training.losses.varifocal import NEGATIVE_WEIGHT

# Cost of a point that is not both in the box and near its centre: more than all other costs together.
_FAR = 1e8


@dataclass(frozen=True)
class SimOTA:
    """Costs are the varifocal loss of the class and `iou_weight` times 1 - GIoU of the box.

    center_radius: strides around a box's centre in which points are near it. candidates: how many of a box's best IoUs
    are added up to the number of its points. A match's score is the IoU of the predicted box.
    """

    center_radius: float = 2.5
    candidates: int = 10
    iou_weight: float = 6.0

    def __call__(self, points: Points, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats) -> Matches:
        inside, near = points.inside(boxes), points.near(boxes, self.center_radius)
        valid = np.flatnonzero((inside | near).any(axis=0))
        if len(valid) == 0:
            return Matches(valid, valid, np.zeros(0, np.float32))
        predicted, scores = predicted[valid], scores[:, valid]
        suited = (inside & near)[:, valid]
        ious = pairwise_iou(boxes, predicted)
        costs = _Costs(boxes, labels, predicted, scores, ious, suited, self.iou_weight)

        touching, touched = np.nonzero(ious)
        fits = ious[touching, touched]
        top = best(touching, fits, np.full(len(boxes), self.candidates))
        counts = np.bincount(touching[top], fits[top], minlength=len(boxes)).astype(np.intp).clip(min=1)
        # Far points are looked at only for boxes with too few suited ones: most have enough, and costs are dear.
        takers, taken = np.nonzero(suited | (suited.sum(axis=1) < counts)[:, None])
        picked = best(takers, -costs(takers, taken), counts)
        everyone = np.arange(len(boxes))[:, None]
        matched, places = settle(takers[picked], taken[picked], lambda disputed: -costs(everyone, disputed[None]))
        return Matches(valid[places], matched, ious[matched, places])


class _Costs:
    """Cost of any pairs of a box and a valid point."""

    def __init__(
        self,
        boxes: Floats,
        labels: Indices,
        predicted: Floats,
        scores: Floats,
        ious: NDArray[np.floating],
        suited: NDArray[np.bool_],
        iou_weight: float,
    ) -> None:
        self._boxes, self._labels, self._predicted, self._scores = boxes, labels, predicted, scores
        self._ious, self._suited, self._iou_weight = ious, suited, iou_weight
        self._background = NEGATIVE_WEIGHT * scores**2 * -_log(1 - scores)
        self._all_background = self._background.sum(axis=0)

    def __call__(self, boxes: Indices, places: Indices) -> NDArray[np.float64]:
        label, iou = self._labels[boxes], self._ious[boxes, places]
        score, background = self._scores[label, places], self._background[label, places]
        found = -iou * (iou * _log(score) + (1 - iou) * _log(1 - score))
        classes = self._all_background[places] - background + np.where(iou > 0, found, background)
        misfit = 1 - _giou(self._boxes[boxes], self._predicted[places], iou)
        # In 64 bits, where the large number does not swallow the differences between the others.
        return classes.astype(np.float64) + self._iou_weight * misfit + _FAR * ~self._suited[boxes, places]


def _log(shares: Floats) -> Floats:
    """The logarithm, -100 at the least."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(shares), -100)


def _giou(a: Floats, b: Floats, iou: NDArray[np.floating]) -> NDArray[np.floating]:
    """Generalized IoU of boxes row by row, from their IoU (arXiv 1902.09630)."""
    corners = np.concatenate([np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:])], axis=-1)
    hull = np.maximum(area(corners), 1e-6)
    union = (area(a) + area(b)) / (1 + iou)
    return iou - (hull - union) / hull
