"""From Paddle's programs to ONNX: once, compared with Paddle before anything trusts it, and kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidDetections, MissingDependency, ModelMismatch
from slicedet.models import cache
from slicedet.models.config import ModelConfig
from slicedet.models.decoding import candidates
from slicedet.models.paddle_folder import PaddleModel
from slicedet.models.program import Program, mend_for_conversion, well_formed

if TYPE_CHECKING:
    from slicedet.detectors.network import Engine

PIXELS, SCORE = 0.5, 0.01
"""Largest differences to Paddle with which a conversion is trusted."""

_RULES = "2"
"""Part of the key in the cache: to be changed along with what a conversion does."""

_SCRIPT = "import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:4], opset_version=13, optimize_tool='None')"

Runner = Callable[[PaddleModel], "Engine"]


class ConversionFailed(ModelMismatch):
    """A program cannot be converted, or computes something else once it is."""


def available() -> bool:
    """Whether the converter is installed."""
    return importlib.util.find_spec("paddle2onnx") is not None


def cached(*keys: str) -> Path:
    """Where the ONNX file of a model is kept that `keys` tell from all others."""
    return cache.home() / "converted" / hashlib.sha256("\n".join((_RULES, *keys)).encode()).hexdigest() / "model.onnx"


def convert(
    model: PaddleModel, config: ModelConfig, target: Path, reference: Runner, check: Callable[[Path], Engine]
) -> tuple[float, float]:
    """Writes the model without its suppression as ONNX, if it then computes what Paddle does; the largest differences
    in pixels and in score.

    config: what the model is without suppression. reference: runs a model by Paddle; check: runs the ONNX file.
    Raises ConversionFailed, or MissingDependency without paddle2onnx.
    """
    if not available():
        raise MissingDependency("other engines than paddle need paddle2onnx to convert it, which Python has up to 3.12")
    if model.program is None:
        raise ConversionFailed(f"{model.program_path}: only programs in the .json format are converted")
    with cache.writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        part = cut(model, model.program, config, folder)
        made = folder / "model.onnx"
        to_onnx(model.program, model.params_path, made)
        image = probe(config.input.size)
        try:
            # Copied, since they hold only until the engine goes on.
            wanted, given = (
                [array.copy() for outputs in engine.stream([image]) for array in outputs]
                for engine in (reference(part), check(made))
            )
        except ModelMismatch as error:
            raise ConversionFailed(str(error)) from error
        differences = compare(config, wanted, given, model.program_path)
        os.replace(made, target)
    return differences


def cut(model: PaddleModel, program: Program, config: ModelConfig, folder: Path) -> PaddleModel:
    """The model without its suppression, which makes it what `config` says; its program is written into `folder`."""
    path = folder / "cut.json"
    path.write_text(json.dumps(program.without_nms()))
    return PaddleModel(path, model.params_path, config, Program(path))


def to_onnx(program: Program, params: Path, made: Path) -> None:
    """Converts a program, without its suppression. Raises ConversionFailed, or ModelMismatch as `without_nms` does."""
    content = program.without_nms()
    with well_formed(program.path):
        mend_for_conversion(content)
    with tempfile.TemporaryDirectory() as folder:
        mended = Path(folder) / program.path.name
        mended.write_text(json.dumps(content))
        # In a process of its own: it writes on stdout, and where it fails it may take the process down.
        command = [sys.executable, "-c", _SCRIPT, str(mended), str(params), str(made)]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode or not made.is_file():
        said = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise ConversionFailed(f"{program.path.name}: paddle2onnx fails ({(said or ['no reason given'])[-1][:200]})")


def compare(
    config: ModelConfig, wanted: Sequence[NDArray[Any]], given: Sequence[NDArray[Any]], source: object
) -> tuple[float, float]:
    """The largest differences between the candidates of two sets of outputs, [B, ...] each: of box sides in pixels,
    where the score counts, and of scores.

    Raises ConversionFailed where they are too large to trust what gave the second.
    """
    for a, b in zip(wanted, given, strict=True):
        if a.shape != b.shape:
            raise ConversionFailed(f"{source}: once converted it gives {list(b.shape)}, Paddle {list(a.shape)}")
    moved = apart = 0.0
    for index in range(len(wanted[0])):
        # All candidates, in one order whatever their scores; then those that count.
        try:
            left, right = (
                candidates(config, [output[index : index + 1] for output in outputs], -np.inf)
                for outputs in (wanted, given)
            )
        except InvalidDetections as error:
            raise ConversionFailed(f"{source}: what it gives cannot be compared: {error}") from error
        if not len(left) == len(right) > 0:
            raise ConversionFailed(f"{source}: what it gives cannot be compared: there are scores that are no numbers")
        counting = left.scores >= min(config.nms.score_threshold if config.nms else 0.0, float(left.scores.max()))
        # Not Python's max, which may lose a nan.
        apart = float(np.maximum(apart, np.abs(left.scores - right.scores).max()))
        moved = float(np.maximum(moved, np.abs(left.boxes - right.boxes)[counting].max()))
    if not (moved <= PIXELS and apart <= SCORE):
        raise ConversionFailed(
            f"{source}: once converted it differs from Paddle by {moved:.3g} px and {apart:.3g} in score"
        )
    return moved, apart


def probe(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """An image [height, width, 3]: noise over waves of all sizes, the same at all times."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / period + y / (3 * period)) for period in (3, 11, 41)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return np.clip(128 + 80 * waves + noise, 0, 255).astype(np.uint8)
