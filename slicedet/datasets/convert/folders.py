"""Folders whose names say which split they are, and formats of one text file per image in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from slicedet.datasets.convert.samples import find_images
from slicedet.datasets.layout import SPLITS
from slicedet.errors import InvalidDataset

_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}

_ORDER = (*SPLITS, "test")


def split_of(path: Path, folders: Iterable[str]) -> str | None:
    """The split that the first folder with such a word in its name says; `path` is for the error.

    Raises InvalidDataset where a name says two.
    """
    for name in folders:
        found = {_WORDS[word] for word in re.split("[^a-z]+", name.lower()) if word in _WORDS}
        if len(found) > 1:
            raise InvalidDataset(f"{path}: the folder {name} says {' and '.join(sorted(found))}; name it for one")
        if found:
            return found.pop()
    return None


def in_order(split: str) -> int:
    """For sorting: train first, test last."""
    return _ORDER.index(split)


def labelled_images(root: Path, labels: Sequence[str]) -> Iterator[tuple[str, Path, Path, str]]:
    """Split, image, label file and name below the folder of images; those of train first.

    `root` holds images/ and one of the folders `labels`, or folders that do, whose names say train, val or test.
    """
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder")
    parts = [("train", root)] if (root / "images").is_dir() else []
    if not parts:
        folders = sorted(path for path in root.iterdir() if (path / "images").is_dir())
        parts = [(split, path) for path in folders if (split := split_of(path, [path.name])) is not None]
        parts.sort(key=lambda part: in_order(part[0]))
    if not parts:
        raise InvalidDataset(f"{root}: needs images/ and {labels[0]}/, or folders with them named for train and val")
    union = next((path for _, path in parts if "trainval" in path.name.lower()), None)
    other = next((path for split, path in parts if split in SPLITS and path != union), None)
    if union is not None and other is not None:
        raise InvalidDataset(f"{root}: has {union.name} beside {other.name}, which is a part of it; take one away")
    for split, part in parts:
        folder = next((part / name for name in labels if (part / name).is_dir()), None)
        if folder is None and split != "test":
            raise InvalidDataset(f"{part}: needs a folder {' or '.join(labels)} beside images")
        for image in find_images(part / "images"):
            name = image.relative_to(part / "images")
            # A test set is often published without its labels.
            yield split, image, (folder or part / labels[0]) / name.with_suffix(".txt"), name.as_posix()
