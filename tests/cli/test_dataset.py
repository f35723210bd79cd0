"""slicedet dataset, as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def dataset(here):
    """A small dataset in the current folder, with one fault: a box that reaches out of its image."""
    (here / "data" / "images").mkdir(parents=True)
    (here / "data" / "annotations").mkdir()
    for split, first in (("train", 1), ("val", 4)):
        images, annotations = [], []
        for number in range(first, first + 3):
            small = np.random.default_rng(number).integers(0, 256, (10, 10, 3), np.uint8)
            Image.fromarray(small).resize((80, 60)).save(here / f"data/images/run{first}_{number}.png")
            images.append({"id": number, "file_name": f"run{first}_{number}.png", "width": 80, "height": 60})
            annotations.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [60, 20, 15, 10],
                    "area": 150,
                    "iscrowd": 0,
                }
            )
        if split == "train":
            annotations[0]["bbox"] = [70, 20, 15, 10]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]}
        (here / f"data/annotations/instance_{split}.json").write_text(json.dumps(content))
    return here / "data"


def test_check_fails_on_an_error_and_writes_its_report(slicedet, dataset, here):
    done = slicedet("dataset", "check", "data")
    assert done.code == 1
    assert "box-outside" in done.out
    assert "run1_1.png #1: bbox [70, 20, 15, 10] in an image of 80 x 60" in done.out
    assert "1 errors, 0 warnings" in done.out
    assert done.err == ""
    result = json.loads((here / "output/check_dataset_result.json").read_text())
    assert result["check_pass"] is False
    assert result["attributes"]["train_samples"] == 3
    assert (here / "output/check_dataset/histogram.png").is_file()
    assert len(list((here / "output/check_dataset/demo_img").iterdir())) == 6
    again = json.loads(slicedet("dataset", "check", "data", "-o", "other", "--json").out)
    assert again["counts"] == {"box-outside": 1}
    assert again["findings"][0]["id"] == 1
    assert again["advice"]["slice"] >= 32


def test_fix_mends_and_says_what_it_changed(slicedet, dataset, here):
    assert slicedet("dataset", "check", "data", "--fix").code == 2
    done = slicedet("dataset", "check", "data", "--fix", "-o", "mended")
    assert done.code == 0
    assert "boxes cut to their image" in done.out
    assert "left in it: 0 errors" in done.out
    assert slicedet("dataset", "check", "mended").code == 0
    answer = json.loads(slicedet("dataset", "check", "data", "--fix", "-o", "linked", "--image-mode", "link",
                                 "--json").out)  # fmt: skip
    assert answer["changes"]["train"]["boxes-clipped"] == 1
    assert answer["repaired"]["check_pass"] is True


def test_fix_of_a_single_file_passes(slicedet, dataset, here):
    for split, code in (("train", 1), ("val", 0)):
        file = dataset / f"annotations/instance_{split}.json"
        assert slicedet("dataset", "check", file).code == code
        done = slicedet("dataset", "check", file, "--fix", "-o", f"mended_{split}")
        assert (done.code, done.err) == (0, "")
        assert "left in it: 0 errors" in done.out
        result = json.loads((here / f"mended_{split}/check_dataset_result.json").read_text())
        assert result["dataset_path"] == f"mended_{split}"
        assert (here / f"mended_{split}/annotations/instance_{split}.json").is_file()


@pytest.mark.parametrize("size", [0, -5])
def test_an_input_size_below_one_is_wrong_usage(slicedet, dataset, size):
    done = slicedet("dataset", "check", "data", "--input-size", size)
    assert (done.code, done.out) == (2, "")
    assert "--input-size" in done.err


def test_names_that_no_file_can_have_are_said(slicedet, dataset, here):
    file = dataset / "annotations/instance_val.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "a" * 300 + ".jpg"
    file.write_text(json.dumps(content))
    done = slicedet("dataset", "check", "data")
    assert (done.code, done.err) == (1, "")
    assert "too long" in done.out
    content["images"][0]["file_name"] = ""
    file.write_text(json.dumps(content))
    done = slicedet("dataset", "slice", file, "-o", "tiles")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "instance_val.json: image number 1: its file_name '' is no name" in done.err


def test_what_is_no_dataset_ends_in_one_line_and_a_result_file(slicedet, here):
    (here / "images").mkdir()
    done = slicedet("dataset", "check", here)
    assert done.code == 1
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert "instance_train.json" in done.err
    result = json.loads((here / "output/check_dataset_result.json").read_text())
    assert (result["done_flag"], result["err_type"]) == (False, "InvalidDataset")


def test_split_slice_and_stats(slicedet, dataset, here):
    slicedet("dataset", "check", "data", "--fix", "-o", "mended")
    done = slicedet("dataset", "split", "mended", "--train-percent", 50, "--val-percent", 50, "--group-by", "sequence")
    assert (done.code, done.err) == (0, "")
    assert "train: 3 images in 1 groups, 3 annotations" in done.out
    assert "instance_train.json.bak" in done.out
    assert slicedet("dataset", "split", "mended", "--train-percent", 50).code == 2
    sliced = slicedet("dataset", "slice", "mended", "-o", "tiles", "--slice", "40x32", "--empty-ratio", "0.5", "--json")
    answer = json.loads(sliced.out)
    assert answer["splits"]["val"]["lost"] == 0
    assert slicedet("dataset", "check", "tiles", "-o", "report").code == 0
    assert (
        slicedet("dataset", "slice", "mended", "-o", "tiles").err
        == "Error: tiles: exists already; choose another name\n"
    )
    assert slicedet("dataset", "slice", "mended", "-o", "more", "--min-visible", 3).code == 2
    stats = slicedet("dataset", "stats", "mended", "-o", "plots")
    assert "train: 3 images (0 without boxes), 3 boxes" in stats.out
    for name in ("classes", "box_sizes", "boxes_per_image", "positions"):
        with Image.open(here / f"plots/{name}.png") as plot:
            assert plot.width > 300
    assert json.loads(slicedet("dataset", "stats", "mended", "--json").out)["splits"]["val"]["boxes"] == 3


def _turned_by(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def test_convert(slicedet, dataset, here):
    shutil.copytree(dataset / "images", here / "yolo/images")
    (here / "yolo/classes.txt").write_text("car\nbus\n")
    (here / "yolo/images/run1_1.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    done = slicedet("dataset", "convert", "yolo", "--from", "yolo", "-o", "coco")
    assert (done.code, done.err) == (0, "")
    assert "train: 6 images, 1 boxes" in done.out
    assert "categories: 1 car, 2 bus" in done.out
    content = json.loads((here / "coco/annotations/instance_train.json").read_text())
    assert content["annotations"][0]["bbox"] == [30, 15, 20, 30]
    shown = np.zeros((60, 80, 3), np.uint8)
    for number in range(5):
        Image.fromarray(shown).save(here / f"yolo/images/run1_{number}.jpg", exif=_turned_by(6 if number else 1))
        shape = {"label": "car", "shape_type": "rectangle", "points": [[1, 2], [9, 8]]}
        size = (80, 60) if number == 1 else (8, 6)
        content = {"shapes": [shape], "imagePath": f"run1_{number}.jpg", "imageWidth": size[0], "imageHeight": size[1]}
        (here / f"yolo/{number}.json").write_text(json.dumps(content))
    done = slicedet("dataset", "convert", "yolo", "--from", "labelme", "-o", "labelme")
    assert "turned: the boxes of 1 images, as EXIF turns the image\n" in done.out
    assert (
        "of another size than stated, boxes not scaled: run1_0.jpg: 80 x 60, stated 8 x 6; run1_2.jpg: 60 x 80, "
        "stated 8 x 6; run1_3.jpg: 60 x 80, stated 8 x 6 and 1 more\n" in done.out
    )
    assert slicedet("dataset", "convert", "yolo", "--from", "yolo", "-o", "x", "--class-name", "car").code == 2
    assert slicedet("dataset", "convert", "yolo", "--from", "kitti", "-o", "x").code == 2
    for classes, said in (("car,", "one of them has no name"), ("car,car", "one of them is there twice")):
        done = slicedet("dataset", "convert", "yolo", "--from", "yolo", "-o", "x", "--classes", classes)
        assert (done.code, done.out) == (2, "")
        assert f"classes '{classes}': {said}" in done.err
    assert not (here / "x").exists()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from slicedet.cli import main\n"
        "try: main(['dataset', 'check', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('numpy', 'matplotlib', 'cv2', 'rasterio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_synthetic(slicedet, here):
    command = ("dataset", "synthetic", "-o", "scene.tif", "--width", 400, "--height", 300, "--seed", 3)
    done = slicedet(*command)
    assert (done.code, done.err) == (0, "")
    assert "400 x 300 pixels" in done.out
    with Image.open(here / "scene.tif") as scene:
        assert scene.size == (400, 300)
    truth = json.loads((here / "scene.truth.coco.json").read_text())
    counts = json.loads(slicedet(*command, "--overwrite", "--json").out)["vehicles"]
    assert sum(counts.values()) == len(truth["annotations"])
    assert slicedet(*command).code == 1
    assert slicedet(*command, "--landscape", "moon").code == 2
    assert slicedet("dataset", "check", "scene.truth.coco.json").code == 0
