"""What the losses of all heads share: points matched to boxes, and what the head answers at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor

from slicedet.networks.heads.distribution import DistributionHead, Level
from slicedet.training.losses.assignment import Assigner, Floats, Indices, Matches, Points
from slicedet.training.losses.regression import distribution_focal, expected, giou_loss
from slicedet.training.losses.varifocal import background, varifocal


@dataclass(frozen=True)
class Targets:
    """What a batch is to be answered with, as numpy arrays.

    images, points, labels: [P], the place of each match and its class. distances: [P, 4], from its point to left, top,
    right and bottom of its box, in strides. scores: [P], 0..1. shape: images, classes and points of the batch.
    """

    images: Indices
    points: Indices
    labels: Indices
    distances: Floats
    scores: Floats
    shape: tuple[int, ...]

    @classmethod
    def none(cls, shape: tuple[int, ...]) -> Targets:
        """Targets of a batch without matches."""
        nothing = np.zeros(0, np.intp)
        return cls(nothing, nothing, nothing, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), shape)

    @classmethod
    def of(
        cls, image: int, points: Points, boxes: Floats, labels: Indices, matches: Matches, shape: tuple[int, ...]
    ) -> Targets:
        """Targets of one image of a batch."""
        centers, matched = points.centers[matches.points], boxes[matches.boxes]
        distances = np.concatenate([centers - matched[:, :2], matched[:, 2:] - centers], axis=1)
        return cls(
            np.full(len(matches.points), image),
            matches.points,
            labels[matches.boxes],
            (distances / points.strides[matches.points, None]).astype(np.float32),
            matches.scores.astype(np.float32),
            shape,
        )

    @classmethod
    def joined(cls, targets: Sequence[Targets]) -> Targets:
        """Targets of several images of one batch as one."""
        return cls(
            np.concatenate([part.images for part in targets]),
            np.concatenate([part.points for part in targets]),
            np.concatenate([part.labels for part in targets]),
            np.concatenate([part.distances for part in targets]),
            np.concatenate([part.scores for part in targets]),
            targets[0].shape,
        )


@dataclass(frozen=True)
class BoxLosses:
    """Of each match: predicted distances [P, 4] in strides, 1 - GIoU [P] and distribution focal loss [P]."""

    distances: Tensor
    giou: Tensor
    distribution: Tensor


class Criterion:
    """The loss of a head; subclasses say which assigner matches points to boxes, and how terms are weighed.

    margin: how far from the last bin a target distance stays, in strides.
    """

    margin: float

    def __init__(self, head: DistributionHead) -> None:
        self._head = head

    def __call__(
        self, levels: Sequence[Level], boxes: Sequence[Floats], labels: Sequence[Indices], epoch: int
    ) -> dict[str, Tensor]:
        """The terms of the loss by their official names, and as "loss" what to differentiate: all are scalars.

        levels: what the network returns in training mode for B images. boxes: for each image [n, 4], x1 y1 x2 y2 in
        pixels of the network's input. labels: for each image [n], classes from 0. epoch: counted from 0.
        """
        with paddle.no_grad():
            predicted, scores = (value.numpy() for value in self._head.decode(levels))
        targets = self._targets(levels, boxes, labels, self.assigner(epoch), predicted, scores)
        return self.terms(levels, targets, scores)

    def assigner(self, epoch: int) -> Assigner:
        """What matches points to boxes in this epoch."""
        raise NotImplementedError

    def terms(self, levels: Sequence[Level], targets: Targets, scores: Floats) -> dict[str, Tensor]:
        """The terms, and their sum as "loss". scores: what the head answers now, [B, C, N]."""
        raise NotImplementedError

    def class_loss(self, scores: Tensor, absence: Tensor, targets: Targets) -> Tensor:
        """The varifocal loss of all points. scores: [B, C, N]. absence: their cross-entropy against 0."""
        sure = targets.scores > 0
        if not sure.any():
            return background(scores, absence).sum()
        places = np.stack([targets.images, targets.labels, targets.points], axis=1)[sure]
        return varifocal(scores, absence, paddle.to_tensor(places), paddle.to_tensor(targets.scores[sure]))

    def box_losses(self, levels: Sequence[Level], targets: Targets) -> BoxLosses:
        """Losses at the matches; there must be some."""
        bins = self._head.bins().detach()
        rows = paddle.to_tensor(targets.images * targets.shape[2] + targets.points)
        logits = self._distance_logits(levels).transpose([0, 2, 1]).reshape([-1, 4, bins.shape[0]]).gather(rows)
        distances = expected(logits, bins)
        wanted = paddle.to_tensor(targets.distances)
        first, last = float(bins[0]), float(bins[-1])
        places = wanted.clip(first, last - self.margin) - first
        return BoxLosses(distances, giou_loss(distances, wanted), distribution_focal(logits, places))

    def no_box_loss(self, levels: Sequence[Level]) -> Tensor:
        """0 for a batch without matches. It depends on the logits: parameters then have a gradient on all processes."""
        return self._distance_logits(levels).sum() * 0

    def _distance_logits(self, levels: Sequence[Level]) -> Tensor:
        return paddle.concat([distances.flatten(2) for _, distances in levels], axis=2)

    def _targets(
        self,
        levels: Sequence[Level],
        boxes: Sequence[Floats],
        labels: Sequence[Indices],
        assigner: Assigner,
        predicted: Floats,
        scores: Floats,
    ) -> Targets:
        shapes = [(classes.shape[2], classes.shape[3]) for classes, _ in levels]
        points = Points.of(shapes, self._head.strides)
        targets = [Targets.none(scores.shape)]
        for image, (own_boxes, own_labels) in enumerate(zip(boxes, labels, strict=True)):
            if len(own_boxes):
                matches = assigner(points, own_boxes, own_labels, predicted[image], scores[image])
                targets.append(Targets.of(image, points, own_boxes, own_labels, matches, scores.shape))
        return Targets.joined(targets)


def class_map(levels: Sequence[Level]) -> Tensor:
    """The class maps of all levels, [B, C, N]."""
    return paddle.concat([classes.flatten(2) for classes, _ in levels], axis=2)


def weighted(losses: Tensor, weights: NDArray[np.floating], normaliser: float) -> Tensor:
    """The sum of losses [P], each times its weight, divided by the normaliser."""
    return (losses * paddle.to_tensor(weights)).sum() / normaliser


def process_mean(total: float) -> float:
    """The mean of what the training processes have each, at least 1."""
    if paddle.distributed.is_initialized() and paddle.distributed.get_world_size() > 1:
        shared = paddle.to_tensor(total, "float32")
        paddle.distributed.all_reduce(shared)
        total = float(shared) / paddle.distributed.get_world_size()
    return max(total, 1.0)
