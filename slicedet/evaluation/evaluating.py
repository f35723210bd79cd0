"""Evaluating: all that is said of one set of results, from average precision down to single images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from slicedet.datasets.coco import CocoDataset
from slicedet.evaluation.average_precision import AveragePrecision, measure
from slicedet.evaluation.classes import Classes
from slicedet.evaluation.matching import Curve, Matches, match
from slicedet.evaluation.results import Results, Truth, compared

Threshold = float | Mapping[str, float]
"""Lowest score, of all classes or by the detector's name of the class, with "*" for the others."""


class Found(Protocol):
    """What was found in the images of a dataset: by a `Run`, or in a file."""

    @property
    def categories(self) -> tuple[str, ...]: ...

    def above(self, threshold: Threshold | None) -> Results: ...


@dataclass(frozen=True)
class Counts:
    """Objects found and missed, and false alarms."""

    hits: int
    misses: int
    false_alarms: int

    @property
    def objects(self) -> int:
        return self.hits + self.misses

    @property
    def precision(self) -> float:
        """Share of the detections that are right; NaN where there are none."""
        return self.hits / (self.hits + self.false_alarms) if self.hits + self.false_alarms else math.nan

    @property
    def recall(self) -> float:
        """Share of the objects that were found; NaN where there are none."""
        return self.hits / self.objects if self.objects else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = 2 * self.hits + self.misses + self.false_alarms
        return 2 * self.hits / total if total else math.nan


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """What a user sees who sets `threshold`: counts at IoU 0.5, in all and by class, and image by image.

    truth, results, matches: the objects, the detections with at least this score, and which belong together.
    """

    threshold: Threshold
    counts: Counts
    by_class: dict[str, Counts]
    by_image: tuple[Counts, ...]
    truth: Truth
    results: Results
    matches: Matches


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is said of one set of results.

    average_precision: from all scores. curve, curves: precision and recall by threshold at IoU 0.5, of all classes
    together and by name, from the same detections as average precision. at_threshold: at the threshold asked for.
    at_best: at that of the highest F1, None where nothing was hit.
    not_annotated: detections at the threshold that were left out, by class of the detector that the annotations lack.
    """

    classes: Classes
    average_precision: AveragePrecision
    curve: Curve
    curves: dict[str, Curve]
    at_threshold: OperatingPoint
    at_best: OperatingPoint | None
    not_annotated: dict[str, int]

    def worst(self, number: int) -> list[int]:
        """Indices of the images with the most misses and false alarms, the worst first, those without any left out."""
        wrong = np.array([counts.misses + counts.false_alarms for counts in self.at_threshold.by_image])
        order = np.argsort(-wrong, kind="stable")[:number]
        return [int(index) for index in order if wrong[index]]


def evaluate(
    dataset: CocoDataset, found: Found, *, threshold: Threshold = 0.25, mapping: Mapping[str, str] | None = None
) -> Evaluation:
    """Compares what was found with the annotations.

    threshold: at which precision, recall and single images are looked at. mapping: as of `average_precision`.
    Raises InvalidSetting and InvalidDataset where names do not fit, UnknownCategory for a threshold of no class.
    """
    classes = Classes.align(dataset.categories, found.categories, mapping)
    truth = Truth.of(dataset, classes)
    results = compared(found.above(None), classes)
    matches = match(truth, results)
    curve = Curve.of(results.scores, matches)
    curves = {name: _curve_of_class(truth, results, matches, number) for number, name in enumerate(classes.names)}
    best = curve.best_threshold()
    kept = found.above(threshold)
    left_out = np.bincount(kept.category_ids, minlength=len(found.categories))
    return Evaluation(
        classes,
        measure(dataset.images, truth, results, classes.names),
        curve,
        curves,
        _point(dataset, classes, truth, compared(kept, classes), threshold),
        None if best is None else _point(dataset, classes, truth, compared(found.above(best), classes), best),
        {name: int(left_out[found.categories.index(name)]) for name in classes.not_annotated},
    )


def _curve_of_class(truth: Truth, results: Results, matches: Matches, number: int) -> Curve:
    detections, objects = results.category_ids == number, truth.category_ids == number
    return Curve.of(
        results.scores[detections],
        Matches(
            matches.hit[detections],
            matches.ignored[detections],
            matches.object_of[detections],
            matches.found[objects],
            matches.missed[objects],
        ),
    )


def _point(
    dataset: CocoDataset, classes: Classes, truth: Truth, results: Results, threshold: Threshold
) -> OperatingPoint:
    matches = match(truth, results)
    hits, false_alarms = results[matches.hit], results[matches.false_alarm]

    def counted(found: str, size: int) -> list[Counts]:
        """Counts by a column that all have, `size` its number of values."""
        columns = getattr(hits, found), getattr(truth, found)[matches.missed], getattr(false_alarms, found)
        return [Counts(*map(int, row)) for row in np.stack([np.bincount(c, minlength=size) for c in columns], 1)]

    return OperatingPoint(
        threshold,
        Counts(len(hits), int(matches.missed.sum()), len(false_alarms)),
        dict(zip(classes.names, counted("category_ids", len(classes.names)), strict=True)),
        tuple(counted("image_indices", len(dataset.images))),
        truth,
        results,
        matches,
    )
