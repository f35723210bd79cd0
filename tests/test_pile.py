"""A pile gives back what was put on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicedet import Detections
from slicedet.pipeline import pile
from slicedet.pipeline.pile import Pile


@given(counts=st.lists(st.integers(0, 70), max_size=12), tiled=st.booleans())
def test_detections_come_back_best_first(counts: list[int], tiled: bool) -> None:
    rng = np.random.default_rng(len(counts))
    parts = []
    for count in counts:
        corners = rng.uniform(0, 90, (count, 2))
        boxes = np.concatenate([corners, corners + 5], 1)
        tiles = rng.uniform(0, 90, (count, 4)) if tiled else None
        parts.append(Detections(boxes, rng.integers(0, 9, count) / 10, rng.integers(0, 5, count), tiles))
    piled = Pile()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pile, "SMALLEST", 4)
        patch.setattr(pile, "LARGEST", 32)
        for _ in range(2):
            for part in parts:
                piled.add(part)
            assert len(piled) == sum(counts)
            (taken, places), added = piled.take(), Detections.concatenate(parts)
            assert len(piled) == 0
            keys = zip(-added.scores, added.boxes.tolist(), added.category_ids, range(len(added)), strict=True)
            assert places.tolist() == [place for *_, place in sorted(keys)]
            expected = added[places]
            for name in ("boxes", "scores", "category_ids"):
                np.testing.assert_array_equal(getattr(taken, name), getattr(expected, name))
            assert (taken.tiles is None) == (expected.tiles is None)
            if taken.tiles is not None:
                np.testing.assert_array_equal(taken.tiles, expected.tiles)
