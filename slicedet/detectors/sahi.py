"""SAHI: any of its model types as a slicedet detector, and a slicedet detector as one of its models."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sahi import AutoDetectionModel
from sahi import __version__ as sahi_version
from sahi.auto_model import MODEL_TYPE_TO_MODEL_CLASS_NAME
from sahi.models.base import DetectionModel
from sahi.prediction import ObjectPrediction

from slicedet.boxes import clip
from slicedet.detections import Detections
from slicedet.detectors.loading import load_detector
from slicedet.detectors.protocol import Detector
from slicedet.errors import InvalidConfig, InvalidSetting, MissingDependency, MissingWeights, UnknownModel
from slicedet.models.cache import digest


def load(argument: str, *, weights: str | Path | None, device: str, threshold: float) -> Detector:
    """The detector behind "sahi:TYPE:WEIGHTS", or "sahi:TYPE" and `weights`.

    Raises UnknownModel for a type that SAHI does not have, MissingDependency where its framework is not installed,
    MissingWeights where the file is not there, InvalidConfig where SAHI cannot load it.
    """
    kind, _, path = argument.partition(":")
    if kind not in MODEL_TYPE_TO_MODEL_CLASS_NAME:
        known = ", ".join(sorted(MODEL_TYPE_TO_MODEL_CLASS_NAME))
        raise UnknownModel(f"sahi:{argument}: SAHI has no model type {kind!r}; it has {known}")
    source = str(weights) if weights is not None else path
    # Some frameworks take names of models of theirs, which have no suffix.
    if Path(source).suffix and not Path(source).exists():
        raise MissingWeights(f"{source}: no such weights file")
    try:
        model = AutoDetectionModel.from_pretrained(
            kind,
            model_path=source or None,
            device={"gpu": "cuda:0"}.get(device, device),
            confidence_threshold=threshold,
        )
    except ImportError as error:
        raise MissingDependency(f"sahi:{kind}: {error}") from error
    except Exception as error:  # Whatever the framework underneath raises.
        raise InvalidConfig(f"sahi:{argument}: SAHI cannot load it ({error})") from error
    return SahiDetector(model, Path(source).stem or kind)


class SahiDetector:
    """A SAHI `DetectionModel` as a detector. SAHI's ids, which may have gaps, become indices into `categories`."""

    def __init__(self, model: DetectionModel, name: str = "sahi") -> None:
        mapping = {int(key): str(value) for key, value in (model.category_mapping or {}).items()}
        if not mapping:
            raise InvalidConfig(f"{name}: the SAHI model does not say its categories")
        self.model = model
        self.name = name
        self.categories = tuple(mapping[key] for key in sorted(mapping))
        self.input_size = model.image_size
        self.threshold = model.confidence_threshold
        weights = Path(model.model_path) if isinstance(model.model_path, str | Path) else None
        self.provenance = {
            "weights": None if weights is None else weights.name,
            "weights_sha256": digest(weights) if weights is not None and weights.is_file() else None,
            "engine": "sahi",
            "engine_version": sahi_version,
            "model_type": type(model).__name__,
            "device": str(model.device),
            "threshold": model.confidence_threshold,
        }
        self._index = {key: index for index, key in enumerate(sorted(mapping))}

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each tile, uint8 RGB [H, W, 3], in its own pixels."""
        self.model.perform_batch_inference(tiles)
        self.model.convert_original_predictions(
            shift_amount=[[0, 0] for _ in tiles],
            full_shape=[list(tile.shape[:2]) for tile in tiles],
        )
        return [self._converted(found) for found in self.model.object_prediction_list_per_image]

    def _converted(self, found: list[ObjectPrediction]) -> Detections:
        return Detections(
            np.array([item.bbox.to_xyxy() for item in found], np.float32).reshape(-1, 4),
            np.array([item.score.value for item in found], np.float32),
            np.array([self._index[item.category.id] for item in found], np.int32),
        )


class SlicedetModel(DetectionModel):
    """A slicedet detector for SAHI's own functions, such as `sahi.predict.get_sliced_prediction`.

    model: a detector; or model_path: what `slicedet.load_detector` takes, with its further arguments as `options`.
    category_mapping: other names of the detector's classes, by their ids as texts; by default its own.
    """

    def __init__(self, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._options = options or {}
        super().__init__(*args, **kwargs)

    def load_model(self) -> None:
        """Loads `model_path` by `slicedet.load_detector`. Raises what that raises."""
        known = [name for name in signature(load_detector).parameters if name not in ("model", "threshold")]
        for name in self._options:
            if name not in known:
                raise InvalidSetting(f"options: load_detector takes no {name!r} here; it takes {', '.join(known)}")
        self.set_model(load_detector(str(self.model_path), threshold=self.confidence_threshold, **self._options))

    def set_model(self, model: Any, **_: Any) -> None:
        """Takes a detector as the model. Raises InvalidSetting where `category_mapping` lacks one of its classes."""
        given = self.category_mapping or dict(enumerate(model.categories))
        given = {str(key): str(name) for key, name in given.items()}
        for index, name in enumerate(model.categories):
            if str(index) not in given:
                raise InvalidSetting(f"category_mapping: has no name for '{index}', the detector's {name!r}")
        self.model = model
        self.category_mapping = given
        self._names = [given[str(index)] for index in range(len(model.categories))]
        self.image_size = self.image_size or model.input_size

    @property
    def category_names(self) -> list[str]:
        """Names of the detector's categories, those of `category_mapping` where it was given."""
        return list(self._names)

    @property
    def num_categories(self) -> int:
        """Number of the detector's categories."""
        return len(self.model.categories)

    @property
    def has_mask(self) -> bool:
        """Detectors give boxes only."""
        return False

    def perform_inference(self, image: NDArray[np.uint8]) -> None:
        """Runs the detector on one RGB image."""
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[NDArray[np.uint8]]) -> None:
        """Runs the detector on RGB images."""
        self._original_shapes = [image.shape for image in images]
        self._original_predictions = self.model.detect([np.ascontiguousarray(image) for image in images])

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        count = len(self._original_predictions)
        shifts, shapes = _per_image(shift_amount_list or [0, 0], count), _per_image(full_shape_list, count)
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=box,
                    category_id=int(category),
                    category_name=self._names[category],
                    score=float(score),
                    shift_amount=shift,
                    full_shape=shape,
                )
                for box, score, category in zip(
                    clip(found.boxes, size[1], size[0]).tolist(), found.scores, found.category_ids, strict=True
                )
                if score >= self.confidence_threshold and box[0] < box[2] and box[1] < box[3]
            ]
            for found, size, shift, shape in zip(
                self._original_predictions, self._original_shapes or [], shifts, shapes, strict=True
            )
        ]


def _per_image(values: Any, count: int) -> list[Any]:
    """SAHI gives pairs for each image, or one pair for all."""
    if values is None:
        return [None] * count
    return list(values) if isinstance(values[0], list | tuple) else [values] * count
