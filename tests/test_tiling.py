"""The tile grid: SAHI's own, without gaps, and with clear words for settings that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sahi.slicing import get_slice_bboxes

from slicedet.errors import InvalidSetting
from slicedet.tiling import Tile, TileGrid, parse_overlap, parse_slice

edges = st.integers(1, 3000)
tile_edges = st.integers(32, 900)
ratios = st.one_of(st.sampled_from([0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.75]), st.floats(0, 0.8))


def sahi_tiles(width: int, height: int, tile: tuple[int, int], overlap: float) -> list[tuple[int, ...]]:
    """x, y, width, height of SAHI's slices, in its own order."""
    boxes = get_slice_bboxes(height, width, tile[1], tile[0], False, overlap, overlap)
    return [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]


@given(width=edges, height=edges, tile_width=tile_edges, tile_height=tile_edges, overlap=ratios)
def test_grid_is_that_of_sahi(width, height, tile_width, tile_height, overlap):
    grid = TileGrid.cover(width, height, (tile_width, tile_height), overlap)
    assert [tuple(tile) for tile in grid] == sahi_tiles(width, height, (tile_width, tile_height), overlap)


@pytest.mark.parametrize(
    ("width", "height"),
    [(640, 640), (641, 640), (639, 640), (1, 1), (1120, 640), (1121, 1119), (100, 2000), (640, 5000)],
)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.999])
def test_grid_is_that_of_sahi_where_frame_and_tile_nearly_fit(width, height, overlap):
    grid = TileGrid.cover(width, height, 640, overlap)
    assert [tuple(tile) for tile in grid] == sahi_tiles(width, height, (640, 640), overlap)


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    tile=st.integers(32, 300),
    overlap=st.one_of(ratios, st.integers(0, 200).map(lambda pixels: f"{pixels}px")),
)
def test_tiles_cover_every_pixel_and_stay_inside(width, height, tile, overlap):
    assume(not isinstance(overlap, str) or int(overlap[:-2]) < tile)
    grid = TileGrid.cover(width, height, tile, overlap)
    covered = np.zeros((height, width), bool)
    tiles = list(grid)
    for x, y, w, h in tiles:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        assert (w, h) == (min(tile, width), min(tile, height))
        covered[y : y + h, x : x + w] = True
    assert covered.all()
    assert len(grid) == len(tiles) == len(set(tiles))
    assert tiles == sorted(tiles, key=lambda t: (t.y, t.x))


def test_overlap_in_pixels_is_that_many_pixels_save_at_the_far_edge():
    grid = TileGrid.cover(1000, 500, "300x200", "50px")
    assert grid.columns == [0, 250, 500, 700]
    assert grid.rows == [0, 150, 300]
    assert list(grid)[1] == Tile(250, 0, 300, 200)


def test_slice_is_width_by_height():
    assert parse_slice("640x512") == (640, 512)
    assert TileGrid.cover(640, 1024, "640x512", 0).rows == [0, 512]


@pytest.mark.parametrize("value", [640, "640", " 640 ", (640, 640), "640x640", "640X640"])
def test_slice_spellings(value):
    assert parse_slice(value) == (640, 640)


@pytest.mark.parametrize(
    ("value", "expected"), [("160px", 160), ("160 PX", 160), ("0px", 0), (0.25, 0.25), ("0.25", 0.25), (0, 0)]
)
def test_overlap_spellings(value, expected):
    amount = parse_overlap(value)
    assert amount == expected
    assert isinstance(amount, int) == ("px" in str(value).lower())


@pytest.mark.parametrize(
    "value",
    [
        31, 0, -640, "31", "640x31", (640, 16), "", "big", "640x", "x640", "640x640x640", "6.4", 640.0, "1e3", 65537,
        "640x1000000000000", (640, 640.5), (640, "a"),
    ],
)  # fmt: skip
def test_bad_slice_is_refused(value):
    with pytest.raises(InvalidSetting, match="slice"):
        parse_slice(value)


def test_too_large_a_slice_says_which_is_the_largest():
    with pytest.raises(InvalidSetting, match="slice 1000000000000: tiles have at most 65536 pixels a side"):
        parse_slice("1000000000000")


@pytest.mark.parametrize(
    "value", [-0.1, 1, 1.0, 1.5, "1", "-1", "nan", "inf", "", "much", "-10px", "10.5px", "px", 160]
)
def test_bad_overlap_is_refused(value):
    with pytest.raises(InvalidSetting, match="overlap"):
        parse_overlap(value)


@pytest.mark.parametrize(("slice", "overlap"), [(640, "640px"), (640, "9999px"), ("640x320", "320px")])
def test_overlap_that_leaves_no_step_is_refused(slice, overlap):
    with pytest.raises(InvalidSetting, match="no step"):
        TileGrid.cover(5000, 5000, slice, overlap)
