"""CSP-PAN, the neck of PicoDet (arXiv 2111.00902)."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from slicedet.networks.layers import conv_norm, depthwise_pointwise, upsample

_KERNEL = 5


class CSPPAN(nn.Layer):
    """Maps of strides 8, 16, 32 -> maps of strides 8, 16, 32, 64, all with `channels` channels."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        links = range(len(in_channels) - 1)
        self.conv_t = _Projections(in_channels, channels)
        self.first_top_conv = depthwise_pointwise(channels, channels, _KERNEL, stride=2)
        self.second_top_conv = depthwise_pointwise(channels, channels, _KERNEL, stride=2)
        self.top_down_blocks = nn.LayerList([self._block(channels) for _ in links])
        self.downsamples = nn.LayerList([depthwise_pointwise(channels, channels, _KERNEL, stride=2) for _ in links])
        self.bottom_up_blocks = nn.LayerList([self._block(channels) for _ in links])
        self.out_channels = [channels] * (len(in_channels) + 1)

    def _block(self, channels: int) -> nn.Layer:
        """What mixes the concatenation of two maps, 2 * channels -> channels."""
        return _CSPBlock(2 * channels, channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        projected = self.conv_t(features)
        lateral = [projected[-1]]
        for place, block in enumerate(self.top_down_blocks):
            coarser = upsample(lateral[-1])
            lateral.append(block(paddle.concat([coarser, projected[-2 - place]], axis=1)))
        outputs = [lateral[-1]]
        for place, block in enumerate(self.bottom_up_blocks):
            finer = self.downsamples[place](outputs[-1])
            outputs.append(block(paddle.concat([finer, lateral[-2 - place]], axis=1)))
        outputs.append(self.first_top_conv(projected[-1]) + self.second_top_conv(outputs[-1]))
        return outputs


class _Projections(nn.Layer):
    """Brings every map to the same number of channels."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.convs = nn.LayerList([conv_norm(count, channels, 1, act=nn.Hardswish) for count in in_channels])

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.convs[level](feature) for level, feature in enumerate(features)]


class _CSPBlock(nn.Layer):
    """Cross stage partial: a bottleneck on one projection of the input, joined with another."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.main_conv = conv_norm(in_channels, half, 1, act=nn.Hardswish)
        self.short_conv = conv_norm(in_channels, half, 1, act=nn.Hardswish)
        self.final_conv = conv_norm(out_channels, out_channels, 1, act=nn.Hardswish)
        bottleneck = nn.Sequential(
            ("conv1", conv_norm(half, half, 1, act=nn.Hardswish)),
            ("conv2", depthwise_pointwise(half, half, _KERNEL)),
        )
        self.blocks = nn.Sequential(bottleneck)

    def forward(self, feature: Tensor) -> Tensor:
        main = self.blocks(self.main_conv(feature))
        return self.final_conv(paddle.concat([main, self.short_conv(feature)], axis=1))
