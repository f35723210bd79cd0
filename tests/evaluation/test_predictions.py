"""Saved predictions: read, matched to images and classes, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from slicedet.datasets import coco
from slicedet.detections import Detections
from slicedet.errors import InvalidDataset, SlicedetWarning
from slicedet.evaluation import predictions
from slicedet.outputs.coco import CocoWriter

NAMES = [{"id": 9, "name": "bus"}, {"id": 4, "name": "car"}]
RESULT = {"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.fixture
def dataset(write):
    frames = [
        {"id": number, "file_name": name, "width": 100, "height": 80}
        for number, name in ((8, "north/a.png"), (7, "south/b.png"), (3, "north/c.png"), (4, "south/c.png"))
    ]
    return coco.read(write("truth.json", {"images": frames, "categories": NAMES, "annotations": []}))


def test_results_go_by_ids_and_keep_their_order_within_an_image(write, dataset):
    rows = [RESULT, {**RESULT, "image_id": 8, "category_id": 9}, {**RESULT, "score": 0.9}, {**RESULT, "category_id": 5}]
    found = predictions.read(write("found.json", rows), dataset)
    assert found.results.image_indices.tolist() == [0, 1, 1, 1]
    assert [found.categories[i] for i in found.results.category_ids] == ["bus", "car", "car", "category 5"]
    assert found.results.scores.tolist() == [0.5, 0.5, 0.9, 0.5]
    assert found.results.boxes[0].tolist() == [1, 2, 4, 6]
    assert found.other_images == ()


def test_documents_go_by_names(tmp_path, dataset):
    path = tmp_path / "all.coco.json"
    one = Detections([[1, 2, 3, 4]], [0.5], [1])
    with CocoWriter(path, ["ship", "car"]) as file:
        for name in ("b.png", "somewhere/a.png", "south/c.png", "c.png", "strange.png"):
            file.add(name, 100, 80, one)
    with pytest.warns(SlicedetWarning, match=r": 2 of its .*\(c\.png, strange\.png\); 1 of the 4 .* missed"):
        found = predictions.read(path, dataset)
    assert found.results.image_indices.tolist() == [0, 1, 3]
    assert found.categories == ("ship", "car")
    # There are two c.png.
    assert found.other_images == ("c.png", "strange.png")


@pytest.mark.parametrize("names", [("day2/a.png", "day1/a.png"), ("day1/a.png", "day2/a.png"), ("day2/a.png", "a.png")])
def test_a_last_part_that_two_images_of_the_file_have_counts_as_neither(write, tmp_path, names):
    frames = [{"id": 1, "file_name": "day1/a.png", "width": 100, "height": 80}]
    dataset = coco.read(write("truth.json", {"images": frames, "categories": NAMES, "annotations": []}))
    path = tmp_path / "found.coco.json"
    with CocoWriter(path, ["car"]) as file:
        for name in (*names, "b.png"):
            file.add(name, 100, 80, Detections([[1, 2, 3, 4]], [0.5], [0]))
    if "day1/a.png" not in names:
        with pytest.raises(InvalidDataset, match="none of its images"):
            predictions.read(path, dataset)
        return
    with pytest.warns(SlicedetWarning, match=r": 2 of its images .*\(day2/a\.png, b\.png\)$"):
        found = predictions.read(path, dataset)
    assert (len(found.results), found.other_images) == (1, ("day2/a.png", "b.png"))


def test_an_image_in_which_nothing_was_found_is_one_of_the_datasets(tmp_path, dataset):
    path = tmp_path / "found.coco.json"
    with CocoWriter(path, ["car"]) as file:
        for name in ("north/a.png", "strange.png"):
            file.add(name, 100, 80, Detections.empty())
    with pytest.warns(SlicedetWarning, match="strange"):
        found = predictions.read(path, dataset)
    assert (len(found.results), found.other_images) == (0, ("strange.png",))


def test_a_score_reaches_a_threshold_of_the_same_number(write, dataset):
    scores = [number / 100 for number in range(101)]
    found = predictions.read(write("found.json", [{**RESULT, "score": score} for score in scores]), dataset)
    assert [len(found.above(score)) for score in scores] == list(range(101, 0, -1))
    assert len(found.above({"*": 0.9, "car": 0.3})) == 71
    assert found.above(0.5).boxes.dtype == np.float64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{**RESULT, "image_id": 70}], "none of its images is in .*image 70.*north/a.png"),
        ([{"image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]}], "prediction number 1 has no score"),
        ([RESULT, {**RESULT, "bbox": [1, 2, 3]}], "prediction number 2 has no usable bbox"),
        ([{**RESULT, "bbox": [1, 2, -3, 4]}], "no usable bbox"),
        ([{**RESULT, "score": "high"}], "no number"),
        ([{**RESULT, "bbox": [1, 2, 1e300, 1e300]}], "no usable bbox"),
        ([{**RESULT, "bbox": "1234"}], "no usable bbox: '1234'"),
        ([{**RESULT, "score": 90}], r"number 1 has the score 90, but scores lie in 0\.\.1"),
        ([{**RESULT, "score": 9e9}], r"has the score 9e\+09, but scores lie in 0\.\.1"),
        ([{**RESULT, "score": -0.5}], r"has the score -0\.5, but"),
        ([{**RESULT, "image_id": [1]}], r"number 1: its image_id \[1\] is a list"),
        ([{**RESULT, "category_id": {}}], "its category_id {} is an object"),
        ({}, "no file of COCO results"),
        (3, "no file of COCO results"),
        ({"type": "FeatureCollection", "features": []}, "no file of COCO results"),
        ({"images": [], "categories": [], "annotations": []}, "no file of COCO results"),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, r"number 1 of its images: its id \[1\] is a list"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1}]}, "1 of its categories: has no name"),
        ({"images": [{"id": 1, "file_name": "z.png"}], "annotations": []}, "none of its images"),
        ("text", "not valid JSON|no object"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_line(write, dataset, content, said):
    path = write("found.json", content)
    if content == "text":
        path.write_text("{text")
    with pytest.raises(InvalidDataset, match=said) as caught:
        predictions.read(path, dataset)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_score_rounded_to_a_little_over_1_is_taken(write, dataset):
    found = predictions.read(write("found.json", [{**RESULT, "score": 1.0000001}]), dataset)
    assert found.results.scores.tolist() == [1.0000001]


def test_names_of_strangers_are_shown_short(write, dataset):
    frames = [{"id": 1, "file_name": "\x1b[2J" + "n" * 1_000_000}]
    rows = [{**RESULT, "image_id": 1}]
    document = {"images": frames, "categories": NAMES, "annotations": rows}
    with pytest.raises(InvalidDataset, match=r"it has \\x1b\[2Jn+…") as caught:
        predictions.read(write("found.json", document), dataset)
    assert len(str(caught.value)) < 1000
