"""PP-LCNet (arXiv 2109.15099)."""

from __future__ import annotations

from paddle import Tensor, nn

from slicedet.networks.layers import conv_norm, depthwise_separable, make_divisible

# Of each block: kernel, output channels at scale 1, stride, and whether it has squeeze-and-excitation.
_GROUPS = {
    "blocks2": [(3, 32, 1, False)],
    "blocks3": [(3, 64, 2, False), (3, 64, 1, False)],
    "blocks4": [(3, 128, 2, False), (3, 128, 1, False)],
    "blocks5": [(3, 256, 2, False), *[(5, 256, 1, False)] * 5],
    "blocks6": [(5, 512, 2, True), (5, 512, 1, True)],
}


class LCNet(nn.Layer):
    """Depthwise separable convolutions with hard swish; gives strides 8, 16 and 32.

    scale: factor on all channels, which are then rounded to multiples of 8.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        channels = make_divisible(16 * scale, 8)
        self.conv1 = conv_norm(3, channels, 3, stride=2, act=nn.Hardswish)
        ends = []
        for name, blocks in _GROUPS.items():
            layers = []
            for kernel, width, stride, squeeze in blocks:
                out_channels = make_divisible(width * scale, 8)
                layers.append(depthwise_separable(channels, out_channels, kernel, stride, squeeze))
                channels = out_channels
            self.add_sublayer(name, nn.Sequential(*layers))
            ends.append(channels)
        self.out_channels = ends[-3:]

    def forward(self, images: Tensor) -> list[Tensor]:
        stride_8 = self.blocks4(self.blocks3(self.blocks2(self.conv1(images))))
        stride_16 = self.blocks5(stride_8)
        return [stride_8, stride_16, self.blocks6(stride_16)]
