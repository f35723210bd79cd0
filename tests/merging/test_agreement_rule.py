"""The rule of agreement merging, step by step, and against a plain reference; see docs/merging.md."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from agreement_reference import UNSEEN
from agreement_reference import merge as plain_merge
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import as_rows

from slicedet.detections import Detections
from slicedet.merging import MergeRule, agreement, merge, pairs
from slicedet.tiling import TileGrid

RULE = MergeRule("agreement")
FRAME = (1000, 700)
LEFT, RIGHT, WHOLE = [0, 0, 600, 700], [400, 0, 1000, 700], [0, 0, 1000, 700]
ROOT = Path(__file__).parents[2]


def noisy(seed: int, tile: int = 300, objects: int = 25, whole: bool = True) -> Detections:
    """What a bad detector says of a random scene: pieces misplaced, missing, doubled and made up, of two classes."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, FRAME, (objects, 2))
    truth = np.hstack([corner, corner + random.lognormal(4, 0.9, (objects, 2))])
    categories = random.integers(0, 2, objects)
    frames = [[t.x, t.y, t.x + t.width, t.y + t.height] for t in TileGrid.cover(*FRAME, tile, 0.25)]
    parts = []
    for frame in [*frames, WHOLE] if whole else frames:
        low, high = np.tile(frame[:2], 2), np.tile(frame[2:], 2)
        seen = random.random(objects) < 0.85
        boxes = np.vstack([truth[seen], truth[random.random(objects) < 0.1]])
        kinds = np.resize(categories[seen], len(boxes))
        boxes = boxes + random.uniform(-4, 4, boxes.shape)
        boxes = np.clip(np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4), low, high)
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        scores = random.random(kept.sum()).round(2)
        parts.append(Detections(boxes[kept], scores, kinds[kept], np.tile(frame, (kept.sum(), 1))))
    return Detections.concatenate(parts)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), class_agnostic=st.booleans(), threshold=st.sampled_from([0.3, 0.5, 0.7]))
def test_equal_to_the_plain_reference(seed: int, class_agnostic: bool, threshold: float) -> None:
    found = noisy(seed)
    merged, rows = MergeRule("agreement", "iou", threshold, class_agnostic).trace(found, FRAME)
    groups = plain_merge(found, FRAME, threshold, class_agnostic)
    made_of = sorted(np.flatnonzero(rows == row).tolist() for row in range(len(merged)))
    assert made_of == sorted(sorted(group.rows) for group in groups)
    for group in groups:
        (row,) = set(rows[group.rows])
        best = group.views[0]
        np.testing.assert_allclose(merged.boxes[row], group.box, atol=1e-3)
        assert merged.scores[row] == pytest.approx(best.score * UNSEEN**group.unseen)
        assert merged.category_ids[row] == best.category
        assert tuple(merged.tiles[row]) == best.tile


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_two_statements_of_one_tile_never_unite(seed: int) -> None:
    found = noisy(seed)
    _, tile = np.unique(found.tiles, axis=0, return_inverse=True)
    found = merge(found.replace(category_ids=tile.reshape(-1) * 2 + found.category_ids), "nms", "iou")
    found = found.replace(category_ids=found.category_ids % 2)
    _, tile = np.unique(found.tiles, axis=0, return_inverse=True)
    rows = RULE.trace(found, FRAME).rows
    told = np.stack([rows, tile.reshape(-1)], 1)[rows >= 0]
    assert len(np.unique(told, axis=0)) == len(told)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_only_cut_boxes_inside_another_object_vanish(seed: int) -> None:
    found = noisy(seed, whole=False)
    merged, rows = RULE.trace(found, FRAME)
    for row in np.flatnonzero(rows < 0):
        x1, y1, x2, y2 = found.boxes[row] + np.array([-20, -20, 20, 20])
        others = merged.boxes[merged.category_ids == found.category_ids[row]]
        assert ((others[:, :2] < [x2, y2]) & (others[:, 2:] > [x1, y1])).all(1).any()


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), partners=st.sampled_from([1, 32]))
def test_in_crowds_the_order_of_the_input_does_not_matter(seed: int, partners: int) -> None:
    found = noisy(seed)
    shuffled = found[np.random.default_rng(seed).permutation(len(found))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "BUDGET", 0)
        patch.setattr(agreement, "BUDGET_PER_BOX", 0)
        patch.setattr(agreement, "PARTNERS", partners)
        patch.setattr(pairs, "CHUNK", 16)
        crowded = as_rows(RULE.apply(found, FRAME))
        assert crowded == as_rows(RULE.apply(shuffled, FRAME))
    if partners == 32:
        assert crowded == as_rows(RULE.apply(found, FRAME))


def test_the_mean_of_whole_boxes_weighs_scores() -> None:
    found = Detections([[450, 100, 500, 200], [454, 100, 504, 200]], [0.9, 0.3], [0, 0], [LEFT, RIGHT])
    np.testing.assert_allclose(as_rows(RULE.apply(found, FRAME))[0][1], (451, 100, 501, 200))


def test_a_whole_box_beats_a_cut_one() -> None:
    found = Detections([[350, 100, 500, 200], [400, 102, 500, 198]], [0.5, 0.9], [0, 0], [LEFT, RIGHT])
    (row,) = as_rows(RULE.apply(found, FRAME))
    assert row[0] == pytest.approx(0.9)
    np.testing.assert_allclose(row[1], (350, 100, 500, 200))


def test_cut_pieces_make_their_hull_at_the_best_score() -> None:
    found = Detections([[300, 100, 600, 200], [400, 102, 700, 198]], [0.5, 0.9], [0, 0], [LEFT, RIGHT])
    merged, rows = RULE.trace(found, FRAME)
    assert (as_rows(merged), rows.tolist()) == ([(pytest.approx(0.9), (300, 100, 700, 200), 0)], [0, 0])


def test_a_whole_looking_box_that_others_continue_is_cut() -> None:
    found = Detections([[300, 100, 580, 200], [400, 100, 700, 200]], [0.5, 0.9], [0, 0], [LEFT, RIGHT])
    np.testing.assert_allclose(as_rows(RULE.apply(found, FRAME))[0][1], (300, 100, 700, 200))


def test_a_side_that_no_tile_saw_halves_the_score() -> None:
    found = Detections([[300, 100, 600, 200]], [0.8], [0], [LEFT])
    assert as_rows(RULE.apply(found, FRAME)) == [(pytest.approx(0.4), (300, 100, 600, 200), 0)]
    at_the_frame = Detections([[0, 0, 300, 700]], [0.8], [0], [LEFT])
    assert RULE.apply(at_the_frame, FRAME).scores[0] == pytest.approx(0.8)


def test_without_a_frame_the_tiles_are_the_frame() -> None:
    found = Detections([[300, 100, 600, 200]], [0.8], [0], [LEFT])
    assert RULE.apply(found).scores[0] == pytest.approx(0.8)


def test_a_fragment_goes_and_a_nested_object_stays() -> None:
    car, sliver, nested = [300, 100, 500, 200], [400, 120, 470, 180], [450, 130, 480, 160]
    found = Detections([car, sliver], [0.9, 0.8], [0, 0], [LEFT, RIGHT])
    assert RULE.trace(found, FRAME).rows.tolist() == [0, -1]
    found = Detections([car, [400, 100, 500, 200], nested, nested], [0.9] * 4, [0] * 4, [LEFT, RIGHT, LEFT, RIGHT])
    assert RULE.trace(found, FRAME).rows[2:].tolist() == [1, 1]


def test_boxes_that_fill_what_both_tiles_saw_agree_on_nothing() -> None:
    found = Detections([LEFT, RIGHT], [0.9, 0.8], [0, 0], [LEFT, RIGHT])
    assert len(RULE.apply(found, FRAME)) == 2


def test_the_finer_whole_box_decides_and_a_coarse_one_beats_pieces() -> None:
    fine, coarse = [100, 100, 140, 130], [96, 104, 146, 136]
    found = Detections([fine, coarse], [0.5, 0.9], [0, 0], [LEFT, WHOLE])
    (row,) = as_rows(RULE.apply(found, FRAME))
    assert row[0] == pytest.approx(0.9)
    np.testing.assert_allclose(row[1], fine)
    pieces, coarse = [[300, 100, 600, 200], [400, 100, 690, 200]], [304, 96, 700, 204]
    found = Detections([*pieces, coarse], [0.9, 0.9, 0.5], [0, 0, 0], [LEFT, RIGHT, WHOLE])
    np.testing.assert_allclose(as_rows(RULE.apply(found, FRAME))[0][1], coarse)


def test_one_tile_alone_keeps_what_it_said() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 560, (200, 2))
    found = Detections(np.hstack([corner, corner + 30]), random.random(200), np.zeros(200), np.tile(WHOLE, (200, 1)))
    assert as_rows(RULE.apply(found, FRAME)) == as_rows(MergeRule("nms", "iou").apply(found))


@pytest.mark.parametrize(("tile", "overlap"), [(640, 0.25), (640, 0.1)])
def test_the_perfect_detector_loses_nothing(tile: int, overlap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    oracle = importlib.import_module("benchmarks.oracle")
    truth = oracle.scene(tile, overlap, seed=7)
    grid = TileGrid.cover(oracle.SIZE, oracle.SIZE, tile, overlap)
    raw = oracle.observe(truth, grid, oracle.Sight(), seed=7)
    outcome = oracle.judge(RULE.apply(raw, (oracle.SIZE, oracle.SIZE)), truth, 0.85)
    assert outcome.found.all()
    assert outcome.surplus == 0
