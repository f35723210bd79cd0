"""Detections: parallel arrays that always fit together."""

from __future__ import annotations

import numpy as np
import pytest

from slicedet import Detections
from slicedet.errors import InvalidDetections, SlicedetError

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 30], [7, 7, 7, 7]], np.float64)
SCORES = [0.875, 0.5, 0.125]
IDS = [2, 0, 1]


@pytest.fixture
def three() -> Detections:
    return Detections(BOXES, SCORES, IDS)


def columns(detections: Detections) -> list[list]:
    return [detections.boxes.tolist(), detections.scores.tolist(), detections.category_ids.tolist()]


def test_lists_and_other_types_become_the_promised_arrays():
    made = Detections(BOXES.astype(int).tolist(), SCORES, np.array(IDS, np.int64), tiles=BOXES.tolist())
    assert [made.boxes.dtype, made.scores.dtype, made.category_ids.dtype, made.tiles.dtype] == [
        np.float32,
        np.float32,
        np.int32,
        np.float32,
    ]
    assert columns(made) == [BOXES.tolist(), SCORES, IDS]


@pytest.mark.parametrize("none", [np.empty((0, 4)), [], np.empty(0), np.empty((0, 6))], ids=["0x4", "list", "0", "0x6"])
def test_any_empty_array_means_no_boxes(none):
    made = Detections(none, [], [], tiles=[])
    assert len(made) == 0
    assert made.boxes.shape == made.tiles.shape == (0, 4)
    assert Detections.empty().tiles is None


@pytest.mark.parametrize(
    ("boxes", "scores", "ids", "tiles", "words"),
    [
        ([[0, 0, 1]], [1], [0], None, r"boxes has shape \[1, 3\]"),
        ([0, 0, 1, 1], [1], [0], None, "boxes has shape"),
        ([[0, 0, 1, 1]], [1, 1], [0], None, "shape"),
        ([[0, 0, 1, 1]], [1], [0, 0], None, "category_ids has shape"),
        ([], [1], [0], None, "boxes has shape"),
        ([[0, 0, 1, 1]], [1], [0], [[0, 0, 1]], "tiles has shape"),
        ([[0, 0, 1, 1]], [1], [0], [], "tiles has shape"),
        ([[0, 0, np.nan, 1]], [1], [0], None, "boxes holds NaN"),
        ([[0, 0, np.inf, 1]], [1], [0], None, "boxes holds NaN"),
        ([[0, 0, 1, 1]], [np.nan], [0], None, "scores holds NaN"),
        ([[0, 0, 1, 1]], [1], [0], [[0, 0, np.nan, 1]], "tiles holds NaN"),
        ([[5, 0, 1, 1]], [1], [0], None, "end before they begin"),
        ([[0, 5, 1, 1]], [1], [0], None, "end before they begin"),
        ([[0, 0, 1, 1]], [1], [-1], None, "negative"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(boxes, scores, ids, tiles, words):
    with pytest.raises(InvalidDetections, match=words) as caught:
        Detections(boxes, scores, ids, tiles)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SlicedetError)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0, 2], [2, 0, 2]),
        (np.array([False, True, True]), [1, 2]),
        ([False, False, False], []),
        ([], []),
        (np.array([], bool), []),
        (1, [1]),
        (-1, [2]),
        (np.argsort(SCORES), [2, 1, 0]),
    ],
)
def test_indexing_is_that_of_the_arrays(three, index, expected):
    chosen = three.replace(tiles=BOXES * 2)[index]
    assert chosen.boxes.tolist() == BOXES[expected].tolist()
    assert chosen.tiles.tolist() == (BOXES * 2)[expected].tolist()
    assert chosen.category_ids.tolist() == np.array(IDS)[expected].tolist()


def test_concatenate_keeps_order_and_forgets_empties(three):
    both = Detections.concatenate([Detections.empty(), three[1:], Detections.empty(), three[:1]])
    assert columns(both) == columns(three[[1, 2, 0]])


@pytest.mark.parametrize("parts", [[], [Detections.empty()], [Detections.empty(), Detections.empty()]])
def test_concatenate_of_nothing_is_empty(parts):
    assert columns(Detections.concatenate(parts)) == [[], [], []]


def test_concatenate_knows_tiles_only_if_all_parts_do(three):
    tiled = three.replace(tiles=BOXES)
    assert Detections.concatenate([tiled, Detections.empty(), tiled]).tiles.tolist() == [*BOXES.tolist()] * 2
    assert Detections.concatenate([tiled, three]).tiles is None


def test_replace_leaves_the_original_and_is_checked(three):
    moved = three.replace(boxes=three.boxes + 1)
    assert moved.boxes.tolist() == (BOXES + 1).tolist()
    assert columns(three) == [BOXES.tolist(), SCORES, IDS]
    with pytest.raises(InvalidDetections):
        three.replace(scores=[1.0])
