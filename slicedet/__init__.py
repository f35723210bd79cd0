"""slicedet finds small objects in images too large to see whole."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from slicedet import networks
    from slicedet.compat import create_model, create_pipeline
    from slicedet.detections import Detections
    from slicedet.detectors import Detector, load_detector
    from slicedet.errors import SlicedetError
    from slicedet.merging import MergeRule, merge
    from slicedet.pipeline import predict
    from slicedet.prediction import Prediction
    from slicedet.raster.scene import Scene
    from slicedet.tiling import TileGrid

# Loaded on first use, so that `import slicedet` and the command line answer at once.
_HOMES = {
    "Detections": "slicedet.detections",
    "Detector": "slicedet.detectors",
    "MergeRule": "slicedet.merging",
    "Prediction": "slicedet.prediction",
    "Scene": "slicedet.raster.scene",
    "SlicedetError": "slicedet.errors",
    "TileGrid": "slicedet.tiling",
    "create_model": "slicedet.compat",
    "create_pipeline": "slicedet.compat",
    "load_detector": "slicedet.detectors",
    "merge": "slicedet.merging",
    "predict": "slicedet.pipeline",
}

__all__ = [
    "Detections",
    "Detector",
    "MergeRule",
    "Prediction",
    "Scene",
    "SlicedetError",
    "TileGrid",
    "create_model",
    "create_pipeline",
    "load_detector",
    "merge",
    "networks",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name == "networks":  # Needs Paddle.
        return import_module("slicedet.networks")
    if name not in _HOMES:
        raise AttributeError(f"module 'slicedet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
