"""Paddle's models in folders and .pdparams, on every engine."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

paddle = pytest.importorskip("paddle")

import paddle_folders  # noqa: E402
from paddle_folders import infer_cfg, lively, make, suppression  # noqa: E402

from slicedet import Detections, load_detector  # noqa: E402
from slicedet.detectors.decoding import candidates, suppressed  # noqa: E402
from slicedet.detectors.network import normalised  # noqa: E402
from slicedet.errors import (  # noqa: E402
    InvalidConfig,
    InvalidSetting,
    MissingWeights,
    ModelMismatch,
    ModelWarning,
    SlicedetError,
    UnknownModel,
)
from slicedet.models import catalogue, conversion  # noqa: E402
from slicedet.models.config import ModelConfig, NmsConfig, OutputConfig  # noqa: E402

PICODET = "picodet_xs_320_coco_lcnet"
SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("SLICEDET_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaddleDetection's folder, with suppression inside."""
    path = tmp_path_factory.mktemp("picodet")
    make(path, PICODET)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (rows, 12, 3), dtype=np.uint8) for rows in (8, 12, 20)]
    return [cv2.resize(image, (320, 20 * len(image)), interpolation=cv2.INTER_CUBIC) for image in coarse]


def by_layers(name: str, nms: NmsConfig, tile: np.ndarray, threshold: float) -> Detections:
    """What the network gives in dynamic mode, decoded by slicedet."""
    config = replace(catalogue.find(name), output=OutputConfig("boxes-and-scores"), nms=nms)
    image = cv2.resize(tile, config.input.size, interpolation=cv2.INTER_CUBIC)
    with paddle.no_grad():
        outputs = lively(name)(paddle.to_tensor(normalised(image, config.input)[None]))
    found = suppressed(candidates(config, [value.numpy() for value in outputs], threshold), nms)
    scale = np.array([tile.shape[1], tile.shape[0]] * 2, np.float32) / np.array(config.input.size * 2, np.float32)
    return found.replace(boxes=found.boxes * scale)


def assert_same(found: Detections, expected: Detections) -> None:
    """Within 0.5 px and 0.01, whatever the order of equal scores."""
    assert len(found) == len(expected) > 5
    left, right = (d[np.lexsort((d.boxes[:, 0].round(), d.boxes[:, 1].round(), d.category_ids))] for d in (found, expected))
    np.testing.assert_array_equal(left.category_ids, right.category_ids)
    np.testing.assert_allclose(left.boxes, right.boxes, atol=0.5)
    np.testing.assert_allclose(left.scores, right.scores, atol=0.01)


@pytest.mark.parametrize("engine", ["paddle", pytest.param("openvino", marks=converts), pytest.param("onnxruntime", marks=converts)])
def test_a_folder_finds_what_the_layers_find(engine: str, folder: Path, tiles: list[np.ndarray]) -> None:
    detector = load_detector(str(folder), engine=engine, threshold=0.3)
    assert detector.provenance["engine"] == engine
    for tile, found in zip(tiles, detector.detect(tiles), strict=True):
        assert_same(found, by_layers(PICODET, NmsConfig(0.025, 0.6, 1000, 100), tile, 0.3))
        assert_same(detector.detect([tile])[0], found)


def test_debug(folder, tiles):
    d = load_detector(str(folder), engine="paddle", threshold=0.0)
    for f in d.detect(tiles): print(len(f), f.scores[:5], f.scores[-5:], f.boxes[:3])
