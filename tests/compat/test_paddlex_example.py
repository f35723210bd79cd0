"""The example of the changed import runs as it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from affine import Affine
from paddlex_facts import paint

EXAMPLE = Path(__file__).parents[2] / "examples" / "paddlex_import.py"


def test_the_changed_import(model_dir: Path, raster: Callable[..., Path], tmp_path: Path) -> None:
    place = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
    image = raster("big.tif", paint(7, 1000, 800).transpose(2, 0, 1), **place)
    command = [sys.executable, str(EXAMPLE), str(image), str(model_dir)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    count = int(done.stdout.split()[0])
    assert done.stdout == f"{count} objects in {image}\n"
    output = tmp_path / "output"
    assert sorted(path.name for path in output.iterdir()) == [
        "big_0_res.tif",
        "found.geojson",
        "found.json",
        "found.qml",
    ]
    assert len(json.loads((output / "found.json").read_text())["boxes"]) == count > 20
    assert len(json.loads((output / "found.geojson").read_text())["features"]) == count
