"""The head of PicoDet's second version: class scores weighed by how well a point's box will fit."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor, nn
from paddle.nn import functional as F

from slicedet.networks.heads.distribution import RARE, Level
from slicedet.networks.heads.pico import PicoBase
from slicedet.networks.layers import constant, depthwise_pointwise, normal


class PicoHeadV2(PicoBase):
    """Class and distance logits from the attended feature, alignment from the plain one.

    Its class maps hold scores already: sqrt(sigmoid(class) * sigmoid(alignment)), as task-aligned learning has them
    (arXiv 2108.07755).
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, strides: Sequence[int], convs: int, reg_max: int
    ) -> None:
        super().__init__(in_channels, strides, convs, reg_max, attention=True)
        self.head_cls_list = nn.LayerList([_prediction(count, num_classes, RARE) for count in in_channels])
        self.head_reg_list = nn.LayerList([_prediction(count, 4 * (reg_max + 1), 0.0) for count in in_channels])
        self.cls_align = nn.LayerList([depthwise_pointwise(count, 1, 5, last_act=False) for count in in_channels])
        # Official state dicts list the predictions a second time under these names.
        for level in range(len(in_channels)):
            self.add_sublayer(f"head_cls{level}", self.head_cls_list[level])
            self.add_sublayer(f"head_reg{level}", self.head_reg_list[level])

    def scores(self, classes: Tensor) -> Tensor:
        return classes

    def forward(self, features: Sequence[Tensor]) -> list[Level]:
        levels = []
        for level, feature in enumerate(features):
            plain = self.conv_feat(feature, level)
            attended = self.conv_feat.se[level](plain)
            confidence = F.sigmoid(self.head_cls_list[level](attended))
            alignment = F.sigmoid(self.cls_align[level](plain))
            # The small number keeps the root's gradient finite at 0.
            levels.append(((confidence * alignment + 1e-9).sqrt(), self.head_reg_list[level](attended)))
        return levels


def _prediction(in_channels: int, out_channels: int, bias: float) -> nn.Conv2D:
    return nn.Conv2D(in_channels, out_channels, 1, weight_attr=normal(0.01), bias_attr=constant(bias))
