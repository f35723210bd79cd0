"""Which detections hit which objects, by COCO's rule at one IoU; precision and recall at every threshold from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely import STRtree
from shapely import box as rectangle

from slicedet import boxes as box
from slicedet.evaluation.results import Results, Truth, sides

IOU = 0.5
"""Intersection over union from which on a detection hits an object."""

NEARLY = 0.01
"""Difference between values of F1 that counts as none."""


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of every detection and of every object.

    hit: bool [detections]. ignored: bool [detections], those that lie in a crowd, neither hits nor false alarms.
    object_of: int64 [detections], the row of the object that was hit, else -1. found: bool [objects].
    missed: bool [objects], crowds are not missed.
    """

    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    object_of: NDArray[np.int64]
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    @property
    def false_alarm(self) -> NDArray[np.bool_]:
        """Bool [detections]: those that are neither hits nor ignored."""
        return ~self.hit & ~self.ignored


def match(truth: Truth, results: Results, iou: float = IOU) -> Matches:
    """Best score first, each detection takes that object of its class which it overlaps most of those not yet taken.

    What takes none but lies in a crowd of its class, by `iou` of its own area, is ignored. A detection's fate depends
    on better ones only, so it is the same at every threshold.
    """
    detections, objects, overlaps = overlapping(truth, results, iou)
    rank = np.empty(len(results), np.int64)
    rank[np.argsort(-results.scores, kind="stable")] = np.arange(len(results))
    # Crowds come after all others; of equal overlaps pycocotools takes the last object.
    order = np.lexsort((-objects, -overlaps, truth.crowd[objects], rank[detections]))
    object_of = np.full(len(results), -1, np.int64)
    ignored = np.zeros(len(results), bool)
    found = np.zeros(len(truth.boxes), bool)
    for detection, thing in zip(detections[order].tolist(), objects[order].tolist(), strict=True):
        if object_of[detection] >= 0 or ignored[detection]:
            continue
        if truth.crowd[thing]:
            ignored[detection] = True
        elif not found[thing]:
            found[thing] = True
            object_of[detection] = thing
    return Matches(object_of >= 0, ignored, object_of, found, ~found & ~truth.crowd)


Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Rows of detections, rows of objects, and the overlap of each pair."""


def overlapping(truth: Truth, results: Results, iou: float) -> Pairs:
    """Pairs of a detection and an object of the same image and class that overlap enough."""
    images = np.intersect1d(truth.image_indices, results.image_indices)
    of_truth, of_results = (
        np.searchsorted(indices, np.stack([images, images + 1], 1))
        for indices in (truth.image_indices, results.image_indices)
    )
    pairs = [np.empty((2, 0), np.int64)]
    for (begin, end), (first, last) in zip(of_truth, of_results, strict=True):
        tree = STRtree(rectangle(*truth.boxes[begin:end].T))
        pairs.append(tree.query(rectangle(*results.boxes[first:last].T)) + np.array([[first], [begin]]))
    detections, objects = np.concatenate(pairs, axis=1)
    same = truth.category_ids[objects] == results.category_ids[detections]
    detections, objects = detections[same], objects[same]
    a, b = results.boxes[detections], truth.boxes[objects]
    # By the same steps as pycocotools, so that an IoU of exactly the threshold falls on the same side.
    shared, own = box.intersection_area(a, b), sides(a).prod(axis=1)
    # Of a crowd, only the part that the detection covers counts.
    whole = np.where(truth.crowd[objects], own, own + sides(b).prod(axis=1) - shared)
    overlaps = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    enough = overlaps >= iou
    return detections[enough], objects[enough], overlaps[enough]


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall at every threshold, [M] each; thresholds fall, recall grows.

    counts: hits and false alarms at each threshold, int64 [M]; objects: how many there are to be found.
    """

    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    false_alarms: NDArray[np.int64]
    objects: int

    @classmethod
    def of(cls, scores: NDArray[np.float64], matches: Matches) -> Curve:
        """The curve of all detections that are not ignored."""
        counted = ~matches.ignored
        order = np.argsort(-scores[counted], kind="stable")
        falling, hit = scores[counted][order], matches.hit[counted][order]
        last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else np.empty(0, np.intp)
        objects = int(matches.found.sum() + matches.missed.sum())
        hits, false_alarms = (np.cumsum(kind, dtype=np.int64)[last] for kind in (hit, ~hit))
        return cls(falling[last], hits, false_alarms, objects)

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.hits / (self.hits + self.false_alarms)

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.hits / self.objects if self.objects else np.full(len(self.hits), np.nan)

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall, Dice's coefficient of what was found and what is there."""
        return 2 * self.hits / (self.hits + self.false_alarms + self.objects)

    def best_threshold(self) -> float | None:
        """The threshold of the highest F1, the highest of several, rounded down to three decimals; None where nothing
        was hit."""
        if not self.hits.any():
            return None
        return _rounded_down(self.thresholds[np.argmax(self.f1)])

    def working_threshold(self) -> float | None:
        """The lowest threshold whose F1 is within NEARLY of the highest, rounded down to three decimals; None where
        nothing was hit. On few images F1 hardly changes over a long range, and what is seen later scores lower."""
        if not self.hits.any():
            return None
        return _rounded_down(self.thresholds[np.flatnonzero(self.f1 >= self.f1.max() - NEARLY)[-1]])


def _rounded_down(threshold: float) -> float:
    return float(np.floor(threshold * 1000) / 1000)
