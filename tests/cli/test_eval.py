"""slicedet eval, as a user types it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from graphs import constant_graph
from PIL import Image

from slicedet import load_detector, predict
from slicedet.detections import Detections
from slicedet.outputs.coco import CocoWriter

PHOTOS = ("MunichStreet02-MOS74.png", "MunichStreet02-MOS84.png")
MAP = ["--map", "car=vehicle,truck=vehicle,bus=vehicle", "--map", "minibus=vehicle,cyclist="]


@pytest.fixture
def model(model) -> list[str]:
    """The same network on ONNX Runtime, which loads it ten times as fast as OpenVINO."""
    pytest.importorskip("onnxruntime")
    return [*model, "--engine", "onnxruntime"]


@pytest.fixture
def photos(shared, tmp_path) -> Path:
    """A folder of two real photos, and truth.json, their annotations."""
    source = shared / "data/aerial_vehicles"
    document = json.loads((source / "annotations/instance_val.json").read_text())
    document["images"] = [image for image in document["images"] if image["file_name"] in PHOTOS]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in ids]
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "truth.json").write_text(json.dumps(document))
    for name in PHOTOS:
        shutil.copy(source / "images" / name, folder)
    return folder


@pytest.fixture
def small(tmp_path) -> Path:
    """A folder of two small grey images with two cars and a bus, and truth.json."""
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (120, 90), (90, 90, 90)).save(folder / name)
    frames = [{"id": i, "file_name": f"{name}.png", "width": 120, "height": 90} for i, name in ((1, "a"), (2, "b"))]
    boxes = [(1, 1, [10, 10, 20, 10]), (1, 2, [50, 50, 40, 20]), (2, 1, [5, 5, 20, 10])]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (image, category, box) in enumerate(boxes)
    ]
    names = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    (folder / "truth.json").write_text(json.dumps({"images": frames, "annotations": annotations, "categories": names}))
    perfect = [{**entry, "score": 0.9} for entry in annotations]
    (folder / "perfect.json").write_text(json.dumps(perfect))
    return folder


def of_pycocotools(truth: Path, results: list[dict]) -> list[float]:
    """COCO's twelve figures, vehicles as one class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    document = json.loads(truth.read_text())
    document["categories"] = [{"id": 1, "name": "vehicle"}]
    document["annotations"] = [{**entry, "category_id": 1} for entry in document["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = document
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def test_a_model_on_real_photos(slicedet, photos, model, shared, here):
    done = slicedet(
        "eval", *model, "--annotations", photos / "truth.json", "--images", photos, "--classes", "car,truck,bus",
        *MAP, "--compare", "sliced,full", "--threshold", "0.15", "-o", "report", "--worst", "2", "--json",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    sliced, full = answer["evaluations"]["sliced"], answer["evaluations"]["full"]
    files = {"evaluation.json", "images.csv", "precision_recall.png"}
    files |= {f"worst-{way}-{rank}.jpg" for way in ("sliced", "full") for rank in (1, 2)}
    assert {path.name for path in (here / "report").iterdir()} == files
    saved = json.loads((here / "report/evaluation.json").read_text())
    assert saved["evaluations"] == answer["evaluations"]
    assert saved["detector"]["weights"] == "picodet_s_320_coco.onnx"
    assert (answer["images"], answer["classes"]) == (2, ["vehicle"])
    assert sliced != full
    assert sliced["at_threshold"]["found"] > 0

    # What predict gives on the same photos: at the threshold counts, at the lowest score the average precision.
    wanted = {"classes": ["car", "truck", "bus"]}
    lowest = load_detector(model[1], model[3], "onnxruntime", threshold=0.01)
    usual = load_detector(model[1], model[3], "onnxruntime", threshold=0.15)
    document = json.loads((photos / "truth.json").read_text())
    results, number = [], 0
    for image in document["images"]:
        path = photos / image["file_name"]
        number += len(predict(path, usual, threshold=0.15, **wanted).detections)
        found = predict(path, lowest, **wanted).detections
        results += [
            {"image_id": image["id"], "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for (x1, y1, x2, y2), score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
        ]
    assert sliced["at_threshold"]["found"] + sliced["at_threshold"]["false_alarms"] == number
    expected = of_pycocotools(photos / "truth.json", results)
    figures = [-1 if value is None else value for value in sliced["coco"].values()]
    assert figures == pytest.approx(expected, abs=1e-6)
    assert figures[0] > 0


def test_a_file_that_slicedet_wrote(slicedet, small):
    path = small / "found.coco.json"
    with CocoWriter(path, ["tree", "bus", "car"]) as file:
        file.add("b.png", 120, 90, Detections([[5, 5, 25, 15], [60, 60, 80, 80]], [0.9, 0.4], [2, 0]))
        file.add("a.png", 120, 90, Detections([[10, 10, 30, 20], [50, 50, 90, 70]], [0.9, 0.3], [2, 1]))
    done = slicedet("eval", "--predictions", path, "--annotations", small / "truth.json", "--json")
    answer = json.loads(done.out)
    figures = answer["evaluations"]["predictions"]
    assert (done.code, done.err) == (0, "")
    assert (figures["ap"], figures["at_threshold"]["precision"], figures["at_threshold"]["recall"]) == (1, 1, 1)
    assert figures["not_in_the_annotations"] == {"tree": 1}


def test_a_perfect_file_and_its_report_without_pictures(slicedet, small, here):
    done = slicedet(
        "eval", "--predictions", small / "perfect.json", "--annotations", small / "truth.json", "-o", "new/report"
    )
    assert (done.code, done.err) == (0, "")
    assert "2 images, 3 objects of 2 classes (car, bus)" in done.out
    lines = {line.split("  ")[0]: line.split()[-1] for line in done.out.splitlines() if line}
    assert [lines[name] for name in ("AP", "AP50", "AP75", "AR")] == ["1.000"] * 4
    assert "Worst" not in done.out
    assert {path.name for path in (here / "new/report").iterdir()} == {
        "evaluation.json", "images.csv", "precision_recall.png"
    }  # fmt: skip
    rows = (here / "new/report/images.csv").read_text().splitlines()
    assert rows[1:] == ["predictions,a.png,2,2,0,0", "predictions,b.png,1,1,0,0"]


def test_pictures_show_what_was_missed_and_what_was_false(slicedet, small, here):
    results = [{"image_id": 1, "category_id": 1, "bbox": [60, 10, 30, 20], "score": 0.8}]
    (small / "bad.json").write_text(json.dumps(results))
    arguments = ["--predictions", small / "bad.json", "--annotations", small / "truth.json", "--images", small]
    assert slicedet("eval", *arguments, "-o", "report").code == 0
    with Image.open(here / "report/worst-predictions-1.jpg") as picture:
        pixels = np.asarray(picture).astype(int)
    head = pixels.shape[0] - 90
    assert pixels.shape[1] == 120
    missed, false = np.array([213, 94, 0]), np.array([240, 228, 66])
    for colour, x, y in ((missed, 8, 15), (missed, 48, 60), (false, 59, 20)):
        assert np.abs(pixels[head + y, x] - colour).max() < 60


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--images is needed"),
        (["--images", "none"], 1, "none: no such folder"),
        (["--images", "."], 1, r"2 of its 2 images are not in .: a.png, b.png"),
        (["--predictions", "none.json"], 1, "none.json: no such annotation file"),
        (["--predictions", "perfect.json", "--map", "car"], 2, "expected OLD=NEW"),
        (["--predictions", "perfect.json", "--map", "ship=car"], 1, "know ship"),
        (["--predictions", "perfect.json", "--compare", "sideways"], 2, "expected sliced or full"),
        (["--predictions", "perfect.json", "--compare", "sliced,full"], 2, "--compare says how a model is run"),
        (["--predictions", "perfect.json", "--classes", "nope"], 2, "--classes says how a model is run"),
        (["--predictions", "perfect.json", "--threshold", "2"], 2, "between 0 and 1"),
        (["--predictions", "perfect.json", "-o", "truth.json"], 1, "truth.json is not a folder"),
        (["--images", "SMALL", "--threshold", "ship=0.4"], 1, "class 'ship': the detector knows"),
        (["--images", "SMALL", "--roi", "x.geojson"], 2, "evaluate on annotations of the region"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    slicedet, small, here, model, arguments, code, said, monkeypatch
):
    work = small.parent / "work"
    work.mkdir()
    for name in ("truth.json", "perfect.json"):
        shutil.copy(small / name, work)
    monkeypatch.chdir(work)
    given = [small if argument == "SMALL" else argument for argument in arguments]
    of_a_model = [] if "--predictions" in given else model
    done = slicedet("eval", *of_a_model, "--annotations", "truth.json", *given)
    assert done.code == code
    assert done.out == ""
    assert said in done.err.splitlines()[-1]
    if code == 1:
        assert done.err.count("\n") == 1
    assert {path.name for path in work.iterdir()} == {"truth.json", "perfect.json"}


def test_an_image_of_another_size_is_named(slicedet, small, model):
    Image.new("RGB", (90, 120)).save(small / "b.png")
    done = slicedet("eval", *model, "--annotations", small / "truth.json", "--images", small)
    assert (done.code, done.out) == (1, "")
    assert "b.png: is 90 x 120 pixels, its annotations say 120 x 90" in done.err


def test_a_model_that_is_not_square_is_shown_tiles_of_its_shape(slicedet, small, here):
    constant_graph(here / "wide.onnx", {"rows": [[0, 0.9, 1, 1, 30, 30]]}, size=(96, 64))
    model = {"categories": ["car"], "weights": "wide.onnx", "input": {"size": [96, 64]}, "output": {"layout": "rows"}}
    (here / "wide.yaml").write_text(json.dumps(model))
    found = predict(small / "a.png", load_detector("wide.yaml"))
    assert (found.run["frame"]["tile_width"], found.run["frame"]["tile_height"]) == (96, 64)
    images = ("--annotations", small / "truth.json", "--images", small)
    done = slicedet("eval", "-m", "wide.yaml", *images, "--map", "*=any", "--json")
    assert (done.code, done.err) == (0, "")
    sliced = json.loads(done.out)["evaluations"]["sliced"]["at_threshold"]
    assert sliced["found"] + sliced["false_alarms"] == 2 * len(found.detections) > 2


def test_nothing_is_overwritten_unasked(slicedet, small, here):
    arguments = ["--predictions", small / "perfect.json", "--annotations", small / "truth.json", "-o", "report"]
    (here / "report").mkdir()
    (here / "report/evaluation.json").write_text("old")
    done = slicedet("eval", *arguments)
    assert (done.code, done.out) == (1, "")
    assert "exists already" in done.err
    assert [path.name for path in (here / "report").iterdir()] == ["evaluation.json"]
    assert slicedet("eval", *arguments, "--overwrite").code == 0
    assert json.loads((here / "report/evaluation.json").read_text())["images"] == 2


@pytest.mark.parametrize("name", ["images.csv", "precision_recall.png", "worst-predictions-2.jpg"])
def test_no_file_of_a_report_is_overwritten_unasked(slicedet, small, here, name):
    (small / "bad.json").write_text("[]")
    arguments = ["--predictions", small / "bad.json", "--annotations", small / "truth.json", "--images", small]
    (here / "report").mkdir()
    (here / "report" / name).write_text("mine")
    done = slicedet("eval", *arguments, "-o", "report")
    assert (done.code, done.out) == (1, "")
    assert f"{name}: exists already" in done.err
    assert [(path.name, path.read_text()) for path in (here / "report").iterdir()] == [(name, "mine")]


def test_pictures_of_an_earlier_report_are_removed_and_no_others(slicedet, small, here):
    (small / "bad.json").write_text("[]")
    arguments = ["eval", "--annotations", small / "truth.json", "--images", small, "-o", "report", "--overwrite"]
    assert slicedet(*arguments, "--predictions", small / "bad.json").code == 0
    others = ["worst-full-1.jpg", "worst-predictions-1.jpg.txt", "worst-predictions-best.jpg"]
    for name in others:
        (here / "report" / name).write_text("mine")
    assert (here / "report/worst-predictions-2.jpg").is_file()
    assert slicedet(*arguments, "--predictions", small / "bad.json", "--worst", 1).code == 0
    pictures = {path.name for path in (here / "report").glob("worst*")}
    assert pictures == {"worst-predictions-1.jpg", *others}
    assert slicedet(*arguments, "--predictions", small / "perfect.json").code == 0
    assert {path.name for path in (here / "report").glob("worst*")} == set(others)


def test_images_smaller_than_any_tile_are_seen_whole(slicedet, small, model):
    document = json.loads((small / "truth.json").read_text())
    document["images"][1] |= {"file_name": "tiny.png", "width": 30, "height": 20}
    Image.new("RGB", (30, 20), (90, 90, 90)).save(small / "tiny.png")
    (small / "truth.json").write_text(json.dumps(document))
    arguments = ["--annotations", small / "truth.json", "--images", small, "--compare", "full"]
    done = slicedet("eval", *model, *arguments)
    assert (done.code, done.err) == (0, "")
    assert "2 images, 3 objects" in done.out


@pytest.mark.filterwarnings("default::slicedet.errors.SlicedetWarning")
def test_images_of_one_side_only_are_said_on_stderr(slicedet, small):
    path = small / "found.coco.json"
    with CocoWriter(path, ["car", "bus"]) as file:
        for name in ("a.png", "strange.png"):
            file.add(name, 120, 90, Detections.empty())
    done = slicedet("eval", "--predictions", path, "--annotations", small / "truth.json", "--json")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith(f"Warning: {path}: 1 of its images are left out, as {small / 'truth.json'} does not")
    assert "1 of the 2 images" in done.err
    assert json.loads(done.out)["images_without_annotations"] == ["strange.png"]


def test_a_report_that_cannot_be_finished_leaves_nothing(slicedet, small, here):
    (small / "bad.json").write_text("[]")
    (small / "a.png").write_text("no picture")
    arguments = ["--predictions", small / "bad.json", "--annotations", small / "truth.json", "--images", small]
    done = slicedet("eval", *arguments, "-o", "new/report")
    assert done.code == 1
    assert "a.png" in done.err
    assert list(here.iterdir()) == []
