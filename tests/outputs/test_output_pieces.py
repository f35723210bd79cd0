"""Outputs are written in pieces: these leave no trace in the files, nor do the runs, and memory does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
from affine import Affine
from geopandas.testing import assert_geodataframe_equal

from slicedet import outputs
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]

UTM = {"transform": Affine(0.5, 0, 400000, 0, -0.5, 5e6), "crs": "EPSG:32633"}
FIJI = {"transform": Affine(0.02, 0, 177, 0, -0.02, -16), "crs": "EPSG:4326"}
ALL = [outputs.default_name("out", name) for name in outputs.FORMATS]


def boxes(count: int) -> np.ndarray:
    low = np.random.default_rng(2).uniform(0, [270, 170], (count, 2))
    return np.concatenate([low, low + 8], axis=1)


@pytest.mark.parametrize("place", [UTM, FIJI], ids=["utm", "across the antimeridian"])
@pytest.mark.parametrize("count", [70, 71, 1])
def test_pieces_leave_no_trace(
    place: dict[str, object],
    count: int,
    make_scene: MakeScene,
    make_prediction: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prediction = make_prediction(make_scene(**place), boxes(count))
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    for name in ALL:
        prediction.save(tmp_path / "whole" / name)
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 7)
    for name in ALL:
        prediction.save(tmp_path / "pieces" / name)
        whole, parts = tmp_path / "whole" / name, tmp_path / "pieces" / name
        if name.endswith(".parquet"):
            assert_geodataframe_equal(geopandas.read_parquet(whole), geopandas.read_parquet(parts))
            assert pyarrow.parquet.read_metadata(parts).num_row_groups == -(-count // 35)
        elif name.endswith(".gpkg"):
            # The file counts how often it was changed.
            assert_geodataframe_equal(pyogrio.read_dataframe(whole), pyogrio.read_dataframe(parts))
        else:
            assert parts.read_bytes() == whole.read_bytes(), name


def test_bbox_of_geojson_spans_all_pieces(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 1)
    scene = make_scene(transform=Affine(0.1, 0, 177, 0, -0.1, -16), crs="EPSG:4326")
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        places = np.array([[40, 30, 50, 40], [0, 0, 10, 10], [5, 20, 20, 35]])[order]
        make_prediction(scene, places).save(tmp_path / "out.geojson", overwrite=True)
        collection = json.loads((tmp_path / "out.geojson").read_text())
        assert collection["bbox"] == [177.0, -20.0, -178.0, -16.0]


_SAVE_ALL = """
import sys
from pathlib import Path
import numpy as np
from slicedet.detections import Detections
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

random = np.random.default_rng(0)
low = random.uniform(0, [270, 170], (300, 2))
detections = Detections(np.concatenate([low, low + 8], axis=1), np.linspace(0.9, 0.3, 300), np.arange(300) % 2)
with Scene(sys.argv[1]) as scene:
    for name in sys.argv[3:]:
        Prediction(detections, ("car", "truck"), scene, "m", {}).save(Path(sys.argv[2]) / name)
"""


def test_every_run_makes_the_same_bytes(make_scene: MakeScene, tmp_path: Path) -> None:
    image = make_scene(**UTM).source
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        subprocess.run([sys.executable, "-c", _SAVE_ALL, image, str(tmp_path / run), *ALL], check=True)
    for name in [*ALL, "out.qml"]:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


class Interrupting(tuple[str, ...]):
    """Categories whose look-up is interrupted, as by Ctrl-C, the hundredth time."""

    asked = 0

    def __getitem__(self, index: object) -> str:  # type: ignore[override]
        self.asked += 1
        if self.asked == 100:
            raise KeyboardInterrupt
        return super().__getitem__(index)  # type: ignore[index, return-value]


@pytest.mark.parametrize("name", [name for name in ALL if name != "out.coco.json"])
def test_an_interruption_between_pieces_is_one(
    name: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 7)
    made = make_prediction(make_scene(**UTM), boxes(200))
    prediction = Prediction(made.detections, Interrupting(made.categories), made.scene, "m", {})
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        prediction.save(tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []


_MEMORY = """
import json, re, sys
from pathlib import Path
import numpy as np
from slicedet.detections import Detections
from slicedet.outputs import pieces
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

pieces.PIECE = 500
count = 50_000
low = np.random.default_rng(0).uniform(0, [270, 170], (count, 2))
detections = Detections(np.concatenate([low, low + 8], axis=1), np.full(count, 0.5), np.zeros(count))
status, added = Path("/proc/self/status"), {}

def kilobytes(field):
    return int(re.search(field + r":\\s+(\\d+) kB", status.read_text())[1])

with Scene(sys.argv[1]) as scene:
    for name in sys.argv[3:]:
        target = Path(sys.argv[2]) / name
        Prediction(detections[:5000], ("car",), scene, "m", {}).save(target)  # All that is imported and cached.
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        Prediction(detections, ("car",), scene, "m", {}).save(target, overwrite=True)
        added[name] = (kilobytes("VmHWM") - before) * 1024 / count
print(json.dumps(added))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc to see how much memory was used")
def test_memory_does_not_grow_with_the_detections(make_scene: MakeScene, tmp_path: Path) -> None:
    """In bytes for each detection, of which a polygon in Python alone takes some 300."""
    names = ["out.geojson", "out.gpkg", "out.fgb", "out.parquet", "out.csv", "out.coco.json"]
    command = [sys.executable, "-c", _MEMORY, make_scene(**UTM).source, str(tmp_path), *names]
    added = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # GDAL keeps a FlatGeobuf's index in memory.
    index = added.pop("out.fgb")
    assert index < 500
    assert max(added.values()) < 200, added
