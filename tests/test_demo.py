"""The demonstration, and the model that comes with slicedet, which it runs."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from slicedet.cli import main

import slicedet
from slicedet.datasets import coco
from slicedet.datasets.synthetic import SceneSettings, write_scene
from slicedet.evaluation import average_precision
from slicedet.models import DEFAULT_MODEL

CLASSES = {"*": "vehicle", "cyclist": ""}


@pytest.fixture(scope="module")
def detector() -> Any:
    return slicedet.load_detector(DEFAULT_MODEL)


def test_the_demo_finds_its_vehicles(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["demo", "-o", str(tmp_path / "shown"), "--json"], catch_exceptions=False)
    answer = json.loads(done.stdout)
    counts = answer["counts"]
    found = counts["hits"] + counts["false_alarms"]
    assert counts["hits"] + counts["misses"] > 1000
    assert counts["hits"] >= 0.95 * (counts["hits"] + counts["misses"])
    assert counts["false_alarms"] < 0.05 * found
    truth = coco.read(tmp_path / "shown" / "scene.truth.coco.json")
    assert len(truth.boxes) == counts["hits"] + counts["misses"]
    places = json.loads((tmp_path / "shown" / "scene.geojson").read_text())["features"]
    assert len(places) == found
    suffixes = {path.suffix for path in (tmp_path / "shown").iterdir()}
    assert {".geojson", ".gpkg", ".json", ".jpg"} <= suffixes


def test_the_demo_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_bytes(b"mine")
    done = CliRunner().invoke(main, ["demo", "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "scene.tif" in done.output
    assert (tmp_path / "scene.tif").read_bytes() == b"mine"


def test_the_model_is_small_and_says_where_it_comes_from() -> None:
    folder = Path(str(files("slicedet.configs"))) / DEFAULT_MODEL
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in card
    assert "KIT AIS" in card
    assert "Kharuzhy" in card


@pytest.mark.parametrize("landscape", ["woods", "water", "country", "mixed"])
def test_nothing_is_found_where_nothing_is(detector: Any, tmp_path: Path, landscape: str) -> None:
    settings = SceneSettings(680, 680, seed=91, vehicles=0, landscape=landscape)
    scene = write_scene(tmp_path / "empty.tif", settings)
    assert len(slicedet.predict(scene.image, detector).detections) == 0


def test_no_vehicle_in_a_forest(detector: Any, shared: Path) -> None:
    assert len(slicedet.predict(shared / "geotiff" / "neon_osbs_029.tif", detector).detections) == 0


def test_real_vehicles_from_above(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "aerial_vehicles"
    document = json.loads((data / "annotations" / "instance_val.json").read_text())
    # Of a street every fourth photo, of a crossing that a drone saw two of four.
    document["images"] = [*document["images"][:20:4], document["images"][22], document["images"][25]]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in ids]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    dataset = coco.read(tmp_path / "truth.json")
    detector = slicedet.load_detector(f"{DEFAULT_MODEL}-fast", threshold=0.01)  # One look, in half the time.
    found = [slicedet.predict(data / "images" / image.file_name, detector).detections for image in dataset.images]
    report = average_precision(dataset, found, detector.categories, CLASSES)
    assert report.objects > 200
    assert report.ap50 >= 0.98
    assert report.ap >= 0.70
