"""Where the parts of a dataset lie: PaddleX's layout of folders, or one annotation file with its images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from slicedet.errors import InvalidDataset

SPLITS = ("train", "val")
"""Splits a dataset is to have, in the order in which they are treated."""

TEST = "test"
"""A split that it may have besides."""

_ALL = (*SPLITS, TEST)
_LONGEST_PART, _LONGEST = 255, 4000


@dataclass(frozen=True)
class Split:
    """A part of a dataset: its name, train, val or test, and its annotation file."""

    name: str
    annotations: Path


@dataclass(frozen=True)
class Layout:
    """A dataset on disk: the folder that holds it, the folder its file names count from, and its splits."""

    root: Path
    images: Path
    splits: tuple[Split, ...]

    def image(self, file_name: str) -> Path:
        """Where the image of a file name is. Raises InvalidDataset where that is outside the folder of images."""
        return self.images / relative(file_name)


def find(source: str | Path, images: str | Path | None = None) -> Layout:
    """The parts of the dataset at `source`.

    source: a folder that holds images/ and annotations/instance_train.json, instance_val.json or both, and perhaps
    instance_test.json (or a folder around such a folder), or one COCO file. images: the folder that file names count
    from, where it is another one; for a single file that is images/ beside its folder annotations/, else its own
    folder.
    Raises InvalidDataset where there is no such dataset, or more than one.
    """
    source = Path(source)
    if source.is_file():
        name = source.stem.removeprefix("instance_")
        root = source.parent.parent if source.parent.name == "annotations" else source.parent
        folder = root / "images"
        if images is None and not (source.parent.name == "annotations" and folder.is_dir()):
            folder = source.parent
        return Layout(root, _folder(images or folder), (Split(name if name in _ALL else "train", source),))
    if not source.is_dir():
        raise InvalidDataset(f"{source}: no such folder or annotation file")
    root = source if (source / "images").is_dir() or images is not None else _root_below(source)
    splits = tuple(
        Split(name, path) for name in _ALL if (path := root / "annotations" / annotations_name(name)).is_file()
    )
    if not any(split.name in SPLITS for split in splits):
        raise InvalidDataset(
            f"{root}: holds no annotations/{annotations_name('train')}; other layouts and formats become it by "
            "`slicedet dataset convert`"
        )
    return Layout(root, _folder(images or root / "images"), splits)


def annotations_name(split: str) -> str:
    """Name of the annotation file of a split, as PaddleX has it."""
    return f"instance_{split}.json"


def with_slashes(file_name: str) -> str:
    """A file name whose folders are parted by slashes; annotations made on Windows may part them by backslashes."""
    return file_name.replace("\\", "/")


def relative(file_name: str) -> PurePosixPath:
    """A file name as a path below the folder of images. Raises InvalidDataset where it leads out of it, or can be the
    name of no file."""
    path = PurePosixPath(with_slashes(file_name))
    if not path.parts or path.is_absolute() or ".." in path.parts or PureWindowsPath(file_name).drive:
        raise InvalidDataset(f"{file_name!r:.80}: leads out of the folder of images; {_RELATIVE}")
    parts = [len(part.encode("utf-8", "replace")) for part in path.parts]
    if "\0" in file_name or max(parts) > _LONGEST_PART or sum(parts) > _LONGEST:
        raise InvalidDataset(f"{file_name!r:.80}: is no file name, or too long for one; {_RELATIVE}")
    return path


def listed(file_name: str, annotations: Path) -> PurePosixPath:
    """As `relative`, of a file name in an annotation file, which the error names."""
    try:
        return relative(file_name)
    except InvalidDataset as error:
        raise InvalidDataset(f"{annotations}: {error}") from error


_RELATIVE = "file names count from the folder of images"


def _folder(path: str | Path) -> Path:
    if not Path(path).is_dir():
        raise InvalidDataset(f"{path}: no such folder of images")
    return Path(path)


def _root_below(source: Path) -> Path:
    """The one folder below `source` that holds a folder images."""
    found = []
    for folder, names, _ in os.walk(source):
        if "images" in names:
            found.append(Path(folder))
            names.remove("images")
        names.sort()
    if len(found) != 1:
        seen = ", ".join(str(path) for path in found[:3]) if found else "none"
        raise InvalidDataset(
            f"{source}: needs one folder images, with annotations beside it; found {seen}; other layouts and formats "
            "become it by `slicedet dataset convert`"
        )
    return found[0]
