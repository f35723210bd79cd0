"""Folders as those of paddle_folders, of networks with few layers: small_picodet.yaml and small_ppyoloe.yaml."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from paddle_folders import NMS, RawHeads, WithSuppression, infer_cfg

from slicedet import networks
from slicedet.models import catalogue
from slicedet.models.paddle_folder import LAYOUTS

import paddle  # isort: skip

SMALL_PICODET, SMALL_SOD = (str(Path(__file__).with_name(f"small_{name}.yaml")) for name in ("picodet", "ppyoloe"))


@functools.cache
def small_lively(path: str) -> networks.Network:
    """The network of a YAML file, with scores that spread, the same at every run."""
    config = catalogue.find(path)
    assert config.network is not None
    paddle.seed(0)
    network = networks.assemble(config.network, len(config.categories))
    rng = np.random.default_rng(0)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.0  # Its statistics are those of one batch.
    network.train()
    with paddle.no_grad():
        network(paddle.to_tensor(rng.standard_normal((4, 3, *config.input.size[::-1]), "float32")))
    network.eval()
    for name, value in network.state_dict().items():
        if name.startswith(("head.head_", "yolo_head.pred_")):  # Biases make all scores low.
            scale = np.sqrt(0.25 / np.prod(value.shape[1:])) if value.ndim == 4 else 0
            value.set_value((scale * rng.standard_normal(value.shape)).astype("float32"))
    return network


def make_small(
    folder: Path, path: str, paddlex: bool = False, nms: dict[str, Any] | None = NMS, **further: Any
) -> None:
    """Writes the folder of a YAML file's network in either layout."""
    exported = WithSuppression(small_lively(path), nms)
    scale = paddle.static.InputSpec([None, 2], "float32", "scale_factor")
    if paddlex:
        further["Global"] = {"model_name": "Some-Model"}
    _save(exported, folder, path, "inference" if paddlex else "model", [scale], further)


def make_small_raw_heads(folder: Path, path: str) -> None:
    """Writes the folder of a YAML file's PicoDet as PaddleDetection does for other engines."""
    exported = RawHeads(small_lively(path))
    strides = small_lively(path).detection_head().strides
    _save(exported, folder, path, "model", [], {"NMS": NMS, "fpn_stride": strides})


def _save(exported: Any, folder: Path, path: str, stem: str, inputs: list[Any], further: dict[str, Any]) -> None:
    width, height = catalogue.find(path).input.size
    image = paddle.static.InputSpec([None, 3, height, width], "float32", "image")
    exported.eval()
    paddle.jit.save(paddle.jit.to_static(exported, [image, *inputs], full_graph=True), str(folder / stem))
    (yaml_name,) = (name for known, name in LAYOUTS if known == stem)
    (folder / yaml_name).write_text(yaml.safe_dump(infer_cfg(path, **further), sort_keys=False))
