"""Networks as they are deployed: reparameterised, normalising their pixels, suppressing their boxes. Needs Paddle."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from slicedet.models.config import InputConfig, NmsConfig
from slicedet.networks import Network
from slicedet.networks.layers import RepConv


def reparameterised(network: Network) -> Network:
    """A copy in eval mode with one convolution for each RepConv (arXiv 2101.03697), which computes the same."""
    deployed = copy.deepcopy(network)
    deployed.eval()
    for parent, name, block in list(_blocks(deployed)):
        setattr(parent, name, _fused(block))
    return deployed


def _blocks(layer: nn.Layer) -> Iterator[tuple[nn.Layer, str, RepConv]]:
    for name, child in layer.named_children():
        if isinstance(child, RepConv):
            yield layer, name, child
        else:
            yield from _blocks(child)


def _fused(block: RepConv) -> nn.Sequential:
    wide, wide_bias = _folded(block.conv1)
    narrow, narrow_bias = _folded(block.conv2)
    alpha = 1.0 if block.alpha is None else block.alpha
    # A 1x1 kernel is the middle of a 3x3 kernel.
    kernel = wide + F.pad(narrow * alpha, [1, 1, 1, 1])
    conv = nn.Conv2D(kernel.shape[1], kernel.shape[0], 3, padding=1)
    conv.weight.set_value(kernel)
    conv.bias.set_value(wide_bias + narrow_bias * alpha)
    fused = nn.Sequential(conv, nn.Swish())
    fused.eval()
    return fused


def _folded(block: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution with its batch norm."""
    norm = block.bn
    with paddle.no_grad():
        factor = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
        return block.conv.weight * factor.reshape([-1, 1, 1, 1]), norm.bias - norm._mean * factor


class Normalised(nn.Layer):
    """A network that takes RGB pixels 0..255 and normalises them itself."""

    def __init__(self, network: nn.Layer, source: InputConfig) -> None:
        super().__init__()
        self.network = network
        self._reversed = source.channels == "bgr"
        # (x / divide - mean) / std = x * factor - offset
        factor = [1 / (source.divide * std) for std in source.std]
        offset = [mean / std for mean, std in zip(source.mean, source.std, strict=True)]
        self.register_buffer("factor", paddle.to_tensor(factor, "float32").reshape([1, 3, 1, 1]))
        self.register_buffer("offset", paddle.to_tensor(offset, "float32").reshape([1, 3, 1, 1]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = image.flip(1) if self._reversed else image
        return self.network(pixels * self.factor - self.offset)


class Suppressing(nn.Layer):
    """PaddleDetection's default form of an exported detector.

    image [B, 3, H, W] and scale_factor [B, 2], y before x, how much images were resized -> rows [n, 6] of class, score,
    x1, y1, x2, y2 in pixels of the images before that, image after image, and the number of each image's rows [B].
    """

    def __init__(self, network: nn.Layer, nms: NmsConfig) -> None:
        super().__init__()
        self.network = network
        self._nms = nms

    def forward(self, image: Tensor, scale_factor: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self.network(image)
        y, x = paddle.split(scale_factor, 2, axis=1)
        boxes = boxes / paddle.concat([x, y, x, y], axis=1).unsqueeze(1)
        nms = self._nms
        # The operator that PaddleDetection's graphs have; Paddle offers no public function for it.
        operator: Any = paddle._C_ops.multiclass_nms3
        rows, _, counts = operator(
            boxes, scores, None, nms.score_threshold, nms.top_k, nms.keep, nms.iou, True, 1.0, -1
        )
        return rows, counts


class Traced(nn.Layer):
    """A layer that is saved as it runs, not translated from its source, which takes several times as long and only
    lengths that are not known beforehand need."""

    def __init__(self, layer: nn.Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, image: Tensor, scale_factor: Tensor | None = None) -> Any:
        return _run(self.layer, *([image] if scale_factor is None else [image, scale_factor]))


@paddle.jit.not_to_static
def _run(layer: nn.Layer, *inputs: Tensor) -> Any:
    return layer(*inputs)
