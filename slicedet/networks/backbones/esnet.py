"""ESNet, the enhanced ShuffleNet of PicoDet (arXiv 2111.00902)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import paddle
from paddle import Tensor, nn

from slicedet.networks.layers import SqueezeExcitation, conv_norm, interleave, make_divisible

_REPEATS = {2: 3, 3: 7, 4: 3}
_conv = partial(conv_norm, names=("_conv", "_batch_norm"))


class ESNet(nn.Layer):
    """Stem and three stages of strides 8, 16 and 32, all of which it gives.

    scale: factor on the stages' 128, 256 and 512 channels. ratios: for each of the 13 blocks, its inner channels as a
    part of its stage's.
    """

    def __init__(self, scale: float, ratios: Sequence[float]) -> None:
        super().__init__()
        if len(ratios) != sum(_REPEATS.values()):
            raise ValueError(f"ratios: expected {sum(_REPEATS.values())} numbers")
        channels = 24
        self._conv1 = _conv(3, channels, 3, stride=2, act=nn.Hardswish)
        self.pool = nn.MaxPool2D(3, stride=2, padding=1)
        self.out_channels = []
        self._stages: list[list[str]] = []
        remaining = iter(ratios)
        for stage, repeats in _REPEATS.items():
            width = make_divisible(2**stage * 32 * scale, 16)
            names = [f"{stage}_{place}" for place in range(1, repeats + 1)]
            for name in names:
                middle = make_divisible(int(width * next(remaining)), 8)
                block = _Block(width, middle) if channels == width else _Downsampling(channels, width, middle)
                self.add_sublayer(name, block)
                channels = width
            self.out_channels.append(channels)
            self._stages.append(names)

    def forward(self, images: Tensor) -> list[Tensor]:
        feature = self.pool(self._conv1(images))
        features = []
        for names in self._stages:
            for name in names:
                feature = getattr(self, name)(feature)
            features.append(feature)
        return features


class _Downsampling(nn.Layer):
    """First block of a stage: two branches of stride 2, then a depthwise and a pointwise convolution of both."""

    def __init__(self, in_channels: int, out_channels: int, middle: int) -> None:
        super().__init__()
        half, inner = out_channels // 2, middle // 2
        self._conv_dw_1 = _conv(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self._conv_linear_1 = _conv(in_channels, half, 1, act=nn.Hardswish)
        self._conv_pw_2 = _conv(in_channels, inner, 1, act=nn.Hardswish)
        self._conv_dw_2 = _conv(inner, inner, 3, stride=2, groups=inner)
        self._se = SqueezeExcitation(inner)
        self._conv_linear_2 = _conv(inner, half, 1, act=nn.Hardswish)
        self._conv_dw_mv1 = _conv(out_channels, out_channels, 3, groups=out_channels, act=nn.Hardswish)
        self._conv_pw_mv1 = _conv(out_channels, out_channels, 1, act=nn.Hardswish)

    def forward(self, feature: Tensor) -> Tensor:
        first = self._conv_linear_1(self._conv_dw_1(feature))
        second = self._conv_linear_2(self._se(self._conv_dw_2(self._conv_pw_2(feature))))
        return self._conv_pw_mv1(self._conv_dw_mv1(paddle.concat([first, second], axis=1)))


class _Block(nn.Layer):
    """Further blocks: one half of the channels passes unchanged, the other through a ghost-like inverted residual."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        half, inner = channels // 2, middle // 2
        self._conv_pw = _conv(half, inner, 1, act=nn.Hardswish)
        self._conv_dw = _conv(inner, inner, 3, groups=inner)
        self._se = SqueezeExcitation(middle)
        self._conv_linear = _conv(middle, half, 1, act=nn.Hardswish)

    def forward(self, feature: Tensor) -> Tensor:
        kept, changed = paddle.split(feature, 2, axis=1)
        pointwise = self._conv_pw(changed)
        both = paddle.concat([pointwise, self._conv_dw(pointwise)], axis=1)
        return interleave(kept, self._conv_linear(self._se(both)))
