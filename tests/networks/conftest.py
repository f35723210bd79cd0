"""The rule for weights and images that the reference outputs were made with."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

MEAN = np.array([0.485, 0.456, 0.406], "float32")
STD = np.array([0.229, 0.224, 0.225], "float32")


@pytest.fixture(scope="session")
def fill(reference: ModuleType) -> Callable[..., None]:
    """Sets every entry of a network's state dict by the rule: fill(network, gain=)."""

    def fill(network: paddle.nn.Layer, gain: float = 2.4) -> None:
        state = network.state_dict()
        constants = {"head.distribution_project.project", "yolo_head.proj_conv.weight"}
        values = {
            name: reference.fill(name, value.shape, gain) for name, value in state.items() if name not in constants
        }
        network.set_state_dict(values | {name: state[name] for name in constants & state.keys()})

    return fill


@pytest.fixture(scope="session")
def images(reference: ModuleType) -> Callable[..., paddle.Tensor]:
    """A batch of one normalised image: images(height, width, imagenet=)."""

    def images(height: int, width: int, imagenet: bool) -> paddle.Tensor:
        pixels = reference.image(max(height, width))[:height, :width].astype("float32") / 255
        pixels = (pixels - MEAN) / STD if imagenet else pixels
        return paddle.to_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))

    return images
