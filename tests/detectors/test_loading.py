"""Loading by name, thresholds and classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import slicedet
from slicedet.detectors.protocol import Detector, minimum_scores, name_of, provenance_of
from slicedet.errors import InvalidSetting, MissingWeights, UnknownCategory, UnknownModel

CATEGORIES = ("car", "truck", "bus")


def test_a_catalogue_model_is_a_detector(shared: Path) -> None:
    weights = shared / "models" / "picodet_s_320_coco.onnx"
    detector = slicedet.load_detector("picodet_s_320_coco", weights, threshold=0.4)
    assert isinstance(detector, Detector)
    assert (name_of(detector), detector.input_size, len(detector.categories)) == ("picodet_s_320_coco", 320, 80)
    said = provenance_of(detector)
    assert (said["engine"], said["device"], said["precision"]) == ("openvino", "cpu", "f32")
    assert len(said["weights_sha256"]) == 64
    (found,) = detector.detect([np.zeros((320, 320, 3), np.uint8)])
    assert (found.scores >= 0.4).all()


def test_a_users_yaml_brings_its_weights(shared: Path, tmp_path: Path) -> None:
    config = Path(slicedet.__file__).parents[1] / "configs" / "picodet_s_320_coco.yaml"
    (tmp_path / "w.onnx").symlink_to(shared / "models" / "picodet_s_320_coco.onnx")
    (tmp_path / "mine.yaml").write_text(config.read_text() + "weights: w.onnx\n")
    assert name_of(slicedet.load_detector(str(tmp_path / "mine.yaml"))) == "mine"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UnknownModel, match="picodet_s_416_coco"):
        slicedet.load_detector("nonsense")
    with pytest.raises(MissingWeights, match="--weights"):
        slicedet.load_detector("picodet_s_416_coco")
    with pytest.raises(MissingWeights, match=r"nowhere\.onnx"):
        slicedet.load_detector("picodet_s_416_coco", "nowhere.onnx")
    with pytest.raises(InvalidSetting, match="threshold"):
        slicedet.load_detector("picodet_s_416_coco", "nowhere.onnx", threshold=1.5)


def test_thresholds_by_class() -> None:
    assert minimum_scores(CATEGORIES).tolist() == [0, 0, 0]
    assert minimum_scores(CATEGORIES, 0.5).tolist() == [0.5, 0.5, 0.5]
    assert minimum_scores(CATEGORIES, {"*": 0.5, "truck": 0.25}).tolist() == [0.5, 0.25, 0.5]
    assert minimum_scores(CATEGORIES, 0.5, ["bus"]).tolist() == [np.inf, np.inf, 0.5]


def test_unknown_classes_and_numbers_outside_are_refused() -> None:
    with pytest.raises(UnknownCategory, match="'ship': the detector knows car, truck, bus"):
        minimum_scores(CATEGORIES, {"ship": 0.5})
    with pytest.raises(UnknownCategory, match="'ship'"):
        minimum_scores(CATEGORIES, None, ["ship"])
    with pytest.raises(InvalidSetting, match=r"1\.5"):
        minimum_scores(CATEGORIES, {"car": 1.5})


def test_pulled_weights_need_not_be_named(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slicedet.models import cache, catalogue

    monkeypatch.setenv("SLICEDET_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="slicedet models pull picodet_s_320_coco"):
        slicedet.load_detector("picodet_s_320_coco")
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", str(shared / "models"))
    cache.pull(catalogue.find("picodet_s_320_coco"))
    monkeypatch.delenv("SLICEDET_MODEL_MIRROR")
    (found,) = slicedet.load_detector("picodet_s_320_coco", threshold=0).detect([np.zeros((320, 320, 3), np.uint8)])
    assert len(found) > 0
