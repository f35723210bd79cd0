"""SIGKILL at random moments: what is left at last is what an unbroken run leaves, and little was run twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from spots import Spots, strewn

from slicedet.batch import Batch
from slicedet.pipeline import Settings

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")

PROGRAM = Path(__file__).with_name("crashing.py")
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
ROW, WINDOW = 5, 8
"""Most tiles in a row, and tiles that a detector without a stream takes at once."""


@pytest.fixture
def folder(shared, raster, tmp_path) -> Path:
    """Crops of real photos, and a larger picture of many rows of tiles."""
    with rasterio.open(shared / "geotiff/colorado_rgb.tif") as dataset:
        pixels = np.clip(dataset.read([1, 2, 3]).astype(int) + 60, 0, 255).astype(np.uint8)
    for number, (x, y) in enumerate([(0, 0), (150, 60), (40, 100), (200, 0)]):
        raster(f"in/{number % 2}/{number}.tif", pixels[:, y : y + 130, x : x + 180], **PLACE)
    raster("in/big.tif", strewn(500, 1500), **PLACE)
    return tmp_path / "in"


def program(*arguments: object) -> str:
    """What the program says."""
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("kind", ["batch", "predict"])
def test_killed_at_random_moments(folder, tmp_path, kind):
    said = program("moments", kind, folder, tmp_path / "out", 2)
    kills, run, needed = map(int, said.splitlines()[-1].split())
    assert kills >= 3
    assert run - needed <= kills * (ROW + WINDOW)


@pytest.mark.parametrize("kind", ["batch", "predict"])
def test_killed_before_any_step(folder, raster, tmp_path, kind):
    for path in folder.rglob("[1-3].tif"):
        path.unlink()
    raster("in/big.tif", strewn(500, 700), **PLACE)
    program("steps", kind, folder, tmp_path / "out", 3, 8)


def test_what_is_kept_does_not_depend_on_who_runs_it(folder, tmp_path):
    program("run", "batch", folder, tmp_path / "out")
    detector = Spots()
    Batch(folder, tmp_path / "out", formats=["geojson", "csv"]).run(detector, Settings())
    assert detector.seen == 0
