"""COCO in other layouts than slicedet's: as COCO itself is published, as Roboflow and CVAT export it, or one file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from slicedet.datasets.coco import CocoDataset
from slicedet.datasets.convert.folders import in_order, split_of
from slicedet.datasets.convert.samples import Labelled, Sample, last_part, name_below
from slicedet.datasets.findings import KINDS, Findings
from slicedet.datasets.layout import TEST, Split, relative
from slicedet.datasets.listing import ListedCategories, read_annotations, read_categories, read_images
from slicedet.errors import InvalidDataset

_PATTERNS = ("annotations/instance*.json", "**/_annotations.coco.json", "annotations/*.json", "*.json")
"""Where annotation files lie: those of the first pattern that has any. COCO's own captions and key points lie beside
its instances, and are of the same images."""

_LEFT_OUT = (
    "image-invalid", "image-duplicate-id", "image-unknown", "category-unknown",
    "annotation-invalid", "box-nan", "box-empty",
)  # fmt: skip
"""Findings that mean that something is not read."""


class Reader:
    """Reads annotations/instances_*.json with the images in folders named like them (train2017 of
    instances_train2017.json), images/ or images/train2017; _annotations.coco.json beside its images; or one COCO file.

    Names of files and folders say which split it is. Categories of one name are one, whatever their ids; they are in
    the order of the first file's ids. Boxes, areas and iscrowd stay; segmentations, key points and licences do not.
    Files of test without a single box are left out.
    """

    def __init__(self, source: Path) -> None:
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []
        self._root = source
        if source.is_file():
            files = [source]
            self._root = source.parent.parent if source.parent.name == "annotations" else source.parent
        elif source.is_dir():
            matches = (sorted(path for path in source.glob(pattern) if path.is_file()) for pattern in _PATTERNS)
            files = next((found for found in matches if found), [])
        else:
            raise InvalidDataset(f"{source}: no such folder or annotation file")
        if not files:
            raise InvalidDataset(
                f"{source}: holds no COCO file: no annotations/instances_*.json, no _annotations.coco.json"
            )
        self._splits = sorted((self._split(path) for path in files), key=lambda split: in_order(split.name))
        known = [read_categories(split, Findings()) for split in self._splits]
        self.categories = list(dict.fromkeys(name for listed in known for name in listed.names.values()))
        self._known = known

    def _split(self, path: Path) -> Split:
        folders = path.relative_to(self._root).parts[:-1] if path.is_relative_to(self._root) else ()
        return Split(split_of(path, (path.stem, *folders)) or "train", path)

    def samples(self) -> Iterator[Sample]:
        for split, categories in zip(self._splits, self._known, strict=True):
            dataset = self._read(split, categories)
            if dataset is None:
                continue
            for index, record in enumerate(dataset.images):
                image = self._image(split, record.file_name)
                if image is None:
                    self.left_out[KINDS["image-outside"][1]] += 1
                    continue
                rows = dataset.of_image(index)
                objects = [
                    Labelled(dataset.categories[kind], (x1, y1, x2, y2), crowd, area if area > 0 else None)
                    for kind, (x1, y1, x2, y2), crowd, area in zip(
                        dataset.category_ids[rows].tolist(),
                        dataset.boxes[rows].tolist(),
                        dataset.crowd[rows].tolist(),
                        dataset.areas[rows].tolist(),
                        strict=True,
                    )
                ]
                stated = (record.width, record.height)
                yield Sample(split.name, image, name_below(self._root, image), objects, split.annotations, stated)

    def _read(self, split: Split, categories: ListedCategories) -> CocoDataset | None:
        """What is usable of a file; None where that is nothing."""
        findings = Findings()
        images = read_images(split, findings)
        dataset = read_annotations(split, images, {}, categories, findings).dataset
        if dataset is None:
            raise InvalidDataset(
                f"{split.annotations}: holds no images or no categories; is it a COCO annotation file?"
            )
        for kind in _LEFT_OUT:
            self.left_out[KINDS[kind][1]] += findings.counts[kind]
        if split.name == TEST and not len(dataset.boxes):
            self.left_out["images of test without annotations"] += len(dataset.images)
            return None
        return dataset

    def _image(self, split: Split, file_name: str) -> Path | None:
        """Where the image of a file name is; names that lead elsewhere count by their last part. None for what can be
        no name."""
        try:
            below = relative(file_name)
        except InvalidDataset:
            try:
                below = relative(last_part(file_name))
            except InvalidDataset:
                return None
        own = split.annotations.stem.removeprefix("instances_").removeprefix("instance_")
        beside, root = split.annotations.parent, self._root
        folders = (beside, root / own, root / "images" / own, root / "images", root / split.name, root)
        return next((folder / below for folder in folders if os.path.isfile(folder / below)), beside / below)
