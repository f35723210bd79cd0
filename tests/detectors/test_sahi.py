"""SAHI on both sides: slicedet's detectors inside SAHI's functions, SAHI's models inside slicedet's pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sahi.models.base import DetectionModel
from sahi.predict import get_prediction, get_sliced_prediction
from sahi.prediction import ObjectPrediction

import slicedet
from slicedet.detectors.sahi import SahiDetector, SlicedetModel
from slicedet.errors import InvalidSetting, MissingDependency, MissingWeights, UnknownModel


@pytest.fixture(scope="module")
def photo(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real photo without JPEG's loss, which decoders do not agree upon."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    with Image.open(shared / "data" / "aerial_vehicles" / "images" / "DJI_0005-0018.jpg") as image:
        image.crop((0, 0, 1300, 900)).save(path)
    return path


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "models" / "picodet_s_416_coco.onnx"


@pytest.fixture(scope="module")
def model(weights: Path) -> SlicedetModel:
    return SlicedetModel(
        model_path="picodet_s_416_coco", confidence_threshold=0.3, options={"weights": weights}, device="cpu"
    )


def rows(boxes: np.ndarray, scores: np.ndarray, category_ids: np.ndarray) -> np.ndarray:
    table = np.column_stack([category_ids, scores, boxes]).astype(float)
    return table[np.lexsort((table[:, 2], table[:, 1]))]


def test_sahi_slices_around_a_slicedet_detector_as_slicedet_does(
    photo: Path, weights: Path, model: SlicedetModel
) -> None:
    theirs = get_sliced_prediction(
        str(photo),
        model,
        slice_height=416,
        slice_width=416,
        overlap_height_ratio=0.25,
        overlap_width_ratio=0.25,
        perform_standard_pred=False,
        postprocess_type="NMS",
        postprocess_match_metric="IOS",
        verbose=0,
    ).object_prediction_list
    detector = slicedet.load_detector("picodet_s_416_coco", weights, threshold=0.3)
    ours = slicedet.predict(photo, detector, merge=slicedet.MergeRule("nms", "ios")).detections
    assert len(ours) > 5
    expected = rows(
        np.array([item.bbox.to_xyxy() for item in theirs]),
        np.array([item.score.value for item in theirs]),
        np.array([item.category.id for item in theirs]),
    )
    np.testing.assert_allclose(rows(ours.boxes, ours.scores, ours.category_ids), expected, atol=1e-3)


def test_one_image_through_sahi_is_one_call_of_the_detector(photo: Path, model: SlicedetModel) -> None:
    result = get_prediction(str(photo), model)
    with Image.open(photo) as image:
        (found,) = model.model.detect([np.asarray(image.convert("RGB"))])
    scores = [item.score.value for item in result.object_prediction_list]
    np.testing.assert_allclose(sorted(scores), np.sort(found.scores), rtol=1e-6)
    assert {item.category.name for item in result.object_prediction_list} <= set(model.category_names)


def test_a_sahi_model_is_a_detector(photo: Path, weights: Path, model: SlicedetModel) -> None:
    detector = SahiDetector(model, "wrapped")
    assert isinstance(detector, slicedet.Detector)
    assert detector.input_size == 416
    assert detector.categories[2] == "car"
    inner = slicedet.load_detector("picodet_s_416_coco", weights, threshold=0.3)
    ours, theirs = (slicedet.predict(photo, d).detections for d in (inner, detector))
    assert len(ours) == len(theirs) > 3
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)


class Gapped(DetectionModel):
    """A model whose ids have gaps, as some frameworks count: sees the bright part of an image as its class 7."""

    def load_model(self) -> None:
        self.model = self
        self.category_mapping = {"7": "bright", "3": "dark"}

    def perform_inference(self, image: np.ndarray) -> None:
        self._original_predictions = image

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: list[list[int]], full_shape_list: list[list[int]]
    ) -> None:
        y, x = np.nonzero(self._original_predictions[..., 0] > 128)
        box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
        found = ObjectPrediction(bbox=box, category_id=7, category_name="bright", score=0.9)
        self._object_prediction_list_per_image = [[found]]


def test_category_ids_with_gaps_become_indices() -> None:
    detector = SahiDetector(Gapped(confidence_threshold=0.3, device="cpu"))
    assert (detector.categories, detector.threshold) == (("dark", "bright"), 0.3)
    tile = np.zeros((100, 120, 3), np.uint8)
    tile[20:50, 30:90] = 255
    prediction = slicedet.predict(tile, detector, slice=640)
    assert prediction.detections.boxes.tolist() == [[30, 20, 90, 50]]
    assert prediction.detections.category_ids.tolist() == [1]


def test_names_given_to_sahi_stand_for_the_detectors_own(photo: Path, model: SlicedetModel) -> None:
    names = {str(index): f"kind {index}" for index in range(80)}
    renamed = SlicedetModel(model=model.model, confidence_threshold=0.3, category_mapping=names, device="cpu")
    assert renamed.category_names == list(names.values())
    own, given = (get_prediction(str(photo), each).object_prediction_list for each in (model, renamed))
    assert [(item.category.id, f"kind {item.category.id}") for item in own] == [
        (item.category.id, item.category.name) for item in given
    ]
    assert len(given) > 0
    assert SahiDetector(renamed).categories == tuple(names.values())
    with pytest.raises(InvalidSetting, match="category_mapping: has no name for '2', the detector's 'car'"):
        SlicedetModel(model=model.model, category_mapping={"0": "a", "1": "b"}, device="cpu")


@pytest.mark.parametrize("option", ["foo", "threshold"])
def test_options_that_load_detector_does_not_take(option: str) -> None:
    with pytest.raises(
        InvalidSetting, match=f"options: load_detector takes no '{option}' here; it takes weights, engine"
    ):
        SlicedetModel(model_path="picodet_s_416_coco", options={option: 1}, device="cpu")


def test_what_sahi_cannot_give_is_said_in_one_line() -> None:
    with pytest.raises(UnknownModel, match="no model type 'nonsense'"):
        slicedet.load_detector("sahi:nonsense:x.pt")
    with pytest.raises(MissingWeights, match=r"nowhere\.pt"):
        slicedet.load_detector("sahi:ultralytics:nowhere.pt")
    try:
        import ultralytics  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependency, match="ultralytics"):
            slicedet.load_detector("sahi:ultralytics")
