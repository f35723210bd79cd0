"""Timing engines: how agreement is measured, what is chosen, and that it is what precision "auto" runs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import slicedet
from slicedet.bench import Agreement, Timing, bench, recommended
from slicedet.detectors import choice
from slicedet.detectors.choice import EngineChoice
from slicedet.errors import EmptyImage, InvalidSetting, MissingWeights, ModelWarning, OutputError, UnreadableImage
from slicedet.models import conversion
from slicedet.models.catalogue import find

SLOW, MIDDLE, QUICK = EngineChoice("openvino"), EngineChoice("openvino", "f32", 1), EngineChoice("openvino", "bf16")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One measurement, and no pause before it, as no time is looked at."""
    monkeypatch.setattr("slicedet.bench.ROUNDS", 1)
    monkeypatch.setattr("slicedet.bench.PAUSE", 0)


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> slicedet.Detections:
    return slicedet.Detections(np.array(boxes), np.array(scores), np.array(classes))


def test_agreement_counts_pairs_of_one_class_and_tile() -> None:
    reference = [
        detections([[0, 0, 100, 50], [200, 0, 300, 50], [400, 0, 500, 50]], [0.9, 0.8, 0.7], [0, 0, 1]),
        detections([[0, 0, 10, 10]], [0.6], [0]),
    ]
    found = [
        # Moved by 5 px of 100, IoU 95 / 105; by 6 px, IoU 94 / 106 = 0.887; of another class.
        detections([[5, 0, 105, 50], [206, 0, 306, 50], [400, 0, 500, 50]], [0.87, 0.8, 0.7], [0, 0, 0]),
        detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.61, 0.6], [0, 0]),
    ]
    made = Agreement.of(found, reference)
    assert made.detections == 9
    assert made.matched == pytest.approx(4 / 9)
    assert made.mean_score == pytest.approx((0.03 + 0.01) / 2, abs=1e-6)
    assert made.largest_score == pytest.approx(0.03, abs=1e-6)
    assert made.largest_distance == 5
    assert not made.holds
    # Of another tile is another object.
    assert Agreement.of(found[::-1], reference).matched == 0


def test_agreement_is_mutual_and_full_with_itself() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (200, 2))
    found = slicedet.Detections(
        np.concatenate([corners, corners + rng.uniform(5, 60, (200, 2))], 1), rng.uniform(0, 1, 200), np.zeros(200)
    )
    fewer = found[:150]
    assert Agreement.of([found], [found]) == Agreement(400, 1.0, 0.0, 0.0, 0.0)
    assert Agreement.of([fewer], [found]) == Agreement.of([found], [fewer]) == Agreement(350, 300 / 350, 0.0, 0.0, 0.0)
    assert Agreement.of([slicedet.Detections.empty()], [found]).matched == 0
    nothing = Agreement.of([slicedet.Detections.empty()], [slicedet.Detections.empty()])
    assert (nothing.detections, nothing.holds) == (0, True)


def timed(way: EngineChoice, ratio: float, matched: float = 1.0, score: float = 0.0) -> Timing:
    return Timing(way, None, ratio, ratio / 10, Agreement(1000, matched, score, 0.5, 3.0))


def test_the_fastest_that_agrees_is_recommended() -> None:
    reference = timed(SLOW, 1.0)
    assert recommended([reference, timed(MIDDLE, 0.8), timed(QUICK, 0.5)], 500) == QUICK
    assert recommended([reference, timed(MIDDLE, 0.8), timed(QUICK, 0.5, matched=0.985)], 500) == MIDDLE
    assert recommended([reference, timed(MIDDLE, 0.8), timed(QUICK, 0.5, score=0.011)], 500) == MIDDLE
    assert recommended([reference, timed(QUICK, 0.5, matched=0.99, score=0.01)], 500) == QUICK


def test_what_is_hardly_faster_is_not_recommended() -> None:
    assert recommended([timed(SLOW, 1.0), timed(QUICK, 0.96)], 500) == SLOW
    assert recommended([timed(SLOW, 1.0), timed(QUICK, 0.94)], 500) == QUICK


def test_few_detections_prove_nothing_but_f32() -> None:
    assert recommended([timed(SLOW, 1.0), timed(MIDDLE, 0.8), timed(QUICK, 0.5)], 99) == MIDDLE


def test_without_agreement_the_first_is_recommended() -> None:
    assert recommended([timed(MIDDLE, 1.0, matched=0.5), timed(QUICK, 0.5, matched=0.5)], 500) == MIDDLE


def test_what_bench_chose_is_what_auto_runs(home: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("paddle")
    steps: list[tuple[int, int]] = []
    made = bench("aerial-vehicles-fast", tiles=2, progress=lambda done, total: steps.append((done, total)))
    assert (made.tiles, made.tile_size, made.source) == (2, (272, 272), "painted scene")
    assert made.threshold == find("aerial-vehicles-fast").threshold
    assert (made.left_out, made.stored.parent) == ({}, home / "bench")
    assert made.detections > 0
    reference = made.timings[0]
    assert (reference.way, reference.ratio) == (EngineChoice("openvino"), 1.0)
    assert {timing.way.engine for timing in made.timings} == {"openvino", "onnxruntime", "paddle"}
    for timing in made.timings:
        assert timing.seconds > 0
        # All engines compute the same in f32, which their own tests say of boxes and scores.
        assert timing.way.precision != "f32" or (timing.agreement.matched == 1 and timing.agreement.mean_score < 1e-4)
    assert made.chosen["auto"] == recommended(made.timings, made.detections)
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert {total for _, total in steps} == {steps[-1][0]}
    assert steps[-1][0] == steps[-1][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for engine, way in made.chosen.items():
            said = slicedet.load_detector("aerial-vehicles-fast", engine=engine, precision="auto").provenance
            assert (said["engine"], said["precision"]) == (way.engine, way.precision)
            assert way.streams in (None, said.get("streams"))


def test_what_is_chosen_for_a_slice_is_for_the_weights_that_it_takes(
    shared: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paddle = pytest.importorskip("paddle")
    if not conversion.available():
        pytest.skip("needs paddle2onnx")
    name = "picodet_s_320_coco"
    place = home / "models" / name
    place.mkdir(parents=True)
    shutil.copy(shared / "models" / f"{name}.onnx", place)
    paddle.seed(0)
    paddle.save(slicedet.networks.build(name).state_dict(), str(place / f"{name}.pdparams"))
    # The others are in the test above.
    monkeypatch.setattr("slicedet.bench.ENGINES", ("openvino",))
    monkeypatch.setattr(choice, "options", lambda engine, device: [EngineChoice(engine)])
    made = bench(name, tiles=1, slice=96)
    assert made.tile_size == (96, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = slicedet.load_detector(name, precision="auto", input_size=96).provenance
    assert (said["weights"], said["input_size"]) == (f"{name}.pdparams", [96, 96])
    assert said["precision"] == made.chosen["auto"].precision
    with pytest.warns(ModelWarning, match="nothing is chosen yet"):
        assert slicedet.load_detector(name, precision="auto").provenance["weights"] == f"{name}.onnx"


def test_what_does_not_run_is_said_and_the_image_is_the_users(
    shared: Path, home: Path, raster: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("slicedet.bench.ENGINES", ("onnxruntime", "paddle"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 400, 700), dtype=np.uint8)
    pixels[:, :, :320] = 0
    image = raster("photo.tif", pixels, nodata=0)
    made = bench("picodet_s_320_coco", shared / "models" / "picodet_s_320_coco.onnx", tiles=9, image=image)
    # Two rows of three tiles, of which the first of each is nodata.
    assert (made.tiles, made.tile_size, made.source) == (4, (320, 320), str(image))
    assert "folders of Paddle models" in made.left_out["paddle"]
    assert "paddle" not in made.chosen


def test_what_cannot_be_measured_is_one_line(
    home: Path, raster: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match="sahi:ultralytics: a plug-in runs its model itself"):
        bench("sahi:ultralytics")
    with pytest.raises(InvalidSetting, match="tiles 0"):
        bench("aerial-vehicles", tiles=0)
    with pytest.raises(InvalidSetting, match="slice"):
        bench("aerial-vehicles", slice=3)
    with pytest.raises(MissingWeights, match="--weights"):
        bench("picodet_s_320_coco")
    with pytest.raises(InvalidSetting, match="'gpu9'"):
        bench("aerial-vehicles", device="gpu9")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("slicedet.bench.ENGINES", ("onnxruntime",))  # It loads sooner.
    with pytest.raises(UnreadableImage, match=r"none\.tif"):
        bench("aerial-vehicles", image="none.tif")
    with pytest.raises(EmptyImage, match=r"empty\.tif"):
        bench("aerial-vehicles", image=raster("empty.tif", np.zeros((3, 300, 300), np.uint8), nodata=0))
    assert not list((home / "bench").iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLICEDET_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="SLICEDET_HOME names another folder"):
        bench("aerial-vehicles")
