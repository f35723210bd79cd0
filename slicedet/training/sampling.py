"""Batches of a training: which tile of which image, how changed. Each is a pure function of seed, step and place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import CHECK
from slicedet.errors import InvalidDataset
from slicedet.training import augmentation
from slicedet.training.augmentation import Example, Rectangle
from slicedet.training.config import TileConfig, TrainingConfig
from slicedet.training.sources import NOT_TRAINED, LabelledImages

AHEAD = 3
"""Batches made ahead of the one in use."""

_EXAMPLES, _SIZES, _ORDER, _CALIBRATION = range(4)
"""Streams of random numbers under one seed."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples of one size. images: uint8 RGB [B, S, S, 3]; boxes and labels of each: float32 [n, 4], x1 y1 x2 y2 in
    pixels, and int64 [n]."""

    images: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]


class Sampler:
    """Draws the examples of a training from its images. `sizes`: edges of the input that batches may have.

    Raises InvalidDataset where there is no object to learn.
    """

    def __init__(self, images: LabelledImages, config: TrainingConfig, sizes: tuple[int, ...]) -> None:
        if not images.counts().sum() and config.synthetic.share == 0:
            listed = ", ".join(str(source.annotations) for source in config.train)
            raise InvalidDataset(
                f"{listed}: holds no object of the trained categories ({', '.join(images.categories.names)}); {CHECK}"
            )
        self.images = images
        self.config = config
        self.sizes = sizes
        self._drawn = np.cumsum(images.weights) / max(float(images.weights.sum()), 1e-12)
        self.epoch_steps = -(-self._epoch_examples() // config.batch_size)

    def _epoch_examples(self) -> int:
        if self.config.epoch_tiles is not None:
            return self.config.epoch_tiles
        tiles = self.images.sizes.prod(axis=1) / self.sizes[len(self.sizes) // 2] ** 2
        return int(np.maximum(np.ceil(tiles), 1).sum()) if self.config.tiles else max(1, len(self.images))

    def batches(self, steps: range, workers: int, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The batches of all steps, made by threads ahead of their use; of each, every `ranks`-th example from `rank`.

        They are the same for any number of workers.
        """
        places = range(rank, self.config.batch_size, ranks)
        if workers == 0:
            for step in steps:
                yield _collated([self.example(step, place) for place in places])
            return
        with ThreadPoolExecutor(workers, "slicedet-tiles") as pool:
            coming: deque[list[Future[Example]]] = deque()
            try:
                for step in steps:
                    coming.append([pool.submit(self.example, step, place) for place in places])
                    if len(coming) > AHEAD:
                        yield _collated([future.result() for future in coming.popleft()])
                while coming:
                    yield _collated([future.result() for future in coming.popleft()])
            finally:
                for future in (future for futures in coming for future in futures):
                    future.cancel()

    def size(self, step: int) -> int:
        """The edge of the examples of a step."""
        return int(self._rng(_SIZES, step).choice(self.sizes))

    def example(self, step: int, place: int) -> Example:
        """One example of a batch."""
        size = self.size(step)
        rng = self._rng(_EXAMPLES, step, place)
        number = step * self.config.batch_size + place
        if rng.random() < self.config.augmentation.mosaic:
            example = augmentation.mosaic(rng, size, lambda part: self._drawn_example(rng, part, None))
        else:
            example = self._drawn_example(rng, (size, size), number)
        example = augmentation.oriented(rng, example, self.config.augmentation)
        pixels = augmentation.recoloured(rng, example.pixels, self.config.augmentation)
        return replace(example, pixels=augmentation.worn(rng, pixels, self.config.augmentation))

    def plain(self, count: int, size: int) -> NDArray[np.uint8]:
        """Tiles as inference sees them, uint8 RGB [count, size, size, 3]."""
        rngs = (self._rng(_CALIBRATION, place) for place in range(count))
        return np.stack([self._drawn_example(rng, (size, size), place).pixels for place, rng in enumerate(rngs)])

    def _rng(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *place])

    def _drawn_example(self, rng: np.random.Generator, size: tuple[int, int], number: int | None) -> Example:
        """An example of a width and height, before its colours and its orientation are changed."""
        if rng.random() < self.config.synthetic.share:
            return augmentation.painted(self._synthetic(rng, size))
        if self.config.tiles is None:
            index = int(rng.integers(len(self.images))) if number is None else self._in_turn(number)
            window = self._whole(rng, index)
            return self._cut(rng, index, window, size, 0.3, 1.0)
        index = int(np.searchsorted(self._drawn, rng.random(), side="right"))
        index = min(index, len(self.images) - 1)
        window = self._tile(rng, index, size)
        return self._cut(rng, index, window, size, self.config.tiles.min_visible, self.config.tiles.min_size)

    def _in_turn(self, number: int) -> int:
        """The image at a place of the endless row in which each epoch has every image once."""
        epoch, place = divmod(number, len(self.images))
        return int(self._rng(_ORDER, epoch).permutation(len(self.images))[place])

    def _whole(self, rng: np.random.Generator, index: int) -> Rectangle:
        width, height = (int(edge) for edge in self.images.sizes[index])
        window = augmentation.expanded(rng, (0, 0, width, height), self.config.augmentation.expand)
        return augmentation.cropped(rng, window, self.images.objects(index)[0], self.config.augmentation.crop)

    def _tile(self, rng: np.random.Generator, index: int, size: tuple[int, int]) -> Rectangle:
        config = self.config.tiles
        assert config is not None
        boxes = self.images.places(index)
        chosen = boxes[int(rng.integers(len(boxes)))] if len(boxes) else None
        if config.object_size is not None and chosen is not None:
            edge = float(np.sqrt((chosen[2] - chosen[0]) * (chosen[3] - chosen[1])))
            scale = augmentation.log_uniform(rng, *config.object_size) / max(edge, 1e-3)
            scale = min(max(scale, config.scale[0]), config.scale[1])
        else:
            scale = augmentation.log_uniform(rng, *config.scale)
        stretch = np.sqrt(augmentation.log_uniform(rng, 1 / config.aspect, config.aspect))
        extent = max(8, round(size[0] / scale / stretch)), max(8, round(size[1] / scale * stretch))
        near = rng.random() < config.near_objects and chosen is not None
        places = rng.random(2)
        corner = []
        for axis, length in enumerate(int(edge) for edge in self.images.sizes[index]):
            if near and chosen is not None:
                low = float(chosen[axis] + chosen[axis + 2]) / 2 - places[axis] * extent[axis]
            else:
                low = places[axis] * (length - extent[axis])
            # Tiles of sliced inference do not reach beyond the image, save where it is smaller than they are.
            corner.append(round(min(max(low, min(0, length - extent[axis])), max(0, length - extent[axis]))))
        return corner[0], corner[1], corner[0] + extent[0], corner[1] + extent[1]

    def _cut(
        self,
        rng: np.random.Generator,
        index: int,
        window: Rectangle,
        size: tuple[int, int],
        min_visible: float,
        min_size: float,
    ) -> Example:
        pixels, relative = self.images.read(index, window)
        boxes, labels, ignored = self.images.objects(index)
        parts, learnt, spoilt = augmentation.seen(boxes, window, size, min_visible, min_size)
        hidden, _, _ = augmentation.seen(ignored, window, size, 0, 0)
        example = Example(
            augmentation.resized(rng, pixels, relative, size),
            parts[learnt],
            labels[learnt],
            augmentation.concatenated([parts[spoilt], hidden]),
        )
        return augmentation.painted(example)

    def _synthetic(self, rng: np.random.Generator, size: tuple[int, int]) -> Example:
        from slicedet.datasets.synthetic import KINDS, synthetic_tile

        config, categories = self.config.synthetic, self.images.categories
        tiles = self.config.tiles or TileConfig()
        gsd = augmentation.log_uniform(rng, *config.gsd)
        painted = synthetic_tile(int(rng.integers(2**31)), max(size), gsd)
        parts, learnt, spoilt = augmentation.seen(painted.boxes, (0, 0, *size), size, tiles.min_visible, tiles.min_size)
        if config.categories is None:
            meaning = [categories.meaning.get(kind, NOT_TRAINED) for kind in KINDS]
        else:
            meaning = [categories.index(config.categories.get(kind)) for kind in KINDS]
        labels = np.array(meaning, np.int64)[painted.kinds]
        learnt &= labels != NOT_TRAINED
        return Example(
            np.ascontiguousarray(painted.pixels[: size[1], : size[0]]),
            parts[learnt],
            labels[learnt],
            parts[spoilt | (labels == NOT_TRAINED)],
        )


def _collated(examples: list[Example]) -> Batch:
    return Batch(
        np.stack([example.pixels for example in examples]),
        [example.boxes for example in examples],
        [example.labels for example in examples],
    )
