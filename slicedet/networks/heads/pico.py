"""The head of PicoDet (arXiv 2111.00902)."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from slicedet.networks.heads.distribution import RARE, DistributionHead, Level
from slicedet.networks.layers import ChannelAttention, constant, conv_norm, normal

_NAMES = ("conv", "norm")


class PicoBase(DistributionHead):
    """What both versions of the head have in common; its bins run from 0 to reg_max.

    convs: number of depthwise-pointwise pairs before the predictions. attention: whether channel weights follow them.
    """

    state_name = "head"

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[int], convs: int, reg_max: int, attention: bool
    ) -> None:
        super().__init__(strides)
        self.conv_feat = PicoFeatures(in_channels, convs, attention)
        for level in range(len(in_channels)):
            self.add_sublayer(f"p{level + 3}_feat", _UnusedScale())
        self.distribution_project = _Bins(reg_max)

    def bins(self) -> Tensor:
        return self.distribution_project.project


class PicoHead(PicoBase):
    """PicoDet's first version: one pointwise convolution gives class and distance logits of a level."""

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, strides: Sequence[int], convs: int, reg_max: int
    ) -> None:
        super().__init__(in_channels, strides, convs, reg_max, attention=False)
        self.sections = [num_classes, 4 * (reg_max + 1)]
        for level, count in enumerate(in_channels):
            prediction = nn.Conv2D(count, sum(self.sections), 1, weight_attr=normal(0.01), bias_attr=constant(RARE))
            self.add_sublayer(f"head_cls{level}", prediction)

    def forward(self, features: Sequence[Tensor]) -> list[Level]:
        levels = []
        for level, feature in enumerate(features):
            logits = getattr(self, f"head_cls{level}")(self.conv_feat(feature, level))
            classes, distances = paddle.split(logits, self.sections, axis=1)
            levels.append((classes, distances))
        return levels


class PicoFeatures(nn.Layer):
    """Depthwise (5x5) and pointwise convolutions of each level, and its channel attention if it has one."""

    def __init__(self, in_channels: Sequence[int], convs: int, attention: bool) -> None:
        super().__init__()
        self.se = nn.LayerList([ChannelAttention(count, nn.Hardswish, _NAMES) for count in in_channels if attention])
        self._convs: list[list[str]] = []
        for level, count in enumerate(in_channels):
            names = []
            for place in range(convs):
                for kind, kernel, groups in (("dw", 5, count), ("pw", 1, 1)):
                    conv = conv_norm(count, count, kernel, groups=groups, act=nn.Hardswish, names=_NAMES)
                    names.append(f"cls_conv_{kind}{level}.{place}")
                    self.add_sublayer(names[-1], conv)
            self._convs.append(names)

    def forward(self, feature: Tensor, level: int) -> Tensor:
        for name in self._convs[level]:
            feature = getattr(self, name)(feature)
        return feature


class _Bins(nn.Layer):
    """The distances 0..reg_max that the bins stand for."""

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.register_buffer("project", paddle.arange(reg_max + 1, dtype="float32"))


class _UnusedScale(nn.Layer):
    """A factor that official state dicts have, and no version of the head uses."""

    def __init__(self) -> None:
        super().__init__()
        self.scale_reg = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
