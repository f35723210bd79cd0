"""A Paddle model that finds red, green and blue, in a folder as PaddleX wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

import paddle  # isort: skip

NAME = "PicoDet-XS"
LABELS = ["red", "green", "blue"]
SIZE = 320
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CELL = 16


class Colours(paddle.nn.Layer):
    """Says of each cell of 16 pixels how red, green and blue it is, with boxes larger than the cells."""

    def __init__(self) -> None:
        super().__init__()
        y, x = np.mgrid[0:SIZE:CELL, 0:SIZE:CELL].reshape(2, -1) + CELL / 2
        half = np.random.default_rng(0).uniform(10, 24, (2, len(x)))
        boxes = np.stack([x - half[0], y - half[1], x + half[0], y + half[1]], axis=1)
        self.register_buffer("grid", paddle.to_tensor(boxes.astype("float32")[None]))

    def forward(self, image: paddle.Tensor, scale_factor: paddle.Tensor) -> Any:
        cells = paddle.nn.functional.avg_pool2d(image, CELL).flatten(2)
        scores = paddle.nn.functional.sigmoid(cells - 0.5 * paddle.sum(cells, axis=1, keepdim=True))
        y, x = paddle.split(scale_factor, 2, axis=1)
        boxes = (self.grid + 0 * scores[:, :1].transpose([0, 2, 1])) / paddle.concat([x, y, x, y], axis=1).unsqueeze(1)
        rows, _, counts = paddle._C_ops.multiclass_nms3(boxes, scores, None, 0.025, 1000, 100, 0.05, True, 1.0, -1)
        return rows, counts


def make_model(folder: Path, **further: Any) -> Path:
    """Writes the folder; `further` are entries of its YAML."""
    image = paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", "image")
    scale = paddle.static.InputSpec([None, 2], "float32", "scale_factor")
    colours = Colours()
    colours.eval()
    paddle.jit.save(paddle.jit.to_static(colours, [image, scale], full_graph=True), str(folder / "inference"))
    content = {
        "mode": "paddle",
        "draw_threshold": 0.5,
        "metric": "COCO",
        "Global": {"model_name": NAME},
        "Preprocess": [
            {"interp": 2, "keep_ratio": False, "target_size": [SIZE, SIZE], "type": "Resize"},
            {"is_scale": True, "mean": MEAN, "std": STD, "type": "NormalizeImage"},
            {"type": "Permute"},
        ],
        "label_list": LABELS,
        **further,
    }
    (folder / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder
