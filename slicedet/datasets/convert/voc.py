"""Pascal VOC: one XML file per image, with corners of boxes in pixels."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from slicedet.datasets.convert.lists import annotation_files, unlabeled_images
from slicedet.datasets.convert.samples import IMAGE_SUFFIXES, Labelled, Sample, last_part, name_below
from slicedet.datasets.convert.xml import parse
from slicedet.errors import InvalidDataset

_FOLDERS = ("images", "JPEGImages")
_SUFFIXES = (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))


class Reader:
    """Reads Annotations/*.xml or the files that PaddleX's lists name, with images/ or JPEGImages/.

    The image is the one named like the XML file, else the one that <filename> names: copies of a file often keep the
    name of the first. Corners are taken as they stand, as in PaddleX (VOC itself counts from 1). Objects without a
    bndbox are left out; those marked difficult, which VOC does not judge, become iscrowd.
    """

    def __init__(self, source: Path, unlabeled: bool = False) -> None:
        self._root = source
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled = unlabeled_images(source) if unlabeled else []

    def samples(self) -> Iterator[Sample]:
        for split, path in annotation_files(self._root, "Annotations", ".xml"):
            root = parse(path)
            image = self._image(path, root)
            name = name_below(self._root, image, _FOLDERS)
            objects = [thing for element in root.iter("object") if (thing := self._object(path, element)) is not None]
            yield Sample(split, image, name, objects, path, _stated(root))

    def _image(self, path: Path, root: Element) -> Path:
        """Where the image of an XML file is."""
        named = last_part((root.findtext("filename") or "").strip())
        own = [path.stem + suffix for suffix in _SUFFIXES]
        # Of several images with its stem, <filename> says which.
        own.sort(key=lambda name: name != named)
        others = [named, *(Path(named).stem + suffix for suffix in _SUFFIXES)] if named else []
        below = path.parent.relative_to(self._root) if path.is_relative_to(self._root) else Path()
        deeper = Path(*below.parts[1:])
        folders = [*(self._root / name / deeper for name in _FOLDERS), *(self._root / name for name in _FOLDERS)]
        folders.append(path.parent)
        places = [folder / name for names in (own, others) for folder in folders for name in names]
        return next((place for place in places if os.path.isfile(place)), path.with_name(named or own[0]))

    def _object(self, path: Path, element: Element) -> Labelled | None:
        name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
        if not name:
            raise InvalidDataset(f"{path}: an object has no name")
        if box is None:
            self.left_out["objects without a box"] += 1
            return None
        x1, y1, x2, y2 = (_number(path, box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = (element.findtext("difficult") or "").strip().lower() in ("1", "true")
        return Labelled(name, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), crowd=difficult)


def _stated(root: Element) -> tuple[int, int] | None:
    """Width and height by the file; many tools write 0."""
    try:
        width, height = (round(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width and height else None


def _number(path: Path, element: Element, name: str) -> float:
    text = element.findtext(name)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidDataset(f"{path}: <{name}> in <{element.tag}> is no number but {text!r:.40}")
    return value
