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

from slicedet import networks  # noqa: E402

PICODET = "picodet_xs_320_coco_lcnet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parameters as a training saves them."""
    path = tmp_path_factory.mktemp("trained") / "w.pdparams"
    paddle.seed(0)
    paddle.save(networks.build(PICODET).state_dict(), str(path))
    return path


@pytest.fixture
def photo(here: Path) -> str:
    """The name of a picture in the current folder."""
    cv2.imwrite("photo.png", np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8))
    return "photo.png"


def test_an_export_is_written_told_run_and_replaced_when_asked(
    slicedet: Callable[..., Any], here: Path, weights: Path, photo: str
) -> None:
    arguments = ("export", "picodet-xs", "--weights", weights, "--input-size", "96x64", "-o", "made")
    said = slicedet(*arguments)
    assert said.code == 0
    first, *files = said.out.splitlines()
    assert first.startswith("made: picodet_xs_416_coco_lcnet, 96 x 64, differs from the network by at most ")
    assert sorted(files) == sorted(f"  made/{path.name}" for path in (here / "made").iterdir())
    again = slicedet(*arguments)
    assert (again.code, again.out) == (1, "")
    assert "--overwrite" in again.err
    answer = json.loads(slicedet(*arguments, "--overwrite", "--json").out)
    assert answer["largest_differences"]["pixels"] < 0.5
    assert answer["input_size"] == [96, 64]
    # A folder for one size is run at that one, whatever the slice.
    found = slicedet("predict", photo, "-m", "made", "--engine", "paddle", "--slice", "128")
    assert ", network at 96 x 64, " in found.out


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


def test_a_network_of_parameters_follows_the_slice(
    slicedet: Callable[..., Any], here: Path, weights: Path, photo: str
) -> None:
    # One that is best shown tiles of 128 pixels, enlarged, is so too where the option says 128.
    config = Path(__file__).parents[2] / "configs" / "picodet_xs_320_coco_lcnet.yaml"
    (here / "enlarging.yaml").write_text(f"slice: 128\n{config.read_text()}")
    for model, size in ((PICODET, 128), ("enlarging.yaml", 320)):
        options = ("-m", model, "--weights", weights, "--engine", "paddle", "--slice", "128", "--overwrite")
        (answer,) = json.loads(slicedet("predict", photo, *options, "--json").out)["images"]
        assert answer["detector"]["input_size"] == [size, size]
