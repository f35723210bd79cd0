"""SIGKILL at random moments: what is left at last is what an unbroken run leaves, and little was run twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from spots import Spots, strewn, tree

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


def program(*arguments: object) -> subprocess.Popen[str]:
    """The program, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("kind", ["batch", "predict"])
def test_killed_at_random_moments(folder, tmp_path, kind):
    log, random_number = tmp_path / "log", random.Random(f"{kind} 2")
    wanted = tmp_path / "wanted"
    assert program(kind, folder, wanted, tmp_path / "unbroken-log", 0).wait() == 0
    total = (tmp_path / "unbroken-log").stat().st_size
    log.touch()
    kills = 0
    while True:
        # The moment is one of progress, not of time, so that a slow machine gets through as well.
        end = log.stat().st_size + random_number.randrange(total // 4)
        running = program(kind, folder, tmp_path / "out", log, 0.004)
        while running.poll() is None and log.stat().st_size < end:
            time.sleep(0.001)
        time.sleep(random_number.random() * 0.05)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            kills += 1
        output, _ = running.communicate()
        if running.returncode == 0:
            break
        assert running.returncode == -signal.SIGKILL, output
    assert kills >= 3
    assert tree(tmp_path / "out", records=False) == tree(wanted, records=False)
    assert log.stat().st_size - total <= kills * (ROW + WINDOW)


@pytest.mark.parametrize("kind", ["batch", "predict"])
def test_killed_before_any_step(folder, tmp_path, kind):
    for path in folder.rglob("[1-3].tif"):
        path.unlink()
    done = program("steps", kind, folder, tmp_path / "out", 3, 12)
    output, _ = done.communicate()
    assert done.returncode == 0, output


def test_what_is_kept_does_not_depend_on_who_runs_it(folder, tmp_path):
    assert program("batch", folder, tmp_path / "out", tmp_path / "log", 0).wait() == 0
    detector = Spots()
    Batch(folder, tmp_path / "out", formats=["geojson", "csv"]).run(detector, Settings())
    assert detector.seen == 0
