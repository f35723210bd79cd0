"""slicedet models: the catalogue and the official weights, as a user types it."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

ONNX = b"\x08\x07" + bytes(range(256)) * 100
CONFIG = """
title: my model
aliases: [Mine]
categories: [car]
input: {{size: [320, 320]}}
output: {{layout: rows}}
downloads:
  onnx: {{url: {url}/mine.onnx, size: 25602, sha256: {sha256}}}
  pdparams: {{url: {url}/mine.pdparams}}
"""


@pytest.fixture
def mine(host, home, here):
    """A configuration whose weights are on a server here."""
    host.files["/mine.onnx"] = ONNX
    path = here / "mine.yaml"
    path.write_text(CONFIG.format(url=host.url, sha256=hashlib.sha256(ONNX).hexdigest()))
    return path


def test_list_is_what_models_prints(slicedet):
    assert slicedet("models", "list") == slicedet("models")
    assert slicedet("models", "list", "--json") == slicedet("models", "--json")
    listed = {model["name"]: model for model in json.loads(slicedet("models", "list", "--json").out)["models"]}
    assert listed["ppyoloe_plus_sod_crn_s_80e_visdrone"]["aliases"] == ["PP-YOLOE_plus_SOD-S"]
    assert [name for name, model in listed.items() if not model["downloads"]] == [
        "aerial-vehicles",
        "aerial-vehicles-fast",
    ]


def test_a_model_that_comes_along_needs_no_download(slicedet, home):
    there = slicedet("models", "path", "aerial-vehicles").out.strip()
    assert Path(there).is_file()
    assert slicedet("models", "pull", "aerial-vehicles").out == f"aerial-vehicles: {there}\n"
    assert not home.exists()


def test_show_tells_what_is_known(slicedet, mine, home):
    done = slicedet("models", "show", "pp-yoloe_plus_sod-largesize-l")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("ppyoloe_plus_sod_crn_l_largesize_80e_visdrone: ")
    assert "1920 x 1920" in done.out
    assert "PP-YOLOE_plus_SOD-largesize-L_infer.tar (not downloaded)" in done.out
    assert not home.exists()
    slicedet("models", "pull", mine)
    place = home / "models" / "mine" / "mine.onnx"
    assert str(place) in slicedet("models", "show", mine).out
    assert json.loads(slicedet("models", "show", mine, "--json").out)["downloaded"] == {"onnx": str(place)}


def test_pull_and_path(slicedet, mine, host, home):
    place = home / "models" / "mine" / "mine.onnx"
    missing = slicedet("models", "path", mine)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == f"Error: mine: not downloaded; slicedet models pull {mine} does it\n"
    for _ in range(2):
        assert slicedet("models", "pull", mine) == (0, f"mine: {place}\n", "")
    assert len(host.requests) == 1
    assert slicedet("models", "path", mine) == (0, f"{place}\n", "")
    assert json.loads(slicedet("models", "path", mine, "--json").out) == {"name": "mine", "path": str(place)}
    assert slicedet("models", "pull", "--force", mine).code == 0
    assert len(host.requests) == 2


def test_path_is_the_first_that_is_here_as_for_predict(slicedet, mine, host, home):
    host.files["/mine.pdparams"] = pickle.dumps({"weight": np.zeros(3, np.float32)}, 4)
    place = home / "models" / "mine"
    slicedet("models", "pull", "--kind", "pdparams", mine)
    assert slicedet("models", "path", mine) == (0, f"{place / 'mine.pdparams'}\n", "")
    missing = slicedet("models", "path", "--kind", "onnx", mine)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == f"Error: mine: not downloaded; slicedet models pull --kind onnx {mine} does it\n"
    slicedet("models", "pull", mine)
    assert slicedet("models", "path", mine) == (0, f"{place / 'mine.onnx'}\n", "")


def test_what_fails_is_said_and_the_rest_pulled(slicedet, mine, home):
    done = slicedet("models", "pull", "no-such-model", mine, "--json")
    assert done.code == 1
    assert done.err.startswith("Error: no-such-model: unknown model")
    failed, pulled = json.loads(done.out)["models"]
    assert failed["name"] == "no-such-model"
    assert pulled == {"name": "mine", "path": str(home / "models" / "mine" / "mine.onnx")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "picodet_s_320_coco", "--kind", "paddle"], "no official paddle; there is onnx, pdparams"),
        (["path", "PP-YOLOE_plus_SOD_S"], "did you mean PP-YOLOE_plus_SOD-S"),
        (["show", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_mistakes_are_said_in_one_line(slicedet, home, arguments, message):
    done = slicedet("models", *arguments)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_without_network_one_line_says_what_to_put_where(slicedet, home, monkeypatch):
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", "http://no-such-host.invalid")
    done = slicedet("models", "pull", "PP-YOLOE_plus_SOD-S")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    official = "https://paddle-model-ecology.bj.bcebos.com/paddlex/official_inference_model/paddle3.0.0"
    assert f"put {official}/PP-YOLOE_plus_SOD-S_infer.tar at {home}" in done.err


def test_a_changed_file_is_refused(slicedet, mine, home):
    slicedet("models", "pull", mine)
    (home / "models" / "mine" / "mine.onnx").write_bytes(b"\x08 something else")
    for command in ("path", "pull", "show"):
        done = slicedet("models", command, mine)
        assert (done.code, done.out) == (1, "")
        assert "mine.onnx: changed since it was downloaded; delete it and pull it again, or slicedet" in done.err


def test_options_stand_after_the_command(slicedet):
    done = slicedet("models", "--json", "show", "picodet_s_320_coco")
    assert (done.code, done.out) == (2, "")
    assert "options come after the command" in done.err


def test_predict_tells_how_to_get_weights(slicedet, raster):
    import numpy as np

    image = raster("a.tif", np.zeros((3, 64, 64), np.uint8))
    done = slicedet("predict", image, "-m", "PicoDet-S")
    assert done.code == 1
    assert "slicedet models pull PicoDet-S gets" in done.err
