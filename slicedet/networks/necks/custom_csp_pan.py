"""The path aggregation neck of PP-YOLOE (arXiv 2203.16250), with the transformer of PP-YOLOE+ SOD."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from slicedet.networks.layers import RepBlock, conv_norm, upsample
from slicedet.networks.transformer import TransformerEncoder

_POOLS = (5, 9, 13)


class CustomCSPPAN(nn.Layer):
    """Maps of a backbone, finest first -> as many maps, coarsest first.

    channels: of each output, coarsest first. blocks: number in each stage. transformer_layers: of the encoder on the
    coarsest map, 0 for none.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: Sequence[int], blocks: int, transformer_layers: int = 0
    ) -> None:
        super().__init__()
        if len(channels) != len(in_channels):
            raise ValueError(f"channels: expected {len(in_channels)} numbers")
        inputs = list(in_channels[::-1])
        self.encoder = TransformerEncoder(inputs[0], transformer_layers) if transformer_layers else None
        top_down = [inputs[0], *[finer + coarser // 2 for finer, coarser in zip(inputs[1:], channels, strict=False)]]
        self.fpn_stages = nn.LayerList(
            [
                _stage(before, after, blocks, not place)
                for place, (before, after) in enumerate(zip(top_down, channels, strict=True))
            ]
        )
        self.fpn_routes = nn.LayerList([conv_norm(count, count // 2, 1, act=nn.Swish) for count in channels[:-1]])
        self.pan_stages = nn.LayerList(
            [_stage(coarser + finer, coarser, blocks, spp=False) for coarser, finer in pairwise(channels)]
        )
        self.pan_routes = nn.LayerList([conv_norm(finer, finer, 3, stride=2, act=nn.Swish) for finer in channels[1:]])
        self.out_channels = list(channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        coarsest = features[-1] if self.encoder is None else self.encoder(features[-1])
        lateral = [self.fpn_stages[0](coarsest)]
        for place, route in enumerate(self.fpn_routes):
            coarser = upsample(route(lateral[-1]))
            lateral.append(self.fpn_stages[place + 1](paddle.concat([coarser, features[-2 - place]], axis=1)))
        outputs = [lateral[-1]]
        for place in reversed(range(len(self.pan_stages))):
            finer = self.pan_routes[place](outputs[0])
            outputs.insert(0, self.pan_stages[place](paddle.concat([finer, lateral[place]], axis=1)))
        return outputs


def _stage(in_channels: int, out_channels: int, blocks: int, spp: bool) -> nn.Sequential:
    return nn.Sequential(_CSPStage(in_channels, out_channels, blocks, spp))


class _CSPStage(nn.Layer):
    """Cross stage partial: blocks, with spatial pyramid pooling among them if asked, on one half of the channels."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, spp: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv_norm(in_channels, half, 1, act=nn.Swish)
        self.conv2 = conv_norm(in_channels, half, 1, act=nn.Swish)
        parts: list[tuple[str, nn.Layer]] = [
            (str(place), RepBlock(half, shortcut=False, alpha=False)) for place in range(blocks)
        ]
        if spp:
            parts.insert((blocks - 1) // 2 + 1, ("spp", _SpatialPyramidPooling(half)))
        self.convs = nn.Sequential(*parts)
        self.conv3 = conv_norm(out_channels, out_channels, 1, act=nn.Swish)

    def forward(self, feature: Tensor) -> Tensor:
        return self.conv3(paddle.concat([self.conv1(feature), self.convs(self.conv2(feature))], axis=1))


class _SpatialPyramidPooling(nn.Layer):
    """The map beside its maxima over squares of three sizes (arXiv 1406.4729, as in YOLOv4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_norm(channels * (1 + len(_POOLS)), channels, 1, act=nn.Swish)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = [F.max_pool2d(feature, size, stride=1, padding=size // 2) for size in _POOLS]
        return self.conv(paddle.concat([feature, *pooled], axis=1))
