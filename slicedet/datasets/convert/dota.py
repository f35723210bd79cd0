"""DOTA: one text file per image, with the corners of oriented boxes; they become the axis-aligned boxes around them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicedet.datasets.convert.folders import labelled_images
from slicedet.datasets.convert.samples import Labelled, Sample, around, numbers, read_lines
from slicedet.errors import InvalidDataset

_FOLDERS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0", "labels", "annfiles")


class Reader:
    """Reads images/ and labelTxt/, or train/, val/ and test/ with them. Images without a label file are left out; the
    ground sampling distance that a file states goes into the image's entry as `gsd`. Objects marked difficult, which
    DOTA does not judge, become iscrowd."""

    def __init__(self, source: Path) -> None:
        self._root = source
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []

    def samples(self) -> Iterator[Sample]:
        for split, image, path, name in labelled_images(self._root, _FOLDERS):
            if not path.is_file():
                self.left_out["images without a label file"] += 1
                continue
            extra: dict[str, Any] = {}
            objects = []
            for line, text in enumerate(read_lines(path), 1):
                if text.startswith(("imagesource:", "gsd:")):
                    gsd = _metres(text.removeprefix("gsd:"))
                    extra |= {} if gsd is None else {"gsd": gsd}
                    continue
                words = text.split()
                if len(words) < 9:
                    raise InvalidDataset(f"{path}: line {line}: expected eight numbers and a category: {text:.60}")
                corners = numbers(words[:8], path, line)
                box = around(list(zip(corners[::2], corners[1::2], strict=True)))
                objects.append(Labelled(words[8], box, crowd=words[9:10] == ["1"]))
            yield Sample(split, image, name, objects, path, extra=extra)


def _metres(text: str) -> float | None:
    """A ground sampling distance; None for what is no length, such as null or nan."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
