"""The efficient task-aligned head of PP-YOLOE (arXiv 2203.16250)."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from slicedet.networks.heads.distribution import RARE, DistributionHead, Level
from slicedet.networks.layers import ChannelAttention, constant


class PPYOLOEHead(DistributionHead):
    """One attention and one convolution for classes, and the same for distances, on every level.

    reg_range: the first bin of the distances and the one after the last, in strides. Bins below 0 let a point lie
    outside its box (PP-YOLOE+ SOD).
    """

    state_name = "yolo_head"

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, strides: Sequence[int], reg_range: Sequence[int]
    ) -> None:
        super().__init__(strides)
        first, end = reg_range
        bins = end - first
        self.stem_cls = nn.LayerList([ChannelAttention(count, nn.Swish) for count in in_channels])
        self.stem_reg = nn.LayerList([ChannelAttention(count, nn.Swish) for count in in_channels])
        self.pred_cls = nn.LayerList([_prediction(count, num_classes, RARE) for count in in_channels])
        self.pred_reg = nn.LayerList([_prediction(count, 4 * bins, 1.0) for count in in_channels])
        self.proj_conv = nn.Conv2D(bins, 1, 1, bias_attr=False)
        self.proj_conv.weight.set_value(paddle.arange(first, end, dtype="float32").reshape([1, bins, 1, 1]))
        self.proj_conv.weight.stop_gradient = True

    def bins(self) -> Tensor:
        return self.proj_conv.weight.flatten()

    def forward(self, features: Sequence[Tensor]) -> list[Level]:
        levels = []
        for level, feature in enumerate(features):
            classes = self.pred_cls[level](self.stem_cls[level](feature) + feature)
            levels.append((classes, self.pred_reg[level](self.stem_reg[level](feature))))
        return levels


def _prediction(in_channels: int, out_channels: int, bias: float) -> nn.Conv2D:
    return nn.Conv2D(in_channels, out_channels, 3, padding=1, weight_attr=constant(0.0), bias_attr=constant(bias))
