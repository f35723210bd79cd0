"""Merging: makes one set of detections of what overlapping tiles saw. Detections in, Detections out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.errors import InvalidDetections, InvalidSetting
from slicedet.merging.agreement import unite
from slicedet.merging.claims import Claims, Pieces
from slicedet.merging.edges import cut_sides, numbered
from slicedet.merging.order import best_first

METHODS = ("nms", "nmm", "greedy-nmm", "agreement")
METRICS = ("iou", "ios")
GROWTH = ("cut", "always")

Frame = tuple[float, float]
"""Width and height in pixels of the scene that the tiles cover."""


class Merged(NamedTuple):
    """detections: what remains. rows: int64 [N], for each detection merged the row it went into, -1 for none."""

    detections: Detections
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class MergeRule:
    """How detections of the same object are found and made one; docs/merging.md describes the methods.

    method: "nms", "nmm", "greedy-nmm" or "agreement".
    metric: "iou" or "ios", see `slicedet.boxes.overlap`; agreement always compares by IoU.
    threshold: boxes match from this overlap on, above 0 and at most 1. class_agnostic: whether classes may mix.
    growth: when a box of "nmm" or "greedy-nmm" grows by one it takes: "cut", if an inner edge of its tile cuts it and
    another tile saw the one it takes, or "always", as in SAHI.
    Raises InvalidSetting for anything else.
    """

    method: str = "agreement"
    metric: str = "ios"
    threshold: float = 0.5
    class_agnostic: bool = False
    growth: str = "cut"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidSetting(f"merge method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.metric not in METRICS:
            raise InvalidSetting(f"merge metric {self.metric!r}: expected one of {', '.join(METRICS)}")
        if self.growth not in GROWTH:
            raise InvalidSetting(f"merge growth {self.growth!r}: expected one of {', '.join(GROWTH)}")
        if not isinstance(self.threshold, int | float) or math.isnan(self.threshold) or not 0 < self.threshold <= 1:
            raise InvalidSetting(f"merge threshold {self.threshold!r}: expected a number above 0 and at most 1")

    def apply(self, detections: Detections, frame: Frame | None = None) -> Detections:
        """The merged detections, best score first, ties by coordinates; the same for any order of the input.

        Each keeps the tile of its best detection. Where `frame` is not given, the tiles that found something are taken
        to reach its edges. Raises InvalidDetections where agreement, or growth where tiles cut, misses the tiles.
        """
        return self.trace(detections, frame).detections

    def trace(self, detections: Detections, frame: Frame | None = None) -> Merged:
        """The same as `apply`, and what became of each detection."""
        columns = [detections.boxes, detections.category_ids]
        if detections.tiles is not None:
            columns.append(detections.tiles)
        order = best_first(detections.scores, *columns)
        boxes, scores = detections.boxes.astype(np.float64), detections.scores.astype(np.float64)
        groups = np.zeros(len(order), np.int64) if self.class_agnostic else detections.category_ids.astype(np.int64)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        if self.method == "agreement":
            tiles = _tiles(detections)
            owner, boxes, scores = unite(boxes, scores, groups, tiles, rank, _frame(tiles, frame), self.threshold)
        else:
            claims = Claims(self.metric, self.threshold, self.method != "nms", self.method == "nmm")
            guarded = claims.grow and self.growth == "cut"
            owner, boxes = claims.make(boxes, groups, rank, _pieces(detections, frame) if guarded else None)
        kept = np.flatnonzero(owner == np.arange(len(owner)))
        merged = detections[kept].replace(boxes=boxes[kept], scores=scores[kept])
        order = best_first(merged.scores, merged.boxes, merged.category_ids)
        row = np.full(len(owner) + 1, -1)
        row[kept[order]] = np.arange(len(order))
        return Merged(merged[order], row[owner])  # An owner of -1 reads the last place, which is nobody's.


def merge(
    detections: Detections,
    method: str = "greedy-nmm",
    metric: str = "ios",
    threshold: float = 0.5,
    class_agnostic: bool = False,
    growth: str = "always",
    frame: Frame | None = None,
) -> Detections:
    """Detections of overlapping tiles made one set: see `MergeRule` for the settings and `MergeRule.apply`.

    The defaults are SAHI's, so that one can stand for the other.
    """
    return MergeRule(method, metric, threshold, class_agnostic, growth).apply(detections, frame)


def _tiles(detections: Detections) -> NDArray[np.float64]:
    if detections.tiles is None and len(detections):
        raise InvalidDetections("merging by what tiles saw needs the tile of every detection: give `tiles`")
    return np.empty((0, 4)) if detections.tiles is None else detections.tiles.astype(np.float64)


def _frame(tiles: NDArray[np.float64], frame: Frame | None) -> NDArray[np.float64]:
    if frame is not None:
        return np.array([0, 0, *frame], np.float64)
    return np.concatenate([tiles[:, :2].min(0, initial=np.inf), tiles[:, 2:].max(0, initial=-np.inf)])


def _pieces(detections: Detections, frame: Frame | None) -> Pieces:
    tiles = _tiles(detections)
    cut = cut_sides(detections.boxes.astype(np.float64), tiles, _frame(tiles, frame))
    return Pieces(numbered(tiles), np.any(cut, axis=1))
