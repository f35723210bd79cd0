"""load_detector: from a name, a configuration or a plug-in to a Detector."""

from __future__ import annotations

import os
import shlex
import warnings
from dataclasses import replace
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

from slicedet.detectors.choice import ENGINES, PRECISIONS, EngineChoice, circumstances, precisions, recall
from slicedet.detectors.network import Engine, NetworkDetector
from slicedet.detectors.paddle_models import from_folder, from_pdparams
from slicedet.detectors.protocol import Detector, check_score
from slicedet.errors import InvalidSetting, MissingWeights, ModelWarning, UnknownModel
from slicedet.models import cache, catalogue, paddle_folder
from slicedet.models.config import DEFAULT_THRESHOLD, ModelConfig, at_size
from slicedet.models.paddle_folder import PaddleModel
from slicedet.tiling import parse_slice

_WEIGHTS = (".onnx", ".xml", ".bin", ".pdparams", ".pdiparams", ".pt", ".pth")

GROUP = "slicedet.detectors"
"""Entry point group in which packages register detectors: a function (argument, *, weights, device, threshold) ->
Detector."""


def load_detector(
    model: str | Path,
    weights: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    precision: str = "f32",
    threshold: float | None = None,
    input_size: int | str | tuple[int, int] | None = None,
    streams: int | None = None,
) -> Detector:
    """A detector by the name of its model, its YAML file, its folder (PaddleDetection's, PaddleX's or an export), or as
    "plugin:argument".

    weights: ONNX, IR, .pdparams or a folder of Paddle's, where another than the configuration's or the official one,
    once pulled, is wanted.
    engine: "openvino", "onnxruntime" or "paddle"; "auto" takes OpenVINO, but Paddle for Paddle's formats on other
    devices than the CPU. device: "cpu", "gpu:0", ... as the engine calls it.
    precision: "f32", the reference; "bf16" or "f16" where engine and device have it; "auto" for what `slicedet bench`
    chose on this machine, for the engine named or, if that is "auto" too, of all engines; f32, with a warning, where it
    has chosen nothing.
    threshold: lowest score returned, 0..1; None for `default_threshold`.
    input_size: of the images the network is to see, 640, "640x512" or (640, 512) as width x height, so that tiles of
    that size are not resized. Networks from .pdparams, and dynamic exports, take multiples of 32; other files and sizes
    are run at the model's own size.
    streams: requests at the same time, not for Paddle; None for as many as the engine likes, or as were chosen along
    with the precision.
    The detector's provenance says what it is run with.
    Raises UnknownModel, InvalidConfig, MissingWeights, ModelMismatch, InvalidSetting or MissingDependency.
    """
    if not isinstance(model, str | Path) or not str(model):
        raise InvalidSetting(f"model {model!r}: expected a name, a YAML file or a folder, such as 'aerial-vehicles'")
    if not isinstance(weights, str | Path | None):
        raise InvalidSetting(f"weights {weights!r}: expected the path of a file")
    model = str(model)
    if threshold is None:
        threshold = default_threshold(model, weights)
    check_score(threshold)
    if registered := plugins(model):
        factory = next(iter(registered)).load()
        return factory(model.partition(":")[2], weights=weights, device=device, threshold=threshold)
    if engine not in ("auto", *ENGINES):
        raise InvalidSetting(f"engine {engine!r}: expected auto, {', '.join(ENGINES)}")
    if precision not in ("auto", *PRECISIONS):
        raise InvalidSetting(f"precision {precision!r}: expected auto, {', '.join(PRECISIONS)}")
    if not isinstance(device, str):
        raise InvalidSetting(f"device {device!r}: expected a name, such as 'cpu' or 'gpu:0'")
    if streams is not None and (not isinstance(streams, int) or streams < 1):
        raise InvalidSetting(f"streams {streams!r}: expected a whole number, at least 1")
    device = device.lower()
    size = None if input_size is None else parse_slice(input_size)
    choice = EngineChoice(engine, precision, streams)
    if precision == "auto":
        choice = _chosen(choice, model, weights, device, size)
    detector = _network(model, weights, choice, device, threshold, size)
    if choice.streams is not None and detector.provenance["engine"] == "paddle":
        raise InvalidSetting(f"streams {choice.streams}: the paddle engine runs one request at a time")
    return detector


def _network(
    model: str,
    weights: str | Path | None,
    choice: EngineChoice,
    device: str,
    threshold: float,
    size: tuple[int, int] | None,
) -> NetworkDetector:
    """The detector of a network; see `load_detector`."""

    def onnx_engine(path: Path, config: ModelConfig) -> Engine:
        return _engine(choice, path, config, device)

    config, path = _located(model, weights, choice.engine, size)
    if config is None or path.is_dir():
        return from_folder(path, config, choice, device, threshold, onnx_engine, size)
    if path.suffix == ".pdparams":
        return from_pdparams(config, path, choice, device, threshold, onnx_engine, size)
    if choice.engine == "paddle":
        raise InvalidSetting(f"{path}: the paddle engine reads folders of Paddle models and .pdparams")
    provenance = {"weights": path.name, "weights_sha256": cache.digest(path)}
    if config.input.dynamic:
        config = at_size(config, size)
    return NetworkDetector(config, onnx_engine(path, config), threshold, provenance)


def _located(
    model: str, weights: str | Path | None, engine: str, size: tuple[int, int] | None
) -> tuple[ModelConfig | None, Path]:
    """The configuration of a model and its weights for an engine, which may be a folder; None for a folder that the
    user names, as model or as weights: it says itself what it is and how it is used."""
    if Path(model).is_dir() and not catalogue.knows(model):
        if weights is not None:
            raise InvalidSetting(f"{model}: a folder brings its own weights, {weights} cannot be used with it")
        if not (Path(model) / catalogue.IN_FOLDER).is_file():
            return None, Path(model)
    config = _configuration(model)
    path = Path(weights) if weights is not None else config.weights or _pulled(config, engine, size)
    if path is None:
        kinds = readable(config, engine)
        chosen = "" if kinds[:1] == list(config.downloads)[:1] else f" --kind {kinds[0]}" if kinds else ""
        official = f"; slicedet models pull {model}{chosen} gets the official ones" if kinds else ""
        raise MissingWeights(
            f"{config.name}: its weights do not come with slicedet; name the file with --weights{official}"
        )
    if weights is not None and path.is_dir():
        return None, path
    if engine == "paddle":
        path = paddle_folder.around(path)
    if not path.exists():
        raise MissingWeights(f"{path}: no such weights file")
    return config, path


def circumstances_of(
    model: str, weights: str | Path | None, device: str, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """What a choice for a model depends on, as for `choice.recall`, by the weights that `load_detector` takes for it.

    Raises what `load_detector` does of a model that is not there.
    """
    config, path = _located(model, weights, "auto", size)
    if config is None:
        config = _read_quietly(path).config
    if path.is_dir():
        _, path, _ = paddle_folder.files(path)
    return circumstances(config.name, cache.digest(path), device)


def _chosen(
    asked: EngineChoice, model: str, weights: str | Path | None, device: str, size: tuple[int, int] | None
) -> EngineChoice:
    """What precision "auto" stands for: what was chosen on this machine, else f32."""
    chosen = recall(circumstances_of(model, weights, device, size), asked.engine)
    if chosen is None:
        command = ["slicedet", "bench", model, *(["--weights", str(weights)] if weights is not None else [])]
        command += ["--device", device] if device != "cpu" else []
        command += ["--slice", "x".join(map(str, size))] if size is not None else []
        warnings.warn(
            f"{model}: nothing is chosen yet for precision auto on this machine, so it is f32; "
            f"{shlex.join(command)} would choose",
            ModelWarning,
            stacklevel=3,
        )
        return replace(asked, precision="f32")
    return replace(chosen, streams=chosen.streams if asked.streams is None else asked.streams)


def default_threshold(model: str, weights: str | Path | None = None) -> float:
    """The lowest score that is worth keeping, by what is said of a model as `load_detector` takes it; 0.25 where
    nothing is.

    Raises UnknownModel, InvalidConfig or MissingWeights.
    """
    config = _described(model, weights)
    return DEFAULT_THRESHOLD if config is None else config.threshold


def _described(model: str, weights: str | Path | None = None) -> ModelConfig | None:
    """How a model as `load_detector` takes it is used, by its configuration or its folder; None for a plug-in's.

    Raises UnknownModel, InvalidConfig or MissingWeights.
    """
    if plugins(model):
        return None
    if weights is not None and Path(weights).is_dir():
        return _read_quietly(Path(weights)).config
    if Path(model).is_dir() and not catalogue.knows(model) and not (Path(model) / catalogue.IN_FOLDER).is_file():
        return _read_quietly(Path(model)).config
    return _configuration(model)


def input_size_for(
    model: str, weights: str | Path | None, slice: int | str | tuple[int, int] | None
) -> tuple[int, int] | None:
    """The `input_size` for tiles of a size, so that a network that can takes them as they are: theirs; None, which
    leaves it to the model, for tiles that are resized anyway, to show objects as large as in training."""
    config = _described(model, weights)
    return None if slice is None or config is None or config.slice is not None else parse_slice(slice)


def _read_quietly(folder: Path) -> PaddleModel:
    """A folder that is only asked what it is: what there is to warn of is said when it is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        return paddle_folder.read(folder)


def _configuration(model: str) -> ModelConfig:
    """As `catalogue.find`; paths that lead to no configuration are told as such."""
    if Path(model).suffix.lower() in _WEIGHTS and not Path(model).is_dir():
        raise UnknownModel(
            f"{model}: a weights file; name a configuration with -m (a model's name, a YAML file), and this file with "
            "--weights"
        )
    if (os.sep in model or "/" in model) and not Path(model).exists():
        raise UnknownModel(f"{model}: no such file or folder")
    return catalogue.find(model)


def plugins(model: str) -> EntryPoints | None:
    """The detectors that packages have registered for "plugin:argument"; None where it is another kind of model."""
    found = entry_points(group=GROUP, name=model.partition(":")[0])
    return found if found and not Path(model).exists() else None


def _pulled(config: ModelConfig, engine: str, size: tuple[int, int] | None) -> Path | None:
    """The official weights that have been downloaded, a file or a Paddle folder: of those the engine reads, the first
    that come in the size wanted."""
    kinds = readable(config, engine)
    if at_size(config, size) != config:
        kinds.sort(key=lambda kind: kind != "pdparams")
    found = (cache.find(config, kind) for kind in kinds)
    return next((path for path in found if path is not None), None)


def readable(config: ModelConfig, engine: str) -> list[str]:
    """The kinds of official files that an engine reads."""
    return [kind for kind in config.downloads if engine != "paddle" or kind != "onnx"]


def _engine(choice: EngineChoice, path: Path, config: ModelConfig, device: str) -> Engine:
    """An engine that reads ONNX."""
    if choice.engine == "onnxruntime":
        from slicedet.detectors.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, config, device, choice.precision, choice.streams)
    from slicedet.detectors.openvino import OpenVinoEngine

    # OpenVINO itself would run in f32 and say nothing.
    if choice.precision not in (present := precisions("openvino", device)):
        raise InvalidSetting(f"precision {choice.precision}: OpenVINO has {', '.join(present)} on this {device}")
    return OpenVinoEngine(path, config, device, choice.precision, choice.streams)
