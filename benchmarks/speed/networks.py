"""The networks that all contenders run, and what they have in common around them."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.scenes import SHARED, Pixels
from slicedet.detections import Detections
from slicedet.models import cache, catalogue
from slicedet.models.config import ModelConfig
from slicedet.models.decoding import candidates, just_above, suppressed

PICODET, YOLOE = "picodet_s_416_coco", "ppyoloe_plus_sod_crn_s_80e_visdrone"
SLICES = {PICODET: 416, YOLOE: 640}

Outputs = list[NDArray[np.float32]]


class Engine(NamedTuple):
    """An engine of slicedet's, at a precision."""

    name: str
    precision: str

    def __str__(self) -> str:
        return f"{'OpenVINO' if self.name == 'openvino' else 'ONNX Runtime'} {self.precision}"


ORT, F32, BF16 = Engine("onnxruntime", "f32"), Engine("openvino", "f32"), Engine("openvino", "bf16")


class Network(NamedTuple):
    """model: as load_detector takes it. onnx: its file, without suppression. paddle: a folder of the same, with it."""

    model: str
    config: ModelConfig
    onnx: Path
    paddle: Path | None
    slice: int


def network(name: str, folder: Path, with_paddle: bool) -> Network:
    """A network's files; exports are made in a process of their own, since Paddle starts threads."""
    made = folder / name
    model, weights = name, None
    if name == PICODET:
        weights = SHARED / "models" / f"{name}.onnx"
        weights = weights if weights.is_file() else cache.find(catalogue.find(name), "onnx")
        if weights is None:
            raise SystemExit(f"{name}: slicedet models pull {name} gets its weights; --network chooses the other")
    formats = [*(["onnx"] if weights is None else []), *(["paddle"] if with_paddle else [])]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for format in formats:
            if not (made / format).exists():
                made.mkdir(parents=True, exist_ok=True)
                pool.submit(_export, name, weights, made / format, format).result()
    if weights is None:
        model, weights = str(made / "onnx" / "model.yaml"), made / "onnx" / "model.onnx"
    return Network(model, catalogue.find(model), weights, made / "paddle" if with_paddle else None, SLICES[name])


def _export(name: str, weights: Path | None, folder: Path, format: str) -> None:
    """Writes the network with the weights of an ONNX file, or with those made by a rule."""
    from benchmarks.engines import filled
    from slicedet import networks
    from slicedet.export import ExportSettings, export_network
    from slicedet.training.pretrained import load_pretrained

    if weights is None:
        layer = filled(name)
    else:
        layer = networks.build(name)
        load_pretrained(layer, weights)
    export_network(layer, catalogue.find(name), folder, ExportSettings(format))


def fitted(tile: Pixels, config: ModelConfig) -> Pixels:
    """A tile of the size of the network's input."""
    if (tile.shape[1], tile.shape[0]) == config.input.size:
        return tile
    import cv2

    return np.asarray(cv2.resize(tile, config.input.size, interpolation=cv2.INTER_CUBIC), np.uint8)


def affine(config: ModelConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and offset [3] by which pixels become what the network wants: pixel * factor - offset."""
    mean, std = np.array(config.input.mean), np.array(config.input.std)
    return (1 / (config.input.divide * std)).astype(np.float32), (mean / std).astype(np.float32)


def openvino_model(network: Network, uint8: bool) -> Any:
    """The graph, for one image, with pixels [1, H, W, 3] as its input if `uint8`."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    model = openvino.Core().read_model(network.onnx)
    width, height = network.config.input.size
    model.reshape([1, 3, height, width])
    if not uint8:
        return model
    steps, (factor, offset) = PrePostProcessor(model), affine(network.config)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    process = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    process.mean((offset / factor).tolist()).scale((1 / factor).tolist())
    return steps.build()


def compiled(model: Any, precision: str, **settings: Any) -> Any:
    """A graph compiled for the CPU."""
    import openvino

    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, **settings})


def onnx_session(network: Network, uint8: bool, threads: int = 0) -> Any:
    """A session; 0 threads are as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    graph = _taking_pixels(network) if uint8 else network.onnx.read_bytes()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _taking_pixels(network: Network) -> bytes:
    """The ONNX graph with pixels, uint8 [1, H, W, 3], as its input."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(network.onnx)
    graph, (width, height) = model.graph, network.config.input.size
    # Old files list their weights among the inputs.
    weights = {weight.name for weight in graph.initializer}
    (image,) = (each for each in graph.input if each.name not in weights)
    name = image.name
    graph.input.remove(image)
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, height, width, 3]))
    for key, value in zip(("pixel_factor", "pixel_offset"), affine(network.config), strict=True):
        graph.initializer.append(numpy_helper.from_array(value.reshape(1, 3, 1, 1), key))
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["pixel_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixel_planes"], ["pixel_values"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixel_values", "pixel_factor"], ["pixel_scaled"]),
        helper.make_node("Sub", ["pixel_scaled", "pixel_offset"], [name]),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    return bytes(model.SerializeToString())


def decoded(config: ModelConfig, outputs: Outputs, threshold: float) -> Detections:
    """The boxes of one tile, in pixels of the network's input."""
    assert config.nms is not None  # Neither network has suppression inside.
    return suppressed(candidates(config, outputs, max(threshold, just_above(config.nms.score_threshold))), config.nms)


def has_bf16() -> bool:
    """Whether the processor computes in bf16; elsewhere OpenVINO would run f32 under its name."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
