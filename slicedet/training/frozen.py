"""Layers and batch norms that do not train, for small data and small batches."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import nn

from slicedet.errors import InvalidTraining


def freeze_norms(network: nn.Layer) -> None:
    """Fixes the statistics of all batch norms: in training, too, they use the running ones and do not update them.

    Gain and bias go on training, unless the layer is frozen by `freeze`: per channel, they are what a bias and a
    factor on the convolution before them would be. The network's output no longer depends on what else is in a batch,
    and before the first step it is the same in training as in eval mode.
    """
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.BatchNorm2D):
            layer._use_global_stats = True


def freeze(network: nn.Layer, prefixes: Sequence[str]) -> int:
    """Fixes all parameters, and the statistics of all batch norms, of layers by their names in the state dict.

    prefixes: names such as "backbone", "backbone._conv1" or "backbone.2_1"; each stands for all that lies in it.
    Returns the number of parameters that are fixed. Raises InvalidTraining for a name that no layer has.
    """
    layers = dict(network.named_sublayers())
    fixed = set()
    for prefix in prefixes:
        if prefix not in layers:
            raise InvalidTraining(f"frozen layer {prefix!r}: the network has no layer of this name")
        freeze_norms(layers[prefix])
        for parameter in layers[prefix].parameters():
            parameter.stop_gradient = True
            fixed.add(id(parameter))
    return len(fixed)
