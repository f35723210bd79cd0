"""Small rasters of every kind of georeference, and predictions on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from slicedet.detections import Detections
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

CATEGORIES = ("car", 'truck, "big"', "Straßen & <Bahn>", "l'été")

GRIDS: dict[str, tuple[Affine, str]] = {
    "plain": (Affine(0.15, 0, 519467.5, 0, -0.15, 4311669.75), "EPSG:26913"),
    "south-up": (Affine(0.15, 0, 519467.5, 0, 0.15, 4311669.75), "EPSG:26913"),
    "rotated": (Affine(0.126, 0.109, 519467.5, 0.082, -0.168, 4311669.75), "EPSG:26913"),
    "feet": (Affine(0.5, 0, 981000.0, 0, -0.5, 195000.0), "EPSG:2263"),
    "degrees": (Affine(1e-5, 0, 13.4, 0, -1.1e-5, 52.5), "EPSG:4326"),
    "southern": (Affine(0.3, 0, 297463.0, 0, -0.3, 9050677.0), "EPSG:32750"),
    "dateline": (Affine(100.0, 0, 702000.0, 0, -100.0, 5847615.0), "EPSG:32660"),
}
"""Transforms from pixel edges to a CRS, by what is special about them."""


@pytest.fixture
def make_scene(raster: Callable[..., Path]) -> Iterator[Callable[..., Scene]]:
    """A function that writes a grey GeoTIFF of 300 x 200 pixels and opens it; further arguments are rasterio's."""
    with ExitStack() as stack:

        def make(name: str = "scene.tif", width: int = 300, height: int = 200, **profile: Any) -> Scene:
            pixels = np.full((3, height, width), 100, np.uint8)
            return stack.enter_context(Scene(raster(name, pixels, photometric="rgb", **profile)))

        yield make


@pytest.fixture
def make_prediction() -> Callable[..., Prediction]:
    """A function that makes a prediction of boxes on a scene, of all categories in turn."""

    def make(scene: Scene, boxes: Any, categories: Sequence[str] = CATEGORIES) -> Prediction:
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        scores = np.linspace(0.9, 0.3, len(boxes))
        detections = Detections(boxes, scores, np.arange(len(boxes)) % len(categories))
        return Prediction(detections, tuple(categories), scene, "picodet_s_416_coco", {})

    return make


@pytest.fixture
def columns() -> list[str]:
    """The columns of all outputs, in their order."""
    what = ["id", "class", "class_id", "score"]
    size = ["area_m2", "width_m", "height_m"]
    return [*what, *size, "x_min", "y_min", "x_max", "y_max", "source", "model"]


@pytest.fixture(params=GRIDS)
def grid(request: pytest.FixtureRequest) -> tuple[Affine, str]:
    """The transform and CRS of each of GRIDS."""
    return GRIDS[request.param]
