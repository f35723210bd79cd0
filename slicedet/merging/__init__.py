"""Merging: makes one set of detections of what overlapping tiles saw. Detections in, Detections out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from slicedet.detections import Detections
from slicedet.errors import InvalidSetting
from slicedet.merging.nmm import absorb
from slicedet.merging.nms import suppressors
from slicedet.merging.order import best_first

METHODS = ("nms", "nmm", "greedy-nmm")
METRICS = ("iou", "ios")


@dataclass(frozen=True)
class MergeRule:
    """How detections of the same object are found and made one.

    method: "nms", "nmm" or "greedy-nmm". metric: "iou" or "ios", see `slicedet.boxes.overlap`.
    threshold: boxes match from this overlap on, above 0 and at most 1. class_agnostic: whether classes may mix.
    Raises InvalidSetting for anything else.
    """

    method: str = "nms"
    metric: str = "ios"
    threshold: float = 0.5
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidSetting(f"merge method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.metric not in METRICS:
            raise InvalidSetting(f"merge metric {self.metric!r}: expected one of {', '.join(METRICS)}")
        if not isinstance(self.threshold, int | float) or math.isnan(self.threshold) or not 0 < self.threshold <= 1:
            raise InvalidSetting(f"merge threshold {self.threshold!r}: expected a number above 0 and at most 1")

    def apply(self, detections: Detections) -> Detections:
        """The merged detections, best score first, ties by coordinates; the same for any order of the input."""
        columns = [detections.boxes, detections.category_ids]
        if detections.tiles is not None:
            columns.append(detections.tiles)
        ranked = detections[best_first(detections.scores, *columns)]
        boxes = ranked.boxes.astype(np.float64)
        groups = np.zeros(len(ranked), np.int64) if self.class_agnostic else ranked.category_ids.astype(np.int64)
        if self.method == "nms":
            owner = suppressors(boxes, groups, self.metric, self.threshold)
        else:
            owner, boxes = absorb(boxes, groups, self.metric, self.threshold, transitive=self.method == "nmm")
        kept = owner == np.arange(len(owner))
        merged = ranked[kept].replace(boxes=boxes[kept])
        return merged[best_first(merged.scores, merged.boxes, merged.category_ids)]


def merge(
    detections: Detections,
    method: str = "greedy-nmm",
    metric: str = "ios",
    threshold: float = 0.5,
    class_agnostic: bool = False,
) -> Detections:
    """Detections of overlapping tiles made one set: see `MergeRule` for the settings and `MergeRule.apply`."""
    return MergeRule(method, metric, threshold, class_agnostic).apply(detections)
