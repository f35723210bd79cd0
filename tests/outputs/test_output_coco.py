"""COCO files, read back with pycocotools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from slicedet.detections import Detections
from slicedet.errors import OutputError
from slicedet.outputs.coco import CocoWriter
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]


def test_one_image(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene("ein Bild ü.tif")
    make_prediction(scene, [[10, 20, 30, 45], [100.25, 50.5, 112.75, 61]]).save(tmp_path / "out.coco.json")
    coco = COCO(tmp_path / "out.coco.json")
    assert coco.loadImgs([1]) == [{"id": 1, "file_name": "ein Bild ü.tif", "width": 300, "height": 200}]
    names = ["car", 'truck, "big"', "Straßen & <Bahn>", "l'été"]
    assert coco.loadCats(coco.getCatIds()) == [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    assert coco.loadAnns([2]) == [
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [100.25, 50.5, 12.5, 10.5],
            "area": 131.25,
            "iscrowd": 0,
            "score": 0.3,
        }
    ]
    results = coco.loadRes(json.loads((tmp_path / "out.coco.json").read_text())["annotations"])
    assert [annotation["bbox"] for annotation in results.loadAnns(results.getAnnIds(imgIds=[1]))] == [
        [10.0, 20.0, 20.0, 25.0],
        [100.25, 50.5, 12.5, 10.5],
    ]


def test_no_detections(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    make_prediction(make_scene(), []).save(tmp_path / "out.coco.json")
    coco = COCO(tmp_path / "out.coco.json")
    assert (coco.getImgIds(), coco.getAnnIds()) == ([1], [])


def test_many_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with CocoWriter(tmp_path / "all.coco.json", ["car", "truck"], {"description": "a folder"}) as coco:
        for number in range(1, 21):
            low = rng.uniform(0, 50, (number, 2))
            boxes = np.concatenate([low, low + 10], axis=1)
            detections = Detections(boxes, rng.uniform(0, 1, number), rng.integers(0, 2, number))
            assert coco.add(f"folder {number % 3}/{number}.tif", 100, 80, detections) == number
        assert [path for path in tmp_path.iterdir() if not path.name.startswith(".slicedet-")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["all.coco.json"]
    read = COCO(tmp_path / "all.coco.json")
    assert read.dataset["info"] == {"description": "a folder"}
    assert [len(read.getAnnIds(imgIds=[number])) for number in range(1, 21)] == list(range(1, 21))
    assert read.getAnnIds() == list(range(1, 211))


def test_no_images(tmp_path: Path) -> None:
    with CocoWriter(tmp_path / "all.coco.json", ["car"]):
        pass
    assert COCO(tmp_path / "all.coco.json").getImgIds() == []


@pytest.mark.parametrize("error", [ValueError("of the caller"), OSError("of the caller"), KeyboardInterrupt()])
def test_an_exception_in_the_block_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    def fail() -> None:
        with CocoWriter(tmp_path / "all.coco.json", ["car"]) as coco:
            coco.add("a.tif", 10, 10, Detections.empty())
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "all.coco.json"
    path.write_text("before")
    with pytest.raises(OutputError, match="exists already"), CocoWriter(path, ["car"]):
        pytest.fail("not reached")
    assert path.read_text() == "before"
    with CocoWriter(path, ["car"], overwrite=True):
        pass
    assert path.read_text() != "before"
