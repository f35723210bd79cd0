"""The optimiser of a training, and its state under the names of the network's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from slicedet.training.config import TrainingConfig


def optimizer_for(network: nn.Layer, config: TrainingConfig) -> paddle.optimizer.Optimizer:
    """AdamW (arXiv 1711.05101) or SGD with momentum, with gradients clipped by their common norm.

    Biases, norms and single factors do not decay: they do not make a network complex.
    """
    trained = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    groups = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    common: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "parameters": [group for group in groups if group["params"]],
        "grad_clip": None if config.clip_norm is None else nn.ClipGradByGlobalNorm(config.clip_norm),
    }
    if config.optimizer == "momentum":
        return paddle.optimizer.Momentum(momentum=config.momentum, **common)
    return paddle.optimizer.AdamW(**common)


def state_of(optimizer: paddle.optimizer.Optimizer, network: nn.Layer) -> dict[str, NDArray[Any]]:
    """The optimiser's arrays. Paddle names them after the order in which layers were made in a process; here they are
    named after the network's parameters: "NAME|KIND"."""
    names = {parameter.name: name for name, parameter in network.named_parameters()}
    state = {}
    for key, value in optimizer.state_dict().items():
        owner = next((name for name in names if key.startswith(f"{name}_")), None)
        if owner is not None:
            state[f"{names[owner]}|{key.removeprefix(owner)}"] = np.asarray(value)
    return state


def restore(optimizer: paddle.optimizer.Optimizer, network: nn.Layer, state: Mapping[str, NDArray[Any]]) -> None:
    """Gives an optimiser that has made no step yet the arrays of `state_of`. Raises ValueError where one is of another
    shape than its parameter."""
    parameters = dict(network.named_parameters())
    values = {}
    for key, value in state.items():
        name, _, kind = key.partition("|")
        if name in parameters:
            # Powers of beta are one number for each parameter.
            if value.dtype != np.float32 or value.shape not in ((1,), tuple(parameters[name].shape)):
                raise ValueError(key)
            values[parameters[name].name + kind] = paddle.to_tensor(value)
    optimizer.set_state_dict(values)
