"""Folders of Paddle models as PaddleDetection and PaddleX write them, made of slicedet's networks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from slicedet import networks
from slicedet.models import catalogue
from slicedet.models.paddle_folder import LAYOUTS

import paddle  # isort: skip

SMALL_PICODET, SMALL_SOD = (str(Path(__file__).with_name(f"small_{name}.yaml")) for name in ("picodet", "ppyoloe"))
"""Models of few layers, by their files."""

NMS = {"score_threshold": 0.025, "nms_threshold": 0.6, "nms_top_k": 1000, "keep_top_k": 100}


@functools.cache
def lively(name: str) -> networks.Network:
    """A network whose scores spread and depend on the image, the same at every run."""
    config = catalogue.find(name)
    assert config.network is not None
    network = networks.assemble(config.network, len(config.categories))
    rng = np.random.default_rng(0)
    state = network.state_dict()
    values = {}
    for key, value in state.items():
        if "proj" in key and "head" in key:
            continue
        noise = rng.standard_normal(value.shape)
        if value.ndim == 4:
            last = key.startswith(("head.head_", "yolo_head.pred_"))
            noise *= np.sqrt((1 if last else 1.5) / np.prod(value.shape[1:]))
        elif value.ndim == 2:
            noise /= np.sqrt(value.shape[0])
        elif key.endswith(("weight", "alpha")):
            noise = 1 + 0.1 * np.abs(noise)
        else:
            noise *= 0.05
        values[key] = noise.astype("float32")
    network.set_state_dict({**state, **values})
    _normalise(network, rng)
    return network


def _normalise(network: networks.Network, rng: np.random.Generator) -> None:
    """Sets the statistics of all batch norms to those of a batch, without which nothing of an image would reach the
    last layers."""
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 0.0
    paddle.seed(0)  # For dropout.
    network.train()
    with paddle.no_grad():
        coarse, fine = (rng.standard_normal((4, 3, size, size), "float32") for size in (9, 160))
        smooth = paddle.nn.functional.interpolate(paddle.to_tensor(coarse), [160, 160], mode="bicubic")
        network(smooth + 0.5 * paddle.to_tensor(fine))
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm._momentum = momentum
        # What hardly varies in that batch is not to drown the rest in another.
        norm._variance.set_value(paddle.clip(norm._variance, min=0.4))


class WithSuppression(paddle.nn.Layer):
    """What PaddleDetection exports: boxes in original pixels, suppressed; and, as it enlarges maps, with a scale in
    doubles."""

    def __init__(self, network: networks.Network, nms: dict[str, Any] | None) -> None:
        super().__init__()
        self.network = network
        self.nms = nms

    def forward(self, image: paddle.Tensor, scale_factor: paddle.Tensor) -> Any:
        image = paddle.nn.functional.avg_pool2d(paddle.nn.functional.interpolate(image, scale_factor=2.0), 2)
        boxes, scores = self.network(image)
        y, x = paddle.split(scale_factor, 2, axis=1)
        boxes = boxes / paddle.concat([x, y, x, y], axis=1).unsqueeze(1)
        if self.nms is None:
            return boxes, scores
        return suppression(boxes, scores, **self.nms)


class RawHeads(paddle.nn.Layer):
    """PicoDet without post-processing: of each level class scores, then of each level distance logits."""

    def __init__(self, network: networks.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: paddle.Tensor) -> Any:
        head = self.network.detection_head()
        levels = head(self.network.neck(self.network.backbone(image)))
        classes = [head.scores(level[0]).flatten(2).transpose([0, 2, 1]) for level in levels]
        return classes + [level[1].flatten(2).transpose([0, 2, 1]) for level in levels]


def suppression(
    boxes: paddle.Tensor,
    scores: paddle.Tensor,
    score_threshold: float,
    nms_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Paddle's own operator: rows and their number per image."""
    rows, _, counts = paddle._C_ops.multiclass_nms3(
        boxes, scores, None, score_threshold, nms_top_k, keep_top_k, nms_threshold, True, 1.0, -1
    )
    return rows, counts


def infer_cfg(name: str, labels: list[str] | None = None, **further: Any) -> dict[str, Any]:
    """The YAML of a catalogue model, as PaddleDetection writes it."""
    config = catalogue.find(name)
    steps: list[dict[str, Any]] = [
        {"interp": 2, "keep_ratio": False, "target_size": list(config.input.size[::-1]), "type": "Resize"}
    ]
    mean, std = list(config.input.mean), list(config.input.std)
    steps.append({"is_scale": True, "mean": mean, "std": std, "type": "NormalizeImage"})
    steps.append({"type": "Permute"})
    return {
        "mode": "paddle",
        "draw_threshold": 0.5,
        "metric": "COCO",
        "use_dynamic_shape": False,
        "Preprocess": steps,
        "label_list": labels if labels is not None else list(config.categories),
        **further,
    }


def make(folder: Path, name: str, paddlex: bool = False, nms: dict[str, Any] | None = NMS, **further: Any) -> None:
    """Writes a model's folder in either layout."""
    scale = paddle.static.InputSpec([None, 2], "float32", "scale_factor")
    if paddlex:
        further["Global"] = {"model_name": "Some-Model"}
    _save(WithSuppression(lively(name), nms), folder, name, "inference" if paddlex else "model", [scale], further)


def make_raw_heads(folder: Path, name: str) -> None:
    """Writes a PicoDet's folder as PaddleDetection does for other engines."""
    strides = lively(name).detection_head().strides
    _save(RawHeads(lively(name)), folder, name, "model", [], {"NMS": NMS, "fpn_stride": strides})


def _save(exported: Any, folder: Path, name: str, stem: str, inputs: list[Any], further: dict[str, Any]) -> None:
    width, height = catalogue.find(name).input.size
    image = paddle.static.InputSpec([None, 3, height, width], "float32", "image")
    exported.eval()
    paddle.jit.save(paddle.jit.to_static(exported, [image, *inputs], full_graph=True), str(folder / stem))
    (yaml_name,) = (each for known, each in LAYOUTS if known == stem)
    (folder / yaml_name).write_text(yaml.safe_dump(infer_cfg(name, **further), sort_keys=False))
