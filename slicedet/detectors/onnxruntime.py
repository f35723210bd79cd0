"""ONNX Runtime: the engine of reference for ONNX files, and the way to CUDA without Paddle."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detectors.network import (
    Image,
    Outputs,
    Signature,
    check_signature,
    checked,
    failed,
    in_background,
    normalised,
)
from slicedet.errors import InvalidSetting, MissingDependency, ModelMismatch
from slicedet.models.config import ModelConfig

_PIXELS = 1 << 22
"""Most pixels that run at the same time, a single image aside: each takes memory of its own."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


class OnnxRuntimeEngine:
    """An ONNX file in an ONNX Runtime session on "cpu" or "gpu", in f32."""

    def __init__(
        self, path: Path, config: ModelConfig, device: str, precision: str, streams: int | None = None
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependency('the onnxruntime engine needs: pip install "slicedet[onnxruntime]"') from error
        if precision != "f32":
            raise InvalidSetting(f"precision {precision}: the onnxruntime engine runs f32 only")
        provider = _PROVIDERS.get(device)
        if provider not in onnxruntime.get_available_providers():
            raise InvalidSetting(f"device {device!r}: this installation of ONNX Runtime has no such device")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # What fails is raised, and told once.
        cores = os.cpu_count() or 1
        width, height = config.input.size
        # Tiles side by side go faster than one that all cores share, which wait for each other at every layer.
        own = min(cores, max(1, _PIXELS // (width * height))) if device == "cpu" else 1
        self._streams = streams or own
        options.intra_op_num_threads = max(1, cores // self._streams)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # Its own exceptions have no common base besides this one.
            raise ModelMismatch(f"{path}: not a model that ONNX Runtime can read") from error
        for node in self._session.get_outputs():
            if not re.fullmatch(r"tensor\((bool|double|float\d*|u?int\d+)\)", node.type):
                raise ModelMismatch(f"{path}: output {node.name!r} holds no numbers")
        signature = Signature.of(
            [(node.name, _lengths(node.shape)) for node in self._session.get_inputs()],
            [(node.name, _lengths(node.shape)) for node in self._session.get_outputs()],
        )
        check_signature(config, signature, path)
        self._config, self._path = config, path
        self._names = [name for name, _ in signature.inputs]
        self.provenance: dict[str, Any] = {
            "engine": "onnxruntime",
            "engine_version": onnxruntime.__version__,
            "device": device,
            "precision": precision,
            "streams": self._streams,
        }

    def stream(self, images: Iterable[Image]) -> Iterator[Outputs]:
        """Outputs of each image, uint8 RGB [height, width, 3] of the network's input size, in order."""
        return in_background(self._run, images, threads=self._streams)

    def _run(self, images: list[Image]) -> list[Outputs]:
        try:
            answers = [self._session.run(None, self._feed(image)) for image in images]
        except Exception as error:  # As above.
            raise failed(self._path, "ONNX Runtime", error) from error
        return [checked(self._config, values, self._path) for values in answers]

    def _feed(self, image: Image) -> dict[str, NDArray[np.float32]]:
        inputs = [normalised(image, self._config.input)[None], np.ones((1, 2), np.float32)]
        return dict(zip(self._names, inputs, strict=False))


def _lengths(shape: list[int | str | None]) -> list[int]:
    return [length if isinstance(length, int) else -1 for length in shape]
