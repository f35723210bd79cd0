"""What every format is read into: images with their objects, and what could not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

from slicedet.errors import InvalidDataset

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels of the image."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".jp2")


@dataclass(frozen=True)
class Labelled:
    """An object: its category by name, its box, and whether it is a region of many. A region without a category stands
    for all that the reader knows beforehand."""

    category: str | None
    box: Box
    crowd: bool = False


@dataclass(frozen=True)
class Sample:
    """An image with its objects. file_name: under which it is to be listed, below the folder of images. labels: the
    file they come from. stated: width and height by that file, where it says so. extra: for the image's entry."""

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
        """The images in a fixed order, those of train first."""


def images_below(folder: Path) -> list[Path]:
    """All images in a folder and the folders in it, sorted. Raises InvalidDataset where there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise InvalidDataset(f"{folder}: holds no images")
    return found


def last_part(name: str) -> str:
    """The file name in a path as Windows or others write it."""
    return PureWindowsPath(name).name


def below_images(path: Path) -> str:
    """The part of a path after its last folder `images`, else the file name."""
    parts = path.parts
    if "images" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("images")
        return PurePosixPath(*parts[last + 1 :]).as_posix()
    return path.name


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises InvalidDataset where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path}: cannot be read as text ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


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
