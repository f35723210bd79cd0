"""Validation while training: the figures are those of `slicedet eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from small_data import configured, write_dataset

from slicedet.datasets.coco import read
from slicedet.detections import Detections
from slicedet.evaluation import average_precision
from slicedet.evaluation.comparing import compare_detector
from slicedet.training.config import TrainingConfig, _checked
from slicedet.training.sources import Categories, LabelledImages, joined

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def rectangles() -> Any:
    """A network that finds bright rectangles of 32 x 24 pixels at multiples of 4, surely where nothing around is."""
    from paddle import Tensor, meshgrid, nn, stack, to_tensor
    from paddle.nn.functional import avg_pool2d

    class Rectangles(nn.Layer):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            bright = (images.mean(1, keepdim=True) > 1).astype("float32")
            inside = avg_pool2d(bright, (24, 32), stride=4)
            wide = avg_pool2d(bright, (32, 40), stride=4, padding=4, exclusive=False)
            around = (wide * 32 * 40 - inside * 24 * 32) / (32 * 40 - 24 * 32)
            rows, columns = (to_tensor(4.0 * np.arange(size, dtype=np.float32)) for size in inside.shape[2:])
            y, x = (axis.flatten() for axis in meshgrid(rows, columns))
            boxes = stack([x, y, x + 32, y + 24], -1).unsqueeze(0).tile([len(images), 1, 1])
            return boxes, (inside - around - 0.5).clip(0).flatten(2)

    return Rectangles()


def fine_raster(folder: Path) -> None:
    """A validation image of 0.075 m per pixel, on which rectangles are 64 x 48 pixels."""
    (folder / "images").mkdir(exist_ok=True)
    corners = [(16, 24), (120, 40), (232, 8), (40, 144), (208, 176)]
    pixels = np.full((3, 256, 320), 40, np.uint8)
    for x, y in corners:
        pixels[:, y : y + 48, x : x + 64] = 255
    transform = rasterio.Affine(0.075, 0, 691_000, 0, -0.075, 5_336_000)
    profile = {"driver": "GTiff", "width": 320, "height": 256, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(folder / "images" / "fine.tif", "w", **profile, transform=transform) as dataset:
        dataset.write(pixels)
    boxes = [{"bbox": [x, y, 64, 48], "area": 64 * 48} for x, y in corners]
    content = {
        "images": [{"id": 1, "file_name": "fine.tif", "width": 320, "height": 256}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **box} for number, box in enumerate(boxes, 1)
        ],
    }
    (folder / "annotations" / "instance_val.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "way", "found"),
    [
        ({"gsd": 0.15}, "sliced", True),
        ({}, "sliced", False),
        ({"gsd": 0.15, "input_size": 160, "evaluation": {"slice": "full"}}, "full", True),
    ],
)
def test_figures_are_those_of_eval(tmp_path: Path, changes: dict[str, Any], way: str, found: bool) -> None:
    """Rasters are searched at the model's ground sampling distance in tiles, and as they are where shown whole."""
    from slicedet.detectors.network import NetworkDetector
    from slicedet.training.trainer import _trained_model
    from slicedet.training.validation import NetworkEngine, Validation

    write_dataset(tmp_path)
    fine_raster(tmp_path)
    config = configured(tmp_path, **changes)
    model = _trained_model(config, ("car",))
    network = rectangles()
    categories = Categories(("car",), {"car": 0})
    figures, threshold = Validation(config.val, categories, config.evaluation, model).score(network)
    detector = NetworkDetector(model, NetworkEngine(network, model), 0.01, {})
    annotations = tmp_path / "annotations" / "instance_val.json"
    compared = compare_detector(annotations, tmp_path / "images", detector, ways=[way], threshold=0.25)
    evaluation = compared.evaluations[way]
    expected = evaluation.average_precision
    assert threshold == (evaluation.curve.working_threshold() or 0.25)
    assert (figures.ap, figures.ap50, figures.objects) == (expected.ap, expected.ap50, expected.objects)
    assert (figures.ap50 > 0.9) == found


def test_a_crowd_is_one_of_its_own_category(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, images=1, names=("car", "bus"))
    content = json.loads(path.read_text())
    crowd = {"id": 9, "image_id": 1, "category_id": 1, "bbox": [0, 0, 160, 128], "area": 160 * 128, "iscrowd": 1}
    content["annotations"].append(crowd)
    path.write_text(json.dumps(content))
    config: TrainingConfig = _checked(
        {"model": "picodet_s_320_coco", "dataset_dir": str(tmp_path), "epochs": 1, "output": str(tmp_path / "output")}
    )
    dataset = read(path)
    categories = Categories.of([dataset], config.train, config.categories, config.ignored)
    whole = joined([dataset], categories)
    assert whole.crowd.sum() == 1
    # Both objects, and before the bus one that is none, in the crowd of cars.
    objects = dataset.boxes[~dataset.crowd].astype(np.float32)
    found = [Detections([*objects, [60, 100, 90, 120]], [0.9, 0.8, 0.95], [0, 1, 1])]
    figures = average_precision(whole, found)
    assert figures.by_class == average_precision(dataset, found).by_class
    assert figures.by_class["car"].ap50 == pytest.approx(1)
    assert figures.by_class["bus"].ap50 == pytest.approx(0.5)
    # A training learns from no crowd.
    boxes, labels, ignored = LabelledImages([dataset], config.train, categories, 100).objects(0)
    np.testing.assert_array_equal(boxes, objects)
    assert labels.tolist() == [0, 1]
    np.testing.assert_array_equal(ignored, [[0, 0, 160, 128]])
