"""Annotated images to train on: the objects of several COCO files under the trained categories, and their pixels."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import CHECK, CocoDataset, ImageRecord, read
from slicedet.datasets.layout import listed
from slicedet.errors import InvalidDataset
from slicedet.raster.scene import Scene
from slicedet.training.augmentation import Rectangle
from slicedet.training.config import SourceConfig

NOT_TRAINED = -1

OPEN_SCENES = 16
"""Images that stay open between their windows. Each thread has a handle of its own on them, and a process may have 1024
files open."""


@dataclass(frozen=True)
class Categories:
    """Trained categories, and what the names in annotations mean: an index of `names`, or NOT_TRAINED if ignored."""

    names: tuple[str, ...]
    meaning: Mapping[str, int]

    @classmethod
    def of(
        cls,
        datasets: Sequence[CocoDataset],
        sources: Sequence[SourceConfig],
        gathered: Mapping[str, tuple[str, ...]] | None,
        ignored: Sequence[str],
    ) -> Categories:
        """Those that a configuration states; without, the names in the annotations of objects that are not ignored."""
        if gathered is None:
            labelled = (each for each, source in zip(datasets, sources, strict=True) if not source.false_alarms)
            names = dict.fromkeys(name for dataset in labelled for name in dataset.categories if name not in ignored)
            gathered = {name: (name,) for name in names}
        meaning = dict.fromkeys(ignored, NOT_TRAINED)
        meaning.update({name: index for index, members in enumerate(gathered.values()) for name in members})
        return cls(tuple(gathered), meaning)

    def index(self, name: str | None) -> int:
        """The place of a trained category, NOT_TRAINED for None. Raises InvalidDataset for a name that is none."""
        if name is None:
            return NOT_TRAINED
        if name not in self.names:
            raise InvalidDataset(f"category {name!r} is not among those trained ({', '.join(self.names)})")
        return self.names.index(name)

    def ids(self, dataset: CocoDataset) -> NDArray[np.int64]:
        """The trained category of each annotation, crowds included, NOT_TRAINED where it is ignored.

        Raises InvalidDataset for a category that has annotations, but is not spoken of.
        """
        for index in np.unique(dataset.category_ids):
            if dataset.categories[index] not in self.meaning:
                raise InvalidDataset(
                    f"{dataset.path}: category {dataset.categories[index]!r} is not among those trained "
                    f"({', '.join(self.names)}); map it under categories, or list it under ignored"
                )
        meaning = [self.meaning.get(name, NOT_TRAINED) for name in dataset.categories]
        return np.array(meaning, np.int64)[dataset.category_ids]


class LabelledImages:
    """Images with their objects, in the order of their files; decoded images are kept while they fit in `cache_mb`,
    others are read by windows.

    sizes: int64 [images, 2], width and height. weights: float64 [images], how often each is drawn.
    """

    def __init__(
        self, datasets: Sequence[CocoDataset], sources: Sequence[SourceConfig], categories: Categories, cache_mb: int
    ) -> None:
        self.categories = categories
        self._paths: list[Path] = []
        self._records: list[ImageRecord] = []
        self._objects: list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]] = []
        self._places: list[NDArray[np.float32]] = []
        sizes: list[tuple[int, int]] = []
        weights: list[NDArray[np.float64]] = []
        for dataset, source in zip(datasets, sources, strict=True):
            ids = np.empty(0, np.int64) if source.false_alarms else categories.ids(dataset)
            used = np.unique(dataset.image_indices) if source.false_alarms else range(len(dataset.images))
            for index in used:
                image, rows = dataset.images[index], dataset.of_image(index)
                self._paths.append(present(dataset, source.images, image))
                self._records.append(image)
                sizes.append((image.width, image.height))
                places, labels = dataset.boxes[rows].astype(np.float32), ids[rows]
                boxes = places[: len(labels)]  # False alarms have no label: they are no objects.
                wanted = (labels != NOT_TRAINED) & ~dataset.crowd[rows][: len(labels)]
                self._objects.append((boxes[wanted], labels[wanted], boxes[~wanted]))
                self._places.append(places if source.false_alarms else boxes[wanted])
            weights.append(np.full(len(used), source.weight / max(len(used), 1)))
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.weights = np.concatenate(weights) if weights else np.empty(0)
        self._left = cache_mb * 1_000_000
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in self._paths]
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._scenes: dict[int, Scene] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def objects(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Boxes [N, 4] and labels [N] of an image, and its ignored boxes [M, 4], in its pixels."""
        return self._objects[index]

    def places(self, index: int) -> NDArray[np.float32]:
        """What tiles of an image are drawn near, boxes [N, 4] in its pixels: its objects, or what was taken for one."""
        return self._places[index]

    def counts(self) -> NDArray[np.int64]:
        """Number of objects of each category, [categories]."""
        labels = [labels for _, labels, _ in self._objects]
        return np.bincount(np.concatenate(labels) if labels else [], minlength=len(self.categories.names))

    def read(self, index: int, window: Rectangle) -> tuple[NDArray[np.uint8], Rectangle]:
        """The part of a window that lies in the image, uint8 RGB, and the window relative to that part's corner.

        Raises UnreadableImage, and InvalidDataset where the image is not as large as its annotations say.
        """
        width, height = (int(edge) for edge in self.sizes[index])
        x1, y1 = min(max(window[0], 0), width - 1), min(max(window[1], 0), height - 1)
        x2, y2 = max(min(window[2], width), x1 + 1), max(min(window[3], height), y1 + 1)
        relative = window[0] - x1, window[1] - y1, window[2] - x1, window[3] - y1
        with self._opening[index]:
            pixels = self._pixels.get(index)
            if pixels is None:
                scene = self._scenes.get(index) or opened(self._paths[index], self._records[index])
                if not self._room(width * height * 3):
                    part = scene.read((x1, y1, x2 - x1, y2 - y1))
                    self._keep(index, scene)
                    return part, relative
                pixels = self._pixels[index] = scene.read((0, 0, width, height))
                scene.close()
        return pixels[y1:y2, x1:x2], relative

    def _keep(self, index: int, scene: Scene) -> None:
        """Leaves a scene open for its next window, and closes the one that has waited longest."""
        with self._lock:
            self._scenes.pop(index, None)
            self._scenes[index] = scene
            full = len(self._scenes) > OPEN_SCENES
            oldest = self._scenes.pop(next(iter(self._scenes))) if full else None
        if oldest is not None:
            oldest.close()

    def _room(self, size: int) -> bool:
        """Whether an image of `size` bytes fits in the cache; if so, the place is taken."""
        with self._lock:
            fits = size <= self._left
            self._left -= size if fits else 0
        return fits


def present(dataset: CocoDataset, folder: Path, image: ImageRecord) -> Path:
    """The file of an image. Raises InvalidDataset where there is none, or its name leads out of the folder."""
    path = folder / listed(image.file_name, dataset.path)
    if not path.is_file():
        raise InvalidDataset(f"{path}: no such image, though {dataset.path} lists it; {CHECK}")
    return path


def opened(path: Path, image: ImageRecord) -> Scene:
    """An image as a scene. Raises UnreadableImage, and InvalidDataset where it is not of the size that its annotations
    say."""
    scene = Scene(path)
    image.check_size(path, scene.width, scene.height)
    return scene


def joined(datasets: Sequence[CocoDataset], categories: Categories) -> CocoDataset:
    """Several files as one, with the trained categories; what is ignored becomes a crowd of every category, so that
    finding it is neither right nor wrong. A crowd of a trained category stays one of its own, as COCO has it. Images
    are numbered anew, from 1."""
    parts = []
    images: list[ImageRecord] = []
    for dataset in datasets:
        ids = categories.ids(dataset)
        kept = np.flatnonzero(ids != NOT_TRAINED)
        left = np.repeat(np.flatnonzero(ids == NOT_TRAINED), len(categories.names))
        rows = np.concatenate([kept, left])
        every = np.tile(np.arange(len(categories.names)), len(left) // max(1, len(categories.names)))
        parts.append(
            (
                dataset.boxes[rows],
                np.concatenate([ids[kept], every]),
                dataset.image_indices[rows] + len(images),
                np.concatenate([dataset.crowd[kept], np.ones(len(left), bool)]),
                dataset.areas[rows],
            )
        )
        images += [replace(image, id=len(images) + place + 1) for place, image in enumerate(dataset.images)]
    boxes, ids, indices, crowd, areas = (np.concatenate([part[column] for part in parts]) for column in range(5))
    order = np.argsort(indices, kind="stable")
    return CocoDataset(
        path=datasets[0].path,
        images=tuple(images),
        categories=categories.names,
        category_numbers=tuple(range(1, len(categories.names) + 1)),
        boxes=boxes[order],
        category_ids=ids[order].astype(np.int32),
        image_indices=indices[order],
        crowd=crowd[order],
        areas=areas[order],
        ids=np.arange(1, len(order) + 1),
    )


def read_all(sources: Sequence[SourceConfig]) -> list[CocoDataset]:
    """The annotation files of all sources."""
    return [read(source.annotations) for source in sources]
