"""ShuffleNetV2 1x (arXiv 1807.11164), with leaky ReLU as in PicoDet."""

from __future__ import annotations

from functools import partial

import paddle
from paddle import Tensor, nn

from slicedet.networks.layers import conv_norm, interleave

# Channels and number of blocks of each stage.
_STAGES = {2: (116, 4), 3: (232, 8), 4: (464, 4)}
_conv = partial(conv_norm, names=("_conv", "_batch_norm"))


class ShuffleNetV2(nn.Layer):
    """Stem and three stages of strides 8, 16 and 32, all of which it gives."""

    def __init__(self) -> None:
        super().__init__()
        channels = 24
        self._conv1 = _conv(3, channels, 3, stride=2, act=nn.LeakyReLU)
        self.pool = nn.MaxPool2D(3, stride=2, padding=1)
        for stage, (width, repeats) in _STAGES.items():
            self.add_sublayer(f"{stage}_1", _Downsampling(channels, width))
            for place in range(2, repeats + 1):
                self.add_sublayer(f"{stage}_{place}", _Block(width))
            channels = width
        self.out_channels = [width for width, _ in _STAGES.values()]

    def forward(self, images: Tensor) -> list[Tensor]:
        feature = self.pool(self._conv1(images))
        features = []
        for stage, (_, repeats) in _STAGES.items():
            for place in range(1, repeats + 1):
                feature = getattr(self, f"{stage}_{place}")(feature)
            features.append(feature)
        return features


class _Downsampling(nn.Layer):
    """First block of a stage: two branches of stride 2, their channels interleaved."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self._conv_dw_1 = _conv(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self._conv_linear_1 = _conv(in_channels, half, 1, act=nn.LeakyReLU)
        self._conv_pw_2 = _conv(in_channels, half, 1, act=nn.LeakyReLU)
        self._conv_dw_2 = _conv(half, half, 3, stride=2, groups=half)
        self._conv_linear_2 = _conv(half, half, 1, act=nn.LeakyReLU)

    def forward(self, feature: Tensor) -> Tensor:
        first = self._conv_linear_1(self._conv_dw_1(feature))
        return interleave(first, self._conv_linear_2(self._conv_dw_2(self._conv_pw_2(feature))))


class _Block(nn.Layer):
    """Further blocks: one half of the channels passes unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self._conv_pw = _conv(half, half, 1, act=nn.LeakyReLU)
        self._conv_dw = _conv(half, half, 3, groups=half)
        self._conv_linear = _conv(half, half, 1, act=nn.LeakyReLU)

    def forward(self, feature: Tensor) -> Tensor:
        kept, changed = paddle.split(feature, 2, axis=1)
        return interleave(kept, self._conv_linear(self._conv_dw(self._conv_pw(changed))))
