"""Running a detector over a dataset: where its images are."""

from __future__ import annotations

import pytest

from slicedet.datasets import coco
from slicedet.errors import InvalidDataset
from slicedet.evaluation.running import locate


def dataset(write, name: str) -> coco.CocoDataset:
    frame = {"id": 1, "file_name": name, "width": 9, "height": 9}
    categories = [{"id": 1, "name": "car"}]
    return coco.read(write("truth.json", {"images": [frame], "categories": categories, "annotations": []}))


@pytest.mark.parametrize("name", ["a.png", "day/a.png", "day\\a.png", "/home/someone/a.png", "../../a.png"])
def test_images_are_looked_for_in_the_folder_and_nowhere_else(write, tmp_path, name):
    for place in ("", "day/"):
        (tmp_path / "images" / place).mkdir(exist_ok=True)
        (tmp_path / "images" / f"{place}a.png").touch()
    below = "day/a.png" if name.startswith("day") else "a.png"
    assert locate(dataset(write, name), tmp_path / "images") == [tmp_path / "images" / below]


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "..", "a\0.png", "none.png"])
def test_names_of_no_file_are_said(write, tmp_path, name):
    (tmp_path / "images").mkdir()
    with pytest.raises(InvalidDataset, match=r"folder of images|not in"):
        locate(dataset(write, name), tmp_path / "images")
