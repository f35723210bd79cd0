"""Checks a dataset: its files, images, boxes, categories, and whether its splits are apart."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets import layout as layouts
from slicedet.datasets.advice import Advice, advise
from slicedet.datasets.coco import CocoDataset, ImageRecord
from slicedet.datasets.decoding import Decoded, decode_all
from slicedet.datasets.findings import ERROR, Findings
from slicedet.datasets.layout import SPLITS, Layout, Split
from slicedet.datasets.listing import ListedCategories, read_annotations, read_categories, read_images
from slicedet.datasets.stats import Statistics, joined, measure
from slicedet.errors import InvalidDataset, InvalidSetting
from slicedet.pipeline import Progress

SIMILAR_BITS = 40
"""Of the 256 bits of a picture's look: how many may differ between near copies. On the KIT AIS and Minsk photos, frames
that follow each other in a flight differ by 1 to 35, pictures of different places by 106 and more."""


@dataclass(frozen=True, eq=False)
class CheckedSplit:
    """A split as it was found.

    images: in the order of the file, None for unusable entries. decoded: of each image by its place, where it is there.
    dataset: its usable boxes, None without images or categories. duplicates: places of boxes that are there before.
    """

    split: Split
    images: Sequence[ImageRecord | None]
    decoded: Mapping[int, Decoded]
    categories: ListedCategories
    dataset: CocoDataset | None
    duplicates: frozenset[int]

    def is_turned(self, place: int) -> bool:
        """Whether the image is annotated as stored, while it is shown turned."""
        image, decoded = self.images[place], self.decoded.get(place)
        if image is None or decoded is None or decoded.trouble:
            return False
        stated = (image.width, image.height)
        return stated == decoded.stored != (decoded.width, decoded.height)


@dataclass(frozen=True, eq=False)
class Check:
    """The outcome of a check. leaked: split and file name of the images that a later split has too."""

    layout: Layout
    splits: tuple[CheckedSplit, ...]
    findings: Findings
    leaked: frozenset[tuple[str, str]]
    statistics: Mapping[str, Statistics]
    advice: Advice | None

    @property
    def passed(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return self.findings.total(ERROR) == 0

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "dataset": str(self.layout.root),
            "check_pass": self.passed,
            **self.findings.summary(),
            "statistics": {name: statistics.summary() for name, statistics in self.statistics.items()},
            "advice": None if self.advice is None else self.advice.summary(),
        }


def check(
    source: str | Path, images: str | Path | None = None, input_size: int = 640, progress: Progress | None = None
) -> Check:
    """Checks a dataset and decodes every image of it.

    source, images: as for `layout.find`. A folder needs both splits, a single file is one. input_size: side in pixels
    of the network's input that the advice is for. Raises InvalidDataset where there is nothing to check.
    """
    if input_size < 1:
        raise InvalidSetting(f"input-size {input_size}: expected pixels, from 1")
    layout = layouts.find(source, images)
    findings = Findings()
    if Path(source).is_dir():
        for name in SPLITS:
            if all(split.name != name for split in layout.splits):
                file = f"annotations/{layouts.annotations_name(name)}"
                findings.add("annotations-missing", name, file, "is not there; `slicedet dataset split` makes both")
    listed = []
    for split in layout.splits:
        try:
            listed.append((split, read_images(split, findings), read_categories(split, findings)))
        except InvalidDataset as error:
            findings.add("annotations-unreadable", split.name, split.annotations.name, str(error))
    wanted = dict.fromkeys(file for split, images, _ in listed for _, file in _present(layout, split, images))
    paths = list(wanted)
    decoded = dict(zip(paths, decode_all(paths, progress or (lambda done, total: None)), strict=True))
    splits = tuple(_checked(layout, *part, decoded, findings) for part in listed)
    _compare_categories(splits, findings)
    leaked = _find_leaks(splits, findings)
    _find_unlisted(layout, splits, findings)
    statistics = {part.split.name: measure(part.dataset) for part in splits if part.dataset is not None}
    advice = advise(joined(list(statistics.values())), input_size) if statistics else None
    return Check(layout, splits, findings, leaked, statistics, advice)


def _present(layout: Layout, split: Split, images: Sequence[ImageRecord | None]) -> Iterator[tuple[int, Path]]:
    """Place and path of the images that are files below the folder of images."""
    for place, image in enumerate(images):
        if image is None:
            continue
        try:
            path = layout.image(image.file_name)
        except InvalidDataset:
            continue
        if path.is_file():
            yield place, path


def _checked(
    layout: Layout,
    split: Split,
    images: Sequence[ImageRecord | None],
    categories: ListedCategories,
    decoded: Mapping[Path, Decoded],
    findings: Findings,
) -> CheckedSplit:
    found = {place: decoded[path] for place, path in _present(layout, split, images)}
    part = CheckedSplit(split, images, found, categories, None, frozenset())
    sizes = {}
    for place, image in enumerate(images):
        if image is None:
            continue
        _check_image(layout, part, place, image, findings)
        known = found.get(place)
        if known is not None and not known.trouble and not part.is_turned(place):
            sizes[place] = (known.width, known.height)
    try:
        read = read_annotations(split, images, sizes, categories, findings)
    except InvalidDataset as error:
        findings.add("annotations-unreadable", split.name, split.annotations.name, str(error))
        return part
    if read.dataset is not None:
        _check_counts(split, read.dataset, findings)
    return CheckedSplit(split, images, found, categories, read.dataset, read.duplicates)


def _check_image(layout: Layout, part: CheckedSplit, place: int, image: ImageRecord, findings: Findings) -> None:
    split, decoded = part.split.name, part.decoded.get(place)
    if decoded is None:
        try:
            path = layout.image(image.file_name)
        except InvalidDataset:
            return  # Noted when it was read.
        findings.add("image-missing", split, image.file_name, f"is not in {path.parent}", image.id)
        return
    if decoded.trouble:
        findings.add("image-unreadable", split, image.file_name, decoded.trouble, image.id)
        return
    stated = f"stated {image.width} x {image.height}"
    if part.is_turned(place):
        message = f"{stated}, shown {decoded.width} x {decoded.height} (EXIF orientation {decoded.orientation})"
        findings.add("image-turned", split, image.file_name, message, image.id)
        return
    if (image.width, image.height) != (decoded.width, decoded.height):
        message = f"{stated}, the file has {decoded.width} x {decoded.height}; its boxes may belong to another size"
        findings.add("image-size", split, image.file_name, message, image.id)
    if decoded.orientation != 1:
        findings.add("image-exif", split, image.file_name, f"EXIF orientation {decoded.orientation}", image.id)


def _check_counts(split: Split, dataset: CocoDataset, findings: Findings) -> None:
    single = ~dataset.crowd
    if not single.any():
        findings.add("no-boxes", split.name, split.annotations.name, "holds no usable box; there is nothing to learn")
        return
    counts = np.bincount(dataset.category_ids[single], minlength=len(dataset.categories))
    for number, name, count in zip(dataset.category_numbers, dataset.categories, counts, strict=True):
        if not count:
            findings.add("category-unused", split.name, split.annotations.name, f"{name!r} has no box", number)
    per_image = np.bincount(dataset.image_indices, minlength=len(dataset.images))
    for index in np.flatnonzero(per_image == 0):
        image = dataset.images[index]
        findings.add("image-without-boxes", split.name, image.file_name, "has no box", image.id)


def _compare_categories(splits: Sequence[CheckedSplit], findings: Findings) -> None:
    for part in splits[1:]:
        first, here = splits[0].categories.names, part.categories.names
        for number in sorted({*first, *here}):
            if first.get(number) != here.get(number):
                said = [f"{names.get(number, 'none')!r}" for names in (first, here)]
                message = f"category {number} is {said[0]} in {splits[0].split.name}, {said[1]} in {part.split.name}"
                findings.add("category-differs", part.split.name, part.split.annotations.name, message, number)


def _find_leaks(splits: Sequence[CheckedSplit], findings: Findings) -> frozenset[tuple[str, str]]:
    """Notes images that are in two splits, by name, pixels and look; returns those of the first two kinds that a later
    split has too."""
    holders: dict[bytes, list[tuple[str, str]]] = {}
    names: dict[str, str] = {}
    leaked: set[tuple[str, str]] = set()
    noted: set[tuple[str, str]] = set()
    for part in splits:
        split = part.split.name
        for place, image in enumerate(part.images):
            decoded = part.decoded.get(place)
            if image is None or decoded is None or decoded.trouble:
                continue
            here = (split, image.file_name)
            before = holders.setdefault(decoded.digest, [])
            elsewhere = [holder for holder in before if holder[0] != split]
            if names.setdefault(image.file_name, split) != split:
                findings.add("leak-file", split, image.file_name, f"is in {names[image.file_name]} too", image.id)
            elif elsewhere:
                message = f"has the pixels of {elsewhere[0][1]} in {elsewhere[0][0]}"
                findings.add("leak-content", split, image.file_name, message, image.id)
            elif before and here not in before:
                findings.add("image-copy", split, image.file_name, f"has the pixels of {before[0][1]}", image.id)
            if elsewhere:
                leaked.update(elsewhere)
                noted.add(here)
            before.append(here)
    _find_similar(splits, noted, findings)
    return frozenset(leaked)


def _find_similar(splits: Sequence[CheckedSplit], known: set[tuple[str, str]], findings: Findings) -> None:
    """Notes the images of later splits that look like one of the first."""
    if len(splits) < 2:
        return
    first = _looks(splits[0])
    if not first:
        return
    looks = np.stack([look for _, look in first])
    for part in splits[1:]:
        for image, look in _looks(part):
            if (part.split.name, image.file_name) in known:
                continue
            differing = (looks != look).sum(axis=1)
            nearest = int(differing.argmin())
            if differing[nearest] <= SIMILAR_BITS:
                message = f"looks like {first[nearest][0].file_name} in {splits[0].split.name}"
                findings.add("leak-similar", part.split.name, image.file_name, message, image.id)


def _looks(part: CheckedSplit) -> list[tuple[ImageRecord, NDArray[np.bool_]]]:
    return [
        (image, decoded.look)
        for place, image in enumerate(part.images)
        if image is not None and (decoded := part.decoded.get(place)) is not None and decoded.look is not None
    ]


def _find_unlisted(layout: Layout, splits: Sequence[CheckedSplit], findings: Findings) -> None:
    """Notes files in a dataset's folder of images that no split lists."""
    if layout.images.name != "images":
        return  # A folder shared with other things.
    listed = Counter(image.file_name for part in splits for image in part.images if image is not None)
    for folder, names, files in os.walk(layout.images):
        names.sort()
        for name in sorted(files):
            relative = (Path(folder) / name).relative_to(layout.images).as_posix()
            if relative not in listed:
                findings.add("image-unlisted", "", relative, "is listed by no split")
