"""Layers that several backbones, necks and heads share."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor` and 0.9 * `value` (MobileNetV2's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Layer] | None = None,
    names: tuple[str, str] = ("conv", "bn"),
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size (divided by `stride`), then batch norm and activation.

    names: of convolution and batch norm in the state dict.
    """
    parts: list[tuple[str, nn.Layer]] = [
        (names[0], _conv(in_channels, out_channels, kernel, stride, groups)),
        (names[1], nn.BatchNorm2D(out_channels)),
    ]
    if act is not None:
        parts.append(("act", act()))
    return nn.Sequential(*parts)


def depthwise_separable(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, squeeze: bool = False
) -> nn.Sequential:
    """PP-LCNet's block (arXiv 2109.15099): depthwise convolution, squeeze-and-excitation if asked, pointwise."""
    parts: list[tuple[str, nn.Layer]] = [
        ("dw_conv", conv_norm(in_channels, in_channels, kernel, stride, groups=in_channels, act=nn.Hardswish))
    ]
    if squeeze:
        parts.append(("se", SqueezeExcitation(in_channels)))
    parts.append(("pw_conv", conv_norm(in_channels, out_channels, 1, act=nn.Hardswish)))
    return nn.Sequential(*parts)


def depthwise_pointwise(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, last_act: bool = True
) -> nn.Sequential:
    """PicoDet's block (arXiv 2111.00902): convolution in as many groups as output channels, then pointwise, each with
    batch norm and hard swish (the last one's only with `last_act`)."""
    parts: list[tuple[str, nn.Layer]] = [
        ("dwconv", _conv(in_channels, out_channels, kernel, stride, groups=out_channels)),
        ("bn1", nn.BatchNorm2D(out_channels)),
        ("act1", nn.Hardswish()),
        ("pwconv", _conv(out_channels, out_channels, 1)),
        ("bn2", nn.BatchNorm2D(out_channels)),
    ]
    if last_act:
        parts.append(("act2", nn.Hardswish()))
    return nn.Sequential(*parts)


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Channels of two [B, C, H, W] maps in turn: ShuffleNet's channel shuffle of their concatenation."""
    return paddle.stack([first, second], axis=2).flatten(1, 2)


def upsample(feature: Tensor) -> Tensor:
    """Every pixel four times: [B, C, H, W] -> [B, C, 2H, 2W].

    F.interpolate does the same, but leaves an attribute in exported graphs that neither oneDNN in PaddlePaddle 3.3 nor
    paddle2onnx 2.1 can read.
    """
    return feature.unsqueeze([3, 5]).expand([-1, -1, -1, 2, -1, 2]).flatten(4, 5).flatten(2, 3)


class SqueezeExcitation(nn.Layer):
    """Channel weights from the global mean through a bottleneck (arXiv 1709.01507), by a hard sigmoid of `slope`."""

    def __init__(self, channels: int, slope: float = 1 / 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(channels, channels // 4, 1)
        self.conv2 = nn.Conv2D(channels // 4, channels, 1)
        self.slope = slope

    def forward(self, feature: Tensor) -> Tensor:
        weights = self.conv2(F.relu(self.conv1(F.adaptive_avg_pool2d(feature, 1))))
        return feature * F.hardsigmoid(weights, slope=self.slope)


class ChannelAttention(nn.Layer):
    """Effective squeeze-and-excitation (arXiv 1911.06667) with a sigmoid, then a pointwise convolution."""

    def __init__(self, channels: int, act: type[nn.Layer], names: tuple[str, str] = ("conv", "bn")) -> None:
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1, weight_attr=normal(0.001))
        self.conv = conv_norm(channels, channels, 1, act=act, names=names)

    def forward(self, feature: Tensor) -> Tensor:
        return self.conv(feature * F.sigmoid(self.fc(F.adaptive_avg_pool2d(feature, 1))))


class RepConv(nn.Layer):
    """RepVGG's training form (arXiv 2101.03697) without identity: 3x3 plus 1x1, the latter times a learnt `alpha`."""

    def __init__(self, channels: int, alpha: bool) -> None:
        super().__init__()
        self.alpha = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0)) if alpha else None
        self.conv1 = conv_norm(channels, channels, 3)
        self.conv2 = conv_norm(channels, channels, 1)

    def forward(self, feature: Tensor) -> Tensor:
        pointwise = self.conv2(feature)
        if self.alpha is not None:
            pointwise = self.alpha * pointwise
        return F.swish(self.conv1(feature) + pointwise)


class RepBlock(nn.Layer):
    """3x3 convolution and RepConv, added to the input if `shortcut` (CSPRepResNet, arXiv 2203.16250)."""

    def __init__(self, channels: int, shortcut: bool, alpha: bool) -> None:
        super().__init__()
        self.conv1 = conv_norm(channels, channels, 3, act=nn.Swish)
        self.conv2 = RepConv(channels, alpha)
        self.shortcut = shortcut

    def forward(self, feature: Tensor) -> Tensor:
        out = self.conv2(self.conv1(feature))
        return feature + out if self.shortcut else out


def normal(std: float) -> paddle.ParamAttr:
    """A weight drawn from a normal distribution of mean 0."""
    return paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))


def constant(value: float) -> paddle.ParamAttr:
    """A weight or bias that starts with one value everywhere."""
    return paddle.ParamAttr(initializer=nn.initializer.Constant(value))


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2D:
    return nn.Conv2D(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias_attr=False)
