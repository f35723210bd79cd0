"""Small datasets for the tests of what is done with datasets."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]


def picture(path: Path, width: int = 60, height: int = 40, seed: int = 0, exif: int = 1) -> Path:
    """Writes a photo of blobs, which no other seed makes alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    tags = Image.Exif()
    tags[274] = exif
    image.save(path, **({"exif": tags} if exif != 1 else {}))
    return path


def document(first_image: int, names: list[str], first_annotation: int) -> dict[str, Any]:
    """Two boxes, a car and a bus, on each image of 60 x 40."""
    images = [{"id": first_image + i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names)]
    annotations = []
    for image in images:
        for category, box in ((1, [5, 6, 20, 10]), (2, [30, 20.5, 25, 15])):
            number = first_annotation + len(annotations)
            annotations.append(
                {
                    "id": number,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": "blobs", "year": 2024},
        "licenses": [{"id": 1, "name": "CC0"}],
        "images": images,
        "annotations": annotations,
        "categories": copy.deepcopy(CATEGORIES),
    }


class Dataset:
    """A sound dataset of 4 + 2 images in a folder; `train` and `val` may be changed before `write`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train = document(1, [f"a{i}.png" for i in range(4)], 1)
        self.val = document(5, [f"b{i}.png" for i in range(2)], 9)
        for seed, entry in enumerate(self.train["images"] + self.val["images"]):
            picture(root / "images" / entry["file_name"], seed=seed)

    def write(self) -> Path:
        (self.root / "annotations").mkdir(exist_ok=True)
        for name, content in (("train", self.train), ("val", self.val)):
            # Python writes NaN, as many tools do.
            (self.root / "annotations" / f"instance_{name}.json").write_text(json.dumps(content))
        return self.root


def load(root: Path, split: str) -> dict[str, Any]:
    """The annotation file of a split."""
    return json.loads((root / "annotations" / f"instance_{split}.json").read_text())
