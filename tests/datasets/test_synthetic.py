"""Painted scenes: the same by any windows and on every run, and true about their vehicles."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from slicedet.datasets.synthetic import KINDS, LANDSCAPES, Layout, SceneSettings, paint, synthetic_tile, write_scene
from slicedet.datasets.synthetic.paint import BLOCK, paint_block
from slicedet.datasets.synthetic.world import Warp
from slicedet.errors import InvalidSetting, OutputError
from slicedet.tiling import Tile

GSD = 0.15
WHOLE = Tile(300, 200, 700, 600)


@pytest.fixture(scope="module")
def layout() -> Layout:
    return Layout(4, "city")


@pytest.fixture(scope="module")
def whole(layout: Layout) -> np.ndarray:
    """The picture of a window that touches several blocks."""
    return paint(layout, GSD, WHOLE).pixels


@settings(max_examples=6)
@given(x=st.integers(0, 600), y=st.integers(0, 500), width=st.integers(1, 100), height=st.integers(1, 100))
def test_a_window_shows_what_the_whole_shows(
    layout: Layout, whole: np.ndarray, x: int, y: int, width: int, height: int
) -> None:
    part = paint(layout, GSD, Tile(WHOLE.x + x, WHOLE.y + y, width, height))
    np.testing.assert_array_equal(part.pixels, whole[y : y + height, x : x + width])


def test_a_new_layout_of_the_same_seed_is_the_same(layout: Layout) -> None:
    tile = Tile(0, 0, 128, 128)
    first, second = paint_block(layout, GSD, tile), paint_block(Layout(4, "city"), GSD, tile)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.owners, second.owners)
    assert (paint_block(Layout(5, "city"), GSD, tile).pixels != first.pixels).mean() > 0.5


@pytest.mark.parametrize("gsd", [0.06, 0.15, 0.3])
def test_boxes_hold_what_vehicles_change(gsd: float) -> None:
    """The same place without vehicles differs inside the boxes, and outside them only by shadows and hidden ones."""
    window = Tile(0, 0, BLOCK, BLOCK)
    busy = paint(Layout(11, "city"), gsd, window)
    empty = paint(Layout(11, "city", vehicles=0), gsd, window)
    assert len(busy.boxes) > 5
    assert len(empty.boxes) == 0
    change = np.abs(busy.pixels.astype(int) - empty.pixels).max(axis=-1)
    inside = np.zeros(change.shape, bool)
    rims = []
    for x1, y1, x2, y2 in busy.boxes.astype(int):
        inside[y1:y2, x1:x2] = True
        box = change[y1:y2, x1:x2]
        assert (box > 12).mean() > 0.2
        rims += [side.max() for side in (box[0], box[-1], box[:, 0], box[:, -1])]
    # Vehicles reach the rims of their boxes; a few are as grey as the ground there.
    assert (np.array(rims) > 3).mean() > 0.97
    brighter = (busy.pixels.astype(int) - empty.pixels).min(axis=-1) > 40
    assert brighter.sum() > 50
    assert brighter[inside].sum() > 0.97 * brighter.sum()


def test_boxes_are_the_extent_of_the_owned_pixels(layout: Layout) -> None:
    block = paint_block(layout, GSD, Tile(0, 0, BLOCK, BLOCK))
    painted = paint(layout, GSD, Tile(0, 0, BLOCK, BLOCK))
    expected = []
    for number, (vehicle, whole) in enumerate(block.vehicles):
        rows, columns = np.nonzero(block.owners == number)
        if len(rows) and len(rows) >= whole / 2:
            expected.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, vehicle.kind))
    found = [(*box, kind) for box, kind in zip(painted.boxes.astype(int).tolist(), painted.kinds.tolist(), strict=True)]
    assert sorted(found) == sorted(expected)
    assert len(found) > 10


def test_sizes_are_those_of_vehicles() -> None:
    painted = paint(Layout(4, "city"), GSD, Tile(0, 0, 1024, 1024))
    cars = painted.boxes[(painted.kinds == 0) & (painted.boxes.min(axis=1) > 0) & (painted.boxes.max(axis=1) < 1024)]
    edges = (cars[:, 2:] - cars[:, :2]) * GSD
    assert np.median(edges.max(axis=1)) == pytest.approx(4.1, abs=0.7)
    assert edges.max() < 5.6
    assert np.hypot(*edges.T).min() > 1.5


@pytest.mark.parametrize("landscape", LANDSCAPES)
def test_no_traffic_no_truth(landscape: str) -> None:
    tile = synthetic_tile(3, 256, GSD, vehicles=0, landscape=landscape)
    assert tile.pixels.shape == (256, 256, 3)
    assert tile.pixels.std() > 3
    assert tile.boxes.shape == (0, 4)


def test_tiles_of_consecutive_seeds_adjoin_and_differ() -> None:
    tiles = [synthetic_tile(seed, 416, GSD) for seed in range(8)]
    assert all((one.pixels != other.pixels).mean() > 0.5 for one, other in pairwise(tiles))
    for tile in tiles:
        assert tile.boxes.dtype == np.float32
        assert (tile.boxes[:, :2] >= 0).all()
        assert (tile.boxes[:, 2:] <= 416).all()
        assert (tile.boxes[:, 2:] > tile.boxes[:, :2]).all()
        assert set(tile.kinds.tolist()) <= set(range(len(KINDS)))


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), u=st.floats(-3000, 3000), v=st.floats(-3000, 3000), turn=st.floats(-3, 3))
def test_the_plan_bends_gently_and_places_agree(seed: int, u: float, v: float, turn: float) -> None:
    warp = Warp(seed)
    step = 1e-3
    origin = np.array([u, v]) + warp._origin
    here = warp.to_ground(origin)
    there = warp.to_ground(origin + step * np.array([np.cos(turn), np.sin(turn)]))
    place = warp.place(*origin.tolist(), turn)
    np.testing.assert_allclose([place.x, place.y], here, atol=1e-6)
    direction = (there - here) / step
    assert 0.7 < np.hypot(*direction) < 1.4
    np.testing.assert_allclose(direction / np.hypot(*direction), [np.cos(place.angle), np.sin(place.angle)], atol=1e-3)
    low_u, low_v, high_u, high_v = warp.plan_bounds(here[0] - 40, here[1] - 30, here[0] + 50, here[1] + 30)
    assert low_u < origin[0] < high_u
    assert low_v < origin[1] < high_v


def test_scene_files_agree(tmp_path: Path) -> None:
    plan = SceneSettings(1100, 700, 0.2, seed=4, landscape="city")
    calls: list[tuple[int, int]] = []
    record = write_scene(tmp_path / "scene.tif", plan, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "scene.tif", "scene.truth.coco.json", "scene.truth.geojson",
    ]  # fmt: skip

    painted = paint(Layout(4, "city"), plan.gsd, Tile(0, 0, plan.width, plan.height))
    with rasterio.open(record.image) as dataset:
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), painted.pixels)
        assert dataset.crs.to_epsg() == 32632
        assert dataset.res == (0.2, 0.2)
        assert dataset.block_shapes == [(BLOCK, BLOCK)] * 3
        affine = dataset.transform

    coco = COCO(str(record.coco))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(KINDS)
    assert coco.loadImgs([1])[0]["file_name"] == "scene.tif"
    boxes = np.array([annotation["bbox"] for annotation in annotations], float)
    boxes[:, 2:] += boxes[:, :2]
    expected = sorted(map(tuple, painted.boxes.tolist()))
    assert sorted(map(tuple, boxes.tolist())) == expected
    assert len(expected) == sum(record.vehicles.values()) > 30

    features = json.loads(record.geojson.read_text())["features"]
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    for annotation, box, feature in zip(annotations, boxes, features, strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        easting, northing = to_utm.transform(ring[:, 0], ring[:, 1])
        corners = {(x, y) for x in box[[0, 2]] for y in box[[1, 3]]}
        columns, rows = ~affine @ (easting, northing)
        # Seven decimals of a degree are about a centimetre.
        assert {(round(x, 0), round(y, 0)) for x, y in zip(columns, rows, strict=True)} == corners
        assert feature["properties"]["category"] == KINDS[annotation["category_id"] - 1]


def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    """A scene eight times as high costs less than its pixels would take."""
    peaks = []
    for height in (BLOCK, BLOCK, 8 * BLOCK):  # The first fills the caches.
        tracemalloc.start()
        write_scene(tmp_path / f"{len(peaks)}.tif", SceneSettings(BLOCK, height, 0.03, vehicles=0, landscape="water"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 0.5 * (7 * BLOCK * BLOCK * 3)


def test_a_failed_scene_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "scene.tif", SceneSettings(600, 100, vehicles=0, landscape="water"), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    for wrong in ({"width": 0}, {"gsd": 5.0}, {"gsd": float("nan")}, {"vehicles": 1.5}, {"landscape": "moon"}):
        with pytest.raises(InvalidSetting):
            SceneSettings(**wrong)  # type: ignore[arg-type]
    small = SceneSettings(20, 20, vehicles=0, landscape="water")
    with pytest.raises(OutputError, match=r"ends in \.tif"):
        write_scene(tmp_path / "scene.png", small)
    (tmp_path / "scene.truth.geojson").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_scene(tmp_path / "scene.tif", small)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.truth.geojson"]
