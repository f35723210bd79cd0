"""Models in Paddle's formats on any engine: as they are, or converted to ONNX."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from slicedet.detectors.choice import EngineChoice
from slicedet.detectors.network import Engine, NetworkDetector
from slicedet.errors import MissingDependency, ModelWarning
from slicedet.models import conversion, network_folder, paddle_folder
from slicedet.models.cache import digest
from slicedet.models.config import ModelConfig, at_size, used_as
from slicedet.models.paddle_folder import PaddleModel

OnnxEngine = Callable[[Path, ModelConfig], Engine]
Source = Callable[[], AbstractContextManager[PaddleModel]]


def from_folder(
    folder: Path,
    asked: ModelConfig | None,
    choice: EngineChoice,
    device: str,
    threshold: float,
    onnx_engine: OnnxEngine,
    size: tuple[int, int] | None,
) -> NetworkDetector:
    """The detector of a folder with a Paddle model; see `load_detector`.

    asked: the configuration whose weights the folder is; how the network is used it says before the folder does.
    """
    model = paddle_folder.read(folder)
    if asked is not None:
        model = replace(model, config=used_as(model.config, asked))
    if model.config.input.dynamic:
        model = replace(model, config=at_size(model.config, size))
    cut = model.cut if asked is None or model.cut is None else used_as(model.cut, asked)
    hashes = [digest(path) for path in (model.program_path, model.params_path)]
    provenance = {"weights": model.params_path.name, "weights_sha256": hashes[1], "program_sha256": hashes[0]}
    config, runs = _engine(lambda: nullcontext(model), model.config, cut, hashes, choice, device, onnx_engine)
    return NetworkDetector(config, runs, threshold, provenance)


def from_pdparams(
    config: ModelConfig,
    weights: Path,
    choice: EngineChoice,
    device: str,
    threshold: float,
    onnx_engine: OnnxEngine,
    size: tuple[int, int] | None,
) -> NetworkDetector:
    """The detector of slicedet's own network with a .pdparams file; see `load_detector`."""
    config = at_size(config, size)
    whole = network_folder.exported(config)
    weights_hash = digest(weights)

    @contextmanager
    def source() -> Iterator[PaddleModel]:
        with tempfile.TemporaryDirectory() as folder:
            yield network_folder.save(network_folder.built(config, weights), config, Path(folder))

    keys = [weights_hash, json.dumps([config.network, len(config.categories), asdict(config.input)], sort_keys=True)]
    _, runs = _engine(source, whole, whole, keys, choice, device, onnx_engine)
    return NetworkDetector(whole, runs, threshold, {"weights": weights.name, "weights_sha256": weights_hash})


def _engine(
    source: Source,
    whole: ModelConfig,
    cut: ModelConfig | None,
    keys: list[str],
    choice: EngineChoice,
    device: str,
    onnx_engine: OnnxEngine,
) -> tuple[ModelConfig, Engine]:
    """The engine, and what the model is to it: `whole` by Paddle, unless boxes vote; `cut`, without suppression, by the
    others."""
    automatic = choice.engine == "auto"
    if choice.engine == "paddle" or (automatic and device != "cpu"):
        return _by_paddle(source, whole, cut, device, choice.precision)
    try:
        if cut is None:
            raise conversion.ConversionFailed(f"{whole.name}: only programs in the .json format are converted")
        path = conversion.cached(*keys)
        if not path.is_file():
            _convert(source, cut, path)
        return cut, onnx_engine(path, cut)
    except MissingDependency as error:
        if not automatic or conversion.available():
            raise
        warnings.warn(
            f"{whole.name}: {error}; the paddle engine runs it, several times slower", ModelWarning, stacklevel=2
        )
    except conversion.ConversionFailed as error:
        warnings.warn(f"{error}; the paddle engine runs it", ModelWarning, stacklevel=2)
    return _by_paddle(source, whole, cut, device, choice.precision)


def _by_paddle(
    source: Source, whole: ModelConfig, cut: ModelConfig | None, device: str, precision: str
) -> tuple[ModelConfig, Engine]:
    from slicedet.detectors.paddle import PaddleEngine

    with source() as model, tempfile.TemporaryDirectory() as folder:
        if whole.output.layout != "rows" or cut is None or model.program is None:
            return whole, PaddleEngine(model, device, precision)
        if whole.box_voting is None and not whole.half_turn and cut.nms == model.program.nms:
            return whole, PaddleEngine(model, device, precision)
        # Boxes that vote, or come from another look, are among those that the suppression inside would remove; and it
        # may be another one that is asked for.
        return cut, PaddleEngine(conversion.cut(model, model.program, cut, Path(folder)), device, precision)


def _convert(source: Source, cut: ModelConfig, path: Path) -> None:
    from slicedet.detectors.openvino import OpenVinoEngine
    from slicedet.detectors.paddle import PaddleEngine

    with source() as model:
        conversion.convert(
            model,
            cut,
            path,
            lambda part: PaddleEngine(part, "cpu", "f32"),
            lambda made: OpenVinoEngine(made, cut, "cpu", "f32"),
        )
