"""slicedet bench, as a user runs it, and the options that take what it chose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
import pytest

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One measurement, and no pause before it, as no time is looked at."""
    monkeypatch.setattr("slicedet.bench.ROUNDS", 1)
    monkeypatch.setattr("slicedet.bench.PAUSE", 0)


@pytest.fixture
def photo(here: Path) -> str:
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    return "photo.png"


def test_a_table_and_what_auto_is(slicedet: Callable[..., Any], model: list[str], photo: str) -> None:
    said = slicedet("bench", model[1], *model[2:], "--tiles", "1", "--image", photo)
    assert said.code == 0
    first, header, *lines = said.out.splitlines()
    assert first.startswith("picodet_s_320_coco on cpu (")
    assert "1 tiles of 320 x 320 pixels, photo.png, " in first
    assert header.split()[:2] == ["time", "tiles/s"]
    rows = [line.split() for line in lines if line[0].isdigit()]
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows)
    (reference,) = (row for row in rows if row[-1] == "reference")
    assert [reference[0], *reference[2:4]] == ["1.00", "openvino", "f32"]
    assert sum(line.startswith("not timed: paddle: ") for line in lines) == 1
    assert "--precision auto --engine openvino is now openvino in " in said.out


def test_json_says_it_all_and_predict_takes_it(
    slicedet: Callable[..., Any], model: list[str], photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("slicedet.bench.ENGINES", ("onnxruntime",))  # Not what predict takes by itself.
    bench = ("bench", model[1], *model[2:], "--tiles", "1", "--image", photo, "--slice", "160x150", "--json")
    made = json.loads(slicedet(*bench).out)
    assert made["tile_size"] == [160, 150]
    assert Path(made["stored"]).is_file()
    said = slicedet("predict", photo, *model, "--slice", "160x150", "--precision", "auto", "--json")
    assert "Warning" not in said.err
    detector = json.loads(said.out)["images"][0]["detector"]
    assert (detector["engine"], detector["precision"]) == (
        made["chosen"]["auto"]["engine"],
        made["chosen"]["auto"]["precision"],
    )


@pytest.mark.filterwarnings("default::slicedet.errors.ModelWarning")
def test_auto_before_bench_is_one_warning(slicedet: Callable[..., Any], model: list[str], photo: str) -> None:
    said = slicedet("predict", photo, *model, "--precision", "auto", "--streams", "1", "--json")
    (line,) = (line for line in said.err.splitlines() if line.startswith("Warning: "))
    assert "slicedet bench picodet_s_320_coco --weights " in line
    detector = json.loads(said.out)["images"][0]["detector"]
    assert (detector["precision"], detector["streams"]) == ("f32", 1)


def test_a_precision_that_is_not_there_is_one_line(slicedet: Callable[..., Any], model: list[str], photo: str) -> None:
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has f16")
    said = slicedet("predict", photo, *model, "--precision", "f16")
    assert (said.code, said.out) == (1, "")
    (line,) = said.err.splitlines()
    assert line.startswith("Error: precision f16: OpenVINO has f32")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nonsense",), 1, "unknown model"),
        (("--tiles", "0"), 2, "--tiles"),
        (("--slice", "3"), 2, "slice"),
        (("--image", "none.png"), 1, "none.png"),
        (("sahi:any",), 1, "plug-in"),
    ],
)
def test_one_line_for_what_is_wrong(
    slicedet: Callable[..., Any], arguments: tuple[str, ...], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("slicedet.bench.ENGINES", ("onnxruntime",))  # It loads sooner.
    given = slicedet("bench", *arguments)
    assert (given.code, given.out) == (code, "")
    assert said in given.err.splitlines()[-1]
