"""COCO annotation files, read as a stream into arrays."""

from __future__ import annotations

import codecs
import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.layout import with_slashes
from slicedet.datasets.nonfinite import open_json
from slicedet.errors import InvalidDataset
from slicedet.texts import printable


@dataclass(frozen=True)
class ImageRecord:
    """An image as its annotation file describes it; width and height in pixels. file_name: its folders parted by
    slashes, whatever the file has."""

    id: int
    file_name: str
    width: int
    height: int

    def check_size(self, path: str | Path, width: int, height: int) -> None:
        """Raises InvalidDataset where the image at `path` has another size than its annotations say."""
        if (width, height) != (self.width, self.height):
            raise InvalidDataset(
                f"{path}: is {width} x {height} pixels, its annotations say {self.width} x {self.height}; {CHECK}"
            )


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The annotations of a set of images, as parallel arrays ordered by image.

    path: the file they were read from.
    images: in the order of the file. categories: names; category_numbers: their ids in the file, in the same order.
    boxes: float64 [N, 4], x1 y1 x2 y2 in pixels of the image. category_ids: int32 [N], from 0, index `categories`.
    image_indices: int64 [N], ascending, index `images`. crowd: bool [N], regions of many objects, not to be counted.
    areas: float64 [N], in pixels, as the file states them. ids: int64 [N], of the annotations in the file.
    """

    path: Path
    images: tuple[ImageRecord, ...]
    categories: tuple[str, ...]
    category_numbers: tuple[int, ...]
    boxes: NDArray[np.float64]
    category_ids: NDArray[np.int32]
    image_indices: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]

    def of_image(self, index: int) -> slice:
        """The rows of the image at `index`."""
        return slice(int(self._starts[index]), int(self._starts[index + 1]))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.searchsorted(self.image_indices, np.arange(len(self.images) + 1))


def read(path: str | Path) -> CocoDataset:
    """Reads a COCO file of boxes; segmentations and captions are passed over.

    Raises InvalidDataset where the file is no COCO file, has no image or no category, or an annotation names an image
    or a category that is not there, or has no usable box.
    """
    path = Path(path)
    images, index_of = _images(path)
    numbers, names = _categories(path)
    category_of = {number: index for index, number in enumerate(numbers)}
    boxes, areas = array("d"), array("d")
    ids, image_indices, category_ids, crowd = array("q"), array("q"), array("q"), array("b")
    for position, entry in enumerate(entries(path, "annotations")):
        try:
            number, image, category, (x, y, width, height) = _annotation(entry, position, index_of, category_of)
        except ValueError as error:
            name = f"annotation {entry.get('id', f'number {position + 1}')!s:.40}"
            raise InvalidDataset(f"{path}: {name}: {error}; {CHECK}") from error
        ids.append(number)
        image_indices.append(image)
        category_ids.append(category)
        boxes.extend((x, y, x + width, y + height))
        area = stated_area(entry)
        areas.append(width * height if area is None else area)
        crowd.append(bool(stated_crowd(entry)))
    order = np.argsort(np.frombuffer(image_indices, np.int64), kind="stable")
    return CocoDataset(
        path=path,
        images=tuple(images),
        categories=tuple(names),
        category_numbers=tuple(numbers),
        boxes=np.frombuffer(boxes, np.float64).reshape(-1, 4)[order],
        category_ids=np.frombuffer(category_ids, np.int64)[order].astype(np.int32),
        image_indices=np.frombuffer(image_indices, np.int64)[order],
        crowd=np.frombuffer(crowd, np.int8)[order].astype(bool),
        areas=np.frombuffer(areas, np.float64)[order],
        ids=np.frombuffer(ids, np.int64)[order],
    )


LARGEST = (1 << 31) - 1
"""Greatest width and height in pixels of an image: what GDAL opens."""

CHECK = "see `slicedet dataset check`"
"""Where to send the user of a file that cannot be used."""


def entries(path: Path, section: str) -> Iterator[dict[str, Any]]:
    """The entries of one list of a COCO file (images, annotations, categories), one after the other, as they stand,
    save that NaN and Infinity, which are no JSON, are None.

    A file that is one list of annotations, COCO's format of results, has only that section. Raises InvalidDataset where
    the file is missing, cannot be read, is nested too deep, or is not JSON.
    """
    import ijson

    try:
        as_list = is_list(path)
        if as_list and section != "annotations":
            return
        with open_json(path) as stream:
            for entry in ijson.items(stream, "item" if as_list else f"{section}.item", use_float=True):
                if not isinstance(entry, dict):
                    raise InvalidDataset(f"{path}: an entry of {section} is no object but {entry!r:.40}")
                yield entry
    except FileNotFoundError as error:
        raise InvalidDataset(f"{path}: no such annotation file") from error
    except OSError as error:
        raise InvalidDataset(f"{path}: cannot be read ({error.strerror})") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        told = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise InvalidDataset(f"{path}: is not valid JSON ({told.splitlines()[0].strip()})") from error


def is_list(path: Path) -> bool:
    """Whether a JSON file is a list, such as one of results. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def whole(value: Any) -> int | None:
    """A whole number from a number or from digits; None for anything else, and for what 64 bits do not hold."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 1 << 63 else None


def not_whole(entry: Mapping[str, Any], key: str) -> str:
    """What is wrong with a field that is to be a whole number."""
    value = entry.get(key)
    if value is None:
        return f"has no {key}"
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "true or false", float: "a decimal number"}
    return f"its {key} {value!r:.40} is {kinds.get(type(value), 'too large')}, not a whole number"


def image_record(entry: Mapping[str, Any]) -> ImageRecord:
    """The image of an entry. Raises ValueError, which says what is wrong with it."""
    number, width, height = (whole(entry.get(key)) for key in ("id", "width", "height"))
    for key, value in (("id", number), ("width", width), ("height", height)):
        if value is None:
            raise ValueError(not_whole(entry, key))
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("has no file_name" if name is None else f"its file_name {name!r:.40} is no name")
    assert number is not None
    assert width is not None
    assert height is not None
    if min(width, height) < 1 or max(width, height) > LARGEST:
        raise ValueError(f"its width and height are {width} and {height}")
    return ImageRecord(number, with_slashes(name), width, height)


def category_record(entry: Mapping[str, Any]) -> tuple[int, str]:
    """Id and name of a category. Raises ValueError, which says what is wrong with its entry."""
    number, name = whole(entry.get("id")), entry.get("name")
    if number is None:
        raise ValueError(not_whole(entry, "id"))
    if not is_name(name):
        raise ValueError("has no name" if name is None else f"its name {name!r:.40} is no name")
    return number, name


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value can name a category: a text that is not blank, and that UTF-8 can write."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: Any, longest: int = 80) -> str:
    """A text out of a file as people are to see it in a message: on one line, not too long, nothing that rules the
    terminal."""
    plain = printable(str(text)[: longest + 1]).replace("\n", "\\n")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def stated_area(entry: Mapping[str, Any]) -> float | None:
    """The area of an annotation, None where it has none that is a number."""
    value = entry.get("area")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        area = float(value)
    except OverflowError:
        return None
    return area if math.isfinite(area) else None


def stated_crowd(entry: Mapping[str, Any]) -> bool | None:
    """Whether an annotation is a region of many, None where it does not say so by a number."""
    value = entry.get("iscrowd")
    number = int(value) if isinstance(value, bool) else whole(value)
    return None if number is None else number != 0


def shown_box(values: Any) -> str:
    """A box as people are to see it in a message."""
    if not isinstance(values, list):
        return f"{values!r:.40}"
    return "[" + ", ".join("NaN" if value is None else f"{value!s:.12}" for value in values[:5]) + "]"


def _annotation(
    entry: dict[str, Any], position: int, index_of: Mapping[int, int], category_of: Mapping[int, int]
) -> tuple[int, int, int, list[float]]:
    """Id, places of image and category, and x, y, width, height. Raises ValueError, which says what is wrong."""
    numbers = []
    for key in ("image_id", "category_id"):
        number = whole(entry.get(key))
        if number is None:
            raise ValueError(not_whole(entry, key))
        numbers.append(number)
    number = whole(entry.get("id", position + 1))
    if number is None:
        raise ValueError(not_whole(entry, "id"))
    for role, known, meant in zip(("image", "category"), (index_of, category_of), numbers, strict=True):
        if meant not in known:
            raise ValueError(f"belongs to {role} {meant}, which is not in the file")
    values = entry.get("bbox")
    if values is None:
        raise ValueError("has no bbox")
    try:
        box = [float(value) for value in values] if isinstance(values, list) else []
    except (TypeError, ValueError, OverflowError):
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError(f"its bbox {shown_box(values)} is not four numbers")
    if min(box[2:]) <= 0:
        raise ValueError(f"its bbox {shown_box(values)} has no width or height")
    return number, index_of[numbers[0]], category_of[numbers[1]], box


def _images(path: Path) -> tuple[list[ImageRecord], dict[int, int]]:
    """The images, and the place of each by its id."""
    images: list[ImageRecord] = []
    for position, entry in enumerate(entries(path, "images"), 1):
        try:
            images.append(image_record(entry))
        except ValueError as error:
            raise InvalidDataset(f"{path}: image number {position}: {error}; {CHECK}") from error
    index_of = {image.id: index for index, image in enumerate(images)}
    if not images:
        raise InvalidDataset(f"{path}: holds no images; is it a COCO annotation file?")
    if len(index_of) < len(images):
        raise InvalidDataset(f"{path}: several images have the same id; {CHECK}")
    return images, index_of


def _categories(path: Path) -> tuple[list[int], list[str]]:
    """Ids and names of the categories, by ascending id."""
    found = []
    for position, entry in enumerate(entries(path, "categories"), 1):
        try:
            found.append(category_record(entry))
        except ValueError as error:
            raise InvalidDataset(f"{path}: category number {position}: {error}; {CHECK}") from error
    found.sort()
    if not found:
        raise InvalidDataset(f"{path}: holds no categories; is it a COCO annotation file?")
    numbers, names = [number for number, _ in found], [name for _, name in found]
    if len(set(numbers)) < len(numbers) or len(set(names)) < len(names):
        raise InvalidDataset(f"{path}: two categories have the same id or name; {CHECK}")
    return numbers, names
