"""What a network's own layers find in tiles, and whether two detectors found the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from paddle_folders import lively

from slicedet import Detections
from slicedet.models import catalogue
from slicedet.models.config import OutputConfig
from slicedet.models.decoding import candidates, suppressed

import paddle  # isort: skip


def noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """An image [height, width, 3] of smooth and fine noise."""
    coarse = rng.integers(0, 256, (height // 27 + 1, width // 27 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 25, smooth.shape), 0, 255).astype(np.uint8)


def make_tiles() -> list[np.ndarray]:
    """Three images, square, wide and tall."""
    rng = np.random.default_rng(1)
    return [noise(rng, 320, height) for height in (324, 216, 540)]


def normalised(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels 0..255, [count, 3, height, width], as a model wants them."""
    source = catalogue.find(name).input
    mean, std = (np.array(values, "float32").reshape(1, 3, 1, 1) for values in (source.mean, source.std))
    return ((pixels / 255 - mean) / std).astype("float32")


def raw(name: str, pixels: np.ndarray) -> list[np.ndarray]:
    """The outputs of the network in memory for such pixels."""
    with paddle.no_grad():
        return [value.numpy() for value in lively(name)(paddle.to_tensor(normalised(pixels, name)))]


def by_layers(name: str, tile: np.ndarray, size: tuple[int, int], threshold: float) -> Detections:
    """What the network in memory finds in a tile that it is shown at this width and height."""
    config = catalogue.find(name)
    config = replace(config, input=replace(config.input, size=size), output=OutputConfig("boxes-and-scores"))
    assert config.nms is not None
    image = cv2.resize(tile, size, interpolation=cv2.INTER_CUBIC)
    outputs = raw(name, image.transpose(2, 0, 1)[None])
    found = suppressed(candidates(config, outputs, threshold), config.nms)
    scale = np.array([tile.shape[1], tile.shape[0]] * 2, np.float32) / np.array(size * 2, np.float32)
    return found.replace(boxes=found.boxes * scale)


def assert_close(given: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Outputs within a thousandth of their range."""
    for output, value in zip(given, expected, strict=True):
        np.testing.assert_allclose(output, value, atol=1e-3 * np.ptp(value))


def assert_same(found: Detections, expected: Detections) -> None:
    """Within 0.5 px and 0.01, whatever the order of equal scores."""
    assert len(found) == len(expected) > 3
    apart = np.abs(found.boxes[:, None] - expected.boxes[None]).max(2)
    apart[found.category_ids[:, None] != expected.category_ids[None]] = np.inf
    like = apart.argmin(1)
    assert len(np.unique(like)) == len(expected), "two boxes have the same like"
    np.testing.assert_array_less(apart.min(1), 0.5)
    np.testing.assert_allclose(found.scores, expected.scores[like], atol=0.01)
