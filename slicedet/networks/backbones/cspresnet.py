"""CSPRepResNet, the backbone of PP-YOLOE (arXiv 2203.16250)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from slicedet.networks.layers import RepBlock, conv_norm


class CSPResNet(nn.Layer):
    """Stem and four stages of strides 4, 8, 16, 32; gives the deepest `levels` of them.

    channels: of the stem and each stage. blocks: number of residual blocks in each stage. alpha: whether the blocks
    weight their 1x1 branch (PP-YOLOE+).
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], alpha: bool, levels: int = 3) -> None:
        super().__init__()
        if len(channels) != len(blocks) + 1:
            raise ValueError("channels: expected one number for the stem and one for each of blocks")
        half = channels[0] // 2
        self.stem = nn.Sequential(
            ("conv1", conv_norm(3, half, 3, stride=2, act=nn.Swish)),
            ("conv2", conv_norm(half, half, 3, act=nn.Swish)),
            ("conv3", conv_norm(half, channels[0], 3, act=nn.Swish)),
        )
        self.stages = nn.LayerList(
            [_Stage(*ends, count, alpha) for ends, count in zip(pairwise(channels), blocks, strict=True)]
        )
        self.out_channels = list(channels[-levels:])

    def forward(self, images: Tensor) -> list[Tensor]:
        feature = self.stem(images)
        features = []
        for stage in self.stages:
            feature = stage(feature)
            features.append(feature)
        return features[-len(self.out_channels) :]


class _Stage(nn.Layer):
    """Halves the size; residual blocks on one half of the channels (cross stage partial), then channel weights."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, alpha: bool) -> None:
        super().__init__()
        middle = (in_channels + out_channels) // 2
        self.conv_down = conv_norm(in_channels, middle, 3, stride=2, act=nn.Swish)
        self.conv1 = conv_norm(middle, middle // 2, 1, act=nn.Swish)
        self.conv2 = conv_norm(middle, middle // 2, 1, act=nn.Swish)
        self.blocks = nn.Sequential(*[RepBlock(middle // 2, shortcut=True, alpha=alpha) for _ in range(blocks)])
        self.attn = _ChannelWeights(middle)
        self.conv3 = conv_norm(middle, out_channels, 1, act=nn.Swish)

    def forward(self, feature: Tensor) -> Tensor:
        feature = self.conv_down(feature)
        joined = paddle.concat([self.conv1(feature), self.blocks(self.conv2(feature))], axis=1)
        return self.conv3(self.attn(joined))


class _ChannelWeights(nn.Layer):
    """Effective squeeze-and-excitation (arXiv 1911.06667) with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1)

    def forward(self, feature: Tensor) -> Tensor:
        return feature * F.hardsigmoid(self.fc(F.adaptive_avg_pool2d(feature, 1)))
