"""An annotation file as it stands, faults and all: what it lists, told entry by entry to the findings."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import CocoDataset, ImageRecord, entries
from slicedet.datasets.findings import Findings
from slicedet.datasets.layout import Split, relative
from slicedet.datasets.nonfinite import has_nonfinite
from slicedet.errors import InvalidDataset

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels."""

TOLERANCE_PX = 1.0
"""How far a box may reach out of its image: by as much as rounding of sizes and corners does."""


@dataclass(frozen=True)
class ListedCategories:
    """Usable categories: the name of each id, the first where an id or a name comes twice; and the ids that name one of
    these again, with its id."""

    names: Mapping[int, str]
    aliases: Mapping[int, int]

    def known(self, number: int | None) -> int | None:
        """The id of the category that a number means, None where it means none."""
        found = None if number is None else self.aliases.get(number, number)
        return found if found in self.names else None


def read_entries(split: Split, section: str) -> Iterator[dict[str, Any]]:
    """The entries of a section, where NaN and Infinity are None."""
    nan_as_null = split.annotations.is_file() and has_nonfinite(split.annotations)
    return entries(split.annotations, section, nan_as_null)


def read_images(split: Split, findings: Findings) -> list[ImageRecord | None]:
    """The images in the order of the file; None for what is of no use, which is noted."""
    images: list[ImageRecord | None] = []
    ids: set[int] = set()
    names: set[str] = set()
    file = split.annotations.name
    for position, entry in enumerate(read_entries(split, "images"), 1):
        record = _image(entry)
        images.append(record)
        if record is None:
            name = str(entry.get("file_name", file))
            findings.add("image-invalid", split.name, name, f"image number {position}: {_shortened(entry)}")
            continue
        if type(entry["id"]) is not int:
            findings.add("id-type", split.name, record.file_name, f"image id {entry['id']!r}")
        if record.file_name in names:
            findings.add("image-duplicate-name", split.name, record.file_name, "is listed before", record.id)
        elif record.id in ids:
            findings.add("image-duplicate-id", split.name, record.file_name, "another image has the same id", record.id)
        ids.add(record.id)
        names.add(record.file_name)
        try:
            relative(record.file_name)
        except InvalidDataset:
            findings.add("image-outside", split.name, record.file_name, "not below the folder of images", record.id)
    if not any(images):
        findings.add("no-images", split.name, file, "holds no image; is it a COCO annotation file?")
    return images


def read_categories(split: Split, findings: Findings) -> ListedCategories:
    """The usable categories by ascending id; what is wrong with the others is noted."""
    found: dict[int, str] = {}
    aliases: dict[int, int] = {}
    for position, entry in enumerate(read_entries(split, "categories"), 1):
        number, name = whole(entry.get("id")), entry.get("name")
        file = split.annotations.name
        if number is None or not isinstance(name, str) or not name.strip():
            findings.add("category-invalid", split.name, file, f"category number {position}: {_shortened(entry)}")
        elif number in found or name in found.values():
            findings.add("category-duplicate", split.name, file, f"{number} {name!r} is there before", number)
            if number not in found:
                aliases[number] = next(before for before, known in found.items() if known == name)
        else:
            if type(entry["id"]) is not int:
                findings.add("id-type", split.name, file, f"category id {entry['id']!r}")
            found[number] = name
    if not found:
        findings.add("category-invalid", split.name, split.annotations.name, "holds no category")
    return ListedCategories(dict(sorted(found.items())), aliases)


@dataclass(frozen=True, eq=False)
class ReadAnnotations:
    """The usable boxes of a split as a dataset (None without images or categories), and the places in the file, from 0,
    of boxes that are there before."""

    dataset: CocoDataset | None
    duplicates: frozenset[int]


def read_annotations(
    split: Split,
    images: Sequence[ImageRecord | None],
    sizes: Mapping[int, tuple[int, int]],
    categories: ListedCategories,
    findings: Findings,
) -> ReadAnnotations:
    """Reads the annotations of the images listed.

    sizes: width and height of images by their place in `images`, where known better than from the file.
    """
    usable = first_of_each_id(images)
    index_of = {image.id: index for index, (_, image) in enumerate(usable)}
    frames = [sizes.get(place, (image.width, image.height)) for place, image in usable]
    category_of = {number: index for index, number in enumerate(categories.names)}
    category_of |= {number: category_of[meant] for number, meant in categories.aliases.items()}
    boxes, ids, places = array("d"), array("q"), array("q")
    owners, kinds, crowd = array("q"), array("q"), array("b")
    for position, entry in enumerate(read_entries(split, "annotations")):
        number = whole(entry.get("id"))
        owner, kind, known = _references(split, position, entry, index_of, category_of, findings)
        if number is not None:
            ids.append(number)
        file = usable[owner][1].file_name if owner is not None else split.annotations.name
        width, height = frames[owner] if owner is not None else (math.inf, math.inf)
        fault, box = judged(entry.get("bbox"), width, height)
        if fault is not None:
            findings.add(fault, split.name, file, _told(fault, entry, width, height), number)
        if not known:
            continue
        if entry.get("area") is None or entry.get("iscrowd") is None:
            findings.add("annotation-incomplete", split.name, file, "has no area, or no iscrowd", number)
        if box is not None and owner is not None and kind is not None:
            boxes.extend(box)
            owners.append(owner)
            kinds.append(kind)
            crowd.append(bool(entry.get("iscrowd")))
            places.append(position)
    _repeated_ids(split, ids, findings)
    if not usable or not category_of:
        return ReadAnnotations(None, frozenset())
    corners = np.frombuffer(boxes, np.float64).reshape(-1, 4)
    order = np.argsort(np.frombuffer(owners, np.int64), kind="stable")
    sides = corners[:, 2:] - corners[:, :2]
    dataset = CocoDataset(
        path=split.annotations,
        images=tuple(ImageRecord(image.id, image.file_name, *frames[index]) for index, (_, image) in enumerate(usable)),
        categories=tuple(categories.names.values()),
        category_numbers=tuple(categories.names),
        boxes=corners[order],
        category_ids=np.frombuffer(kinds, np.int64)[order].astype(np.int32),
        image_indices=np.frombuffer(owners, np.int64)[order],
        crowd=np.frombuffer(crowd, np.int8)[order].astype(bool),
        areas=sides.prod(axis=1)[order],
        ids=np.frombuffer(places, np.int64)[order],
    )
    return ReadAnnotations(dataset, _repeated_boxes(split, dataset, findings))


def first_of_each_id(images: Sequence[ImageRecord | None]) -> list[tuple[int, ImageRecord]]:
    """Place and record of the images that boxes can belong to."""
    found: dict[int, tuple[int, ImageRecord]] = {}
    for place, image in enumerate(images):
        if image is not None:
            found.setdefault(image.id, (place, image))
    return list(found.values())


def whole(value: Any) -> int | None:
    """A whole number from a number or from digits; None for anything else, and for what 64 bits do not hold."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) < 1 << 63 else None


def judged(values: Any, width: float, height: float) -> tuple[str | None, Box | None]:
    """What is wrong with a box x, y, width, height in an image of this size, and what of it can be used."""
    if not isinstance(values, list) or len(values) != 4:
        return "annotation-invalid", None
    if any(value is None for value in values):
        return "box-nan", None
    try:
        x, y, across, down = (float(value) for value in values)
    except (TypeError, ValueError):
        return "annotation-invalid", None
    if not all(map(math.isfinite, (x, y, across, down))):
        return "box-nan", None
    if across == 0 or down == 0:
        return "box-empty", None
    x1, x2, y1, y2 = min(x, x + across), max(x, x + across), min(y, y + down), max(y, y + down)
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
    reach = max(-x1, -y1, x2 - width, y2 - height)
    fault = "box-inverted" if across < 0 or down < 0 else "box-outside" if reach > TOLERANCE_PX else None
    if reach > 0 and min(inside[2] - inside[0], inside[3] - inside[1]) < min(1.0, abs(across), abs(down)):
        return fault or "box-outside", None
    return fault, inside


def _image(entry: dict[str, Any]) -> ImageRecord | None:
    number, name = whole(entry.get("id")), entry.get("file_name")
    width, height = whole(entry.get("width")), whole(entry.get("height"))
    if number is None or not isinstance(name, str) or not name or not width or not height or min(width, height) < 1:
        return None
    return ImageRecord(number, name, width, height)


def _references(
    split: Split,
    position: int,
    entry: dict[str, Any],
    index_of: Mapping[int, int],
    category_of: Mapping[int, int],
    findings: Findings,
) -> tuple[int | None, int | None, bool]:
    """Index of an annotation's image and category, None where unknown, and whether both are known."""
    file = split.annotations.name
    number, image, category = (whole(entry.get(key)) for key in ("id", "image_id", "category_id"))
    if any(entry.get(key) is not None and type(entry[key]) is not int for key in ("id", "image_id", "category_id")):
        findings.add("id-type", split.name, file, f"annotation number {position + 1}: {_shortened(entry)}", number)
    if number is None:
        findings.add("annotation-invalid", split.name, file, f"annotation number {position + 1} has no usable id")
    owner = None if image is None else index_of.get(image)
    kind = None if category is None else category_of.get(category)
    if owner is None:
        findings.add("image-unknown", split.name, file, f"belongs to image {entry.get('image_id')}", number)
    if kind is None:
        findings.add("category-unknown", split.name, file, f"is of category {entry.get('category_id')}", number)
    return owner, kind, owner is not None and kind is not None


def _told(fault: str, entry: dict[str, Any], width: float, height: float) -> str:
    values = entry.get("bbox")
    if not isinstance(values, list):
        return "has no bbox" if values is None else f"bbox is {str(values)[:40]}"
    shown = "[" + ", ".join("NaN" if value is None else str(value)[:12] for value in values[:5]) + "]"
    where = f" in an image of {width:.0f} x {height:.0f}" if fault == "box-outside" else ""
    return f"bbox {shown}{where}"


def _repeated_ids(split: Split, ids: array[int], findings: Findings) -> None:
    numbers, counts = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    for number, count in zip(numbers[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        findings.add(
            "annotation-duplicate-id", split.name, split.annotations.name, f"{count} annotations have it", number
        )


def _repeated_boxes(split: Split, dataset: CocoDataset, findings: Findings) -> frozenset[int]:
    """Places in the file, told by `dataset.ids`, of boxes that are there before."""
    columns = (
        *np.round(dataset.boxes, 2).T,
        dataset.category_ids,
        dataset.image_indices,
    )
    order = np.lexsort((dataset.ids, *columns))
    same = np.ones(max(len(order) - 1, 0), bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    repeated = np.sort(dataset.ids[order][1:][same])
    rows = {int(place): row for row, place in enumerate(dataset.ids)} if len(repeated) else {}
    for place in repeated.tolist():
        row = rows[place]
        image = dataset.images[dataset.image_indices[row]]
        what = f"{dataset.categories[dataset.category_ids[row]]} at {_rounded(dataset.boxes[row])}, entry {place + 1}"
        findings.add("box-duplicate", split.name, image.file_name, what)
    return frozenset(repeated.tolist())


def _rounded(box: NDArray[np.float64]) -> list[float]:
    return [round(value, 2) for value in box.tolist()]


def _shortened(entry: dict[str, Any]) -> str:
    """An entry in at most 80 characters."""
    text = ", ".join(f"{key} {value!r:.20}" for key, value in entry.items())
    return text if len(text) <= 80 else text[:77] + "..."
