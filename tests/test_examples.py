"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from pyproj import Transformer

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(folder: Path, name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_detector_finds_the_painted_vehicles(tmp_path: Path) -> None:
    said = run(tmp_path, "own_detector.py")
    features = json.loads((tmp_path / "vehicles.geojson").read_text())["features"]
    assert said.startswith(f"{len(features)} vehicles")
    assert len(features) > 80
    for feature in features:
        # Painted 20 x 44 pixels of 0.1 m.
        assert abs(feature["properties"]["width_m"] - 2.0) < 0.02
        assert abs(feature["properties"]["height_m"] - 4.4) < 0.02
    with rasterio.open(tmp_path / "car_park.tif") as raster:
        back = Transformer.from_crs(4326, raster.crs, always_xy=True)
        pixels = raster.read()
        for feature in features:
            lon, lat = feature["geometry"]["coordinates"][0][0]
            column, row = ~raster.transform @ back.transform(lon, lat)
            assert abs(column - round(column)) < 0.2
            assert abs(row - round(row)) < 0.2
            assert 0 <= column <= pixels.shape[2]


def test_onnx_model(shared: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "picodet_s_416_coco.onnx"
    said = run(tmp_path, "onnx_model.py", shared / "geotiff" / "colorado_rgb.tif", weights)
    assert said.startswith("383 x 232 pixels")
    assert (tmp_path / "overlay.jpg").stat().st_size > 10_000
    assert (tmp_path / "detections.coco.json").exists()


@pytest.mark.parametrize("name", ["onnx_model.py", "paddlex_import.py", "with_sahi.py"])
def test_examples_say_what_they_need(name: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python examples/{name} ")
    assert done.stderr.count("\n") == 1


def test_with_sahi(shared: Path, tmp_path: Path) -> None:
    photo = shared / "data" / "aerial_vehicles" / "images" / "DJI_0005-0018.jpg"
    said = run(tmp_path, "with_sahi.py", photo, shared / "models" / "picodet_s_416_coco.onnx")
    assert int(said.split()[0]) > 0
