"""Paddle: the engine of reference for Paddle's own models, and the way to its accelerators."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detectors.network import (
    Image,
    Outputs,
    Signature,
    check_outputs,
    check_signature,
    in_background,
    normalised,
)
from slicedet.errors import InvalidSetting, ModelMismatch
from slicedet.models.paddle_folder import PaddleModel
from slicedet.models.program import refuse_reaching_out
from slicedet.paddle_import import import_paddle

_INPUTS = ("image", "scale_factor", "im_shape")

_BATCH = 8
"""Most images in one batch."""

_PIXELS = 1 << 21
"""Most pixels in one batch, a single image aside: PP-YOLOE+_SOD-largesize-L at 1920 takes 3 GB for each."""


class PaddleEngine:
    """A model of Paddle's in paddle.inference, in f32, on "cpu", "gpu:0", "npu:0", "xpu:0", ..."""

    def __init__(self, model: PaddleModel, device: str, precision: str) -> None:
        if precision != "f32":
            raise InvalidSetting(f"precision {precision}: the paddle engine runs f32 only")
        self._predictor = _predictor(model.program_path, model.params_path, device)
        self._running = threading.Lock()
        names = self._predictor.get_input_names()
        if unknown := [name for name in names if name not in _INPUTS]:
            raise ModelMismatch(f"{model.program_path}: input {unknown[0]!r} is none of {', '.join(_INPUTS)}")
        self._ports = sorted(names, key=_INPUTS.index)
        self._batches = True
        if model.program is not None:
            shapes = dict(model.program.inputs)
            signature = Signature([(name, shapes[name]) for name in self._ports if name != "im_shape"], [])
            check_signature(model.config, signature, model.program_path, outputs=False)
            self._batches = shapes["image"][0] == -1
        self._config = model.config
        self._path = model.program_path
        self.provenance: dict[str, Any] = {
            "engine": "paddle",
            "engine_version": import_paddle().__version__,
            "device": device,
            "precision": precision,
        }

    def stream(self, images: Iterable[Image]) -> Iterator[Outputs]:
        """Outputs of each image, uint8 RGB [height, width, 3] of the network's input size, in order.

        Raises ModelMismatch where they are not what the configuration states.
        """
        width, height = self._config.input.size
        batch = min(_BATCH, max(1, _PIXELS // (width * height))) if self._batches else 1
        return in_background(self._run, images, batch)

    def _run(self, images: list[Image]) -> list[Outputs]:
        width, height = self._config.input.size
        values = {
            "image": np.stack([normalised(image, self._config.input) for image in images]),
            # Told that nothing was resized, the graph answers in input pixels.
            "scale_factor": np.ones((len(images), 2), np.float32),
            "im_shape": np.tile(np.array([height, width], np.float32), (len(images), 1)),
        }
        with self._running:
            outputs = _outputs(self._predictor, {name: values[name] for name in self._ports}, self._path)
        return self._split(outputs, len(images))

    def _split(self, outputs: list[NDArray[Any]], count: int) -> list[Outputs]:
        """The outputs of each image of a batch."""
        if self._config.output.layout != "rows":
            images = [[output[index : index + 1] for output in outputs] for index in range(count)]
            check_outputs(self._config, [("", list(output.shape)) for output in images[0]], self._path)
            return images
        check_outputs(self._config, [("", list(output.shape)) for output in outputs], self._path)
        rows = outputs[0]
        if len(outputs) == 1 and count == 1:
            return [[rows]]
        ends = np.cumsum(outputs[1].ravel()) if len(outputs) == 2 else np.zeros(0)
        if len(ends) != count or ends[-1] != len(rows):
            raise ModelMismatch(f"{self._path}: it does not say which boxes are of which image")
        return [[part] for part in np.split(rows, ends[:-1])]


def run_program(program: Path, params: Path, values: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The outputs of a program on the CPU for inputs by name. Raises ModelMismatch where Paddle cannot run it."""
    return _outputs(_predictor(program, params, "cpu"), values, program)


def _predictor(program: Path, params: Path, device: str) -> Any:
    inference = import_paddle().inference
    if program.suffix != ".json":  # Those have been looked at where they were read.
        refuse_reaching_out(_operators(program), program)
    options = inference.Config(str(program), str(params))
    options.disable_glog_info()
    _choose_device(options, device)
    try:
        return inference.create_predictor(options)
    except Exception as error:  # Its own exceptions have no common base besides this one.
        raise ModelMismatch(f"{program}: Paddle cannot run it ({_last_line(error)})") from error


def _operators(program: Path) -> list[str]:
    """The names of all operators in an old program, in protobuf."""
    from paddle.base.proto import framework_pb2

    description = framework_pb2.ProgramDesc()  # type: ignore[attr-defined]
    try:
        description.ParseFromString(program.read_bytes())
    except Exception as error:  # Protobuf's own comes from a package without types.
        raise ModelMismatch(f"{program}: not a Paddle program") from error
    return [operation.type for block in description.blocks for operation in block.ops]


def _outputs(predictor: Any, values: Mapping[str, NDArray[Any]], program: Path) -> list[NDArray[Any]]:
    for name, value in values.items():
        predictor.get_input_handle(name).copy_from_cpu(value)
    try:
        predictor.run()
    except Exception as error:  # Whatever the program raises.
        raise ModelMismatch(f"{program}: Paddle cannot run it ({_last_line(error)})") from error
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def _choose_device(options: Any, device: str) -> None:
    kind, _, number = device.partition(":")
    if number and not number.isdecimal():
        raise InvalidSetting(f"device {device!r}: expected a kind and a number, such as gpu:0")
    paddle = import_paddle()
    present = ["cpu", *paddle.device.get_all_custom_device_type()]
    present += [name for name in ("cuda", "xpu") if getattr(paddle.device, f"is_compiled_with_{name}")()]
    if {"gpu": "cuda"}.get(kind, kind) not in present or kind == "cuda":
        raise InvalidSetting(f"device {device!r}: this installation of Paddle has no such device")
    index = int(number or 0)
    if kind == "cpu":
        # With oneDNN, Paddle 3.3 fails on detectors that PaddleDetection exported (PaddlePaddle/Paddle#79749).
        options.disable_mkldnn()
        options.set_cpu_math_library_num_threads(os.cpu_count() or 1)
    elif kind == "gpu":
        options.enable_use_gpu(256, index)
    elif kind == "xpu":
        options.enable_xpu()
        options.set_xpu_device_id(index)
    else:
        options.enable_custom_device(kind, index)


def _last_line(error: Exception) -> str:
    """What Paddle says, without its C++ traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "Error:" in line or "InvalidArgument" in line]
    return (said or lines or [type(error).__name__])[-1][:200]
