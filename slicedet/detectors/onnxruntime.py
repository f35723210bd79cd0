"""ONNX Runtime: the engine of reference for ONNX files, and the way to CUDA without Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detectors.network import Signature, check_signature, normalised
from slicedet.errors import InvalidSetting, MissingDependency, ModelMismatch
from slicedet.models.config import ModelConfig

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


class OnnxRuntimeEngine:
    """An ONNX file in an ONNX Runtime session on "cpu" or "gpu", in f32."""

    def __init__(self, path: Path, config: ModelConfig, device: str, precision: str) -> None:
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
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # Its own exceptions have no common base besides this one.
            raise ModelMismatch(f"{path}: not a model that ONNX Runtime can read") from error
        signature = Signature.of(
            [(node.name, _lengths(node.shape)) for node in self._session.get_inputs()],
            [(node.name, _lengths(node.shape)) for node in self._session.get_outputs()],
        )
        check_signature(config, signature, path)
        self._config = config.input
        self._names = [name for name, _ in signature.inputs]
        self.provenance: dict[str, Any] = {
            "engine": "onnxruntime",
            "engine_version": onnxruntime.__version__,
            "device": device,
            "precision": precision,
        }

    def infer(self, images: list[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        """Outputs of each image, uint8 RGB [height, width, 3] of the network's input size."""
        return [self._session.run(None, self._feed(image)) for image in images]

    def _feed(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        inputs = [normalised(image, self._config)[None], np.ones((1, 2), np.float32)]
        return dict(zip(self._names, inputs, strict=False))


def _lengths(shape: list[int | str | None]) -> list[int]:
    return [length if isinstance(length, int) else -1 for length in shape]
