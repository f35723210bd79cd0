"""Writes what a reader of any format gives as a COCO dataset in PaddleX's layout."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicedet.datasets.convert.samples import Labelled, Reader, Sample
from slicedet.datasets.layout import SPLITS, annotations_name, relative
from slicedet.datasets.listing import TOLERANCE_PX
from slicedet.datasets.writing import CocoFile, check_image_mode, new_folder, place_image
from slicedet.errors import InvalidDataset, InvalidSetting, SlicedetError
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
}
"""The module of each format; names are told apart regardless of case."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Conversion:
    """What was written: images and boxes of each split, categories in their order, images without annotations, and what
    was left out, counted under the reason."""

    images: dict[str, int]
    boxes: dict[str, int]
    categories: tuple[str, ...]
    unlabeled: int
    left_out: dict[str, int]


def convert(
    source: str | Path,
    format: str,
    output: str | Path,
    *,
    classes: Sequence[str] = (),
    images: str = "copy",
    progress: Progress | None = None,
    **options: Any,
) -> Conversion:
    """Converts annotations of another format, and their images, into a COCO dataset.

    source: as the format wants it. format: one of FORMATS. output: a folder that does not exist or is empty. classes:
    the categories to keep, in the order of their ids; by default all, in the order of the format's own list, else of
    their first appearance. images: "copy", or "link" for symbolic links. options: those of the format.
    Categories, images and annotations are numbered from 1, over all splits. Boxes are cut to their image.
    Raises InvalidDataset where the source cannot be read, OutputError where the output cannot be written.
    """
    check_image_mode(images)
    if format.lower() not in FORMATS:
        raise InvalidSetting(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    module = importlib.import_module(f"slicedet.datasets.convert.{FORMATS[format.lower()]}")
    reader: Reader = module.Reader(
        Path(source), **options, **({"unlabeled": True} if format.lower().endswith("unlabeled") else {})
    )
    with new_folder(output) as folder:
        writer = _Writer(folder, reader, classes, images)
        done = writer.run(progress or (lambda done, total: None))
        for path in reader.unlabeled:
            place_image(path, folder / "images" / path.name, images)
        if reader.unlabeled:
            names = "".join(f"{path.name}\n" for path in reader.unlabeled)
            (folder / "annotations" / "unlabeled.txt").write_text(names, encoding="utf-8")
    return done


class _Writer:
    """The files of a conversion on their way."""

    def __init__(self, folder: Path, reader: Reader, classes: Sequence[str], mode: str) -> None:
        self._folder, self._reader, self._mode = folder, reader, mode
        self._fixed = bool(classes)
        self._numbers = {name: number for number, name in enumerate(classes or reader.categories, 1)}
        self._left_out: Counter[str] = Counter()
        self._sources: dict[str, Path] = {}
        self._files: dict[str, CocoFile] = {}
        self._image_number = self._annotation_number = 0

    def run(self, progress: Progress) -> Conversion:
        (self._folder / "images").mkdir()
        (self._folder / "annotations").mkdir()
        with ExitStack() as stack:
            for sample in self._reader.samples():
                size = self._size(sample)
                if size is None:
                    continue
                if sample.split not in self._files:
                    path = self._folder / "annotations" / annotations_name(sample.split)
                    self._files[sample.split] = stack.enter_context(CocoFile(path))
                self._add(sample, size)
                progress(self._image_number, 0)
            if not self._image_number:
                left_out = ", ".join(f"{count} {what}" for what, count in self._everything_left_out().items())
                raise InvalidDataset(f"no image could be converted{': ' if left_out else ''}{left_out}")
            for file in self._files.values():
                file.categories = [{"id": number, "name": name} for name, number in self._numbers.items()]
        files = {name: self._files[name] for name in SPLITS if name in self._files}
        return Conversion(
            images={name: file.images for name, file in files.items()},
            boxes={name: file.annotations for name, file in files.items()},
            categories=tuple(self._numbers),
            unlabeled=len(self._reader.unlabeled),
            left_out=self._everything_left_out(),
        )

    def _everything_left_out(self) -> dict[str, int]:
        return dict(sorted((self._reader.left_out + self._left_out).items()))

    def _size(self, sample: Sample) -> tuple[int, int] | None:
        """Width and height of a sample's image; None where it is left out."""
        if not sample.image.is_file():
            self._left_out["images that are not there"] += 1
            return None
        try:
            with Scene(sample.image) as scene:
                size = (scene.width, scene.height)
        except SlicedetError:
            self._left_out["images that cannot be read"] += 1
            return None
        if sample.stated is not None and sample.stated != size:
            self._left_out["sizes in annotations that are not the image's (its own was taken)"] += 1
        return size

    def _add(self, sample: Sample, size: tuple[int, int]) -> None:
        file = self._files[sample.split]
        known = self._sources.setdefault(sample.file_name, sample.image)
        if known != sample.image:
            raise InvalidDataset(f"{sample.image}: would have the name of {known}, {sample.file_name}; rename one")
        target = self._folder / "images" / relative(sample.file_name)
        if not target.exists():
            place_image(sample.image, target, self._mode)
        self._image_number += 1
        file.add_image(
            {
                "id": self._image_number,
                "file_name": sample.file_name,
                "width": size[0],
                "height": size[1],
                **sample.extra,
            }
        )
        for thing in sample.objects:
            box = self._cut(thing, size)
            if box is None:
                continue
            if thing.category is None:
                for number in self._numbers.values():
                    self._add_annotation(file, self._image_number, number, box)
                continue
            if thing.category not in self._numbers:
                if self._fixed:
                    self._left_out["boxes of other classes"] += 1
                    continue
                self._numbers[thing.category] = len(self._numbers) + 1
            self._add_annotation(file, self._image_number, self._numbers[thing.category], box)

    def _cut(self, thing: Labelled, size: tuple[int, int]) -> Labelled | None:
        """The part of an object in the image."""
        x1, y1, x2, y2 = thing.box
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1])))
        width, height = inside[2] - inside[0], inside[3] - inside[1]
        if width <= 0 or height <= 0:
            self._left_out["boxes without area in the image"] += 1
            return None
        if max(-x1, -y1, x2 - size[0], y2 - size[1]) > TOLERANCE_PX:
            self._left_out["parts of boxes outside the image"] += 1
        return Labelled(thing.category, inside, thing.crowd)

    def _add_annotation(self, file: CocoFile, image: int, category: int, thing: Labelled) -> None:
        x1, y1, x2, y2 = thing.box
        box = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        self._annotation_number += 1
        file.add_annotation(
            {
                "id": self._annotation_number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": int(thing.crowd),
            }
        )
