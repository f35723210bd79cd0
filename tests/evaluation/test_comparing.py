"""The whole of an evaluation in one call, with a detector of one's own and with what it saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slicedet
from slicedet.errors import InvalidDataset, InvalidSetting, OutputError, UnknownCategory
from slicedet.evaluation.comparing import ReportFiles, compare_detector, compare_predictions
from slicedet.pipeline import Settings

SQUARES = {"a.png": [(10, 20), (150, 90)], "b.png": [(60, 60)]}
"""Corners of white squares of 20 pixels in black images of 200 x 150."""


class White:
    """Sees white squares as cars, each tile on its own."""

    categories = ("car",)
    input_size = 64

    def __init__(self) -> None:
        self.tiles = 0

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        import cv2

        found = []
        for tile in tiles:
            self.tiles += 1
            _, _, stats, _ = cv2.connectedComponentsWithStats((tile[:, :, 0] > 127).astype(np.uint8))
            boxes = [[x, y, x + width, y + height] for x, y, width, height, _ in stats[1:]]
            found.append(slicedet.Detections(np.reshape(boxes, (-1, 4)), [0.9] * len(boxes), [0] * len(boxes)))
        return found


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    images, boxes = [], []
    for number, (name, corners) in enumerate(SQUARES.items()):
        pixels = np.zeros((150, 200), np.uint8)
        for x, y in corners:
            pixels[y : y + 20, x : x + 20] = 255
            boxes.append({"id": len(boxes), "image_id": number, "category_id": 3, "bbox": [x, y, 20, 20], "area": 400})
        Image.fromarray(pixels).save(tmp_path / "images" / name)
        images.append({"id": number, "file_name": name, "width": 200, "height": 150})
    document = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "square"}]}
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return tmp_path / "truth.json"


MAP = {"car": "square"}


def test_a_detector_is_compared_in_both_ways(annotations: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    detector = White()
    compared = compare_detector(
        annotations,
        tmp_path / "images",
        detector,
        ways=("sliced", "full"),
        threshold=0.5,
        mapping=MAP,
        report=ReportFiles(tmp_path / "report", pictures=1),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert detector.tiles > 2 * 4 + 2
    for evaluation in compared.evaluations.values():
        assert evaluation.average_precision.ap == pytest.approx(1)
        assert (evaluation.at_threshold.counts.hits, evaluation.at_threshold.counts.false_alarms) == (3, 0)
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == json.loads(
        json.dumps(compared.content, default=str)
    )
    assert list(compared.content["evaluations"]) == ["sliced", "full"]
    assert {path.name for path in compared.files} == {"evaluation.json", "images.csv", "precision_recall.png"}
    assert "AP50" in compared.table()


def test_a_file_of_predictions_is_compared(annotations: Path, tmp_path: Path) -> None:
    found = [{"image_id": 0, "category_id": 3, "bbox": [10, 20, 20, 20], "score": 0.8}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    images, report = tmp_path / "images", ReportFiles(tmp_path / "report")
    compared = compare_predictions(annotations, tmp_path / "found.json", images=images, report=report)
    counts = compared.evaluations["predictions"].at_threshold.counts
    assert (counts.hits, counts.misses, counts.false_alarms) == (1, 2, 0)
    assert compared.content["predictions"] == str(tmp_path / "found.json")
    assert {path.name for path in compared.files} > {"worst-predictions-1.jpg", "worst-predictions-2.jpg"}


def test_what_is_wrong_is_said_before_anything_is_run(annotations: Path, tmp_path: Path) -> None:
    detector, images = White(), tmp_path / "images"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "images.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"images\.csv"):
        compare_detector(
            annotations, images, detector, threshold=0.5, mapping=MAP, report=ReportFiles(tmp_path / "taken")
        )
    with pytest.raises(InvalidDataset, match="no class is the same"):
        compare_detector(annotations, images, detector, threshold=0.5)
    with pytest.raises(UnknownCategory):
        compare_detector(annotations, images, detector, mapping=MAP, threshold={"*": 0.5, "lorry": 0.4})
    with pytest.raises(InvalidSetting, match="expected sliced or full"):
        compare_detector(annotations, images, detector, threshold=0.5, mapping=MAP, ways=("sliced", "whole"))
    with pytest.raises(InvalidSetting, match="objects outside would count as missed"):
        compare_detector(annotations, images, detector, Settings(roi="x.geojson"), threshold=0.5, mapping=MAP)
    (images / "b.png").unlink()
    with pytest.raises(InvalidDataset, match=r"b\.png"):
        compare_detector(annotations, images, detector, threshold=0.5, mapping=MAP)
    assert detector.tiles == 0
