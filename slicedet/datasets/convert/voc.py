"""Pascal VOC: one XML file per image, with corners of boxes in pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from slicedet.datasets.convert.lists import annotation_files, unlabeled_images
from slicedet.datasets.convert.samples import IMAGE_SUFFIXES, Labelled, Sample, last_part
from slicedet.datasets.convert.xml import parse
from slicedet.errors import InvalidDataset

_FOLDERS = ("images", "JPEGImages")


class Reader:
    """Reads Annotations/*.xml or the files that PaddleX's lists name, with images/ or JPEGImages/.

    The image is the one that <filename> names, else the one named like the XML file. Corners are taken as they stand,
    as in PaddleX (VOC itself counts from 1). Objects without a bndbox are left out.
    """

    def __init__(self, source: Path, unlabeled: bool = False) -> None:
        self._root = source
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled = unlabeled_images(source) if unlabeled else []

    def samples(self) -> Iterator[Sample]:
        for split, path in annotation_files(self._root, "Annotations", ".xml"):
            root = parse(path)
            image, name = self._image(path, root)
            objects = [thing for element in root.iter("object") if (thing := self._object(path, element)) is not None]
            yield Sample(split, image, name, objects, path, _stated(root))

    def _image(self, path: Path, root: Element) -> tuple[Path, str]:
        """Where the image of an XML file is, and its name below the folder of images."""
        named = last_part((root.findtext("filename") or "").strip())
        stems = dict.fromkeys([Path(named).stem, path.stem]) if named else {path.stem: None}
        below = path.parent.relative_to(self._root) if path.is_relative_to(self._root) else Path()
        deeper = Path(*below.parts[1:])
        for folder in (*(self._root / name / deeper for name in _FOLDERS), *(self._root / n for n in _FOLDERS)):
            names = [named] if named else []
            names += [stem + suffix for stem in stems for suffix in (*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES))]
            for name in names:
                if (folder / name).is_file():
                    inside = folder.relative_to(self._root)
                    return folder / name, Path(*inside.parts[1:], name).as_posix()
        beside = path.with_name(named or f"{path.stem}.jpg")
        return beside, beside.name

    def _object(self, path: Path, element: Element) -> Labelled | None:
        name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
        if not name:
            raise InvalidDataset(f"{path}: an object has no name")
        if box is None:
            self.left_out["objects without a box"] += 1
            return None
        x1, y1, x2, y2 = (_number(path, box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        return Labelled(name, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))


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
