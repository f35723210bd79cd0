"""Files that are written while detections are still being found: the same as afterwards, and all or none of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from slicedet import outputs
from slicedet.detections import Detections
from slicedet.errors import OutputError, UntransformableCRS
from slicedet.outputs.writing import Writing
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]

UTM = {"transform": Affine(0.5, 0, 400000, 0, -0.5, 5e6), "crs": "EPSG:32633"}
ALL = [outputs.default_name("out", name) for name in outputs.FORMATS]


def boxes(count: int) -> np.ndarray:
    low = np.random.default_rng(2).uniform(0, [270, 170], (count, 2))
    return np.concatenate([low, low + 8], axis=1)


def parts_of(detections: Detections, *ends: int) -> list[Detections]:
    return [detections[begin:end] for begin, end in zip((0, *ends), (*ends, len(detections)), strict=True)]


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "slicedet-writer"]


@pytest.mark.parametrize("place", [UTM, {"transform": Affine(0.5, 0, 4, 0, -0.5, 5)}], ids=["utm", "no crs"])
@pytest.mark.parametrize("ends", [(), (0, 1, 1, 40), (7, 14, 21, 69)])
def test_however_detections_come_files_are_those_of_save(
    place: dict[str, object],
    ends: tuple[int, ...],
    make_scene: MakeScene,
    make_prediction: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 7)
    prediction = make_prediction(make_scene(**place), boxes(70))
    names = [name for name in ALL if "crs" in place or not name.endswith("geojson")]
    paths = []
    for folder in ("saved", "written"):
        (tmp_path / folder).mkdir()
        paths = [tmp_path / folder / name for name in names]
        if folder == "saved":
            for path in paths:
                prediction.save(path)
    with Writing(prediction.layer, paths) as writing:
        for part in parts_of(prediction.detections, *ends):
            writing.add(part)
        assert [path for path in (tmp_path / "written").iterdir() if not path.name.startswith(".slicedet-")] == []
        written = writing.finish()
    assert sorted(written) == sorted((tmp_path / "written").iterdir())
    for path in sorted((tmp_path / "saved").iterdir()):
        assert (tmp_path / "written" / path.name).read_bytes() == path.read_bytes(), path.name
    assert writers() == []


def test_nothing_found_makes_whole_files(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    prediction = make_prediction(make_scene(**UTM), [])
    for name in ALL:
        prediction.save(tmp_path / name)
    (tmp_path / "written").mkdir()
    with Writing(prediction.layer, [tmp_path / "written" / name for name in ALL]) as writing:
        writing.finish()
    for name in ALL:
        assert (tmp_path / "written" / name).read_bytes() == (tmp_path / name).read_bytes(), name


@pytest.mark.parametrize("name", ["out.geojson", "out.gpkg", "out.parquet", "out.csv", "out.coco.json"])
def test_files_grow_while_detections_come(
    name: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 4_000)
    prediction = make_prediction(make_scene(**UTM), boxes(20_000))

    def size() -> int:
        # Of all that the process has open there, for some of it has no name, or is still in a journal.
        opened = [Path("/proc/self/fd", number) for number in Path("/proc/self/fd").iterdir()]
        return sum(path.stat().st_size for path in opened if str(tmp_path) in str(path.resolve()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see how large unfinished files are")
    (tmp_path / "out").mkdir()
    with Writing(prediction.layer, [tmp_path / "out" / name]) as writing:
        before = size()
        for _ in range(4):
            writing.add(prediction.detections)
        end = time.monotonic() + 60
        while size() - before < 100_000 and time.monotonic() < end:
            time.sleep(0.01)
        assert size() - before >= 100_000
        assert not (tmp_path / "out" / name).exists()
    assert list((tmp_path / "out").iterdir()) == []
    assert writers() == []


@pytest.mark.parametrize("broken", ["out.geojson", "out.png"])
def test_one_that_cannot_be_written_leaves_none(
    broken: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"slicedet.outputs.{'geojson.write' if 'geo' in broken else 'overlay.write_png'}", fail)
    prediction = make_prediction(make_scene(**UTM), boxes(70))
    (tmp_path / "out").mkdir()
    paths = [tmp_path / "out" / name for name in ("out.csv", broken, "out.gpkg")]

    def write() -> None:
        with Writing(prediction.layer, paths) as writing:
            for part in parts_of(prediction.detections, *range(1, 70)):
                writing.add(part)
            writing.finish()

    with pytest.raises(OutputError, match=rf"{broken}: cannot be written: No space left"):
        write()
    assert list((tmp_path / "out").iterdir()) == []
    assert writers() == []


def test_boxes_without_longitude_are_told_while_others_come(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 1)
    scene = make_scene(
        transform=Affine(40e3, 0, -6e6, 0, -60e3, 6e6), crs="+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80"
    )
    detections = make_prediction(scene, [[140, 90, 160, 110], [0, 0, 5, 5]]).detections
    layer = make_prediction(scene, []).layer

    def write() -> None:
        with Writing(layer, [tmp_path / "out.geojson", tmp_path / "out.csv"]) as writing:
            while True:
                writing.add(detections)

    with pytest.raises(UntransformableCRS, match="1 of the first 2 boxes"):
        write()
    assert [path.name for path in tmp_path.glob("*out*")] == []


def test_files_that_are_there_stay(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    prediction = make_prediction(make_scene(**UTM), boxes(3))
    target, style = tmp_path / "out.gpkg", tmp_path / "out.qml"
    style.write_text("my own")
    with Writing(prediction.layer, [target]) as writing:
        target.write_text("made by another in the meantime")
        with pytest.raises(OutputError, match=r"out\.gpkg: exists already"):
            writing.finish()
    assert (target.read_text(), style.read_text()) == ("made by another in the meantime", "my own")
    with Writing(prediction.layer, [target], overwrite=True) as writing:
        writing.add(prediction.detections)
        assert writing.finish() == [target, style]
    assert target.read_bytes()[:6] == b"SQLite"
    assert style.read_text() != "my own"


def test_memory_of_many_detections_is_that_of_a_few(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more than some parts wait, however slow the file."""
    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 10)
    taken: list[int] = []

    def slowly(layer: object, pieces: object, path: Path) -> None:
        for piece in pieces:  # type: ignore[attr-defined]
            time.sleep(0.01)
            taken.append(len(piece))
        path.write_text("done")

    monkeypatch.setattr("slicedet.outputs.geojson.write", slowly)
    prediction = make_prediction(make_scene(**UTM), boxes(10))
    with Writing(prediction.layer, [tmp_path / "out.geojson"]) as writing:
        for given in range(30):
            writing.add(prediction.detections)
            assert given - len(taken) <= 5
        writing.finish()
    assert taken == [10] * 30
