"""LabelMe: one JSON file per image, with shapes in pixels."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicedet.datasets.coco import is_name, shown
from slicedet.datasets.convert.lists import annotation_files, unlabeled_images
from slicedet.datasets.convert.samples import (
    IMAGE_SUFFIXES,
    Box,
    Labelled,
    Sample,
    around,
    last_part,
    name_below,
    path_below,
)
from slicedet.errors import InvalidDataset

_AREAS = ("rectangle", "polygon", "rotation", "mask")
"""Shapes whose box is the one around their points; those of a mask are two corners of it."""


class Reader:
    """Reads annotations/*.json, *.json or the files that PaddleX's lists name, with images/ or images beside them.

    Rectangles become boxes, polygons, masks and circles the boxes around them; points and lines are left out.
    """

    def __init__(self, source: Path, unlabeled: bool = False) -> None:
        self._root = source
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled = unlabeled_images(source) if unlabeled else []

    def samples(self) -> Iterator[Sample]:
        for split, path in annotation_files(self._root, "annotations", ".json"):
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"))
                shapes = content["shapes"]
                named = str(content["imagePath"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise InvalidDataset(f"{path}: is no LabelMe file (it needs shapes and imagePath)") from error
            if not isinstance(shapes, list):
                raise InvalidDataset(f"{path}: is no LabelMe file (shapes is no list)")
            image = self._image(path, named)
            objects = [thing for shape in shapes if (thing := self._object(path, shape)) is not None]
            width, height = content.get("imageWidth"), content.get("imageHeight")
            stated = (width, height) if isinstance(width, int) and isinstance(height, int) else None
            below = self._root if path_below(self._root, image) else self._root / ".."
            yield Sample(split, image, name_below(below, image), objects, path, stated)

    def _image(self, path: Path, named: str) -> Path:
        """Where the image of a JSON file is: where imagePath leads from there, else beside it, in images/ or in the
        source's folder."""
        name = last_part(named)
        places = [path.parent / name, self._root / "images" / name, self._root / name]
        # A path from another computer, or from a stranger, is not followed out of the folder that the source is in.
        meant = Path(os.path.abspath(path.parent / named.replace("\\", "/")))
        if path_below(self._root / "..", meant) and meant.suffix.lower() in IMAGE_SUFFIXES:
            places.insert(0, meant)
        return next((place for place in places if os.path.isfile(place)), places[0])

    def _object(self, path: Path, shape: Any) -> Labelled | None:
        try:
            name, kind = shape["label"], shape.get("shape_type") or "polygon"
            points = [(float(x), float(y)) for x, y in shape["points"]]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidDataset(f"{path}: a shape needs a label and points of two numbers") from error
        if not is_name(name):
            raise InvalidDataset(f"{path}: the label of a shape is {name!r:.40}, which names no class")
        if not points or not all(math.isfinite(value) for point in points for value in point):
            raise InvalidDataset(f"{path}: a shape has no points, or NaN in them")
        name = name.strip()
        if kind == "circle" and len(points) == 2:
            return Labelled(name, _around_circle(*points))
        if kind not in _AREAS:
            self.left_out[f"shapes that are a {shown(kind, 20)}"] += 1
            return None
        return Labelled(name, around(points))


def _around_circle(centre: tuple[float, float], edge: tuple[float, float]) -> Box:
    radius = math.dist(centre, edge)
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius
