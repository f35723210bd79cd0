"""NetworkDetector: a configured network on one of the engines, as a Detector."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.errors import InvalidDetections, ModelMismatch
from slicedet.models.config import InputConfig, ModelConfig
from slicedet.models.decoding import decoded, expected_outputs, sees_turned

Image = NDArray[np.uint8]
Outputs = list[NDArray[np.float32]]

_HIGHEST = 1.001
"""A score that rounding may have raised."""


class Signature(NamedTuple):
    """Names and shapes of a graph's inputs and outputs, -1 for a dynamic length. The image, which has four axes, is
    first."""

    inputs: list[tuple[str, list[int]]]
    outputs: list[tuple[str, list[int]]]

    @classmethod
    def of(cls, inputs: list[tuple[str, list[int]]], outputs: list[tuple[str, list[int]]]) -> Signature:
        """The signature of a graph that lists its inputs in any order."""
        return cls(sorted(inputs, key=lambda port: -len(port[1])), outputs)


class Engine(Protocol):
    """Runs one network. `stream` draws images uint8 RGB [height, width, 3] of the network's input size, and gives the
    outputs of each, in order, as float32 arrays that hold until the next are asked for; it draws as many images ahead
    as it runs at once. `provenance` says engine, version, device and precision."""

    provenance: dict[str, Any]

    def stream(self, images: Iterable[Image]) -> Iterator[Outputs]: ...


class NetworkDetector:
    """A network as a detector; see `slicedet.Detector`. `threshold` is the lowest score it returns, 0..1."""

    def __init__(self, config: ModelConfig, engine: Engine, threshold: float, provenance: dict[str, Any]) -> None:
        self.config = config
        self.engine = engine
        self.threshold = threshold
        self.name = config.name
        self.gsd = config.gsd
        self.categories = config.categories
        voting = None if config.output.layout == "rows" else config.box_voting
        run = {
            "input_size": list(config.input.size),
            "threshold": threshold,
            "half_turn": sees_turned(config),
            "box_voting": voting,
            "nms": None if config.nms is None else asdict(config.nms),
            "pixels": {key: value for key, value in asdict(config.input).items() if key not in ("size", "dynamic")},
            "output": config.output.layout,
        }
        self.provenance = {**provenance, **engine.provenance, **run}

    @property
    def input_size(self) -> int | None:
        """Edge in pixels of the tiles the model is best shown: what its configuration says, else that of the network's
        input; None where it is not square."""
        width, height = self.config.input.size
        return self.config.slice or (width if width == height else None)

    @property
    def tile_size(self) -> tuple[int, int]:
        """The same as width and height, square or not."""
        return self.config.input.size if self.input_size is None else (self.input_size, self.input_size)

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each tile, uint8 RGB [H, W, 3] of any size, in its own pixels, best score first."""
        return list(self.stream(tiles))

    def stream(self, tiles: Iterable[NDArray[np.uint8]]) -> Iterator[Detections]:
        """The same for tiles as they are drawn, in order; the network runs while tiles come and results are taken."""
        sizes: deque[tuple[int, int]] = deque()
        turned = sees_turned(self.config)

        def fitted() -> Iterator[NDArray[np.uint8]]:
            for tile in tiles:
                sizes.append((tile.shape[1], tile.shape[0]))
                image = self._fitted(tile)
                yield image
                if turned:
                    yield image[::-1, ::-1]

        with closing(self.engine.stream(fitted())) as answers:  # type: ignore[type-var]
            for outputs in answers:
                yield self._decoded(sizes.popleft(), chain([outputs], islice(answers, int(turned))))

    def _fitted(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.config.input.size
        if (tile.shape[1], tile.shape[0]) == size:
            return tile
        import cv2

        interpolation = getattr(cv2, f"INTER_{self.config.input.interpolation.upper()}")
        if tile.strides[1] != 1:
            return np.asarray(cv2.resize(tile, size, interpolation=interpolation), np.uint8)
        # Planes that lie one after the other are resized as they are.
        planes = np.empty((3, size[1], size[0]), np.uint8)
        for plane, channel in zip(planes, tile.transpose(2, 0, 1), strict=True):
            cv2.resize(channel, size, dst=plane, interpolation=interpolation)
        return planes.transpose(1, 2, 0)

    def _decoded(self, tile_size: tuple[int, int], outputs: Iterable[Outputs]) -> Detections:
        width, height = self.config.input.size
        scale = np.array([tile_size[0] / width, tile_size[1] / height] * 2, np.float32)
        try:
            found = decoded(self.config, outputs, self.threshold)
            found = found.replace(boxes=found.boxes * scale)
            if len(found) and found.scores[0] > _HIGHEST:
                raise InvalidDetections(f"a score is {found.scores[0]:.6g}, above 1")
        except InvalidDetections as error:
            weights = self.provenance.get("weights", self.name)
            raise ModelMismatch(f"{weights}: it finds what cannot be: {error}") from error
        return found


def in_background(
    run: Callable[[list[Image]], list[Outputs]], images: Iterable[Image], batch: int = 1, threads: int = 1
) -> Iterator[Outputs]:
    """What `run` gives for each image, in order: batches run in threads of their own while more images are drawn."""
    remaining, running = iter(images), deque[Future[list[Outputs]]]()
    with ThreadPoolExecutor(threads, "slicedet-network") as pool:
        while part := list(islice(remaining, batch)):
            running.append(pool.submit(run, part))
            if len(running) > threads:
                yield from running.popleft().result()
        while running:
            yield from running.popleft().result()


def normalised(image: NDArray[np.uint8], config: InputConfig) -> NDArray[np.float32]:
    """An image uint8 RGB [height, width, 3] as a network wants it, float32 [3, height, width]."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    order = (2, 1, 0) if config.channels == "bgr" else (0, 1, 2)
    # Plane by plane, in place, takes a tenth of the time of all at once.
    for plane, channel, mean, std in zip(planes, order, config.mean, config.std, strict=True):
        np.multiply(image[..., channel], np.float32(1 / (config.divide * std)), out=plane, dtype=np.float32)
        plane -= np.float32(mean / std)
    return planes


def check_signature(config: ModelConfig, signature: Signature, path: object, outputs: bool = True) -> None:
    """Raises ModelMismatch, saying which input or output differs, where a graph is not what the configuration
    states. Without `outputs`, only inputs are looked at."""
    width, height = config.input.size
    wanted: list[tuple[str, Iterable[int | None]]] = [("image", (1, 3, height, width))]
    if len(signature.inputs) == 2:
        # Paddle's exports ask how much the image was resized; told nothing was, they answer in input pixels.
        wanted.append(("scale factor", (1, 2)))
    if len(signature.inputs) != len(wanted):
        raise _mismatch(
            config, path, f"it has {len(signature.inputs)} inputs, expected an image and at most a scale factor"
        )
    for (name, shape), (role, expected) in zip(signature.inputs, wanted, strict=True):
        _check_shape(config, path, f"{role} input {name!r}", shape, tuple(expected))
    if outputs:
        check_outputs(config, signature.outputs, path)


def checked(config: ModelConfig, values: Sequence[NDArray[Any]], path: object) -> Outputs:
    """What a graph gave for one image, as float32. Raises ModelMismatch where the shapes, which it may have left open,
    are not what the configuration states."""
    check_outputs(config, [(str(index), list(value.shape)) for index, value in enumerate(values)], path)
    return [np.asarray(value, np.float32) for value in values]


def failed(path: object, engine: str, error: Exception) -> ModelMismatch:
    """What an engine says of a graph that it cannot compile or run, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ModelMismatch(f"{path}: {engine} cannot run it ({(lines or [type(error).__name__])[-1][:200]})")


def check_outputs(config: ModelConfig, outputs: Sequence[tuple[str, list[int]]], path: object) -> None:
    """Raises ModelMismatch, saying which output differs, by names and shapes in order."""
    shapes = expected_outputs(config)
    # A graph with suppression inside may also count its rows; the rows themselves are trusted.
    extra = 1 if config.output.layout == "rows" else 0
    if not len(shapes) <= len(outputs) <= len(shapes) + extra:
        raise _mismatch(config, path, f"it has {len(outputs)} outputs, expected {len(shapes)}")
    for (name, shape), expected_shape in zip(outputs, shapes, strict=False):
        rows = config.output.layout == "rows"
        _check_shape(config, path, f"output {name!r}", shape, (None, *expected_shape[1:]) if rows else expected_shape)
    if config.output.layout == "boxes-and-scores":
        boxes, scores = outputs[0][1][1], outputs[1][1][2]
        if -1 not in (boxes, scores) and boxes != scores:
            raise _mismatch(config, path, f"it gives {boxes} boxes, but scores of {scores}")


def _check_shape(
    config: ModelConfig, path: object, what: str, shape: list[int], expected: tuple[int | None, ...]
) -> None:
    fits = len(shape) == len(expected) and all(
        have == -1 or want is None or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        raise _mismatch(config, path, f"{what} is {_shown(shape)}, expected {_shown(expected)}")


def _mismatch(config: ModelConfig, path: object, what: str) -> ModelMismatch:
    return ModelMismatch(f"{path}: does not fit the configuration of {config.name}: {what}")


def _shown(shape: Iterable[int | None]) -> str:
    return "[" + ", ".join("?" if length in (None, -1) else str(length) for length in shape) + "]"
