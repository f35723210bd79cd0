"""From Paddle's programs to ONNX: once, compared with Paddle before anything trusts it, and kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import MissingDependency, ModelMismatch
from slicedet.models import cache
from slicedet.models.config import ModelConfig
from slicedet.models.paddle_folder import PaddleModel
from slicedet.models.program import Program, mend_for_conversion

if TYPE_CHECKING:
    from slicedet.detectors.network import Engine

PIXELS, SCORE = 0.5, 0.01
"""Largest differences to Paddle with which a conversion is trusted."""

_RULES = "1"
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
) -> None:
    """Writes the model without its suppression as ONNX, if it then computes what Paddle does.

    config: what the model is without suppression. reference: runs a model by Paddle; check: runs the ONNX file.
    Raises ConversionFailed, or MissingDependency without paddle2onnx.
    """
    if not available():
        raise MissingDependency('other engines than paddle need, to convert it: pip install "slicedet[convert]"')
    if model.program is None:
        raise ConversionFailed(f"{model.program_path}: only programs in the .json format are converted")
    content = model.program.without_nms()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        (folder / "cut.json").write_text(json.dumps(content))
        mend_for_conversion(content)
        (folder / "mended.json").write_text(json.dumps(content))
        made = folder / "model.onnx"
        _run_converter(folder / "mended.json", model.params_path, made)
        cut = PaddleModel(folder / "cut.json", model.params_path, config, Program(folder / "cut.json"))
        _compare(config, reference(cut), check(made), model.program_path)
        os.replace(made, target)


def _run_converter(program: Path, params: Path, made: Path) -> None:
    # In a process of its own: it writes on stdout, and where it fails it may take the process down.
    command = [sys.executable, "-c", _SCRIPT, str(program), str(params), str(made)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode or not made.is_file():
        said = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        raise ConversionFailed(f"{program.name}: paddle2onnx fails ({(said or ['no reason given'])[-1][:200]})")


def _compare(config: ModelConfig, reference: Engine, converted: Engine, source: Path) -> None:
    """Raises ConversionFailed where a probe image gives other candidates than Paddle's."""
    from slicedet.detectors.decoding import candidates

    image = _probe(config)
    wanted, given = (engine.infer([image])[0] for engine in (reference, converted))
    for a, b in zip(wanted, given, strict=True):
        if a.shape != b.shape:
            raise ConversionFailed(f"{source}: its conversion gives {list(b.shape)}, Paddle {list(a.shape)}")
    # All candidates, in one order whatever their scores; then those that count.
    left, right = (candidates(config, outputs, -np.inf) for outputs in (wanted, given))
    counting = left.scores >= min(config.nms.score_threshold if config.nms else 0.0, float(left.scores.max()))
    apart = np.abs(left.scores - right.scores).max()
    moved = np.abs(left.boxes - right.boxes)[counting].max()
    if not (moved <= PIXELS and apart <= SCORE):
        raise ConversionFailed(
            f"{source}: its conversion differs from Paddle by {moved:.3g} px and {apart:.3g} in score"
        )


def _probe(config: ModelConfig) -> NDArray[np.uint8]:
    """Noise over waves of all sizes, the same at all times."""
    width, height = config.input.size
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / period + y / (3 * period)) for period in (3, 11, 41)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 25, (height, width, 3))
    return np.clip(128 + 80 * waves + noise, 0, 255).astype(np.uint8)
