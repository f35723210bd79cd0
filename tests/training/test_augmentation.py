"""Boxes follow their pixels through every change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicedet.training import augmentation
from slicedet.training.augmentation import FILL, Example
from slicedet.training.config import AugmentationConfig

NOTHING = AugmentationConfig(
    flip=0, flip_vertical=0, rotate90=False, hue=0, saturation=0, contrast=0, brightness=0, blur=0, jpeg=0, noise=0
)
NO_BOXES = np.empty((0, 4), np.float32)


def example_of(height: int, width: int, box: tuple[int, int, int, int]) -> Example:
    """A white box on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return Example(pixels, np.array([box], np.float32), np.zeros(1, np.int64), NO_BOXES)


def white(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """The box around what is white."""
    rows, columns = np.nonzero(pixels.min(axis=2) > 127)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_orientation(seed: int, x: int, y: int, square: bool) -> None:
    before = example_of(48, 48 if square else 64, (x, y, x + 13, y + 7))
    after = augmentation.oriented(np.random.default_rng(seed), before, AugmentationConfig())
    assert tuple(after.boxes[0]) == white(after.pixels)
    assert after.pixels.shape == before.pixels.shape
    assert after.pixels.sum() == before.pixels.sum()


def test_every_orientation_comes_up() -> None:
    before = example_of(40, 40, (2, 5, 12, 9))
    found = {
        tuple(augmentation.oriented(np.random.default_rng(seed), before, AugmentationConfig()).boxes[0].tolist())
        for seed in range(100)
    }
    assert len(found) == 8


@given(st.integers(0, 2**32 - 1))
def test_mosaic(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(size: tuple[int, int]) -> Example:
        return example_of(size[1], size[0], (3, 4, 13, 9))

    whole = augmentation.mosaic(rng, 96, draw)
    assert whole.pixels.shape == (96, 96, 3)
    assert len(whole.boxes) == 4
    for x1, y1, x2, y2 in whole.boxes.astype(int):
        assert (whole.pixels[y1:y2, x1:x2] == 255).all()
    assert (whole.pixels == 255).all(axis=2).sum() == 4 * 50


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(-150, 150), st.integers(-150, 150), st.integers(40, 120), st.integers(40, 120)),
)
def test_windows(seed: int, place: tuple[int, int, int, int]) -> None:
    """A window, also one that reaches beyond the image or misses it, shows the box where `seen` says."""
    window = (place[0], place[1], place[0] + place[2], place[1] + place[3])
    whole = example_of(90, 100, (30, 20, 70, 60))
    x1, y1 = min(max(window[0], 0), 99), min(max(window[1], 0), 89)
    x2, y2 = max(min(window[2], 100), x1 + 1), max(min(window[3], 90), y1 + 1)
    part = whole.pixels[y1:y2, x1:x2]
    relative = (window[0] - x1, window[1] - y1, window[2] - x1, window[3] - y1)
    size = (80, 64)
    shown = augmentation.resized(np.random.default_rng(seed), part, relative, size)
    boxes, learnt, ignored = augmentation.seen(whole.boxes, window, size, 0.4, 2)
    assert shown.shape == (64, 80, 3)
    if window[0] >= 100 or window[1] >= 90 or window[2] <= 0 or window[3] <= 0:
        assert (shown == FILL).all()
    if not (learnt[0] or ignored[0]):
        assert (shown.min(axis=2) > 127).sum() == 0
    elif learnt[0]:
        # Rounding of the part's place, and what interpolation blurs.
        np.testing.assert_allclose(boxes[0], white(shown), atol=1 + max(80 / place[2], 64 / place[3]))


def test_seen_keeps_what_is_visible_enough() -> None:
    boxes = np.array([[-6, 0, 14, 10], [-16, 0, 4, 10], [-20, 0, 0, 10], [50, 50, 52, 90]], np.float32)
    parts, learnt, ignored = augmentation.seen(boxes, (0, 0, 100, 100), (100, 100), 0.5, 4)
    assert learnt.tolist() == [True, False, False, False]
    assert ignored.tolist() == [False, True, False, True]
    assert parts[0].tolist() == [0, 0, 14, 10]


def test_ignored_is_painted_save_where_objects_lie() -> None:
    before = replace(example_of(40, 40, (10, 10, 20, 20)), ignored=np.array([[5, 5, 15, 15]], np.float32))
    after = augmentation.painted(before)
    assert (after.pixels[10:20, 10:20] == 255).all()
    assert (after.pixels[5:10, 5:15] == FILL).all()
    assert (after.pixels[10:15, 5:10] == FILL).all()
    assert len(after.ignored) == 0
    assert (before.pixels[5:10, 5:15] == 0).all()


@pytest.mark.parametrize("change", [augmentation.recoloured, augmentation.worn])
def test_nothing_asked_nothing_changed(change: object) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(change(np.random.default_rng(2), pixels, NOTHING), pixels)  # type: ignore[operator]


@given(st.integers(0, 2**32 - 1))
def test_colours(seed: int) -> None:
    """Grey stays grey under hue and saturation; brightness and contrast keep the order of greys."""
    ramp = np.repeat(np.arange(0, 256, 4, np.uint8)[None, :, None], 3, axis=2)
    turned = augmentation.recoloured(
        np.random.default_rng(seed), ramp, replace(NOTHING, hue=90, saturation=0.8)
    ).astype(int)
    assert abs(turned - ramp.astype(int)).max() <= 2
    changed = augmentation.recoloured(
        np.random.default_rng(seed), ramp, replace(NOTHING, contrast=0.5, brightness=0.5)
    ).astype(int)
    assert (np.diff(changed[0, :, 0]) >= 0).all()


def test_wear_is_mild() -> None:
    ramp = np.tile(np.linspace(40, 200, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    config = replace(NOTHING, blur=1.0, jpeg=1.0, noise=1.0)
    changed = augmentation.worn(np.random.default_rng(0), ramp, config)
    assert changed.shape == ramp.shape
    assert 0 < np.abs(changed.astype(int) - ramp).mean() < 10


@given(st.integers(0, 2**32 - 1))
def test_expand_and_crop_are_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x1, y1, x2, y2 = canvas = augmentation.expanded(rng, (0, 0, 50, 40), 1.0)
    assert x1 <= 0
    assert y1 <= 0
    assert x2 >= 50
    assert y2 >= 40
    assert x2 - x1 <= 200
    boxes = np.array([[10, 10, 20, 20]], np.float32)
    x1, y1, x2, y2 = augmentation.cropped(rng, (0, 0, 50, 40), boxes, 1.0)
    assert 0 <= x1 < x2 <= 50
    assert 0 <= y1 < y2 <= 40
    assert x1 <= 15 < x2
    assert y1 <= 15 < y2
    left, top, right, bottom = augmentation.cropped(rng, canvas, NO_BOXES, 1.0)
    assert canvas[0] <= left < right <= canvas[2]
    assert canvas[1] <= top < bottom <= canvas[3]
