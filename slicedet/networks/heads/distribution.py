"""What all heads share: the distance of each side of a box as a distribution over bins (arXiv 2006.04388)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

# Bias of a class logit at the start of training, where one point in a hundred is a foreground (arXiv 1708.02002).
RARE = -math.log(99)

# Of one level: class map [B, C, H, W], and distance logits [B, 4 * bins, H, W] for left, top, right and bottom.
Level = tuple[Tensor, Tensor]


class DistributionHead(nn.Layer):
    """A head of one box per point of every level.

    forward: feature maps -> one (class map, distance logits) per level, what losses are computed from. The class map
    holds logits, unless the subclass says otherwise.
    decode: these -> boxes [B, N, 4] and scores [B, C, N].

    strides: pixels between the points of each level, in the order of the feature maps.
    """

    state_name: ClassVar[str]
    """Name of the head in official state dicts."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = list(strides)

    def forward(self, features: Sequence[Tensor]) -> list[Level]:
        raise NotImplementedError

    def bins(self) -> Tensor:
        """The distances that the bins stand for, [bins], in strides."""
        raise NotImplementedError

    def scores(self, classes: Tensor) -> Tensor:
        """Scores 0..1 from a class map."""
        return F.sigmoid(classes)

    def decode(self, levels: Sequence[Level]) -> tuple[Tensor, Tensor]:
        """Boxes [B, N, 4] as x1 y1 x2 y2 in input pixels, unclipped, and scores [B, C, N]; points row by row, level by
        level."""
        boxes = [self._boxes(distances, self.strides[level]) for level, (_, distances) in enumerate(levels)]
        scores = [self.scores(classes).flatten(2) for classes, _ in levels]
        return paddle.concat(boxes, axis=2).transpose([0, 2, 1]), paddle.concat(scores, axis=2)

    def _boxes(self, logits: Tensor, stride: int) -> Tensor:
        """Boxes [B, 4, H * W] of one level: the expected distances around each point."""
        bins = self.bins()
        shares = F.softmax(logits.flatten(2).reshape([0, 4, bins.shape[0], -1]), axis=2)
        distances = (shares * bins.reshape([1, 1, -1, 1])).sum(axis=2)
        points = grid_points(logits.shape[2], logits.shape[3])
        return stride * paddle.concat([points - distances[:, :2], points + distances[:, 2:]], axis=1)


def grid_points(height: int, width: int) -> Tensor:
    """Centres of the cells of a map, row by row: [2, height * width], x and y in cells."""
    rows = (paddle.arange(height, dtype="float32") + 0.5).unsqueeze(1).expand([height, width])
    columns = (paddle.arange(width, dtype="float32") + 0.5).unsqueeze(0).expand([height, width])
    return paddle.stack([columns.flatten(), rows.flatten()])
