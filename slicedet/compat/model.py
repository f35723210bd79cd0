"""create_model: a detector that takes what PaddleX's models take, and answers as they do."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet import __version__
from slicedet import boxes as box
from slicedet.compat.inputs import images, read_whole
from slicedet.compat.result import DetResult
from slicedet.compat.thresholds import Threshold, by_name, least_scores
from slicedet.detections import Detections
from slicedet.detectors import Detector, load_detector
from slicedet.detectors.loading import input_size_for, readable
from slicedet.detectors.protocol import name_of, provenance_of
from slicedet.errors import InvalidConfig, InvalidSetting, MissingWeights, ModelMismatch
from slicedet.merging import MergeRule
from slicedet.models import cache, catalogue, paddle_folder
from slicedet.pipeline import Settings, describe, run
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

DRAW_THRESHOLD = 0.5
"""What Paddle's exports state, and what holds where nothing is stated."""

_ENGINES = {"paddle_static": "paddle", "hpi": "auto"}
"""PaddleX's names of engines that slicedet calls otherwise."""

_DEVICES = ("cpu", "gpu", "xpu", "npu", "mlu", "gcu", "dcu", "iluvatar_gpu", "metax_gpu")

_NOT_TAKEN = {
    "use_hpip": "leave it out, engine='auto' takes the fastest engine there is",
    "hpi_config": "leave it out, engine= names the engine",
    "engine_config": "leave it out, engine= and device= are all that is set; the paddle engine runs without oneDNN",
    "pp_option": "leave it out, engine= and device= are all that is set",
    "img_size": "the size of the network's input is fixed; slice=640 shows it small objects in large images",
}


class Model:
    """A detector with PaddleX's predict.

    detector: what finds objects. batch_size: images that the network sees at a time, where they are not sliced.
    threshold: see `least_scores`. settings: how images are sliced; None shows each to the network as a whole.
    """

    def __init__(
        self, detector: Detector, batch_size: int = 1, threshold: Threshold = 0.5, settings: Settings | None = None
    ) -> None:
        self.detector = detector
        self.model_name = name_of(detector)
        self._batch_size = _checked_batch_size(batch_size)
        self._least = least_scores(threshold, detector.categories)
        self._settings = settings

    def predict(
        self, input: Any, batch_size: int | None = None, threshold: Threshold | None = None
    ) -> Iterator[DetResult]:
        """Yields the result of each image when it is asked for; nothing is read or run before.

        input: an array uint8 BGR [H, W, 3], a path, an http(s) URL, a folder, or a list of these.
        batch_size, threshold: instead of those of the model, for this call.
        Raises InvalidSetting at once; while iterating, what `images` raises, UnreadableImage and others.
        """
        least = self._least if threshold is None else least_scores(threshold, self.detector.categories)
        count = self._batch_size if batch_size is None else _checked_batch_size(batch_size)
        return self._whole(input, least, count) if self._settings is None else self._sliced(input, least)

    __call__ = predict

    def _sliced(self, input: Any, least: NDArray[np.float32]) -> Iterator[DetResult]:
        assert self._settings is not None
        wanted = by_name(least, self.detector.categories)
        settings = replace(self._settings, threshold=wanted, classes=tuple(wanted))
        for image in images(input, stream=True):
            with image.scene as scene:
                prediction = run(scene, self.detector, settings)
            yield DetResult(image, prediction)

    def _whole(self, input: Any, least: NDArray[np.float32], count: int) -> Iterator[DetResult]:
        coming = images(input)
        while batch := list(islice(coming, count)):
            pixels = []
            for image in batch:
                with image.scene as scene:
                    pixels.append(read_whole(scene))
            for image, found in zip(batch, self.detector.detect(pixels), strict=True):
                found = found.replace(boxes=box.clip(found.boxes, image.scene.width, image.scene.height))
                found = found[(box.area(found.boxes) > 0) & (found.scores >= least[found.category_ids])]
                yield DetResult(image, self._prediction(image.scene, found, least))

    def _prediction(self, scene: Scene, found: Detections, least: NDArray[np.float32]) -> Prediction:
        categories = tuple(self.detector.categories)
        record = {
            "slicedet": __version__,
            "scene": describe(scene),
            "detector": provenance_of(self.detector),
            "settings": {"slice": None, "threshold": by_name(least, categories)},
        }
        return Prediction(found, categories, scene, name_of(self.detector), record)


def create_model(
    model_name: str | None = None,
    model_dir: str | Path | None = None,
    *,
    device: str | None = None,
    engine: str | None = None,
    batch_size: int = 1,
    threshold: Threshold | None = None,
    slice: int | str | tuple[int, int] | None = None,
    overlap: float | str | None = None,
    merge: str | MergeRule | None = None,
    weights: str | Path | None = None,
    **paddlex_only: Any,
) -> Model:
    """PaddleX's create_model; with `slice`, objects are searched tile by tile.

    model_name: a name of PaddleX's or slicedet's catalogue, whose official weights are downloaded once, or a YAML file.
    model_dir: folder of a Paddle model; then model_name may be left out, else it has to be the one that the folder
    states.
    device: "cpu", "gpu:0", "npu:0", ...; by default the first GPU where paddlepaddle-gpu finds one, else the CPU.
    engine: "auto", the default, "paddle", "openvino", "onnxruntime", or PaddleX's "paddle_static" or "hpi".
    batch_size, threshold: of `predict`, where it is not told others; without threshold, that of the folder's YAML, 0.5.
    slice, overlap, merge: as in `slicedet.predict`; without slice, the network sees each image as a whole, and the
    others are refused. Networks that take several sizes run at that of the slices.
    weights: as in `slicedet.load_detector`, instead of the official ones.

    Raises InvalidSetting, ModelMismatch where the folder states another name, and what `slicedet.load_detector` raises.
    """
    for name, value in paddlex_only.items():
        if name not in _NOT_TAKEN:
            raise TypeError(f"create_model() got an unexpected keyword argument {name!r}")
        if value:
            raise InvalidSetting(f"{name}: {_NOT_TAKEN[name]}")
    _checked_batch_size(batch_size)
    settings = _settings(slice, overlap, merge)
    engine = _ENGINES.get(engine or "auto", engine or "auto")
    device = _checked_device(device) if device is not None else _default_device(engine)
    if model_dir is not None:
        if weights is not None:
            raise InvalidSetting(f"{model_dir}: a folder brings its own weights, {weights} cannot be used with it")
        stated = _stated(Path(model_dir), model_name)
        threshold = stated if threshold is None else threshold
        # In full, since the folder may be named like a model of the catalogue.
        folder = str(Path(model_dir).absolute())
        size = input_size_for(folder, None, slice)
        detector = load_detector(folder, None, engine, device, threshold=0.0, input_size=size)
    elif model_name is None:
        raise InvalidSetting("model_name and model_dir: one of them is needed")
    else:
        detector = _by_name(str(model_name), weights, engine, device, slice)
    return Model(detector, batch_size, DRAW_THRESHOLD if threshold is None else threshold, settings)


def _settings(
    slice: int | str | tuple[int, int] | None, overlap: float | str | None, merge: str | MergeRule | None
) -> Settings | None:
    """How images are sliced; None where they are not."""
    rule = merge if isinstance(merge, MergeRule) else MergeRule(merge or "agreement")
    if slice is not None:
        return Settings(slice, 0.25 if overlap is None else overlap, rule)
    for name, value in (("overlap", overlap), ("merge", merge)):
        if value is not None:
            raise InvalidSetting(f"{name}: only slices have that; name their size, such as slice=640")
    return None


def _by_name(
    name: str, weights: str | Path | None, engine: str, device: str, slice: int | str | tuple[int, int] | None
) -> Detector:
    """The detector of a name, whose official weights are downloaded where there are none."""
    size = input_size_for(name, weights, slice)
    try:
        return load_detector(name, weights, engine, device, threshold=0.0, input_size=size)
    except MissingWeights:
        config = None if weights is not None else catalogue.find(name)
        if config is None or config.weights is not None:
            raise
        kind = next(iter(readable(config, engine)), None)
        if kind is None:
            raise
        cache.pull(config, kind)
    return load_detector(name, None, engine, device, threshold=0.0, input_size=size)


def _stated(folder: Path, name: str | None) -> float:
    """The draw_threshold of a folder's YAML. Raises ModelMismatch where it states another name of the model."""
    if not folder.is_dir():
        raise MissingWeights(f"{folder}: no such folder")
    if (folder / catalogue.IN_FOLDER).is_file():
        return DRAW_THRESHOLD  # An export that is none of Paddle's.
    path = paddle_folder.files(folder)[2]
    content = paddle_folder.content_of(path)
    # What slicedet exports states its own name besides PaddleX's.
    parts = [paddle_folder.mapping(content.get(key) or {}, path, key) for key in ("Global", "slicedet")]
    stated = [str(part[key])[:100] for part, key in zip(parts, ("model_name", "name"), strict=True) if key in part]
    if name is not None and stated and name not in stated:
        raise ModelMismatch(f"{path}: the model in it is {stated[0]}, not {name}; name that, or no model_name")
    threshold = content.get("draw_threshold", DRAW_THRESHOLD)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise InvalidConfig(f"{path}: draw_threshold: expected a number between 0 and 1")
    return float(threshold)


def _checked_batch_size(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidSetting(f"batch_size {reprlib.repr(size)}: expected a whole number above 0")
    return size


def _checked_device(device: str) -> str:
    """A device in slicedet's words."""
    kind, _, numbers = device.lower().partition(":")
    if kind not in _DEVICES or (kind == "cpu" and numbers):
        raise InvalidSetting(f"device {device!r}: expected cpu, or {', '.join(_DEVICES[1:])} with a number, as gpu:0")
    if "," in numbers:
        raise InvalidSetting(
            f"device {device!r}: one model runs on one device; create one for each, and give each its share of images"
        )
    return device.lower()


def _default_device(engine: str) -> str:
    """The first GPU if the engine would be Paddle and has one. Paddle is not imported where its build is for the
    CPU."""
    if engine not in ("auto", "paddle"):
        return "cpu"
    try:
        version("paddlepaddle-gpu")
    except PackageNotFoundError:
        return "cpu"
    from slicedet.paddle_import import import_paddle

    return "gpu:0" if import_paddle().device.cuda.device_count() else "cpu"
