"""Writes what a reader of any format gives as a COCO dataset in PaddleX's layout."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicedet.datasets.coco import shown
from slicedet.datasets.convert.samples import Box, Labelled, Reader, Sample, name_below, path_below
from slicedet.datasets.layout import annotations_name, relative
from slicedet.datasets.listing import TOLERANCE_PX, as_shown
from slicedet.datasets.writing import CocoFile, check_image_mode, new_folder, place_image
from slicedet.errors import InvalidDataset, InvalidSetting, SlicedetError
from slicedet.pipeline import Progress
from slicedet.raster.orientation import Orientation
from slicedet.raster.scene import Scene

FORMATS = {
    "voc": "voc",
    "vocwithunlabeled": "voc",
    "labelme": "labelme",
    "labelmewithunlabeled": "labelme",
    "yolo": "yolo",
    "dota": "dota",
    "visdrone": "visdrone",
    "geojson": "geojson",
    "coco": "coco",
}
"""The module of each format; names are told apart regardless of case."""

_DECIMALS = 3
"""Digits of pixels that are written."""


@dataclass(frozen=True)
class Conversion:
    """What was written: images, boxes and iscrowd regions of each split, categories in their order, images without
    annotations, and what was left out, counted under the reason.

    turned: images annotated as stored, whose boxes were turned as EXIF turns the image. other_sizes: images of another
    size than their annotations state, with both; their boxes are as they were.
    """

    images: dict[str, int]
    boxes: dict[str, int]
    crowd: dict[str, int]
    categories: tuple[str, ...]
    unlabeled: int
    left_out: dict[str, int]
    turned: int
    other_sizes: tuple[str, ...]


def convert(
    source: str | Path,
    format: str,
    output: str | Path,
    *,
    classes: Sequence[str] = (),
    image_mode: str = "copy",
    progress: Progress | None = None,
    **options: Any,
) -> Conversion:
    """Converts annotations of another format, and their images, into a COCO dataset.

    source: as the format wants it. format: one of FORMATS. output: a folder that does not exist or is empty. classes:
    the categories to keep, in the order of their ids; by default all, in the order of the format's own list, else of
    their first appearance. image_mode: "copy", or "link" for symbolic links. options: those of the format.
    Categories, images and annotations are numbered from 1, over all splits. Boxes are cut to their image. Of images
    that would have the same name, the later one has its path below the source. Raises InvalidDataset where the source
    cannot be read, an image is annotated twice in a split, or no box is of `classes`; OutputError where the output
    cannot be written.
    """
    check_classes(classes)
    check_image_mode(image_mode)
    if format.lower() not in FORMATS:
        raise InvalidSetting(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    module = importlib.import_module(f"slicedet.datasets.convert.{FORMATS[format.lower()]}")
    reader: Reader = module.Reader(
        Path(source), **options, **({"unlabeled": True} if format.lower().endswith("unlabeled") else {})
    )
    with new_folder(output) as folder:
        writer = _Writer(Path(source), folder, reader, classes, image_mode)
        return writer.run(progress or (lambda done, total: None))


def check_classes(names: Sequence[str]) -> None:
    """Raises InvalidSetting for a category without a name, and for one that is there twice."""
    if not all(name.strip() for name in names):
        raise InvalidSetting(f"classes {','.join(names)!r}: one of them has no name")
    if len(set(names)) < len(names):
        raise InvalidSetting(f"classes {','.join(names)!r}: one of them is there twice")


class _Writer:
    """The files of a conversion on their way."""

    def __init__(self, source: Path, folder: Path, reader: Reader, classes: Sequence[str], mode: str) -> None:
        self._root = source if source.is_dir() else source.parent
        self._folder, self._reader, self._mode = folder, reader, mode
        self._classes = tuple(classes)
        self._numbers = {name: number for number, name in enumerate(classes or reader.categories, 1)}
        self._other_classes: dict[str, None] = {}
        self._left_out: Counter[str] = Counter()
        self._sources: dict[str, Path] = {}
        self._labels: dict[tuple[str, str], Path] = {}
        self._files: dict[str, CocoFile] = {}
        self._crowd: Counter[str] = Counter()
        self._turned = 0
        self._other_sizes: list[str] = []
        self._image_number = self._annotation_number = 0

    def run(self, progress: Progress) -> Conversion:
        (self._folder / "images").mkdir()
        (self._folder / "annotations").mkdir()
        with ExitStack() as stack:
            for sample in self._reader.samples():
                opened = self._opened(sample)
                if opened is None:
                    continue
                if sample.split not in self._files:
                    path = self._folder / "annotations" / annotations_name(sample.split)
                    self._files[sample.split] = stack.enter_context(CocoFile(path))
                self._add(sample, *opened)
                progress(self._image_number, 0)
            if not self._image_number:
                left_out = ", ".join(f"{count} {what}" for what, count in self._everything_left_out().items())
                raise InvalidDataset(f"no image could be converted{': ' if left_out else ''}{left_out}")
            if self._other_classes and self._annotation_number == self._crowd.total():
                there = ", ".join(self._other_classes)
                raise InvalidDataset(f"{self._root}: no box is of {', '.join(self._classes)}; there are {there}")
            for file in self._files.values():
                file.categories = [{"id": number, "name": name} for name, number in self._numbers.items()]
        self._add_unlabeled()
        return Conversion(
            images={name: file.images for name, file in self._files.items()},
            boxes={name: file.annotations - self._crowd[name] for name, file in self._files.items()},
            crowd={name: self._crowd[name] for name in self._files},
            categories=tuple(self._numbers),
            unlabeled=len(self._reader.unlabeled),
            left_out=self._everything_left_out(),
            turned=self._turned,
            other_sizes=tuple(self._other_sizes),
        )

    def _everything_left_out(self) -> dict[str, int]:
        return dict(sorted((self._reader.left_out + self._left_out).items()))

    def _opened(self, sample: Sample) -> tuple[int, int, int] | None:
        """Width, height and EXIF orientation of a sample's image; None where it is left out."""
        # False also for names that no file can have.
        if not os.path.isfile(sample.image):
            self._left_out["images that are not there"] += 1
            return None
        try:
            with Scene(sample.image) as scene:
                return scene.width, scene.height, scene.exif_orientation
        except SlicedetError:
            self._left_out["images that cannot be read"] += 1
            return None

    def _placed(self, wanted: str, image: Path) -> str:
        """Puts an image into the folder of images; returns its name there."""
        for name in (wanted, path_below(self._root, image)):
            if name is not None and os.path.samefile(self._sources.setdefault(name, image), image):
                target = self._folder / "images" / relative(name)
                if not target.exists():
                    place_image(image, target, self._mode)
                return name
        raise InvalidDataset(f"{image}: would have the name of {self._sources[wanted]}, {wanted}; rename one")

    def _add_unlabeled(self) -> None:
        names = [self._placed(name_below(self._root, path), path) for path in self._reader.unlabeled]
        if names:
            text = "".join(f"{name}\n" for name in names)
            (self._folder / "annotations" / "unlabeled.txt").write_text(text, encoding="utf-8")

    def _add(self, sample: Sample, width: int, height: int, orientation: int) -> None:
        file, size = self._files[sample.split], (width, height)
        name = self._placed(sample.file_name, sample.image)
        before = self._labels.get((sample.split, name))
        if before is not None:
            raise InvalidDataset(f"{sample.image}: is annotated twice, by {before} and by {sample.labels}")
        self._labels[sample.split, name] = sample.labels
        stated = sample.stated or size
        turned = Orientation.from_exif(orientation).shown_size(*stated) == size != stated
        self._turned += turned
        if stated != size and not turned:
            told = shown(f"{stated[0]} x {stated[1]}")
            self._other_sizes.append(f"{name}: {width} x {height}, stated {told}")
        self._image_number += 1
        file.add_image(
            {
                "id": self._image_number,
                "file_name": name,
                "width": width,
                "height": height,
                **sample.extra,
            }
        )
        for thing in sample.objects:
            box = self._cut(as_shown(thing.box, orientation, *size) if turned else thing.box, size)
            if box is None:
                continue
            for number in self._numbers_of(thing):
                self._add_annotation(sample.split, number, box, thing)

    def _numbers_of(self, thing: Labelled) -> Sequence[int]:
        """The ids of the categories of an object."""
        name = thing.category
        if name is None:
            return tuple(self._numbers.values())
        if name not in self._numbers:
            if self._classes:
                self._left_out["boxes of other classes"] += 1
                self._other_classes[name] = None
                return ()
            self._numbers[name] = len(self._numbers) + 1
        return (self._numbers[name],)

    def _cut(self, box: Box, size: tuple[int, int]) -> Box | None:
        """The part of a box in the image."""
        x1, y1, x2, y2 = box
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
        width, height = inside[2] - inside[0], inside[3] - inside[1]
        if round(min(width, height), _DECIMALS) <= 0:
            self._left_out["boxes without area in the image"] += 1
            return None
        if max(-x1, -y1, x2 - size[0], y2 - size[1]) > TOLERANCE_PX:
            self._left_out["parts of boxes outside the image"] += 1
        return inside

    def _add_annotation(self, split: str, category: int, corners: Box, thing: Labelled) -> None:
        x1, y1, x2, y2 = corners
        box = [round(value, _DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)]
        self._annotation_number += 1
        self._crowd[split] += thing.crowd
        area = box[2] * box[3]
        if thing.area is not None:
            left, top, right, bottom = thing.box
            # As much of it as is left of the box.
            area = thing.area * min(1.0, (x2 - x1) * (y2 - y1) / ((right - left) * (bottom - top)))
        self._files[split].add_annotation(
            {
                "id": self._annotation_number,
                "image_id": self._image_number,
                "category_id": category,
                "bbox": box,
                "area": round(area, _DECIMALS),
                "iscrowd": int(thing.crowd),
            }
        )
