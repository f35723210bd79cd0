"""Divides a dataset into train and val, by image or by group, the same way on every machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slicedet.datasets import layout as layouts
from slicedet.datasets.coco import CHECK, category_record, entries, image_record, whole
from slicedet.datasets.layout import SPLITS, annotations_name
from slicedet.datasets.writing import CocoFile, extras
from slicedet.errors import InvalidDataset, InvalidSetting
from slicedet.outputs.files import flush_file, temporary_folder, write_errors
from slicedet.publishing import flush_folder

SEQUENCE = "sequence"
"""Groups of images whose names differ in their last number only, as frames of a film do."""

FIX = "`slicedet dataset check --fix` mends it"


@dataclass(frozen=True)
class SplitSettings:
    """How to divide a dataset.

    train_percent, val_percent: whole numbers that make 100, none of them 0. seed: another one gives another division.
    group_by: "sequence", or a regular expression whose first group (or whole match) in a file name is the name of its
    group; images that it does not match are groups of their own; None divides image by image.
    """

    train_percent: int = 80
    val_percent: int = 20
    seed: int = 0
    group_by: str | None = None

    def __post_init__(self) -> None:
        if self.train_percent + self.val_percent != 100 or min(self.train_percent, self.val_percent) < 1:
            raise InvalidSetting(
                f"{self.train_percent} % train and {self.val_percent} % val: expected two percentages above 0 that "
                "make 100"
            )
        if self.group_by is not None and self.group_by != SEQUENCE:
            try:
                re.compile(self.group_by)
            except re.error as error:
                raise InvalidSetting(f"group-by {self.group_by!r}: no regular expression ({error})") from error

    def group(self, file_name: str) -> str:
        """The group of an image."""
        if self.group_by is None:
            return file_name
        if self.group_by == SEQUENCE:
            path = PurePosixPath(file_name)
            name = re.sub(r"[\W_]*\d+\D*$", "", path.stem)
            return str(path.with_name(name)) if name else str(path.parent)
        match = re.search(self.group_by, file_name)
        if match is None:
            return file_name
        return next((part for part in match.groups() if part is not None), match[0])


@dataclass(frozen=True)
class Division:
    """What a split came to: images and annotations of each part, its groups, and where older files were kept."""

    images: dict[str, int]
    annotations: dict[str, int]
    groups: dict[str, tuple[str, ...]]
    kept: tuple[Path, ...]


def split(source: str | Path, settings: SplitSettings | None = None) -> Division:
    """Divides the images of a dataset's train and val anew into annotations/instance_train.json and instance_val.json.

    A split test stays what it is. The files that were there are kept as .bak, .bak1 and so on. Ids stay where no two
    images (or annotations) share one, else all are numbered from 1; info and licences stay. Raises InvalidDataset where
    the files there do not agree on their categories, list an image twice, or all images belong to one group.
    """
    settings = settings or SplitSettings()
    layout = layouts.find(Path(source))
    if not Path(source).is_dir():
        raise InvalidDataset(f"{source}: is a file; give the folder of the dataset")
    files = [part.annotations for part in layout.splits if part.name in SPLITS]
    merged = _Merged(layout.root, files)
    groups: dict[str, list[str]] = {}
    for name in merged.names:
        groups.setdefault(settings.group(name), []).append(name)
    chosen = _choose(groups, settings)
    part_of = {name: part for part, members in chosen.items() for group in members for name in groups[group]}
    folder = layout.root / "annotations"
    target = folder / annotations_name("train")
    with temporary_folder(target) as temporary, write_errors(target, temporary):
        counts = merged.write(temporary, part_of)
        kept = tuple(_keep(file) for file in files)
        written = [temporary / annotations_name(part) for part in SPLITS]
        for path in (*kept, *written):
            flush_file(path)
        flush_folder(folder)
        for path in written:
            os.replace(path, folder / path.name)
        flush_folder(folder)
    return Division(
        {part: images for part, (images, _) in counts.items()},
        {part: annotations for part, (_, annotations) in counts.items()},
        {part: tuple(members) for part, members in chosen.items()},
        kept,
    )


class _Merged:
    """The files of a dataset as one; only names and ids are kept in memory."""

    def __init__(self, root: Path, files: list[Path]) -> None:
        self._files = files
        self.categories = _merged_categories(self._files)
        self.names: list[str] = []
        ids: list[int] = []
        annotation_ids = array("q")
        self._renumber_annotations = False
        self._name_of: list[dict[int, str]] = []
        for file in self._files:
            here: dict[int, str] = {}
            for position, entry in enumerate(entries(file, "images"), 1):
                try:
                    image = image_record(entry)
                except ValueError as error:
                    raise InvalidDataset(f"{file}: image number {position}: {error}; {FIX}") from error
                here[image.id] = image.file_name
                ids.append(image.id)
                self.names.append(image.file_name)
            self._name_of.append(here)
            for entry in entries(file, "annotations"):
                number = whole(entry.get("id"))
                annotation_ids.append(number or 0)
                self._renumber_annotations |= number is None
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise InvalidDataset(f"{root}: {twice[0]} is listed twice; {FIX}")
        if not self.names:
            raise InvalidDataset(f"{self._files[0]}: holds no images; is it a COCO annotation file?")
        self._renumber_images = len(set(ids)) < len(ids)
        ordered = np.sort(np.frombuffer(annotation_ids, np.int64))
        self._renumber_annotations |= bool((ordered[1:] == ordered[:-1]).any())

    def write(self, folder: Path, part_of: dict[str, str]) -> dict[str, tuple[int, int]]:
        """Writes the files of all parts into `folder`; returns their numbers of images and annotations."""
        more = {key: value for file in reversed(self._files) for key, value in extras(file).items()}
        image_number = annotation_number = 0
        with ExitStack() as stack:
            parts = {part: stack.enter_context(CocoFile(folder / annotations_name(part), more)) for part in SPLITS}
            for part in parts.values():
                part.categories = self.categories
            for file, name_of in zip(self._files, self._name_of, strict=True):
                numbers: dict[int, int] = {}
                for entry in entries(file, "images"):
                    image_number += 1
                    stated = image_record(entry)
                    number = numbers[stated.id] = image_number if self._renumber_images else stated.id
                    parts[part_of[stated.file_name]].add_image({**entry, "id": number})
                for entry in entries(file, "annotations"):
                    annotation_number += 1
                    image = whole(entry.get("image_id"))
                    if image is None or image not in numbers:
                        raise InvalidDataset(
                            f"{file}: annotation {entry.get('id')!s:.40} belongs to image "
                            f"{entry.get('image_id')!s:.40}, which is missing; {CHECK}"
                        )
                    mended = {"id": annotation_number if self._renumber_annotations else whole(entry["id"])}
                    parts[part_of[name_of[image]]].add_annotation({**entry, **mended, "image_id": numbers[image]})
            return {name: (part.images, part.annotations) for name, part in parts.items()}


def _merged_categories(files: Iterable[Path]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for file in files:
        for position, entry in enumerate(entries(file, "categories"), 1):
            try:
                number, name = category_record(entry)
            except ValueError as error:
                raise InvalidDataset(f"{file}: category number {position}: {error}; {FIX}") from error
            known = found.setdefault(number, {**entry, "id": number})
            others = {other["name"] for other in found.values() if other is not known}
            if known["name"] != name or name in others:
                raise InvalidDataset(f"{file}: category {number} {name!r} contradicts another; {FIX}")
    return [found[number] for number in sorted(found)]


def _choose(groups: dict[str, list[str]], settings: SplitSettings) -> dict[str, list[str]]:
    """The groups of each part: in a random order, those that bring val closer to its share of the images."""
    if len(groups) < 2:
        raise InvalidDataset(
            f"all images belong to one group, {next(iter(groups))!r}; another --group-by is needed to divide them"
        )
    wanted = sum(map(len, groups.values())) * settings.val_percent / 100

    def lot(group: str) -> bytes:
        # Drawn by name: neither the order of the files nor the version of a generator changes it.
        return hashlib.blake2b(f"{settings.seed}:{group}".encode(), digest_size=16).digest()

    order = sorted(groups, key=lot)
    val: list[str] = []
    size = 0
    for group in order:
        if len(val) < len(order) - 1 and abs(size + len(groups[group]) - wanted) < abs(size - wanted):
            val.append(group)
            size += len(groups[group])
    if not val:
        val = [min(order, key=lambda group: len(groups[group]))]
    return {"train": [group for group in groups if group not in set(val)], "val": [g for g in groups if g in set(val)]}


def _keep(path: Path) -> Path:
    """Keeps a copy of a file under the first free name that ends in .bak; returns that."""
    number = 0
    while os.path.lexists(backup := path.with_name(f"{path.name}.bak{number or ''}")):
        number += 1
    try:
        os.link(path, backup)
    except OSError:
        shutil.copyfile(path, backup)
    return backup
