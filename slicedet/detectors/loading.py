"""load_detector: from a name, a configuration or a plug-in to a Detector."""

from __future__ import annotations

from importlib.metadata import EntryPoints, entry_points
from pathlib import Path

from slicedet.detectors.network import Engine, NetworkDetector
from slicedet.detectors.paddle_models import from_folder, from_pdparams
from slicedet.detectors.protocol import Detector
from slicedet.errors import InvalidSetting, MissingWeights
from slicedet.models import cache, catalogue, paddle_folder
from slicedet.models.config import DEFAULT_THRESHOLD, ModelConfig, at_size
from slicedet.tiling import parse_slice

GROUP = "slicedet.detectors"
"""Entry point group in which packages register detectors: a function (argument, *, weights, device, threshold) ->
Detector."""

ENGINES = ("openvino", "onnxruntime", "paddle")
PRECISIONS = ("f32", "bf16", "f16")


def load_detector(
    model: str,
    weights: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    precision: str = "f32",
    threshold: float | None = None,
    input_size: int | str | tuple[int, int] | None = None,
) -> Detector:
    """A detector by the name of its model, its YAML file, its folder (PaddleDetection's, PaddleX's or an export), or as
    "plugin:argument".

    weights: ONNX, IR, .pdparams or a folder of Paddle's, where another than the configuration's or the official one,
    once pulled, is wanted.
    engine: "openvino", "onnxruntime" or "paddle"; "auto" takes OpenVINO, but Paddle for Paddle's formats
    on other devices than the CPU. device: "cpu", "gpu:0", ... as the engine calls it.
    precision: "f32", the reference; "bf16" or "f16" where engine and device have it. threshold: lowest score returned,
    0..1; None for `default_threshold`. input_size: of the images the network is to see, 640, "640x512" or (640, 512) as
    width x height, so that tiles of that size are not resized. Networks from .pdparams, and dynamic exports, take
    multiples of 32; other files and sizes are run at the model's own size. The detector's provenance says which it is.
    Raises UnknownModel, InvalidConfig, MissingWeights, ModelMismatch, InvalidSetting or MissingDependency.
    """
    if threshold is None:
        threshold = default_threshold(model)
    if not 0 <= threshold <= 1:
        raise InvalidSetting(f"threshold {threshold}: expected a number between 0 and 1")
    if plugins := _plugins(model):
        factory = next(iter(plugins)).load()
        return factory(model.partition(":")[2], weights=weights, device=device, threshold=threshold)
    if engine not in ("auto", *ENGINES):
        raise InvalidSetting(f"engine {engine!r}: expected auto, {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise InvalidSetting(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")

    def onnx_engine(path: Path, config: ModelConfig) -> Engine:
        return _engine(engine, path, config, device, precision)

    size = None if input_size is None else parse_slice(input_size)
    if Path(model).is_dir() and model not in catalogue.names():
        if weights is not None:
            raise InvalidSetting(f"{model}: a folder brings its own weights, {weights} cannot be used with it")
        if not (Path(model) / catalogue.IN_FOLDER).is_file():
            return from_folder(Path(model), engine, device, precision, threshold, onnx_engine, size)
    config = catalogue.find(model)
    path = Path(weights) if weights is not None else config.weights or _pulled(config, engine, size)
    if path is None:
        official = f"; slicedet models pull {model} gets the official ones" if config.downloads else ""
        raise MissingWeights(
            f"{config.name}: its weights do not come with slicedet; name the file with --weights{official}"
        )
    if engine == "paddle" and path.suffix == ".onnx" and (path.parent / "inference.json").is_file():
        path = path.parent  # PaddleX, too, keeps an ONNX file beside the program.
    if path.is_dir():
        return from_folder(path, engine, device, precision, threshold, onnx_engine, size)
    if not path.is_file():
        raise MissingWeights(f"{path}: no such weights file")
    if path.suffix == ".pdparams":
        return from_pdparams(config, path, engine, device, precision, threshold, onnx_engine, size)
    if engine == "paddle":
        raise InvalidSetting(f"{path}: the paddle engine reads folders of Paddle models and .pdparams")
    provenance = {"weights": path.name, "weights_sha256": cache.digest(path)}
    if config.input.dynamic:
        config = at_size(config, size)
    return NetworkDetector(config, onnx_engine(path, config), threshold, provenance)


def default_threshold(model: str) -> float:
    """The lowest score that is worth keeping, by the configuration of a model as `load_detector` takes it; 0.25 where
    it says nothing.

    Raises UnknownModel, InvalidConfig or MissingWeights.
    """
    if _plugins(model):
        return DEFAULT_THRESHOLD
    if Path(model).is_dir() and model not in catalogue.names() and not (Path(model) / catalogue.IN_FOLDER).is_file():
        return paddle_folder.read(Path(model)).config.threshold
    return catalogue.find(model).threshold


def _plugins(model: str) -> EntryPoints | None:
    """The detectors that packages have registered for "plugin:argument"."""
    plugins = entry_points(group=GROUP, name=model.partition(":")[0])
    return plugins if plugins and not Path(model).exists() else None


def _pulled(config: ModelConfig, engine: str, size: tuple[int, int] | None) -> Path | None:
    """The official weights that have been downloaded, a file or a Paddle folder: of those the engine reads, the first
    that come in the size wanted."""
    kinds = [kind for kind in config.downloads if engine != "paddle" or kind != "onnx"]
    if at_size(config, size) != config:
        kinds.sort(key=lambda kind: kind != "pdparams")
    found = (cache.find(config, kind) for kind in kinds)
    return next((path for path in found if path is not None), None)


def _engine(name: str, path: Path, config: ModelConfig, device: str, precision: str) -> Engine:
    """An engine that reads ONNX."""
    if name == "onnxruntime":
        from slicedet.detectors.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, config, device, precision)
    from slicedet.detectors.openvino import OpenVinoEngine

    return OpenVinoEngine(path, config, device, precision)
