"""An annotation file as it stands, faults and all: what it lists, told entry by entry to the findings."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import (
    CocoDataset,
    ImageRecord,
    category_record,
    entries,
    image_record,
    not_whole,
    shown_box,
    stated_area,
    stated_crowd,
    whole,
)
from slicedet.datasets.findings import Findings
from slicedet.datasets.layout import Split, relative
from slicedet.errors import InvalidDataset
from slicedet.raster.orientation import Orientation

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2 in pixels of the image."""

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


def image_number(value: Any) -> int | None:
    """The number of an image: its id; for a text, which is a fault but names one image all the same, a negative number
    that stands for it."""
    if isinstance(value, str) and value.strip() and whole(value) is None:
        return -int.from_bytes(hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=7).digest(), "big")
    return whole(value)


def read_images(split: Split, findings: Findings) -> list[ImageRecord | None]:
    """The images in the order of the file; None for what is of no use, which is noted."""
    images: list[ImageRecord | None] = []
    ids: set[int] = set()
    names: set[str] = set()
    file = split.annotations.name
    for position, entry in enumerate(entries(split.annotations, "images"), 1):
        try:
            number = image_number(entry.get("id"))
            record = image_record(entry if number is None else {**entry, "id": number})
        except ValueError as error:
            images.append(None)
            name = str(entry.get("file_name") or file)
            findings.add("image-invalid", split.name, name, f"image number {position}: {error}")
            continue
        images.append(record)
        if type(entry["id"]) is not int:
            message = f"image number {position}: {not_whole(entry, 'id')}"
            findings.add("id-type", split.name, record.file_name, message, whole(entry["id"]))
        if record.file_name in names:
            findings.add("image-duplicate-name", split.name, record.file_name, "is listed before", record.id)
        elif record.id in ids:
            findings.add("image-duplicate-id", split.name, record.file_name, "another image has the same id", record.id)
        ids.add(record.id)
        names.add(record.file_name)
        try:
            relative(record.file_name)
        except InvalidDataset as error:
            findings.add("image-outside", split.name, f"{record.file_name:.80}", str(error), record.id)
    if not any(images):
        findings.add("no-images", split.name, file, "holds no image; is it a COCO annotation file?")
    return images


def read_categories(split: Split, findings: Findings) -> ListedCategories:
    """The usable categories by ascending id; what is wrong with the others is noted."""
    found: dict[int, str] = {}
    aliases: dict[int, int] = {}
    file = split.annotations.name
    for position, entry in enumerate(entries(split.annotations, "categories"), 1):
        try:
            number, name = category_record(entry)
        except ValueError as error:
            findings.add("category-invalid", split.name, file, f"category number {position}: {error}")
            continue
        if number in found or name in found.values():
            findings.add("category-duplicate", split.name, file, f"{number} {name!r} is there before", number)
            if number not in found:
                aliases[number] = next(before for before, known in found.items() if known == name)
        else:
            if type(entry["id"]) is not int:
                findings.add("id-type", split.name, file, f"category number {position}: {not_whole(entry, 'id')}")
            found[number] = name
    if not found:
        findings.add("category-invalid", split.name, file, "holds no category")
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
    boxes, areas, ids, places = array("d"), array("d"), array("q"), array("q")
    owners, kinds, crowd = array("q"), array("q"), array("b")
    for position, entry in enumerate(entries(split.annotations, "annotations")):
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
        lacking = [key for key, stated in (("area", stated_area), ("iscrowd", stated_crowd)) if stated(entry) is None]
        if lacking:
            message = f"has no {' and no '.join(lacking)} that is a number"
            findings.add("annotation-incomplete", split.name, file, message, number)
        if box is not None and owner is not None and kind is not None:
            boxes.extend(box)
            stated, inside = stated_area(entry), (box[2] - box[0]) * (box[3] - box[1])
            # As much of it as is left of the box.
            whole_box = abs(float(entry["bbox"][2]) * float(entry["bbox"][3]))
            areas.append(inside if stated is None or not whole_box else stated * min(1.0, inside / whole_box))
            owners.append(owner)
            kinds.append(kind)
            crowd.append(bool(stated_crowd(entry)))
            places.append(position)
    _repeated_ids(split, ids, findings)
    if not usable or not category_of:
        return ReadAnnotations(None, frozenset())
    corners = np.frombuffer(boxes, np.float64).reshape(-1, 4)
    order = np.argsort(np.frombuffer(owners, np.int64), kind="stable")
    dataset = CocoDataset(
        path=split.annotations,
        images=tuple(ImageRecord(image.id, image.file_name, *frames[index]) for index, (_, image) in enumerate(usable)),
        categories=tuple(categories.names.values()),
        category_numbers=tuple(categories.names),
        boxes=corners[order],
        category_ids=np.frombuffer(kinds, np.int64)[order].astype(np.int32),
        image_indices=np.frombuffer(owners, np.int64)[order],
        crowd=np.frombuffer(crowd, np.int8)[order].astype(bool),
        areas=np.frombuffer(areas, np.float64)[order],
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


def judged(values: Any, width: float, height: float) -> tuple[str | None, Box | None]:
    """What is wrong with a box x, y, width, height in an image of this size, and what of it can be used."""
    if not isinstance(values, list) or len(values) != 4:
        return "annotation-invalid", None
    if any(value is None for value in values):
        return "box-nan", None
    try:
        x, y, across, down = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
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


def as_shown(box: Box, orientation: int, width: int, height: int) -> Box:
    """A box of a stored image in the frame, `width` x `height`, in which EXIF shows it."""
    to_shown = ~Orientation.from_exif(orientation).to_stored(width, height)
    (xa, ya), (xb, yb) = to_shown @ (box[0], box[1]), to_shown @ (box[2], box[3])
    return min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)


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
    number, category = whole(entry.get("id")), whole(entry.get("category_id"))
    image = image_number(entry.get("image_id"))
    for key in ("id", "image_id", "category_id"):
        if entry.get(key) is not None and type(entry[key]) is not int:
            message = f"annotation number {position + 1}: {not_whole(entry, key)}"
            findings.add("id-type", split.name, file, message, number)
    if entry.get("id") is None:
        findings.add("annotation-invalid", split.name, file, f"annotation number {position + 1} has no id")
    owner = None if image is None else index_of.get(image)
    kind = None if category is None else category_of.get(category)
    if owner is None:
        findings.add("image-unknown", split.name, file, f"belongs to image {entry.get('image_id')}", number)
    if kind is None:
        findings.add("category-unknown", split.name, file, f"is of category {entry.get('category_id')}", number)
    return owner, kind, owner is not None and kind is not None


def _told(fault: str, entry: dict[str, Any], width: float, height: float) -> str:
    if entry.get("bbox") is None:
        return "has no bbox"
    where = f" in an image of {width:.0f} x {height:.0f}" if fault == "box-outside" else ""
    return f"bbox {shown_box(entry['bbox'])}{where}"


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
