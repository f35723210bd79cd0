"""Changes to an example that keep its boxes true. All chance comes from the generator that is handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from slicedet import boxes as box
from slicedet.training.config import AugmentationConfig

FILL = (124, 116, 104)
"""What is not image: the mean colour of ImageNet, which most networks see as 0."""

Rectangle = tuple[int, int, int, int]
"""x1 y1 x2 y2 in whole pixels of an image; may reach beyond it."""


@dataclass(frozen=True, eq=False)
class Example:
    """An image with its objects. pixels: uint8 RGB [H, W, 3]. boxes: float32 [N, 4], x1 y1 x2 y2 in pixels.
    labels: int64 [N]. ignored: float32 [M, 4], what is neither object nor background."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.float32]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, as often below their geometric mean as above."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def resized(
    rng: np.random.Generator, pixels: NDArray[np.uint8], window: Rectangle, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A window, given by the pixels of its part inside the image, stretched to `size` (width, height).

    window: where the whole lies relative to the corner of `pixels`; what is beyond them is filled. Kinds of
    interpolation alternate, so that the network does not learn to rely on one.
    """
    x1, y1, x2, y2 = window
    height, width = pixels.shape[:2]
    scale = size[0] / (x2 - x1), size[1] / (y2 - y1)
    left, top = round(-x1 * scale[0]), round(-y1 * scale[1])
    right, bottom = round((width - x1) * scale[0]), round((height - y1) * scale[1])
    inner = max(1, right - left), max(1, bottom - top)
    kinds = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA if max(scale) < 1 else cv2.INTER_NEAREST_EXACT)
    kind = kinds[rng.choice(3, p=(0.4, 0.4, 0.2) if max(scale) >= 1 else (0.3, 0.2, 0.5))]
    part = pixels if inner == (width, height) else cv2.resize(pixels, inner, interpolation=kind)
    if inner == size and (left, top) == (0, 0):
        return np.asarray(part, np.uint8)
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    canvas[:] = FILL
    # A negative end, of a window that misses the image, would count from the other side.
    place = canvas[max(top, 0) : max(top + inner[1], 0), max(left, 0) : max(left + inner[0], 0)]
    place[:] = part[max(-top, 0) :, max(-left, 0) :][: place.shape[0], : place.shape[1]]
    return canvas


def seen(
    boxes: NDArray[np.float32], window: Rectangle, size: tuple[int, int], min_visible: float, min_size: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Boxes as a window shows them when stretched to `size` (width, height).

    Returns their visible parts [N, 4] in pixels of the result, which of them are objects to learn, and which are
    ignored: those of which too little is visible, or what is visible is too small.
    """
    x1, y1, x2, y2 = window
    scale = np.array([size[0] / (x2 - x1), size[1] / (y2 - y1)] * 2, np.float32)
    whole = (boxes - np.array([x1, y1, x1, y1], np.float32)) * scale
    parts = box.clip(whole, size[0], size[1])
    shown = box.area(parts)
    touched = shown > 0
    enough = shown >= min_visible * np.maximum(box.area(whole), 1e-6)
    large = np.minimum(parts[:, 2] - parts[:, 0], parts[:, 3] - parts[:, 1]) >= min_size
    return parts.astype(np.float32), touched & enough & large, touched & ~(enough & large)


def painted(example: Example) -> Example:
    """The example with its ignored boxes filled, save where objects to learn lie over them."""
    if not len(example.ignored):
        return example
    height, width = example.pixels.shape[:2]
    hidden = np.zeros((height, width), bool)
    for rectangles, value in ((example.ignored, True), (example.boxes, False)):
        for x1, y1, x2, y2 in rectangles:
            hidden[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = value
    pixels = example.pixels.copy()
    pixels[hidden] = FILL
    return replace(example, pixels=pixels, ignored=example.ignored[:0])


def oriented(rng: np.random.Generator, example: Example, config: AugmentationConfig) -> Example:
    """Flips, and turns by quarters; only half turns where the example is not square."""
    if rng.random() < config.flip:
        example = _moved(example, lambda p: p[:, ::-1], lambda x, y, w, h: (w - x, y))
    if rng.random() < config.flip_vertical:
        example = _moved(example, lambda p: p[::-1], lambda x, y, w, h: (x, h - y))
    quarters = int(rng.integers(4)) if config.rotate90 else 0
    if example.pixels.shape[0] != example.pixels.shape[1]:
        quarters -= quarters % 2
    for _ in range(quarters):
        example = _moved(example, lambda p: np.rot90(p), lambda x, y, w, h: (y, w - x))
    return replace(example, pixels=np.ascontiguousarray(example.pixels))


_Points = NDArray[np.float32]


def _moved(
    example: Example,
    pixels: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    point: Callable[[_Points, _Points, int, int], tuple[_Points, _Points]],
) -> Example:
    """The example with its pixels rearranged, and its boxes around where `point` takes two of their corners."""
    height, width = example.pixels.shape[:2]

    def move(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        ax, ay = point(boxes[:, 0], boxes[:, 1], width, height)
        bx, by = point(boxes[:, 2], boxes[:, 3], width, height)
        corners = (np.minimum(ax, bx), np.minimum(ay, by), np.maximum(ax, bx), np.maximum(ay, by))
        return np.stack(corners, axis=1)

    return Example(pixels(example.pixels), move(example.boxes), example.labels, move(example.ignored))


def mosaic(rng: np.random.Generator, size: int, draw: Callable[[tuple[int, int]], Example]) -> Example:
    """Four examples around a point near the middle (YOLOv4, arXiv 2004.10934).

    draw: makes one of a width and height.
    """
    across, down = (round(size * rng.uniform(0.35, 0.65)) for _ in range(2))
    canvas = np.empty((size, size, 3), np.uint8)
    parts: list[Example] = []
    for x, y, width, height in (
        (0, 0, across, down),
        (across, 0, size - across, down),
        (0, down, across, size - down),
        (across, down, size - across, size - down),
    ):
        part = draw((width, height))
        canvas[y : y + height, x : x + width] = part.pixels
        shift = np.array([x, y, x, y], np.float32)
        parts.append(replace(part, boxes=part.boxes + shift, ignored=part.ignored + shift))
    return Example(
        canvas,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
    )


def recoloured(rng: np.random.Generator, pixels: NDArray[np.uint8], config: AugmentationConfig) -> NDArray[np.uint8]:
    """Hue, saturation, contrast and brightness changed, each with probability 0.5.

    All four are affine in RGB, so they make one matrix. Hue turns the colour plane of YIQ.
    """
    affine = np.eye(4)
    chances, amounts = rng.random(4), rng.uniform(-1, 1, 4)
    if chances[0] < 0.5 and config.hue:
        turn = np.deg2rad(config.hue * amounts[0])
        rotation = np.eye(3)
        rotation[1:, 1:] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        affine[:3, :3] = np.linalg.inv(_YIQ) @ rotation @ _YIQ
    if chances[1] < 0.5 and config.saturation:
        kept = 1 + config.saturation * amounts[1]
        step = np.eye(4)
        step[:3, :3] = kept * np.eye(3) + (1 - kept) * np.tile(_YIQ[0], (3, 1))
        affine = step @ affine
    if chances[2] < 0.5 and config.contrast:
        factor = 1 + config.contrast * amounts[2]
        step = np.diag([factor, factor, factor, 1.0])
        step[:3, 3] = (1 - factor) * float(pixels[::8, ::8].mean())
        affine = step @ affine
    if chances[3] < 0.5 and config.brightness:
        factor = 1 + config.brightness * amounts[3]
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
    if np.array_equal(affine, np.eye(4)):
        return pixels
    return np.asarray(cv2.transform(pixels, affine[:3].astype(np.float32)), np.uint8)


_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


def worn(rng: np.random.Generator, pixels: NDArray[np.uint8], config: AugmentationConfig) -> NDArray[np.uint8]:
    """What cameras and archives do to pictures, mildly: blur, sensor noise, JPEG."""
    chances = rng.random(3)
    if chances[0] < config.blur:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (5, 5), rng.uniform(0.4, 1.2)), np.uint8)
    if chances[1] < config.noise:
        noise = rng.standard_normal(pixels.shape, np.float32) * rng.uniform(2, 8)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if chances[2] < config.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        # The codec takes the first channel for blue; left so, it is the same both ways.
        _, encoded = cv2.imencode(".jpg", pixels, quality)
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return pixels


def expanded(rng: np.random.Generator, window: Rectangle, probability: float) -> Rectangle:
    """The window in a canvas up to four times as wide and high, at a random place of it (SSD, arXiv 1512.02325)."""
    if rng.random() >= probability:
        return window
    x1, y1, x2, y2 = window
    ratio = rng.uniform(1, 4)
    width, height = round((x2 - x1) * ratio), round((y2 - y1) * ratio)
    left = x1 - int(rng.integers(width - (x2 - x1) + 1))
    top = y1 - int(rng.integers(height - (y2 - y1) + 1))
    return left, top, left + width, top + height


def cropped(rng: np.random.Generator, window: Rectangle, boxes: NDArray[np.float32], probability: float) -> Rectangle:
    """A part of the window with 0.3 to 1 of each side and the centre of at least one box, if there are boxes, that
    overlaps some box by at least a drawn IoU (SSD, arXiv 1512.02325). After 50 vain attempts, the window itself."""
    if rng.random() >= probability:
        return window
    x1, y1, x2, y2 = window
    least = float(rng.choice([0.0, 0.1, 0.3, 0.5, 0.7, 0.9]))
    for _ in range(50):
        aspect = np.sqrt(rng.uniform(0.5, 2.0))
        share = rng.uniform(0.3, 1.0)
        width = max(1, round((x2 - x1) * min(1.0, share * aspect)))
        height = max(1, round((y2 - y1) * min(1.0, share / aspect)))
        left = x1 + int(rng.integers(x2 - x1 - width + 1))
        top = y1 + int(rng.integers(y2 - y1 - height + 1))
        part = left, top, left + width, top + height
        if not len(boxes) or _holds(part, boxes, least):
            return part
    return window


def _holds(part: Rectangle, boxes: NDArray[np.float32], least: float) -> bool:
    x1, y1, x2, y2 = part
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= (x1, y1)) & (centres < (x2, y2))).all(axis=1)
    if not inside.any():
        return False
    shifted = boxes[inside] - np.array([x1, y1, x1, y1], np.float32)
    common = box.area(box.clip(shifted, x2 - x1, y2 - y1))
    # Small objects cannot overlap a crop by a large IoU; the visible share says the same for all sizes.
    return bool((common / np.maximum(box.area(shifted), 1e-6)).max() >= least)


def concatenated(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Boxes of several lists, float32 [N, 4]."""
    return np.concatenate([np.asarray(part, np.float32).reshape(-1, 4) for part in parts])
