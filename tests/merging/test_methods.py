"""NMS, NMM and greedy NMM against a reference as plain as possible, and against SAHI."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import as_rows, crowd
from reference import merge as plain_merge
from sahi.postprocess.combine import GreedyNMMPostprocess, NMMPostprocess, NMSPostprocess
from sahi.prediction import ObjectPrediction

from slicedet import Detections, MergeRule, merge
from slicedet.errors import InvalidDetections, InvalidSetting

METHODS = ("nms", "nmm", "greedy-nmm")
RULES = list(itertools.product(METHODS, ("iou", "ios"), (False, True)))
SAHI = {"nms": NMSPostprocess, "nmm": NMMPostprocess, "greedy-nmm": GreedyNMMPostprocess}


def sahi_rows(found: Detections, method: str, metric: str, class_agnostic: bool) -> list[tuple]:
    """What SAHI makes of detections, given best first, since its NMM depends on their order."""
    ranked = found[np.lexsort((*found.boxes.T[::-1], -found.scores))]
    items = [
        ObjectPrediction(bbox=list(box), category_id=category, category_name=str(category), score=score)
        for score, box, category in as_rows(ranked)
    ]
    kept = SAHI[method](match_threshold=0.5, match_metric=metric.upper(), class_agnostic=class_agnostic)(items)
    return sorted(
        ((item.score.value, tuple(item.bbox.to_xyxy()), item.category.id) for item in kept),
        key=lambda row: (-row[0], row[1], row[2]),
    )


@pytest.mark.parametrize(("method", "metric", "class_agnostic"), RULES)
@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_the_plain_reference(method: str, metric: str, class_agnostic: bool, ties: bool) -> None:
    for seed, count in itertools.product(range(6), (0, 1, 2, 40, 200)):
        found = crowd(seed, count, ties=ties)
        merged = as_rows(merge(found, method, metric, 0.5, class_agnostic))
        assert merged == plain_merge(found, method, metric, 0.5, class_agnostic)


@pytest.mark.parametrize(("method", "metric", "class_agnostic"), RULES)
def test_equal_to_sahi_where_sahi_drops_nothing(method: str, metric: str, class_agnostic: bool) -> None:
    compared = 0
    for seed in range(40):
        found = crowd(seed, 40)
        refused: list[int] = []
        plain_merge(found, method, metric, 0.5, class_agnostic, refused)
        if refused:
            continue
        theirs = sahi_rows(found, method, metric, class_agnostic)
        ours = as_rows(merge(found, method, metric, 0.5, class_agnostic))
        assert [row[2] for row in ours] == [row[2] for row in theirs]
        np.testing.assert_allclose([row[1] for row in ours], [row[1] for row in theirs], atol=1e-4)
        compared += 1
    assert compared >= 5


@pytest.mark.parametrize(("metric", "class_agnostic"), list(itertools.product(("iou", "ios"), (False, True))))
def test_where_sahi_drops_boxes_the_drop_is_the_only_difference(metric: str, class_agnostic: bool) -> None:
    dropped = 0
    for seed in range(30):
        found = crowd(seed, 120, size=120)
        refused: list[int] = []
        dropping = plain_merge(found, "greedy-nmm", metric, 0.5, class_agnostic, refused, drop=True)
        theirs = sahi_rows(found, "greedy-nmm", metric, class_agnostic)
        np.testing.assert_allclose([row[1] for row in dropping], [row[1] for row in theirs], atol=1e-4)
        dropped += len(refused)
        # Nothing of what SAHI loses is lost here: every box lies in the hull of some result, or is one.
        merged = merge(found, "greedy-nmm", metric, 0.5, class_agnostic)
        low, high = merged.boxes[None, :, :2], merged.boxes[None, :, 2:]
        held = (low <= found.boxes[:, None, :2]).all(-1) & (found.boxes[:, None, 2:] <= high).all(-1)
        assert held.any(1).all()
    assert dropped > 0


boxes = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 30), st.integers(0, 30))


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    drawn = draw(st.lists(st.tuples(boxes, st.integers(1, 9), st.integers(0, 1)), max_size=25))
    table = np.array([[x, y, x + w, y + h] for (x, y, w, h), _, _ in drawn], float).reshape(-1, 4)
    return Detections(table, np.array([s / 10 for _, s, _ in drawn]), np.array([c for _, _, c in drawn]))


@settings(max_examples=150)
@given(found=detections(), rule=st.sampled_from(RULES), random=st.randoms())
def test_order_of_the_input_does_not_matter(found: Detections, rule: tuple, random) -> None:
    order = list(range(len(found)))
    random.shuffle(order)
    assert as_rows(merge(found, *rule[:2], 0.5, rule[2])) == as_rows(merge(found[order], *rule[:2], 0.5, rule[2]))


@settings(max_examples=150)
@given(found=detections(), rule=st.sampled_from(RULES))
def test_what_goes_is_held_by_a_match_that_stays(found: Detections, rule: tuple) -> None:
    method, metric, class_agnostic = rule
    traced = MergeRule(method, metric, 0.5, class_agnostic, growth="always").trace(found)
    assert (traced.rows >= 0).all()
    results = traced.detections
    for row, result in enumerate(traced.rows):
        assert results.scores[result] >= found.scores[row]
        if method != "nms":
            assert (results.boxes[result, :2] <= found.boxes[row, :2]).all()
            assert (results.boxes[result, 2:] >= found.boxes[row, 2:]).all()
        if not class_agnostic:
            assert results.category_ids[result] == found.category_ids[row]


@settings(max_examples=100)
@given(found=detections(), metric=st.sampled_from(("iou", "ios")))
def test_nms_is_idempotent_and_keeps_boxes_as_they_are(found: Detections, metric: str) -> None:
    once = merge(found, "nms", metric)
    assert as_rows(merge(once, "nms", metric)) == as_rows(once)
    assert set(as_rows(once)) <= set(as_rows(found))


FRAME = (300, 300)


def seen_by_tiles(seed: int, count: int) -> Detections:
    """A crowd in which each box is what one of nine overlapping tiles saw of it."""
    found = crowd(seed, count, ties=bool(seed % 2))
    corner = np.random.default_rng(seed).integers(0, 3, (count, 2)) * 75.0
    boxes = np.clip(found.boxes, np.tile(corner, 2), np.tile(corner + 150, 2))
    return found.replace(boxes=boxes, tiles=np.concatenate([corner, corner + 150], 1))


@pytest.mark.parametrize(("method", "metric", "class_agnostic"), RULES)
def test_growth_where_tiles_cut_is_that_of_the_plain_reference(method: str, metric: str, class_agnostic: bool) -> None:
    guarded = 0
    for seed, count in itertools.product(range(6), (1, 2, 40, 250)):
        found = seen_by_tiles(seed, count)
        merged = as_rows(MergeRule(method, metric, 0.5, class_agnostic).apply(found, FRAME))
        assert merged == plain_merge(found, method, metric, 0.5, class_agnostic, frame=FRAME)
        guarded += merged != plain_merge(found, method, metric, 0.5, class_agnostic)
    assert (guarded > 0) == (method != "nms")


@pytest.mark.parametrize("method", ["nmm", "greedy-nmm"])
def test_weak_partners_do_not_make_a_whole_box_grow(method: str) -> None:
    tiles = [[0, 0, 100, 100], [50, 0, 150, 100], [0, 0, 100, 100]]
    found = Detections([[60, 40, 80, 60], [58, 30, 84, 70], [40, 38, 90, 64]], [0.9, 0.1, 0.05], [0, 0, 0], tiles)
    assert merge(found, method, growth="cut", frame=(150, 100)).boxes.tolist() == [[60, 40, 80, 60]]
    assert merge(found, method).boxes.tolist() == [[40, 30, 90, 70]]


@pytest.mark.parametrize("method", ["nmm", "greedy-nmm"])
def test_pieces_of_an_object_still_become_one(method: str) -> None:
    tiles = [[0, 0, 100, 100], [50, 0, 150, 100]]
    found = Detections([[10, 40, 100, 60], [50, 40, 140, 60]], [0.9, 0.3], [0, 0], tiles)
    assert merge(found, method, growth="cut", frame=(150, 100)).boxes.tolist() == [[10, 40, 140, 60]]


def test_a_dense_crowd_ends() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 600, (20_000, 2))
    found = Detections(np.hstack([corner, corner + 20]), random.random(20_000), np.zeros(20_000))
    for method in METHODS:
        assert 0 < len(merge(found, method)) < 20_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "nonsense"},
        {"metric": "giou"},
        {"growth": "never"},
        {"threshold": 0},
        {"threshold": 1.5},
        {"threshold": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict) -> None:
    with pytest.raises(InvalidSetting) as error:
        MergeRule(**arguments)
    assert "\n" not in str(error.value)


def test_agreement_needs_tiles() -> None:
    with pytest.raises(InvalidDetections, match="tile"):
        merge(Detections([[0, 0, 1, 1]], [0.5], [0]), "agreement")
