"""COCO annotation files into arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from slicedet.datasets import coco, nonfinite
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
        ({"images": [{"id": 1}], "categories": [CATEGORY]}, "image number 1: has no width"),
        ({"images": [5], "categories": [CATEGORY]}, "an entry of images is no object"),
        ({"images": [IMAGE], "categories": [CATEGORY, CATEGORY]}, "two categories"),
        (document({**BOX, "category_id": 7}), "annotation 1: belongs to category 7"),
        (document({**BOX, "image_id": 3}), "annotation 1: belongs to image 3"),
        (document({"id": 1, "image_id": 7, "category_id": 3}), "annotation 1: has no bbox"),
        (document({**BOX, "bbox": [1, 2, 3]}), r"annotation 1: its bbox \[1, 2, 3\] is not four numbers"),
        (document({**BOX, "bbox": [1, 2, 0, 4]}), r"annotation 1: its bbox \[1, 2, 0, 4\] has no width"),
        ('{"images": [{"id": 7, "file_name": "a", "width": 4, "height": 3}], "categories": [{"id": 3, "name": "car"}],'
         '"annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [NaN, 2, 3, 4]}]}',
         r"annotation 1: its bbox \[NaN, 2, 3, 4\] is not four numbers"),
        (document({**BOX, "bbox": [1, 2, 3, "x"]}), r"annotation 1: its bbox \[1, 2, 3, x\] is not four numbers"),
        (document({**BOX, "id": "ab"}), "annotation ab: its id 'ab' is a text, not a whole number"),
        (document({**BOX, "image_id": "ab"}), "annotation 1: its image_id 'ab' is a text, not a whole number"),
        (document({**BOX, "category_id": [3]}), r"annotation 1: its category_id \[3\] is a list, not a whole number"),
        (document({**BOX, "id": 1.5}), "its id 1.5 is a decimal number, not a whole number"),
        ({"images": [{**IMAGE, "id": "65f0c0"}], "categories": [CATEGORY]}, "number 1: its id '65f0c0' is a text"),
        ({"images": [{**IMAGE, "file_name": ""}], "categories": [CATEGORY]}, "image number 1: its file_name '' is no"),
        ({"images": [{**IMAGE, "height": 0}], "categories": [CATEGORY]}, "its width and height are 40 and 0"),
        ({"images": [IMAGE], "categories": [{"id": 3, "name": None}]}, "category number 1: has no name"),
        ('{"images": ' + '[{"a": ' * 10_000 + "1" + "}]" * 10_000 + "}", "nested over 100 levels deep"),
        ("".join('{"]]]": "}]}", "\\\\\\"]": ' for _ in range(101)), "nested over 100 levels deep"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, content: Any, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InvalidDataset, match=said) as caught:
        coco.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("area", ["null", "NaN", "-Infinity", '"large"'])
def test_an_area_that_is_no_number_is_that_of_the_box(tmp_path: Path, area: str) -> None:
    dataset = coco.read(write(tmp_path, json.dumps(document({**BOX, "area": "AREA"})).replace('"AREA"', area)))
    assert dataset.areas.tolist() == [12]


@pytest.mark.parametrize(("value", "crowd"), [(0, False), (1, True), (True, True), ("0", False), (None, False)])
def test_regions_of_many(tmp_path: Path, value: Any, crowd: bool) -> None:
    assert coco.read(write(tmp_path, document({**BOX, "iscrowd": value}))).crowd.tolist() == [crowd]


@pytest.mark.parametrize("text", ["NaN", "-Infinity", '"a \\" [[[[ NaN"', "[" * 90 + "]" * 90])
def test_what_tools_write_besides_is_passed_over(tmp_path: Path, text: str) -> None:
    content = json.dumps({"info": "INFO", **document(BOX)}).replace('"INFO"', text)
    path = tmp_path / "annotations.json"
    path.write_text(content, encoding="utf-8-sig")
    assert coco.read(path).boxes.tolist() == [[1, 2, 4, 6]]


def test_strings_and_escapes_across_pieces_do_not_count_as_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"info": ['[[{"\\', "\\\\", '\\"{{{'] * 60, **document(BOX)}
    for size in range(1, 9):
        monkeypatch.setattr(nonfinite, "_PIECE", size)
        assert len(coco.read(write(tmp_path, content)).boxes) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"none\.json: no such"):
        coco.read(tmp_path / "none.json")
