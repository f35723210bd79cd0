"""MobileNetV3-large 1x (arXiv 1905.02244) without its classifier."""

from __future__ import annotations

from typing import NamedTuple

from paddle import Tensor, nn

from slicedet.networks.layers import SqueezeExcitation, conv_norm


class _Row(NamedTuple):
    """One row of table 1 of the paper."""

    kernel: int
    middle: int
    channels: int
    squeeze: bool
    act: type[nn.Layer]
    stride: int


_ROWS = [
    _Row(3, 16, 16, False, nn.ReLU, 1),
    _Row(3, 64, 24, False, nn.ReLU, 2),
    _Row(3, 72, 24, False, nn.ReLU, 1),
    _Row(5, 72, 40, True, nn.ReLU, 2),
    _Row(5, 120, 40, True, nn.ReLU, 1),
    _Row(5, 120, 40, True, nn.ReLU, 1),
    _Row(3, 240, 80, False, nn.Hardswish, 2),
    _Row(3, 200, 80, False, nn.Hardswish, 1),
    _Row(3, 184, 80, False, nn.Hardswish, 1),
    _Row(3, 184, 80, False, nn.Hardswish, 1),
    _Row(3, 480, 112, True, nn.Hardswish, 1),
    _Row(3, 672, 112, True, nn.Hardswish, 1),
    _Row(5, 672, 160, True, nn.Hardswish, 2),
    _Row(5, 960, 160, True, nn.Hardswish, 1),
    _Row(5, 960, 160, True, nn.Hardswish, 1),
]
# The state dict counts the stem as conv1, the rows from conv2 on; these are the last of strides 8, 16 and 32.
_OUTPUTS = (7, 13, 16)


class MobileNetV3(nn.Layer):
    """Stem and 15 inverted residuals; gives strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        channels = 16
        self.conv1 = conv_norm(3, channels, 3, stride=2, act=nn.Hardswish)
        self.out_channels = []
        for number, row in enumerate(_ROWS, start=2):
            self.add_sublayer(f"conv{number}", _InvertedResidual(channels, row))
            channels = row.channels
            if number in _OUTPUTS:
                self.out_channels.append(channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        feature = self.conv1(images)
        features = []
        for number in range(2, _OUTPUTS[-1] + 1):
            feature = getattr(self, f"conv{number}")(feature)
            if number in _OUTPUTS:
                features.append(feature)
        return features


class _InvertedResidual(nn.Layer):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection, and the input added where shapes agree."""

    def __init__(self, in_channels: int, row: _Row) -> None:
        super().__init__()
        middle = row.middle
        self.expand_conv = conv_norm(in_channels, middle, 1, act=row.act)
        self.bottleneck_conv = conv_norm(middle, middle, row.kernel, row.stride, groups=middle, act=row.act)
        # PaddlePaddle's pretrained MobileNetV3 has a hard sigmoid of slope 0.2, where the paper has 1/6.
        self.mid_se = SqueezeExcitation(middle, slope=0.2) if row.squeeze else None
        self.linear_conv = conv_norm(middle, row.channels, 1)
        self.shortcut = row.stride == 1 and in_channels == row.channels

    def forward(self, feature: Tensor) -> Tensor:
        out = self.bottleneck_conv(self.expand_conv(feature))
        if self.mid_se is not None:
            out = self.mid_se(out)
        out = self.linear_conv(out)
        return feature + out if self.shortcut else out
