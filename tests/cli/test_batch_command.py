"""slicedet batch, shards and --resume as users type them, with the model that comes along."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

pytest.importorskip("onnxruntime")

ENGINE = ("--engine", "onnxruntime")
"""It loads sooner than OpenVINO."""

QUICK = ("-m", "aerial-vehicles-fast", *ENGINE)
PLACE = {"crs": "EPSG:26913", "transform": Affine(0.15, 0, 500000, 0, -0.15, 4500000)}


@pytest.fixture
def photos(shared, raster, tmp_path) -> Path:
    """Three crops of a real photo, one of several rows of tiles, and a file that is none."""
    with rasterio.open(shared / "geotiff/colorado_rgb.tif") as dataset:
        pixels = dataset.read([1, 2, 3])
    raster("in/a.tif", pixels[:, :150, :200], **PLACE)
    raster("in/b/b.tif", pixels[:, 50:, 100:], **PLACE)
    raster("in/big.tif", np.tile(pixels, (1, 4, 1)), **PLACE)
    (tmp_path / "in/bad.tif").touch()
    return tmp_path / "in"


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".slicedet" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if ".run." not in path.name}


def test_shards_are_run_and_collected(slicedet, photos, here):
    whole = slicedet("batch", photos, *QUICK, "-o", "whole")
    assert (whole.code, whole.err) == (1, f"Error: {photos}/bad.tif: empty file (0 bytes)\n")
    for index in (1, 2):
        part = slicedet("batch", photos, *QUICK, "-o", f"part{index}", "--shard", f"{index}/2")
        assert part.out.endswith(f"of 2 images, {part.out.split(', ')[1]}, results in part{index}\n")
    joined = slicedet("batch", "--collect", "part1", "part2", "-o", "joined")
    assert joined.code == 1
    assert joined.err == whole.err
    assert joined.out == whole.out.replace("whole", "joined")
    assert content(here / "joined") == content(here / "whole")


def test_the_same_command_goes_on_and_other_settings_are_refused(slicedet, photos, here):
    first = slicedet("batch", photos, *QUICK, "-o", "out")
    again = slicedet("batch", photos, *QUICK, "-o", "out")
    assert again.out == first.out.replace("3 of 4 images,", "3 of 4 images (3 from earlier runs),")
    refused = slicedet("batch", photos, *QUICK, "-o", "out", "--overlap", "0.1", "--threshold", "0.4")
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "overlap was 0.25, now 0.1" in refused.err
    assert "threshold" in refused.err
    anew = slicedet("batch", photos, *QUICK, "-o", "out", "--overlap", "0.1", "--restart", "--json")
    assert [row["image"] for row in json.loads(anew.out)["images"]] == ["a.tif", "b/b.tif", "bad.tif", "big.tif"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "--shard", "3/2"],
        ["in", "--shard", "x"],
        ["in", "other"],
        ["in", "--pattern", ""],
        ["in", "--collect", "--shard", "1/2"],
        ["in", "--collect", "--threshold", "0.9"],
    ],
)
def test_wrong_usage(slicedet, photos, arguments):
    wrong = slicedet("batch", *arguments, "-o", "out")
    assert wrong.code == 2
    assert "Usage: slicedet batch" in wrong.err


def test_ctrl_c_is_answered_in_one_line_and_the_rest_is_done_later(photos, slicedet, here):
    unbroken = slicedet("predict", photos / "big.tif", *ENGINE, "-o", "unbroken.geojson")
    assert unbroken.code == 0
    script = "from slicedet.cli import main; main(prog_name='slicedet')"
    again = ["predict", str(photos / "big.tif"), *ENGINE, "-o", "out.geojson", "--resume"]
    running = subprocess.Popen([sys.executable, "-c", script, *again], cwd=here, stderr=subprocess.PIPE, text=True)
    kept = here / ".out.geojson.slicedet-resume/journal.sqlite-wal"
    while running.poll() is None and not (kept.exists() and kept.stat().st_size > 20_000):
        time.sleep(0.01)
    running.terminate()  # Answered as Ctrl-C is, which may be ignored where tests run.
    _, said = running.communicate()
    if running.returncode:  # It may have been quicker.
        assert said == "Error: interrupted; the same command goes on from here\n"
        assert slicedet(*again).code == 0
    assert (here / "out.geojson").read_bytes() == (here / "unbroken.geojson").read_bytes()
    assert not kept.parent.exists()
