"""Agreement merging: what two tiles say alike of the pixels that both saw is one object; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import as_rows

from slicedet import Detections, MergeRule, TileGrid

RULE = MergeRule("agreement")
SIZE = 1000


def seen(truth: np.ndarray, jitter: float = 0.0, seed: int = 0) -> Detections:
    """What a perfect detector says of SIZE x SIZE pixels: the truth clipped to each tile, moved by up to `jitter`."""
    random = np.random.default_rng(seed)
    parts = []
    for place in TileGrid.cover(SIZE, SIZE, 256, 0.25):
        frame = np.array([place.x, place.y, place.x + place.width, place.y + place.height], float)
        low, high = np.tile(frame[:2], 2), np.tile(frame[2:], 2)
        pieces = np.clip(truth, low, high)
        pieces = pieces[((pieces[:, 2:] - pieces[:, :2]) > 3).all(1)]
        moved = np.clip(pieces + random.uniform(-jitter, jitter, pieces.shape), low, high)
        moved = np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        count = len(pieces)
        parts.append(Detections(moved, random.uniform(0.5, 1, count), np.zeros(count), np.tile(frame, (count, 1))))
    return Detections.concatenate(parts)


def recovered(found: Detections, truth: list | np.ndarray, tolerance: float) -> bool:
    """Whether what is merged is the truth, box for box, its edges within `tolerance` pixels."""
    result, truth = RULE.apply(found, (SIZE, SIZE)).boxes, np.array(truth, float)
    apart = np.abs(result[:, None] - truth[None]).max(-1) <= tolerance
    return len(result) == len(truth) and bool((apart.sum(0) == 1).all() and (apart.sum(1) == 1).all())


@pytest.mark.parametrize(
    "truth",
    [
        [[100, 100, 120, 130]],
        [[185, 100, 260, 130]],
        [[150, 20, 420, 60]],
        [[20, 20, 900, 90]],
        [[30, 30, 700, 800]],
        [[190, 190, 215, 215], [216, 190, 240, 215], [241, 190, 265, 215]],
        [[180, 180, 240, 240], [200, 200, 210, 210]],
        [[20, 20, 900, 900], [300, 300, 320, 330], [500, 190, 520, 220]],
        [[180, 180, 210, 210], [195, 195, 225, 225], [210, 210, 240, 240]],
    ],
    ids=["single", "in the overlap", "wider than it", "long", "wider than a tile", "row", "nested", "deep", "diagonal"],
)  # fmt: skip
def test_a_perfect_detector_loses_nothing_and_leaves_nothing_over(truth: list) -> None:
    assert recovered(seen(np.array(truth, float)), truth, 1e-3)
    assert recovered(seen(np.array(truth, float), jitter=0.5), truth, 1.01)


def test_random_scenes_of_small_objects_are_recovered() -> None:
    for seed in range(10):
        random = np.random.default_rng(seed)
        places = random.permutation(24 * 24)[:300]
        corner = np.stack(np.divmod(places, 24), 1) * 41.0 + random.uniform(0, 4, (300, 2))
        truth = np.hstack([corner, corner + random.uniform(12, 36, (300, 2))])
        assert recovered(seen(truth, jitter=0.5, seed=seed), truth, 1.01)


def test_two_objects_of_one_tile_are_never_one() -> None:
    tiles = np.array([[0, 0, 100, 100], [0, 0, 100, 100], [50, 0, 150, 100]])
    found = Detections([[60, 10, 80, 30], [72, 10, 92, 30], [66, 10, 86, 30]], [0.9, 0.8, 0.7], [0, 0, 0], tiles)
    rows = RULE.trace(found, (150, 100)).rows
    assert rows[0] != rows[1]


def test_classes_do_not_mix_unless_asked_to() -> None:
    tiles = np.array([[0, 0, 100, 100], [50, 0, 150, 100]])
    found = Detections([[60, 10, 80, 30]] * 2, [0.9, 0.8], [0, 1], tiles)
    assert len(RULE.apply(found, (150, 100))) == 2
    (one,) = as_rows(MergeRule("agreement", class_agnostic=True).apply(found, (150, 100)))
    assert (one[0], one[2]) == (pytest.approx(0.9), 0)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), jitter=st.floats(0, 6))
def test_order_of_the_input_does_not_matter(seed: int, jitter: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 900, (25, 2))
    truth = np.clip(np.hstack([corner, corner + random.uniform(5, 300, (25, 2))]), 0, SIZE)
    found = seen(truth, jitter=jitter, seed=seed)
    shuffled = found[random.permutation(len(found))]
    assert as_rows(RULE.apply(found, (SIZE, SIZE))) == as_rows(RULE.apply(shuffled, (SIZE, SIZE)))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), jitter=st.floats(0, 6))
def test_whatever_the_detector_says_results_are_sound(seed: int, jitter: float) -> None:
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 900, (25, 2))
    truth = np.clip(np.hstack([corner, corner + random.uniform(5, 300, (25, 2))]), 0, SIZE)
    found = seen(truth, jitter=jitter, seed=seed)
    result = RULE.apply(found, (SIZE, SIZE))
    assert (np.diff(result.scores) <= 0).all()
    assert ((result.boxes >= 0) & (result.boxes <= SIZE)).all()
    assert len(result) <= len(found)


def test_nothing_and_one_detection() -> None:
    assert len(RULE.apply(Detections.empty(), (SIZE, SIZE))) == 0
    one = Detections([[10, 10, 20, 20]], [0.9], [0], [[0, 0, 256, 256]])
    assert as_rows(RULE.apply(one, (SIZE, SIZE))) == as_rows(one)
