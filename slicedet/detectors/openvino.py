"""OpenVINO: the default engine on CPUs. uint8 in, normalised inside the graph, several requests at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detectors.network import Signature, check_signature
from slicedet.errors import InvalidSetting, ModelMismatch
from slicedet.models.config import ModelConfig


class OpenVinoEngine:
    """An ONNX or IR file compiled for an OpenVINO device ("cpu", "gpu", "npu") at a precision ("f32", "bf16",
    "f16")."""

    def __init__(self, path: Path, config: ModelConfig, device: str, precision: str) -> None:
        import openvino

        if path.suffix.lower() not in (".onnx", ".xml"):
            raise ModelMismatch(f"{path}: the openvino engine reads .onnx and .xml files")
        core = openvino.Core()
        present = core.available_devices
        if device.upper() not in {*present, *(name.split(".")[0] for name in present)}:
            raise InvalidSetting(f"device {device!r}: OpenVINO finds {', '.join(present).lower()} on this machine")
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ModelMismatch(f"{path}: not a model that OpenVINO can read") from error
        signature = Signature.of(
            [(port.any_name, _lengths(port)) for port in model.inputs],
            [(port.any_name, _lengths(port)) for port in model.outputs],
        )
        check_signature(config, signature, path)
        width, height = config.input.size
        names = [name for name, _ in signature.inputs]
        model.reshape(dict(zip(names, ([1, 3, height, width], [1, 2]), strict=False)))
        compiled = core.compile_model(
            _normalised(model, names[0], config),
            device.upper(),
            {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"},
        )
        self._outputs = len(model.outputs)
        self._queue = openvino.AsyncInferQueue(compiled)
        self._image = names[0]
        self._fixed = {name: np.ones((1, 2), np.float32) for name in names[1:]}
        self.provenance: dict[str, Any] = {
            "engine": "openvino",
            "engine_version": openvino.__version__,
            "device": device,
            "precision": precision,
        }

    def infer(self, images: list[NDArray[np.uint8]]) -> list[list[NDArray[np.float32]]]:
        """Outputs of each image, uint8 RGB [height, width, 3] of the network's input size."""
        results: list[list[NDArray[np.float32]]] = [[] for _ in images]

        def collect(request: Any, index: int) -> None:
            results[index] = [request.get_output_tensor(output).data.copy() for output in range(self._outputs)]

        self._queue.set_callback(collect)
        try:
            for index, image in enumerate(images):
                self._queue.start_async({self._image: image[None], **self._fixed}, index)
        finally:
            # After Ctrl-C too: a request that ends after the interpreter does takes the process down with it.
            self._queue.wait_all()
        return results


def _normalised(model: Any, image_name: str, config: ModelConfig) -> Any:
    """The graph with an input of uint8 RGB pixels [1, height, width, 3] and normalisation before its own first node."""
    from openvino import Layout, Type
    from openvino.preprocess import ColorFormat, PrePostProcessor

    steps = PrePostProcessor(model)
    image = steps.input(image_name)
    image.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC")).set_color_format(ColorFormat.RGB)
    image.model().set_layout(Layout("NCHW"))
    process = image.preprocess()
    if config.input.channels == "bgr":
        process.convert_color(ColorFormat.BGR)
    process.convert_element_type(Type.f32)
    process.scale(config.input.divide)
    process.mean(list(config.input.mean))
    process.scale(list(config.input.std))
    return steps.build()


def _lengths(port: Any) -> list[int]:
    return [length.get_length() if length.is_static else -1 for length in port.partial_shape]
