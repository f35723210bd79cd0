"""Merging as tiles come gives what merging all at once gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicedet import Detections, MergeRule
from slicedet.merging import gradual
from slicedet.merging import order as ordering
from slicedet.merging.gradual import GradualMerge, above
from slicedet.merging.order import best_first
from slicedet.tiling import TileGrid

RULES = [
    MergeRule("agreement"),
    MergeRule("nms", "iou", 0.4),
    MergeRule("nmm", "ios", 0.3),
    MergeRule("greedy-nmm", "ios", 0.5, True),
    MergeRule("nmm", "ios", 0.3, growth="always"),
]


def rows_of_tiles(seed: int, count: int, tall: float) -> tuple[TileGrid, list[Detections]]:
    """What tiles of 100 px see of random objects, cut at their edges and a little astray, row by row of tiles."""
    rng = np.random.default_rng(seed)
    grid = TileGrid.cover(330, 900, 100, 0.25)
    corners = rng.uniform((0, 0), (330, 900), (count, 2))
    objects = np.concatenate([corners, corners + rng.uniform(4, [40, 40 + tall], (count, 2))], 1)
    classes = rng.integers(0, 2, count)
    rows: dict[int, list[Detections]] = {y: [] for y in grid.rows}
    for tile in grid:
        frame = np.array([tile.x, tile.y, tile.x + tile.width, tile.y + tile.height], float)
        seen = np.clip(objects + rng.normal(0, 1, objects.shape), np.tile(frame[:2], 2), np.tile(frame[2:], 2))
        there = (seen[:, 2:] - seen[:, :2] > 2).all(1) & (rng.random(count) < 0.9)
        number = int(there.sum())
        scores = rng.integers(1, 20, number) / 20  # Ties are common.
        rows[tile.y].append(Detections(seen[there], scores, classes[there], np.tile(frame, (number, 1))))
    return grid, [Detections.concatenate(row) for row in rows.values()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.method}-{rule.growth}")
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 60), tall=st.sampled_from([1.0, 300.0]))
def test_the_same_boxes_of_the_same_views_as_merging_all_at_once(
    rule: MergeRule, seed: int, count: int, tall: float
) -> None:
    grid, rows = rows_of_tiles(seed, count, tall)
    merge, parts = GradualMerge(rule, (330, 900)), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradual, "ENOUGH", 1)
        for row, later in zip(rows, [*grid.rows[1:], np.inf], strict=True):
            parts += [part for part in [merge.add(row, later)] if part is not None]
        parts.append(merge.finish())
    whole = Detections.concatenate(rows)
    expected = rule.trace(whole, (330, 900))
    merged = Detections.concatenate([part.detections for part in parts])
    order = best_first(merged.scores, merged.boxes, merged.category_ids)
    np.testing.assert_array_equal(merged.boxes[order], expected.detections.boxes)
    np.testing.assert_array_equal(merged.scores[order], expected.detections.scores)
    np.testing.assert_array_equal(merged.category_ids[order], expected.detections.category_ids)
    begins = np.cumsum([0, *(len(part.detections) for part in parts)])
    origins = np.full(len(whole), -9)
    place = np.append(np.argsort(order), -1)
    for part, begin in zip(parts, begins, strict=False):
        assert (origins[part.given] == -9).all()
        origins[part.given] = place[np.where(part.rows < 0, -1, part.rows + begin)]
    np.testing.assert_array_equal(origins, expected.rows)


def test_what_nothing_can_touch_is_let_go_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradual, "ENOUGH", 1)
    grid, rows = rows_of_tiles(1, 60, 1.0)
    merge, waiting = GradualMerge(MergeRule(), (330, 900)), []
    added = settled = 0
    for row, later in zip(rows, [*grid.rows[1:], np.inf], strict=True):
        part = merge.add(row, later)
        added += len(row)
        settled += 0 if part is None else len(part.given)
        waiting.append(added - settled)
    assert max(waiting) < added / 3


def test_a_field_of_objects_near_each_other_is_let_go_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of cars, a little apart: what hardly touches is no chain across the scene."""
    monkeypatch.setattr(gradual, "ENOUGH", 1)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(4, 640, 32), np.arange(4, 640, 32)))
    merge = GradualMerge(MergeRule(), (640, 6400))
    for top in range(0, 6400, 640):
        boxes = np.stack([x, y + top, x + 20, y + top + 20], 1)
        tiles = np.tile([0, top, 640, top + 640], (len(boxes), 1))
        found = Detections(boxes, np.full(len(boxes), 0.9), np.zeros(len(boxes)), tiles)
        settled = merge.add(found, top + 640)
        assert settled is not None
        assert len(settled.given) == len(boxes)


def test_clusters_reach_as_far_as_their_bounding_boxes() -> None:
    boxes = np.array([[0, 0, 50, 10], [40, 5, 50, 60], [5, 40, 20, 50], [80, 0, 90, 60], [100, 0, 110, 99]], float)
    # The third touches neither of the first two, but lies in what they span.
    assert above(boxes, 70, 0).tolist() == [True, True, True, True, False]
    assert above(boxes, 55, 0).tolist() == [False, False, False, False, False]
    assert above(boxes[2:], 55, 0).tolist() == [True, False, False]
    assert above(boxes[2:], 99, 4).tolist() == [True, True, False]
    assert above(boxes[3:], 98, 12).tolist() == [False, False]


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_the_order_does_not_depend_on_how_many_ties_are_settled_together(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(ordering, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    scores, boxes = rng.integers(0, 9, 200) / 10, rng.integers(0, 3, (200, 4))
    expected = sorted(range(200), key=lambda i: (-scores[i], *boxes[i], i))
    found = best_first(scores, boxes, np.arange(200))
    assert found.tolist() == expected
