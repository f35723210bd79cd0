"""Hits, misses and false alarms: the matches of pycocotools at IoU 0.5, and the curve made of them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure
from pycocotools import mask

from slicedet.datasets import coco
from slicedet.evaluation import plots, predictions
from slicedet.evaluation.classes import Classes
from slicedet.evaluation.evaluating import evaluate
from slicedet.evaluation.matching import Curve, Matches, match
from slicedet.evaluation.results import Results, Truth, compared


@pytest.mark.parametrize("seed", range(12))
def test_matches_are_those_of_pycocotools(scatter, reference, write, seed):
    document, results = scatter(seed, crowds=0.2)
    dataset = coco.read(write("truth.json", document))
    found = predictions.read(write("found.json", results), dataset)
    evaluation = evaluate(dataset, found, threshold=0.0)
    expected = reference(document, results, limits=(1000,))
    per_image = np.zeros((len(dataset.images), 3), int)
    per_class = np.zeros((3, 3), int)
    index_of = {image.id: index for index, image in enumerate(dataset.images)}
    for entry in expected.evalImgs:
        if entry is None or entry["aRng"] != [0, 1e10]:
            continue
        hit, ignored = entry["dtMatches"][0] > 0, entry["dtIgnore"][0].astype(bool)
        missed = (entry["gtMatches"][0] == 0) & (entry["gtIgnore"] == 0)
        counts = [(hit & ~ignored).sum(), missed.sum(), (~hit & ~ignored).sum()]
        per_image[index_of[entry["image_id"]]] += counts
        per_class[(entry["category_id"] - 2) // 7] += counts
    point = evaluation.at_threshold
    assert [(c.hits, c.misses, c.false_alarms) for c in point.by_image] == [tuple(row) for row in per_image]
    assert [(c.hits, c.misses, c.false_alarms) for c in point.by_class.values()] == [tuple(row) for row in per_class]
    assert point.counts.hits == per_image[:, 0].sum()
    worst = evaluation.worst(100)
    wrong = per_image[:, 1] + per_image[:, 2]
    assert worst == sorted((i for i in range(len(wrong)) if wrong[i]), key=lambda i: (-wrong[i], i))


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_is_what_every_threshold_gives(scatter, write, seed):
    document, results = scatter(seed)
    dataset = coco.read(write("truth.json", document))
    found = predictions.read(write("found.json", results), dataset)
    classes = Classes.align(dataset.categories, found.categories)
    truth, every = Truth.of(dataset, classes), compared(found.above(None), classes)
    curve = Curve.of(every.scores, match(truth, every))
    assert (np.diff(curve.thresholds) < 0).all()
    for row in range(0, len(curve.thresholds), 7):
        kept = every[every.scores >= curve.thresholds[row]]
        matches = match(truth, kept)
        assert (curve.hits[row], curve.false_alarms[row]) == (matches.hit.sum(), matches.false_alarm.sum())
        assert curve.objects - curve.hits[row] == matches.missed.sum()


@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_has_a_better_f1_than_the_best(scatter, write, seed):
    document, results = scatter(seed)
    dataset = coco.read(write("truth.json", document))
    found = predictions.read(write("found.json", results), dataset)
    best = evaluate(dataset, found).at_best
    assert best is not None
    tried = [evaluate(dataset, found, threshold=t / 100).at_threshold.counts.f1 for t in range(0, 101, 4)]
    assert best.counts.f1 >= max(tried)


def test_an_overlap_of_exactly_a_half_falls_as_in_pycocotools():
    rng = np.random.default_rng(1)
    x, y, width, height = (rng.integers(1, 10000, 600) / 100 for _ in range(4))
    half = np.round(width / 2, 6)
    rows, ids = np.arange(600), np.zeros(600, np.int32)
    truth = Truth(np.stack([x, y, x + width, y + height], 1), ids, rows, ids.astype(bool), width * height)
    results = Results(np.stack([x, y, x + half, y + height], 1), np.full(600, 0.5), ids, rows)
    boxes = (np.stack([x, y, side, height], 1) for side in (half, width))
    overlaps = [mask.iou(a[None], b[None], [0])[0, 0] for a, b in zip(*boxes, strict=True)]
    assert match(truth, results).hit.tolist() == [overlap >= 0.5 for overlap in overlaps]


def test_the_plot_holds_precision_recall_and_f1_down_to_the_next_score(write):
    frames = [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}]
    things = [{"image_id": 1, "category_id": 1, "bbox": [x, 10, 10, 10], "area": 100, "id": x} for x in (10, 40, 70)]
    document = {"images": frames, "annotations": things, "categories": [{"id": 1, "name": "car"}]}
    dataset = coco.read(write("truth.json", document))
    scored = [{**thing, "score": score} for thing, score in zip(things, (0.9, 0.5, 0.2), strict=True)]
    found = predictions.read(write("found.json", scored), dataset)
    evaluation = evaluate(dataset, found)
    axes = Figure().subplots()
    plots._by_threshold(axes, {"predictions": evaluation})
    lines = [line for line in axes.lines if len(line.get_xdata())]
    for threshold in (0.8, 0.4, 0.3):
        counts = evaluate(dataset, found, threshold=threshold).at_threshold.counts
        for line, expected in zip(lines, (counts.precision, counts.recall, counts.f1), strict=True):
            steps = STEP_LOOKUP_MAP[line.get_drawstyle()](line.get_xdata(), line.get_ydata())
            assert np.interp(threshold, steps[0][::-1], steps[1][::-1]) == pytest.approx(expected)


def test_nothing_found_has_no_best_threshold(scatter, write):
    document, _ = scatter(0)
    dataset = coco.read(write("truth.json", document))
    evaluation = evaluate(dataset, predictions.read(write("found.json", []), dataset))
    counts = evaluation.at_threshold.counts
    assert evaluation.at_best is None
    assert evaluation.curve.working_threshold() is None
    assert (counts.hits, counts.false_alarms, counts.recall, counts.f1) == (0, 0, 0, 0)
    assert np.isnan(counts.precision)


def test_the_working_threshold_is_the_lowest_that_is_nearly_best():
    scores = np.array([0.9, 0.8, 0.7, 0.61234, 0.5, 0.4])
    hit = np.array([True, True, True, True, False, False])
    matches = Matches(hit, np.zeros(6, bool), np.where(hit, np.arange(6), -1), np.ones(4, bool), np.zeros(4, bool))
    curve = Curve.of(scores, matches)
    # All four from 0.61234 on: F1 is 1 there, 8 / 9 with the next.
    assert (curve.best_threshold(), curve.working_threshold()) == (0.612, 0.612)
    # Behind a thousand hits, three false alarms hardly matter.
    scores = np.linspace(1, 0.5, 1003)
    hit = np.arange(1003) < 1000
    nothing = np.zeros(1003, bool)
    matches = Matches(hit, nothing, np.where(hit, np.arange(1003), -1), np.ones(1000, bool), np.zeros(1000, bool))
    curve = Curve.of(scores, matches)
    assert curve.best_threshold() == np.floor(scores[999] * 1000) / 1000
    assert curve.working_threshold() == 0.5
