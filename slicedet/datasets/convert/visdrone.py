"""VisDrone-DET: one text file per image, with x, y, width, height, score, category, truncation and occlusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from slicedet.datasets.convert.folders import labelled_images
from slicedet.datasets.convert.samples import Labelled, Sample, numbers, read_lines
from slicedet.errors import InvalidDataset

CATEGORIES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
_IGNORED, _OTHERS = 0, 11


class Reader:
    """Reads images/ and annotations/, or folders such as VisDrone2019-DET-train and -val with them.

    The ten categories keep their order. What the benchmark does not judge (ignored regions, category 0; others, 11;
    whatever has score 0) becomes an iscrowd region of every category: detections in it count neither as right nor as
    wrong.
    """

    def __init__(self, source: Path) -> None:
        self._root = source
        self.categories = list(CATEGORIES)
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []

    def samples(self) -> Iterator[Sample]:
        for split, image, path, name in labelled_images(self._root, ("annotations",)):
            if not path.is_file():
                self.left_out["images without a label file"] += 1
                continue
            objects = []
            for line, text in enumerate(read_lines(path), 1):
                values = numbers([word for word in text.split(",") if word.strip()], path, line)
                if len(values) < 6 or values[5] not in range(_OTHERS + 1):
                    raise InvalidDataset(
                        f"{path}: line {line}: expected x,y,width,height,score,category (0 to {_OTHERS}): {text:.60}"
                    )
                x, y, width, height, score, kind = values[:6]
                ignored = kind in (_IGNORED, _OTHERS) or score == 0
                category = None if ignored else CATEGORIES[int(kind) - 1]
                objects.append(Labelled(category, (x, y, x + width, y + height), crowd=ignored))
            yield Sample(split, image, name, objects, path)
