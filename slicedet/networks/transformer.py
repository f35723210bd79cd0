"""The transformer encoder on the coarsest feature map of PP-YOLOE+ SOD."""

from __future__ import annotations

import math

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

_HEADS = 4
_HIDDEN = 2048
_DROPOUT = 0.1


class TransformerEncoder(nn.Layer):
    """Layers of self-attention over the pixels of a map, with sine-cosine positions (arXiv 1706.03762).

    [B, C, H, W] -> [B, C, H, W]; C divisible by 4. The positions are computed for every size, so nothing in the state
    dict depends on H and W.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.layers = nn.LayerList([_EncoderLayer(channels) for _ in range(count)])
        self.channels = channels

    def forward(self, feature: Tensor) -> Tensor:
        height, width = feature.shape[2], feature.shape[3]
        tokens = feature.flatten(2).transpose([0, 2, 1])
        positions = position_embedding(height, width, self.channels)
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens.transpose([0, 2, 1]).reshape([-1, self.channels, height, width])


class _EncoderLayer(nn.Layer):
    """Attention and feed-forward, each added to its input and normalised after that."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.self_attn = _SelfAttention(channels)
        self.linear1 = nn.Linear(channels, _HIDDEN)
        self.linear2 = nn.Linear(_HIDDEN, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        attended = F.dropout(self.self_attn(tokens, positions), _DROPOUT, training=self.training)
        tokens = self.norm1(tokens + attended)
        hidden = F.dropout(F.gelu(self.linear1(tokens)), _DROPOUT, training=self.training)
        return self.norm2(tokens + F.dropout(self.linear2(hidden), _DROPOUT, training=self.training))


class _SelfAttention(nn.Layer):
    """Multi-head attention: queries and keys see the positions, values do not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        xavier = nn.initializer.XavierUniform()
        self.in_proj_weight = self.create_parameter([channels, 3 * channels], default_initializer=xavier)
        self.in_proj_bias = self.create_parameter([3 * channels], is_bias=True)
        self.out_proj = nn.Linear(channels, channels)
        self.channels = channels

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        placed = tokens + positions
        query, key, value = (
            self._heads(source, part * self.channels) for part, source in enumerate((placed, placed, tokens))
        )
        scale = 1 / math.sqrt(self.channels // _HEADS)
        weights = F.softmax(paddle.matmul(query * scale, key, transpose_y=True))
        weights = F.dropout(weights, _DROPOUT, training=self.training)
        mixed = paddle.matmul(weights, value).transpose([0, 2, 1, 3])
        return self.out_proj(mixed.flatten(2))

    def _heads(self, source: Tensor, start: int) -> Tensor:
        """One of the three projections, [B, heads, tokens, C / heads]."""
        weight = self.in_proj_weight[:, start : start + self.channels]
        projected = F.linear(source, weight, self.in_proj_bias[start : start + self.channels])
        return projected.reshape([0, 0, _HEADS, self.channels // _HEADS]).transpose([0, 2, 1, 3])


def position_embedding(height: int, width: int, channels: int) -> Tensor:
    """Positions of the pixels of a map, row by row: [1, height * width, channels] = sin y, cos y, sin x, cos x.

    Equal to PaddleDetection's table for square maps, the only ones it trains on. For others, PaddleDetection's table
    runs column by column beside tokens that run row by row; here every token has its own position.
    """
    quarter = channels // 4
    frequencies = paddle.to_tensor([10000.0 ** (-place / quarter) for place in range(quarter)] * 2, dtype="float32")
    # Cosines as shifted sines: with oneDNN, PaddlePaddle 3.3 takes the cosine of what the sine has overwritten.
    shifts = paddle.to_tensor([0.0] * quarter + [math.pi / 2] * quarter, dtype="float32")
    down, across = (
        (paddle.arange(count, dtype="float32").unsqueeze(1) * frequencies + shifts).sin() for count in (height, width)
    )
    shape = [height, width, 2 * quarter]
    table = paddle.concat([down.unsqueeze(1).expand(shape), across.unsqueeze(0).expand(shape)], axis=2)
    return table.flatten(0, 1).unsqueeze(0)
