"""slicedet export, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from slicedet import load_detector, networks  # noqa: E402

PICODET = "picodet_xs_320_coco_lcnet"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Parameters as a training saves them."""
    path = tmp_path / "w.pdparams"
    paddle.seed(0)
    paddle.save(networks.build(PICODET).state_dict(), str(path))
    return path


def test_an_export_is_written_told_and_loaded(slicedet: Callable[..., Any], here: Path, weights: Path) -> None:
    arguments = ("export", "picodet-xs", "--weights", weights, "--input-size", "96x64", "-o", "made")
    said = slicedet(*arguments)
    assert said.code == 0
    first, *files = said.out.splitlines()
    assert first.startswith("made: picodet_xs_416_coco_lcnet, 96 x 64, differs from the network by at most ")
    assert sorted(files) == sorted(f"  made/{path.name}" for path in (here / "made").iterdir())
    assert load_detector("made", engine="paddle").provenance["input_size"] == [96, 64]
    again = slicedet(*arguments)
    assert (again.code, again.out) == (1, "")
    assert "--overwrite" in again.err
    assert slicedet(*arguments, "--overwrite", "-q").out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--input-size", "100"), 2, "multiples of 32"),
        (("--format", "tflite"), 2, "paddle, onnx, openvino"),
        (("--format", "onnx", "--nms"), 2, "--no-nms"),
        (("--weights", "none.pdparams"), 1, "no such weights file"),
        (("-o", "no/such/made"), 1, "does not exist"),
    ],
)
def test_one_line_for_what_is_wrong(
    slicedet: Callable[..., Any], here: Path, weights: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    given = slicedet("export", PICODET, "--weights", weights, "-o", "made", *arguments)
    assert (given.code, given.out) == (code, "")
    assert said in given.err.splitlines()[-1]
    assert code == 2 or len(given.err.splitlines()) == 1
    assert not list(here.iterdir())


def test_a_network_of_parameters_follows_the_slice_a_fixed_folder_does_not(
    slicedet: Callable[..., Any], here: Path, weights: Path
) -> None:
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    made = slicedet("export", PICODET, "--weights", weights, "--input-size", "64", "-o", "made", "--json")
    answer = json.loads(made.out)
    assert answer["largest_differences"]["pixels"] < 0.5
    assert answer["input_size"] == [64, 64]
    # One that is best shown tiles of 128 pixels, enlarged, is so too where the option says 128.
    config = Path(__file__).parents[2] / "configs" / "picodet_xs_320_coco_lcnet.yaml"
    (here / "enlarging.yaml").write_text(f"slice: 128\n{config.read_text()}")
    models = (
        ((PICODET, "--weights", weights), 128),
        (("enlarging.yaml", "--weights", weights), 320),
        (("made",), 64),
    )
    for model, size in models:
        predict = ("predict", "photo.png", "-m", *model, "--engine", "paddle", "--slice", "128", "--overwrite")
        assert f", network at {size} x {size}, " in slicedet(*predict).out
        (answer,) = json.loads(slicedet(*predict, "--json").out)["images"]
        assert answer["detector"]["input_size"] == [size, size]
