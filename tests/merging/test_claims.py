"""The walk behind NMS and NMM, where crowds make it work in batches; and SAHI's NMM where it drops boxes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import as_rows, crowd, overlap, union
from reference import merge as plain_merge
from sahi.postprocess.combine import NMMPostprocess
from sahi.prediction import ObjectPrediction

from slicedet.detections import Detections
from slicedet.merging import claims, merge, pairs

RULES = list(itertools.product(("nms", "nmm", "greedy-nmm"), ("iou", "ios")))


@settings(max_examples=120)
@given(
    seed=st.integers(0, 10**6),
    rule=st.sampled_from(RULES),
    threshold=st.sampled_from([0.1, 0.5, 0.9]),
    budget=st.sampled_from([1, 50, 1000]),
    steps=st.sampled_from([1, 2, 32]),
    ties=st.booleans(),
)
def test_batches_change_nothing(seed: int, rule: tuple, threshold: float, budget: int, steps: int, ties: bool) -> None:
    found = crowd(seed, 70, size=150, ties=ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "ALL_PAIRS", 0)
        patch.setattr(claims, "STEPS", steps)
        patch.setattr(pairs, "CHUNK", 20)
        patch.setattr(pairs, "BUDGET", budget)
        patch.setattr(pairs, "BUDGET_PER_BOX", 0)
        merged = as_rows(merge(found, *rule, threshold))
    assert merged == plain_merge(found, *rule, threshold, class_agnostic=False)


@pytest.mark.parametrize(("method", "metric"), RULES)
def test_boxes_of_very_different_sizes(method: str, metric: str) -> None:
    random = np.random.default_rng(3)
    corner = random.uniform(0, 2000, (400, 2))
    sides = np.where(random.random((400, 1)) < 0.05, 1500.0, 3.0) * random.uniform(0.5, 1.5, (400, 2))
    found = Detections(np.hstack([corner, corner + sides]), random.random(400), random.integers(0, 3, 400))
    assert as_rows(merge(found, method, metric)) == plain_merge(found, method, metric, 0.5, class_agnostic=False)


@pytest.mark.parametrize("scale", [2.0**-14, 2.0**17])
def test_the_unit_of_the_boxes_does_not_matter(scale: float) -> None:
    found = crowd(1, 150, size=200, ties=True)
    scaled = found.replace(boxes=found.boxes * scale)
    for method, metric in RULES:
        assert len(merge(scaled, method, metric)) == len(merge(found, method, metric))


def test_boxes_without_area_match_nothing_and_stay() -> None:
    found = Detections([[5, 5, 5, 9], [5, 5, 5, 9], [0, 0, 10, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    for method, metric in RULES:
        assert len(merge(found, method, metric)) == 3


def dropping_nmm(found: Detections, metric: str) -> tuple[list[tuple], list[int]]:
    """SAHI's NMM, where what a grown keeper refuses is lost, yet goes on claiming for it; and what was lost."""
    rows = sorted(as_rows(found), key=lambda row: (-row[0], row[1]))
    grown, keeper, lost = [row[1] for row in rows], [-1] * len(rows), []
    for i, (_, box, _) in enumerate(rows):
        keeper[i] = i if keeper[i] < 0 else keeper[i]
        for j in range(i + 1, len(rows)):
            if keeper[j] < 0 and overlap(box, rows[j][1], metric) >= 0.5:
                keeper[j] = keeper[i]
                if overlap(grown[keeper[i]], rows[j][1], metric) >= 0.5:
                    grown[keeper[i]] = union(grown[keeper[i]], rows[j][1])
                else:
                    lost.append(j)
    return [(rows[i][0], grown[i]) for i in range(len(rows)) if keeper[i] == i], lost


@pytest.mark.parametrize("metric", ["iou", "ios"])
def test_where_sahis_nmm_drops_boxes_the_drop_is_the_only_difference(metric: str) -> None:
    dropped = 0
    for seed in range(15):
        found = crowd(seed, 60, size=120).replace(category_ids=np.zeros(60))
        ranked = found[np.argsort(-found.scores)]
        items = [ObjectPrediction(list(box), 0, "0", score=score) for score, box, _ in as_rows(ranked)]
        theirs = NMMPostprocess(match_threshold=0.5, match_metric=metric.upper())(items)
        expected, lost = dropping_nmm(found, metric)
        assert [item.score.value for item in theirs] == [row[0] for row in expected]
        boxes = np.array([item.bbox.to_xyxy() for item in theirs])
        np.testing.assert_allclose(boxes, [row[1] for row in expected], atol=1e-4)
        dropped += len(lost)
        merged = merge(found, "nmm", metric)
        if not lost:
            assert as_rows(merged) == [(score, box, 0) for score, box in expected]
        low, high = merged.boxes[None, :, :2], merged.boxes[None, :, 2:]
        held = (low <= found.boxes[:, None, :2]).all(-1) & (found.boxes[:, None, 2:] <= high).all(-1)
        assert held.any(1).all()
    assert dropped
