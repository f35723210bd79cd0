"""LC-PAN, the neck of PicoDet's second version: CSP-PAN with PP-LCNet's blocks."""

from __future__ import annotations

from paddle import nn

from slicedet.networks.layers import depthwise_separable
from slicedet.networks.necks.csp_pan import CSPPAN


class LCPAN(CSPPAN):
    """Maps of strides 8, 16, 32 -> maps of strides 8, 16, 32, 64, all with `channels` channels."""

    def _block(self, channels: int) -> nn.Layer:
        return nn.Sequential(
            depthwise_separable(2 * channels, 2 * channels, 5), depthwise_separable(2 * channels, channels, 5)
        )
