"""Parameters out of an ONNX file whose batch norms are folded into its convolutions."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from slicedet.detectors.network import normalised
from slicedet.errors import InvalidTraining, ModelMismatch
from slicedet.models.config import InputConfig
from slicedet.networks import Network
from slicedet.training.pretrained.fit import Shape, gives_classes

Floats = NDArray[np.float32]

_SIZES = range(32, 2049, 32)
"""Edges of images that networks take."""

_FREE_SIZE = 320
"""Edge of the image for a file that takes any."""

_TOLERANCE = 1e-3
"""Largest difference, as a part of the largest value, of two feature maps that are held to be the same."""

_ATTEMPTS = 64
"""Passes before no order of convolutions is believed to fit."""

_BATCH = 8
"""Tiles in memory at a time while statistics are measured."""


@dataclass(frozen=True)
class _Convolution:
    """One of the file: weight [out, in / groups, k, k], bias [out], and what goes into it for the probe image."""

    weight: Floats
    bias: Floats
    feature: Floats


def unfolded(
    network: Network, path: Path, tiles: NDArray[np.uint8] | None, pixels: InputConfig
) -> dict[str, NDArray[Any]]:
    """Arrays by their names in the network's state dict, from a file that computes what the network shall compute.

    Its convolutions are those of the network that are of the same shape and, layer after layer, fed with the same
    values for one image of noise. Each batch norm gets as statistics the mean m and variance v of its convolution's
    output on the tiles, gain sqrt(v + epsilon) and bias m + b, where b is the folded bias: so batch norms start as
    in a training, and in eval mode they add b. Without tiles m = 0 and v = 1.
    Raises ModelMismatch where the file cannot be read or a convolution is not found, InvalidTraining for tiles that
    the network cannot take.
    """
    if tiles is not None:
        _check_tiles(tiles)
    image, convolutions = _read(path)
    trial = copy.deepcopy(network)
    trial.eval()
    values = _matched(trial, path, image, convolutions)
    if tiles is not None:
        values |= _calibrated(trial, tiles, pixels)
    return values


def _check_tiles(tiles: NDArray[np.uint8]) -> None:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8 or not len(tiles):
        raise InvalidTraining(f"tiles: expected uint8 RGB [n, H, W, 3], not {tiles.dtype} {list(tiles.shape)}")
    if tiles.shape[1] % 32 or tiles.shape[2] % 32:
        raise InvalidTraining(f"tiles: {tiles.shape[1]} x {tiles.shape[2]} pixels are not divisible by 32")


def _read(path: Path) -> tuple[Floats, list[_Convolution]]:
    """An image of noise [1, 3, H, W], and the file's convolutions in an order of execution with what it gives them."""
    import openvino
    from openvino.passes import ConstantFolding, Manager

    core = openvino.Core()
    try:
        model = core.read_model(path)
        shapes = _input_shapes(model, path)
        model.reshape(shapes)
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(model)
        if any(node.get_type_name() == "BatchNormInference" for node in model.get_ops()):
            raise ModelMismatch(
                f"{path}: its batch norms are not folded into its convolutions; start from the .pdparams it was made of"
            )
        weights = [(node, weight) for node in model.get_ordered_ops() if (weight := _weight(node)) is not None]
        features = [openvino.op.Result(node.input_value(0)) for node, _ in weights]
        probe = openvino.Model(features, model.get_parameters())
        generator = np.random.default_rng(0)
        inputs = {
            name: generator.standard_normal(shape, np.float32) if len(shape) == 4 else np.ones(shape, np.float32)
            for name, shape in shapes.items()
        }
        outputs = core.compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)
    except RuntimeError as error:
        raise ModelMismatch(f"{path}: not a model that OpenVINO can read and run") from error
    convolutions = [
        _Convolution(weight, _bias(node, len(weight)), np.array(outputs[place]))
        for place, (node, weight) in enumerate(weights)
    ]
    return next(value for value in inputs.values() if value.ndim == 4), convolutions


def _input_shapes(model: Any, path: Path) -> dict[str, list[int]]:
    """Lengths of the inputs by name: one image, and maybe a factor by which it was resized."""
    shapes = {}
    for port in model.inputs:
        lengths = [length.get_length() if length.is_static else None for length in port.partial_shape]
        if len(lengths) == 4:
            lengths = [1, 3, *(length or _FREE_SIZE for length in lengths[2:])]
        shapes[port.any_name] = [length or 1 for length in lengths]
    images = [shape for shape in shapes.values() if len(shape) == 4]
    if len(images) != 1 or any(side not in _SIZES for side in images[0][2:]):
        raise ModelMismatch(f"{path}: expected one image of at most {_SIZES[-1]} pixels, divisible by 32, as its input")
    return shapes


def _weight(node: Any) -> Floats | None:
    """Weight [out, in / groups, k, k] of a node, None if it is no convolution by a constant."""
    if node.get_type_name() not in ("Convolution", "GroupConvolution"):
        return None
    weight = _constant(node.input_value(1))
    return weight if weight is None or weight.ndim == 4 else weight.reshape(-1, *weight.shape[2:])


def _bias(node: Any, channels: int) -> Floats:
    """What the one node behind a convolution adds to its output, per channel; 0 if it does something else."""
    consumers = [target.get_node() for target in node.output(0).get_target_inputs()]
    if len(consumers) == 1 and consumers[0].get_type_name() == "Add":
        for value in map(_constant, consumers[0].input_values()):
            if value is not None and value.shape == (1, channels, 1, 1):
                return value.ravel()
    return np.zeros(channels, np.float32)


def _constant(port: Any) -> Floats | None:
    node = port.get_node()
    return node.data.astype(np.float32) if node.get_type_name() == "Constant" else None


class _NoneFits(Exception):
    """No convolution of the file can be the one that the network runs next."""


def _matched(network: Network, path: Path, image: Floats, convolutions: list[_Convolution]) -> dict[str, NDArray[Any]]:
    """Arrays by name; sets them in the network, with statistics 0 and 1."""
    choices: list[int] = []
    failures = []
    for _ in range(_ATTEMPTS):
        matching = _Matching(network, convolutions, choices)
        try:
            matching.run(image)
        except _NoneFits as error:
            failures.append((len(matching.taken), str(error)))
        else:
            return matching.values
        # Two layers of one shape may read the same feature map: which is which shows in the layers behind them.
        choices = matching.taken
        while choices and choices[-1] + 1 == matching.found[len(choices) - 1]:
            choices.pop()
        if not choices:
            break
        choices[-1] += 1
    found, reason = max(failures)
    raise ModelMismatch(f"{path}: belongs to another network: after {found} convolutions that do, {reason}")


class _Matching:
    """One pass through the network, in which every convolution takes the place of its next possible one of the file.

    choices: which of the possible ones is taken, for the first convolutions; the first one from there on.
    taken and found: the choices made, and among how many.
    """

    def __init__(self, network: Network, convolutions: list[_Convolution], choices: list[int]) -> None:
        self.taken: list[int] = []
        self.found: list[int] = []
        self.values: dict[str, NDArray[Any]] = {}
        self._network = network
        self._free = list(convolutions)
        self._choices = choices
        self._names = {id(layer): name for name, layer in network.named_sublayers()}
        self._output: Tensor | None = None
        self._bias: Floats | None = None

    def run(self, image: Floats) -> None:
        """Raises _NoneFits where it cannot go on."""
        hooks = []
        for layer in self._network.sublayers():
            if isinstance(layer, nn.Conv2D):
                hooks.append(layer.register_forward_pre_hook(self._before_convolution))
                hooks.append(layer.register_forward_post_hook(self._after_convolution))
            elif isinstance(layer, nn.BatchNorm2D):
                hooks.append(layer.register_forward_pre_hook(self._before_norm))
        try:
            with paddle.no_grad():
                self._network(paddle.to_tensor(image))
        finally:
            for hook in hooks:
                hook.remove()

    def _before_convolution(self, layer: Any, inputs: Any) -> Any:
        name, shape = self._names[id(layer)], tuple(layer.weight.shape)
        feature = inputs[0].numpy()
        possible = [
            each for each in self._free if _fits(each.weight.shape, shape, name) and _same(each.feature, feature)
        ]
        if not possible:
            raise _NoneFits(f"none of the file is {name} {list(shape)}")
        place = len(self.taken)
        self.taken.append(self._choices[place] if place < len(self._choices) else 0)
        self.found.append(len(possible))
        chosen = possible[self.taken[-1]]
        self._free = [each for each in self._free if each is not chosen]
        self._set(layer, name, "weight", chosen.weight)
        if layer.bias is not None:
            self._set(layer, name, "bias", chosen.bias)
        self._bias = chosen.bias if layer.bias is None else None

    def _after_convolution(self, layer: Any, inputs: Any, output: Any) -> Any:
        self._output = output

    def _before_norm(self, layer: Any, inputs: Any) -> Any:
        name = self._names[id(layer)]
        if inputs[0] is not self._output or self._bias is None:
            raise _NoneFits(f"{name} follows no convolution that could hold it")
        mean, variance = np.zeros_like(self._bias), np.ones_like(self._bias)
        for part, value in _norm(layer, mean, variance, self._bias).items():
            self._set(layer, name, part, value)

    def _set(self, layer: nn.Layer, name: str, part: str, value: Floats) -> None:
        self.values[f"{name}.{part}"] = value
        parameter = getattr(layer, part)
        # A layer of other classes gives nothing that another convolution reads.
        if tuple(parameter.shape) == value.shape:
            parameter.set_value(value)


def _fits(given: Shape, wanted: Shape, name: str) -> bool:
    return given == wanted or (gives_classes(name) and given[1:] == wanted[1:])


def _same(first: Floats, second: Floats) -> bool:
    return first.shape == second.shape and bool(np.abs(first - second).max() <= _TOLERANCE * np.abs(first).max())


def _norm(layer: nn.BatchNorm2D, mean: Floats, variance: Floats, bias: Floats) -> dict[str, Floats]:
    """Statistics, and the gain and bias with which the norm adds `bias` to what has them."""
    return {
        "_mean": mean,
        "_variance": variance,
        "weight": np.sqrt(variance + np.float32(layer._epsilon)),
        "bias": mean + bias,
    }


class _Moments:
    """Mean and variance [C] of maps [B, C, H, W] that come batch by batch (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(1)
        self.variance: NDArray[np.float64] = np.zeros(1)

    def add(self, feature: Tensor) -> None:
        count = feature.size // feature.shape[1]
        mean = feature.mean([0, 2, 3], keepdim=True)
        variance = (feature - mean).square().mean([0, 2, 3]).numpy().astype(np.float64)
        total = self.count + count
        difference = mean.numpy().ravel() - self.mean
        self.variance = (
            self.count * self.variance + count * variance + difference**2 * self.count * count / total
        ) / total
        self.mean = self.mean + difference * count / total
        self.count = total


def _calibrated(network: Network, tiles: NDArray[np.uint8], pixels: InputConfig) -> dict[str, NDArray[Any]]:
    """Parameters and statistics of batch norms, by name, for a network of statistics 0 and 1.

    What a norm gives does not depend on its statistics, so one pass measures all of them.
    """
    norms: dict[str, Any] = {
        name: layer for name, layer in network.named_sublayers() if isinstance(layer, nn.BatchNorm2D)
    }
    moments = {id(layer): _Moments() for layer in norms.values()}

    def measure(layer: Any, inputs: Any) -> None:
        moments[id(layer)].add(inputs[0])

    for layer in norms.values():
        layer.register_forward_pre_hook(measure)
    with paddle.no_grad():
        for start in range(0, len(tiles), _BATCH):
            batch = np.stack([normalised(tile, pixels) for tile in tiles[start : start + _BATCH]])
            network(paddle.to_tensor(batch))
    values: dict[str, NDArray[Any]] = {}
    for name, layer in norms.items():
        measured = moments[id(layer)]
        mean, variance = measured.mean.astype(np.float32), measured.variance.astype(np.float32)
        for part, value in _norm(layer, mean, variance, layer.bias.numpy()).items():
            values[f"{name}.{part}"] = value
    return values
