"""A repaired copy of a dataset; the original stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slicedet.datasets.check import Check, CheckedSplit, check
from slicedet.datasets.coco import ImageRecord, category_record, entries, stated_area, stated_crowd, whole
from slicedet.datasets.layout import annotations_name, relative
from slicedet.datasets.listing import as_shown, image_number, judged
from slicedet.datasets.writing import CocoFile, check_image_mode, extras, new_folder, place_image
from slicedet.errors import InvalidDataset
from slicedet.pipeline import Progress

CHANGES = {
    "images-dropped": "images left out that are missing, unreadable, outside the folder or unusable entries",
    "images-merged": "entries of images listed twice, made one",
    "images-ambiguous": "images left out that share their id with another file, with all boxes of that id",
    "images-leaked": "images left out of a split since a later one has them too",
    "sizes-corrected": "images whose width and height were set to those of the file",
    "images-turned": "images whose boxes were turned as EXIF turns the image",
    "categories-dropped": "categories left out that are unusable or there twice",
    "categories-renumbered": "categories given another id, so that all splits agree",
    "boxes-dropped": "boxes left out that have no area, number, place in the image, known image or known category",
    "boxes-merged": "boxes left out that were there twice",
    "boxes-clipped": "boxes cut to their image",
    "boxes-righted": "boxes whose negative width or height was turned round",
    "boxes-completed": "boxes given the area or iscrowd they lacked",
    "ids-renumbered": "images and annotations numbered anew, from 1, over all splits",
}
"""What a repair does, in words."""


def repair(checked: Check, output: str | Path, image_mode: str = "copy") -> dict[str, Counter[str]]:
    """Writes a copy of a checked dataset without the errors that can be mended, and tells how often what was changed.

    checked: from `check`. output: a folder that does not exist or is empty. image_mode: "copy", or "link" for symbolic
    links. Returns, for each split, counts under the names of CHANGES. Near copies and copies within a split stay; files
    that no split lists are left behind. An image in several splits stays in the last, so that figures measured on val
    stay comparable. Raises InvalidDataset where nothing is left, OutputError where it cannot be written.
    """
    check_image_mode(image_mode)
    usable = [part for part in checked.splits if part.dataset is not None]
    if not usable:
        raise InvalidDataset(f"{checked.layout.root}: has no split that can be repaired")
    numbering = _Numbering(usable)
    changes: dict[str, Counter[str]] = {}
    with new_folder(output) as folder:
        (folder / "images").mkdir()
        (folder / "annotations").mkdir()
        for part in usable:
            counts = changes[part.split.name] = Counter()
            kept = _kept_images(part, checked.leaked, counts)
            if not kept:
                raise InvalidDataset(f"{part.split.annotations}: no image is left that could be used")
            path = folder / "annotations" / annotations_name(part.split.name)
            with CocoFile(path, extras(part.split.annotations)) as file:
                file.categories = list(numbering.entries())
                _write_split(part, kept, numbering, file, counts)
            for image in kept.values():
                target = folder / "images" / relative(image.file_name)
                if not target.exists():
                    place_image(checked.layout.image(image.file_name), target, image_mode)
    return changes


def check_repaired(
    checked: Check, source: str | Path, output: str | Path, input_size: int = 640, progress: Progress | None = None
) -> Check:
    """Checks the copy in `output` of a dataset that was `checked`, as `source` was: as a folder, or as one file."""
    if Path(source).is_dir():
        return check(output, None, input_size, progress)
    # The file has become one of a folder that lacks the other split.
    file = Path(output) / "annotations" / annotations_name(checked.layout.splits[0].name)
    return check(file, None, input_size, progress)


class _Numbering:
    """Ids for the categories, images and annotations of all splits together."""

    def __init__(self, parts: list[CheckedSplit]) -> None:
        self.image = self.annotation = 0
        self.categories: dict[str, int] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        for part in parts:
            for entry in entries(part.split.annotations, "categories"):
                try:
                    number, name = category_record(entry)
                except ValueError:
                    continue
                if part.categories.names.get(number) != name or name in self.categories:
                    continue
                # The id stays, unless another category has it already.
                free = number if number not in self.categories.values() else max(self.categories.values()) + 1
                self.categories[name] = free
                self._entries[name] = {**entry, "id": free}

    def entries(self) -> Iterator[dict[str, Any]]:
        """The categories of all splits, by id."""
        yield from sorted(self._entries.values(), key=lambda entry: int(entry["id"]))


def _kept_images(
    part: CheckedSplit, leaked: frozenset[tuple[str, str]], counts: Counter[str]
) -> dict[int, ImageRecord]:
    """The images to keep, by their place in the file, with their true sizes."""
    files_of: dict[int, set[str]] = {}
    for image in part.images:
        if image is not None:
            files_of.setdefault(image.id, set()).add(image.file_name)
    kept: dict[int, ImageRecord] = {}
    names: set[str] = set()
    for place, image in enumerate(part.images):
        decoded = part.decoded.get(place)
        if image is None or decoded is None or decoded.trouble:
            counts["images-dropped"] += 1
        elif len(files_of[image.id]) > 1:
            counts["images-ambiguous"] += 1
        elif (part.split.name, image.file_name) in leaked:
            counts["images-leaked"] += 1
        elif image.file_name in names:
            counts["images-merged"] += 1
        else:
            if (image.width, image.height) != (decoded.width, decoded.height):
                counts["images-turned" if part.is_turned(place) else "sizes-corrected"] += 1
            kept[place] = ImageRecord(image.id, image.file_name, decoded.width, decoded.height)
            names.add(image.file_name)
    return kept


def _write_split(
    part: CheckedSplit,
    kept: Mapping[int, ImageRecord],
    numbering: _Numbering,
    file: CocoFile,
    counts: Counter[str],
) -> None:
    numbers: dict[str, int] = {}
    for place, entry in enumerate(entries(part.split.annotations, "images")):
        if place in kept:
            image = kept[place]
            numbering.image += 1
            numbers[image.file_name] = numbering.image
            counts["ids-renumbered"] += entry["id"] != numbering.image
            # The name is as `ImageRecord` has it, which other tools read too.
            stated = {"file_name": image.file_name, "width": image.width, "height": image.height}
            file.add_image({**entry, "id": numbering.image, **stated})
    place_of = {image.file_name: place for place, image in kept.items()}
    # An image that was listed twice has boxes under both ids.
    owners = {
        image.id: place_of[image.file_name]
        for image in part.images
        if image is not None and image.file_name in place_of
    }
    names = part.categories.names
    counts["categories-dropped"] += sum(1 for _ in entries(part.split.annotations, "categories")) - len(names)
    counts["categories-renumbered"] += sum(numbering.categories[name] != number for number, name in names.items())
    for position, entry in enumerate(entries(part.split.annotations, "annotations")):
        mended = _mended(part, kept, owners, position, entry, counts)
        if mended is None:
            continue
        name = names[part.categories.known(whole(entry["category_id"]))]  # type: ignore[index]
        image = kept[owners[image_number(entry["image_id"])]]  # type: ignore[index]
        numbering.annotation += 1
        counts["ids-renumbered"] += entry.get("id") != numbering.annotation
        file.add_annotation(
            {
                **mended,
                "id": numbering.annotation,
                "image_id": numbers[image.file_name],
                "category_id": numbering.categories[name],
            }
        )
    for change in [change for change, count in counts.items() if not count]:
        del counts[change]


def _mended(
    part: CheckedSplit,
    kept: Mapping[int, ImageRecord],
    owners: Mapping[int, int],
    position: int,
    entry: Mapping[str, Any],
    counts: Counter[str],
) -> dict[str, Any] | None:
    """An annotation with a box that can be used, or None."""
    owner = owners.get(image_number(entry.get("image_id")))  # type: ignore[arg-type]
    if owner is None or part.categories.known(whole(entry.get("category_id"))) is None:
        counts["boxes-dropped"] += 1
        return None
    image = kept[owner]
    turned = part.is_turned(owner)
    width, height = (image.height, image.width) if turned else (image.width, image.height)
    fault, box = judged(entry.get("bbox"), width, height)
    if box is None:
        counts["boxes-dropped"] += 1
        return None
    if position in part.duplicates:
        counts["boxes-merged"] += 1
        return None
    mended = dict(entry)
    x, y, across, down = (float(value) for value in entry["bbox"])
    reaches_out = (min(x, x + across), min(y, y + down), max(x, x + across), max(y, y + down)) != box
    if turned:
        box = as_shown(box, part.decoded[owner].orientation, image.width, image.height)
        mended.pop("segmentation", None)
    changed = turned or fault is not None or reaches_out
    written = [round(value, 3) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
    if changed and min(written[2:]) <= 0:
        counts["boxes-dropped"] += 1
        return None
    counts["boxes-righted"] += across < 0 or down < 0
    counts["boxes-clipped"] += reaches_out
    if changed:
        mended["bbox"] = written
        mended["area"] = round((box[2] - box[0]) * (box[3] - box[1]), 3)
    lacks_area, crowd = stated_area(mended) is None, stated_crowd(mended)
    counts["boxes-completed"] += lacks_area or crowd is None
    if lacks_area:
        mended["area"] = round((box[2] - box[0]) * (box[3] - box[1]), 3)
    mended["iscrowd"] = int(bool(crowd))
    return mended
