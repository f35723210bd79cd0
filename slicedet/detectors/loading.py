"""load_detector: from a name, a configuration or a plug-in to a Detector."""

from __future__ import annotations

import hashlib
from importlib.metadata import entry_points
from pathlib import Path

from slicedet.detectors.network import Engine, NetworkDetector
from slicedet.detectors.protocol import Detector
from slicedet.errors import InvalidSetting, MissingWeights
from slicedet.models import catalogue
from slicedet.models.config import ModelConfig

GROUP = "slicedet.detectors"
"""Entry point group in which packages register detectors: a function (argument, *, weights, device, threshold) ->
Detector."""

ENGINES = ("openvino", "onnxruntime")
PRECISIONS = ("f32", "bf16", "f16")


def load_detector(
    model: str,
    weights: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    precision: str = "f32",
    threshold: float = 0.25,
) -> Detector:
    """A detector by the name of its model, its YAML file, or as "plugin:argument".

    weights: the weights file, where the configuration names none or another is wanted.
    engine: "openvino", "onnxruntime" or "auto", the first. device: "cpu", "gpu", ... as the engine calls it.
    precision: "f32", the reference; "bf16" or "f16" where engine and device have it. threshold: lowest score returned,
    0..1.
    Raises UnknownModel, InvalidConfig, MissingWeights, ModelMismatch, InvalidSetting or MissingDependency.
    """
    if not 0 <= threshold <= 1:
        raise InvalidSetting(f"threshold {threshold}: expected a number between 0 and 1")
    scheme, _, argument = model.partition(":")
    plugins = entry_points(group=GROUP, name=scheme)
    if plugins and not Path(model).exists():
        factory = next(iter(plugins)).load()
        return factory(argument, weights=weights, device=device, threshold=threshold)
    config = catalogue.find(model)
    path = Path(weights) if weights is not None else config.weights
    if path is None:
        official = f"; slicedet models pull {model} gets the official ones" if config.downloads else ""
        raise MissingWeights(
            f"{config.name}: its weights do not come with slicedet; name the file with --weights{official}"
        )
    if not path.is_file():
        raise MissingWeights(f"{path}: no such weights file")
    provenance = {"weights": path.name, "weights_sha256": _sha256(path)}
    return NetworkDetector(config, _engine(engine, path, config, device, precision), threshold, provenance)


def _engine(name: str, path: Path, config: ModelConfig, device: str, precision: str) -> Engine:
    if precision not in PRECISIONS:
        raise InvalidSetting(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if name in ("auto", "openvino"):
        from slicedet.detectors.openvino import OpenVinoEngine

        return OpenVinoEngine(path, config, device, precision)
    if name == "onnxruntime":
        from slicedet.detectors.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, config, device, precision)
    raise InvalidSetting(f"engine {name!r}: expected auto, {', '.join(ENGINES)}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
