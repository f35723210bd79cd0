"""COCO annotation files into arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from slicedet.datasets import coco
from slicedet.errors import InvalidDataset

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}
CATEGORY = {"id": 3, "name": "car"}
BOX = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}


def write(folder: Path, content: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def document(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {"images": [IMAGE], "annotations": list(annotations), "categories": [CATEGORY]}


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_as_pycocotools_reads_them(shared: Path, split: str) -> None:
    path = shared / "data" / "aerial_vehicles" / "annotations" / f"instance_{split}.json"
    dataset, reference = coco.read(path), COCO(path)
    assert [image.id for image in dataset.images] == list(reference.imgs)
    for index, image in enumerate(dataset.images):
        rows = dataset.of_image(index)
        found = {
            (int(number), dataset.category_numbers[category], *np.round(box, 6))
            for number, category, box in zip(
                dataset.ids[rows], dataset.category_ids[rows], dataset.boxes[rows], strict=True
            )
        }
        expected = set()
        for entry in reference.loadAnns(reference.getAnnIds(imgIds=image.id)):
            x, y, width, height = entry["bbox"]
            expected.add((entry["id"], entry["category_id"], *np.round([x, y, x + width, y + height], 6)))
        assert found == expected


def test_the_order_of_sections_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, {"annotations": [BOX], "categories": [CATEGORY], "images": [IMAGE]})
    dataset = coco.read(path)
    assert dataset.boxes.tolist() == [[1, 2, 4, 6]]
    assert dataset.category_numbers == (3,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("{}", "holds no images"),
        ([BOX], "holds no images"),
        ({"images": [IMAGE], "categories": []}, "holds no categories"),
        ({"images": [IMAGE, IMAGE], "categories": [CATEGORY]}, "same id"),
        ({"images": [{"id": 1}], "categories": [CATEGORY]}, "image number 1 needs"),
        ({"images": [5], "categories": [CATEGORY]}, "an entry of images is no object"),
        ({"images": [IMAGE], "categories": [CATEGORY, CATEGORY]}, "two categories"),
        (document({**BOX, "category_id": 7}), "annotation 1: belongs to category 7"),
        (document({**BOX, "image_id": 3}), "annotation 1: belongs to image 3"),
        (document({"id": 1, "image_id": 7, "category_id": 3}), "annotation 1: has no bbox"),
        (document({**BOX, "bbox": [1, 2, 3]}), "annotation 1 has no box of four numbers"),
        (document({**BOX, "bbox": [1, 2, 0, 4]}), "annotation 1 has a box without width"),
        ('{"images": [{"id": 7, "file_name": "a", "width": 4, "height": 3}], "categories": [{"id": 3, "name": "car"}],'
         '"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [NaN, 2, 3, 4]}]}', "not valid JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InvalidDataset, match=said) as caught:
        coco.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"none\.json: no such"):
        coco.read(tmp_path / "none.json")
