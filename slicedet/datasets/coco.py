"""COCO annotation files, read as a stream into arrays."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.nonfinite import NullForNaN
from slicedet.errors import InvalidDataset


@dataclass(frozen=True)
class ImageRecord:
    """An image as its annotation file describes it; width and height in pixels."""

    id: int
    file_name: str
    width: int
    height: int


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
        where = f"{path}: annotation {entry.get('id', f'number {position + 1}')}"
        try:
            x, y, width, height = (float(value) for value in entry["bbox"])
            image_indices.append(index_of[entry["image_id"]])
            category_ids.append(category_of[entry["category_id"]])
            ids.append(int(entry.get("id", position + 1)))
            areas.append(float(entry.get("area", width * height)))
        except KeyError as error:
            raise InvalidDataset(f"{where}: {_unknown(entry, index_of)}; {CHECK}") from error
        except (TypeError, ValueError) as error:
            raise InvalidDataset(f"{where} has no box of four numbers; {CHECK}") from error
        if not (np.isfinite([x, y]).all() and 0 < width < np.inf and 0 < height < np.inf):
            raise InvalidDataset(f"{where} has a box without width or height, or with NaN; {CHECK}")
        boxes.extend((x, y, x + width, y + height))
        crowd.append(bool(entry.get("iscrowd", 0)))
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


CHECK = "see `slicedet dataset check`"
"""Where to send the user of a file that cannot be used."""


def entries(path: Path, section: str, nan_as_null: bool = False) -> Iterator[dict[str, Any]]:
    """The entries of one list of a COCO file (images, annotations, categories), one after the other, as they stand.

    A file that is one list of annotations, COCO's format of results, has only that section. NaN and Infinity are no
    JSON: they raise, or are given as None where `nan_as_null`. Raises InvalidDataset where the file is missing, cannot
    be read, or is not JSON.
    """
    import ijson

    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip()[:1]
            file.seek(0)
            if start == b"[" and section != "annotations":
                return
            prefix = "item" if start == b"[" else f"{section}.item"
            stream = NullForNaN(file) if nan_as_null else file
            for entry in ijson.items(stream, prefix, use_float=True):
                if not isinstance(entry, dict):
                    raise InvalidDataset(f"{path}: an entry of {section} is no object but {entry!r:.40}")
                yield entry
    except FileNotFoundError as error:
        raise InvalidDataset(f"{path}: no such annotation file") from error
    except OSError as error:
        raise InvalidDataset(f"{path}: cannot be read ({error.strerror})") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path}: is not valid JSON ({str(error).splitlines()[0]})") from error


def _images(path: Path) -> tuple[list[ImageRecord], dict[int, int]]:
    """The images, and the place of each by its id."""
    images: list[ImageRecord] = []
    for position, entry in enumerate(entries(path, "images")):
        try:
            record = ImageRecord(int(entry["id"]), str(entry["file_name"]), int(entry["width"]), int(entry["height"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDataset(
                f"{path}: image number {position + 1} needs id, file_name, width and height; {CHECK}"
            ) from error
        images.append(record)
    index_of = {image.id: index for index, image in enumerate(images)}
    if not images:
        raise InvalidDataset(f"{path}: holds no images; is it a COCO annotation file?")
    if len(index_of) < len(images):
        raise InvalidDataset(f"{path}: several images have the same id; {CHECK}")
    return images, index_of


def _categories(path: Path) -> tuple[list[int], list[str]]:
    """Ids and names of the categories, by ascending id."""
    try:
        found = sorted((int(entry["id"]), str(entry["name"])) for entry in entries(path, "categories"))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDataset(f"{path}: every category needs an id and a name; {CHECK}") from error
    if not found:
        raise InvalidDataset(f"{path}: holds no categories; is it a COCO annotation file?")
    numbers, names = [number for number, _ in found], [name for _, name in found]
    if len(set(numbers)) < len(numbers) or len(set(names)) < len(names):
        raise InvalidDataset(f"{path}: two categories have the same id or name; {CHECK}")
    return numbers, names


def _unknown(entry: dict[str, Any], index_of: dict[int, int]) -> str:
    """Which reference of an annotation leads nowhere."""
    missing = [key for key in ("bbox", "image_id", "category_id") if key not in entry]
    if missing:
        return f"has no {missing[0]}"
    role = "category" if entry["image_id"] in index_of else "image"
    return f"belongs to {role} {entry[f'{role}_id']}, which is not in the file"
