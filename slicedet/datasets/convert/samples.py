"""What every format is read into: images with their objects, and what could not be used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

from slicedet.batch import listing
from slicedet.datasets.listing import Box
from slicedet.errors import InvalidDataset

IMAGE_SUFFIXES = tuple(sorted(listing.IMAGE_SUFFIXES))
"""What counts as an image, as for `slicedet batch`."""


@dataclass(frozen=True)
class Labelled:
    """An object: its category by name, its box, and whether it is a region of many, or not to be judged. Such a one
    without a category stands for all that the reader knows beforehand. area: in pixels, where it is not the box's."""

    category: str | None
    box: Box
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Sample:
    """An image with its objects. split: train, val or test. file_name: under which it is to be listed, below the folder
    of images, unless another image has that name. labels: the file they come from. stated: width and height by that
    file, where it says so. extra: for the image's entry."""

    split: str
    image: Path
    file_name: str
    objects: Sequence[Labelled]
    labels: Path
    stated: tuple[int, int] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """One format. categories: those it knows beforehand, in their order. left_out: what was not read, counted under
    the reason. unlabeled: images without annotations, which are to lie beside the others but be listed by no split."""

    categories: Sequence[str]
    left_out: Counter[str]
    unlabeled: Sequence[Path]

    def samples(self) -> Iterator[Sample]:
        """The images in a fixed order."""


def find_images(folder: Path) -> list[Path]:
    """All images in a folder and the folders in it, sorted, as for `slicedet batch`: without overlays, hidden files and
    folders of results. Links to nothing are left out."""
    return [path for path in listing.images_below(folder) if path.is_file()]


def images_below(folder: Path) -> list[Path]:
    """As `find_images`. Raises InvalidDataset where there is none."""
    found = find_images(folder)
    if not found:
        raise InvalidDataset(f"{folder}: holds no images")
    return found


def last_part(name: str) -> str:
    """The file name in a path as Windows or others write it."""
    return PureWindowsPath(name).name


def path_below(root: Path, path: Path) -> str | None:
    """The path of a file below a folder, None where it is elsewhere."""
    whole, folder = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else None


def name_below(root: Path, image: Path, folders: Sequence[str] = ("images",)) -> str:
    """The path of an image below the last of the folders named so, else below `root`, else its file name."""
    below = path_below(root, image)
    parts = Path(below or image).parts
    last = max((place for place, part in enumerate(parts[:-1]) if part in folders), default=None)
    if last is None:
        return below or image.name
    return Path(*parts[last + 1 :]).as_posix()


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises InvalidDataset where it cannot be read."""
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path}: cannot be read as text ({error})") from error


def read_names(path: Path) -> list[str]:
    """Classes by the number of their line, from 0; blank lines at the end are none. Raises InvalidDataset for one
    before: it would have a number, but no name."""
    names = [line.strip() for line in _text(path).rstrip().splitlines()]
    if not names or not all(names):
        where = f"line {names.index('') + 1} is blank" if names else "is empty"
        raise InvalidDataset(f"{path}: {where}; a class's number is that of its line, so each needs a name")
    return names


def numbers(words: Sequence[str], path: Path, line: int) -> list[float]:
    """Words as numbers. Raises InvalidDataset, which names the line, where one is none."""
    import math

    try:
        found = [float(word) for word in words]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise InvalidDataset(f"{path}: line {line}: expected numbers, found {' '.join(words)!r:.60}")
    return found


def around(points: Sequence[tuple[float, float]]) -> Box:
    """The axis-aligned box around points."""
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)
