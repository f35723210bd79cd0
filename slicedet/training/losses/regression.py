"""Losses of distances from a point to the sides of a box, which come as distributions over bins."""

from __future__ import annotations

import paddle
from paddle import Tensor
from paddle.nn import functional as F

# Keeps quotients of areas finite.
_EPSILON = 1e-10


def expected(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected distances [P, 4] from logits [P, 4, bins]."""
    return (F.softmax(logits, axis=2) * bins).sum(axis=2)


def giou_loss(distances: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU of boxes around the same points, [P] (arXiv 1902.09630).

    distances, targets: [P, 4], from the point to left, top, right and bottom; negative beyond the point.
    """
    shared = paddle.minimum(distances, targets)
    hull = paddle.maximum(distances, targets)
    shared_area = (shared[:, :2] + shared[:, 2:]).clip(min=0).prod(axis=1)
    union = _area(distances) + _area(targets) - shared_area + _EPSILON
    hull_area = _area(hull) + _EPSILON
    return 1 - shared_area / union + (hull_area - union) / hull_area


def distribution_focal(logits: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy against the two bins around each target, mean of the four sides, [P] (arXiv 2006.04388).

    logits: [P, 4, bins]. places: [P, 4], targets counted in bins from the first one, at most below the last one.
    """
    lower = places.floor()
    share = (places - lower).unsqueeze(2)
    lower = lower.astype("int64").unsqueeze(2)
    logs = F.log_softmax(logits, axis=2)
    around = logs.take_along_axis(lower, 2) * (1 - share) + logs.take_along_axis(lower + 1, 2) * share
    return -around.squeeze(2).mean(axis=1)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
