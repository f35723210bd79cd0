"""predict, from a raster to boxes in its native pixels, with a detector that finds painted rectangles exactly."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image, ImageOps

import slicedet
from slicedet import Detections, MergeRule, Scene
from slicedet.errors import (
    EmptyImage,
    InvalidDetections,
    InvalidSetting,
    OutputError,
    SceneWarning,
    SlicedetWarning,
    UnknownCategory,
    UnreadableImage,
    UnreadableWindow,
)
from slicedet.pipeline import Resources

SIZE = (700, 500)
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
# Rectangles x1 y1 x2 y2 of at most 60 px, apart from each other, some on the edges of the frame and of tiles.
RECTANGLES = [
    (0, 0, 20, 12), (680, 480, 700, 500), (100, 100, 130, 160), (140, 90, 199, 110), (230, 230, 290, 290),
    (300, 10, 304, 14), (330, 300, 371, 311), (500, 470, 559, 500), (640, 0, 700, 20), (0, 250, 9, 299),
    (412, 203, 450, 233), (250, 400, 262, 412),
]  # fmt: skip


@dataclass
class Rectangles:
    """Finds bright rectangles: reddish ones are cars, the others trucks. Larger ones score higher."""

    categories: tuple[str, ...] = ("car", "truck")
    input_size: int | None = 200
    name: str = "rectangles"
    gsd: float | None = None
    tiles: list[np.ndarray] = field(default_factory=list)

    def detect(self, tiles: list[np.ndarray]) -> list[Detections]:
        self.tiles += tiles
        return [self.found(tile) for tile in tiles]

    def found(self, tile: np.ndarray) -> Detections:
        bright = (tile.max(axis=-1) > 127).astype(np.uint8)
        _, _, stats, centres = cv2.connectedComponentsWithStats(bright, connectivity=4)
        x, y, width, height, area = stats[1:].T.astype(float)
        middles = centres[1:].round().astype(int)
        reddish = [tile[row, column, 0] > tile[row, column, 2] for column, row in middles]
        scores = 0.1 + 0.9 * area / (area + 4000)
        return Detections(np.stack([x, y, x + width, y + height], -1), scores, 1 - np.array(reddish, int))


def painted(rectangles=RECTANGLES, size=SIZE, trucks=()) -> np.ndarray:
    """uint8 [H, W, 3], dark with red rectangles; those numbered in `trucks` are blue."""
    pixels = np.full((size[1], size[0], 3), 30, np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(rectangles):
        pixels[y1:y2, x1:x2] = (20, 20, 240) if number in trucks else (240, 20, 20)
    return pixels


def bands(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, -1, 0)


def boxes(prediction) -> list[tuple[float, ...]]:
    return sorted(tuple(box) for box in prediction.detections.boxes.tolist())


def close(prediction, expected, tolerance: float) -> bool:
    """Whether there is exactly one box for each expected rectangle, all edges within a tolerance."""
    found = np.array(boxes(prediction)).reshape(-1, 4)
    if len(found) != len(expected):
        return False
    distances = np.abs(found[:, None] - np.array(expected)).max(axis=-1)
    return bool((distances.min(axis=0) <= tolerance).all() and (distances.min(axis=1) <= tolerance).all())


@pytest.mark.parametrize("slice", [100, 200, "300x150", (137, 211), 2000])
@pytest.mark.parametrize("overlap", ["60px", 0.7])
@pytest.mark.parametrize("merge", ["nms", "nmm", "greedy-nmm"])
def test_boxes_come_back_in_exact_pixels_of_the_scene(raster, slice, overlap, merge):
    path = raster("plain.tif", bands(painted()), **PLACE)
    prediction = slicedet.predict(path, Rectangles(), slice=slice, overlap=overlap, merge=merge)
    assert boxes(prediction) == sorted(RECTANGLES)
    assert prediction.detections.boxes.dtype == np.float32
    assert prediction.categories == ("car", "truck")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_the_frame_that_browsers_show(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(painted()).save(path, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    truth = Rectangles().found(shown)
    prediction = slicedet.predict(path, Rectangles(), overlap="60px")
    assert boxes(prediction) == sorted(map(tuple, truth.boxes.tolist()))
    assert prediction.run["scene"]["exif_orientation"] == orientation


@pytest.mark.parametrize("wrap", ["path", "str", "array", "scene"])
def test_a_path_an_array_and_an_open_scene_are_the_same(raster, wrap):
    pixels = painted()
    path = raster("plain.tif", bands(pixels), **PLACE)
    source = {"path": path, "str": str(path), "array": pixels, "scene": Scene(path)}[wrap]
    prediction = slicedet.predict(source, Rectangles(), overlap="60px")
    assert boxes(prediction) == sorted(RECTANGLES)
    if wrap == "scene":
        assert prediction.scene is source
        assert np.array_equal(source.read((10, 10, 50, 50)), pixels[10:60, 10:60])
        assert boxes(slicedet.predict(source, Rectangles(), overlap="60px")) == sorted(RECTANGLES)
        source.close()


def test_grey_array_is_taken(raster):
    prediction = slicedet.predict(painted().max(axis=-1), Rectangles(), overlap="60px")
    assert boxes(prediction) == sorted(RECTANGLES)


def test_detector_is_handed_the_pixels_of_the_scene_unchanged(raster):
    pixels = np.random.default_rng(0).integers(0, 120, (500, 700, 3), dtype=np.uint8)
    detector = Rectangles()
    slicedet.predict(raster("noise.tif", bands(pixels)), detector, slice=200, overlap=0.25)
    grid = slicedet.TileGrid.cover(700, 500, 200, 0.25)
    assert len(detector.tiles) == len(grid)
    for tile, seen in zip(grid, detector.tiles, strict=True):
        assert seen.dtype == np.uint8
        assert np.array_equal(seen, pixels[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])


@pytest.mark.parametrize("gsd", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("pixel", [(0.2, 0.2), (0.2, 0.4)], ids=["square", "not square"])
def test_resampled_scene_gives_boxes_in_native_pixels(raster, gsd, pixel):
    large = [r for r in RECTANGLES if r[2] - r[0] >= 9 and r[3] - r[1] >= 9]
    place = {"crs": "EPSG:32633", "transform": Affine(pixel[0], 0, 5e5, 0, -pixel[1], 5e6)}
    path = raster("resampled.tif", bands(painted(large)), **place)
    detector = Rectangles()
    prediction = slicedet.predict(path, detector, slice=600, overlap=0.5, gsd=gsd)
    assert close(prediction, large, tolerance=max(1.0, *(0.75 * gsd / edge for edge in pixel)))
    # On the central meridian, a metre of UTM is 1 / 0.9996 m on the ground.
    assert prediction.run["frame"]["gsd_m"] == pytest.approx([gsd, gsd], rel=3e-3)
    assert prediction.run["frame"]["width"] == pytest.approx(700 * pixel[0] / gsd, rel=3e-3)
    assert prediction.run["frame"]["height"] == pytest.approx(500 * pixel[1] / gsd, rel=3e-3)


@pytest.mark.parametrize(
    ("trained", "asked", "width"),
    [(0.4, "auto", 350), (0.4, "native", 700), (None, "auto", 700), (0.205, "auto", 700), (0.4, 0.1, 1400)],
)
def test_auto_gsd_is_the_one_the_detector_was_trained_at(raster, trained, asked, width):
    path = raster("plain.tif", bands(painted()), **PLACE)
    prediction = slicedet.predict(path, Rectangles(gsd=trained), gsd=asked)
    assert prediction.run["frame"]["width"] == pytest.approx(width, rel=2e-3)


def test_auto_gsd_does_not_blow_up_scenes_that_are_too_coarse(raster):
    path = raster("coarse.tif", bands(painted()), **PLACE)
    with pytest.warns(SceneWarning, match=r"coarse\.tif: pixels of 0\.2 m are too coarse .* at 0\.04 m"):
        prediction = slicedet.predict(path, Rectangles(gsd=0.04))
    assert prediction.run["frame"]["width"] == 700


def test_gsd_of_an_unplaced_scene_is_native_by_default_and_refused_when_asked_for(raster):
    path = raster("photo.tif", bands(painted()))
    assert slicedet.predict(path, Rectangles(gsd=0.5)).run["frame"]["width"] == 700
    with pytest.raises(InvalidSetting, match=r"photo\.tif.*pixel size"):
        slicedet.predict(path, Rectangles(), gsd=0.5)


@pytest.fixture
def roi(tmp_path):
    """A vector file of a rectangle in pixels of PLACE."""

    def write(x1, y1, x2, y2):
        a, _, c, _, e, f = PLACE["transform"][:6]
        polygon = shapely.box(c + a * x1, f + e * y1, c + a * x2, f + e * y2)
        geopandas.GeoDataFrame(geometry=[polygon], crs=PLACE["crs"]).to_file(tmp_path / "roi.gpkg")
        return tmp_path / "roi.gpkg"

    return write


def test_region_leaves_out_tiles_and_boxes_whose_centre_is_outside(raster, roi):
    path = raster("plain.tif", bands(painted()), **PLACE)
    area = (115.5, 0, 420, 260.5)
    detector = Rectangles()
    prediction = slicedet.predict(path, detector, slice=200, overlap="60px", roi=roi(*area))
    inside = [
        (x1, y1, x2, y2)
        for x1, y1, x2, y2 in RECTANGLES
        if area[0] < (x1 + x2) / 2 < area[2] and area[1] < (y1 + y2) / 2 < area[3]
    ]
    assert boxes(prediction) == sorted(inside)
    grid = list(slicedet.TileGrid.cover(*SIZE, 200, "60px"))
    touched = [t for t in grid if t.x < 420 and t.x + 200 > 115.5 and t.y < 260.5]
    tiles = prediction.run["tiles"]
    assert tiles["run"] == len(detector.tiles) == len(touched)
    assert tiles["outside_roi"] == len(grid) - len(touched)
    assert tiles["total"] == len(grid)


def test_empty_tiles_are_not_run_and_boxes_mostly_on_nodata_are_dropped(raster):
    pixels = painted()
    valid = np.zeros((500, 700), bool)
    valid[:, :240] = True  # Ends inside (230, 230, 290, 290), of which a sixth is left.
    path = raster("masked.tif", bands(pixels), mask=valid, **PLACE)
    detector = Rectangles()
    prediction = slicedet.predict(path, detector, slice=200, overlap="60px")
    assert boxes(prediction) == sorted(r for r in RECTANGLES if r[2] <= 240)
    grid = list(slicedet.TileGrid.cover(*SIZE, 200, "60px"))
    empty = [tile for tile in grid if tile.x >= 240]
    assert prediction.run["tiles"]["empty"] == len(empty) > 0
    assert prediction.run["tiles"]["run"] == len(detector.tiles) == len(grid) - len(empty)


@pytest.mark.parametrize(("columns", "kept"), [(29, False), (31, True)])
def test_a_box_stays_if_at_least_half_of_it_is_data(raster, columns, kept):
    pixels = painted([(230, 230, 290, 290)])
    valid = np.ones((500, 700), bool)
    valid[:, 230 + columns :] = False
    path = raster("masked.tif", bands(pixels), mask=valid)
    assert boxes(slicedet.predict(path, Rectangles(), slice=700)) == ([(230, 230, 290, 290)] if kept else [])


def test_an_image_that_is_all_nodata_is_an_error_that_names_it(raster):
    path = raster("empty.tif", np.zeros((3, 300, 300), np.uint8), nodata=0)
    with pytest.raises(EmptyImage, match=r"empty\.tif: .*nodata"):
        slicedet.predict(path, Rectangles())


def test_a_region_that_holds_nodata_only_is_an_error(raster, roi):
    pixels = painted()
    pixels[:, 300:] = 0
    path = raster("half.tif", bands(pixels), nodata=0, **PLACE)
    with pytest.raises(EmptyImage, match=r"half\.tif: .*nodata"):
        slicedet.predict(path, Rectangles(), slice=100, overlap=0, roi=roi(450, 100, 600, 200))


def test_full_image_pass_finds_what_is_larger_than_any_tile(raster):
    giant = (50, 40, 650, 460)
    path = raster("giant.tif", bands(painted([giant])))
    # IoU at 1 merges nothing, so that what each pass found is still there.
    rule = MergeRule("nms", "iou", 1.0)
    pieces = slicedet.predict(path, Rectangles(), slice=200, overlap=0.25, merge=rule)
    whole = slicedet.predict(path, Rectangles(), slice=200, overlap=0.25, merge=rule, full_image=True)
    off = [np.abs(np.array(boxes(found)) - giant).max(axis=1).min() for found in (pieces, whole)]
    assert off[0] > 200
    assert off[1] <= 700 / 200, "a pixel of the reduced image"
    assert whole.run["tiles"]["total"] == pieces.run["tiles"]["total"] + 1


def test_full_image_pass_is_at_most_a_tile_large_and_is_not_run_twice(raster):
    path = raster("plain.tif", bands(painted()))
    detector = Rectangles()
    slicedet.predict(path, detector, slice="200x100", full_image=True)
    assert detector.tiles[0].shape == (100, 140, 3)
    single = Rectangles()
    slicedet.predict(path, single, slice=700, full_image=True)
    assert len(single.tiles) == 1


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (None, lambda area, truck: True),
        (0.5, lambda area, truck: area >= 3200),
        ({"*": 0.5, "truck": 0.0}, lambda area, truck: truck or area >= 3200),
        ({"car": 1.0}, lambda area, truck: truck),
    ],
)
def test_thresholds_for_all_and_by_class(raster, threshold, kept):
    trucks = (0, 4, 6)
    path = raster("both.tif", bands(painted(trucks=trucks)))
    prediction = slicedet.predict(path, Rectangles(), slice=700, threshold=threshold)
    expected = [
        (x1, y1, x2, y2)
        for number, (x1, y1, x2, y2) in enumerate(RECTANGLES)
        if kept((x2 - x1) * (y2 - y1), number in trucks)
    ]
    assert boxes(prediction) == sorted(expected)


@pytest.mark.parametrize(
    ("classes", "ids"), [(["car"], {0}), (["truck"], {1}), (["truck", "car"], {0, 1}), (None, {0, 1})]
)
def test_only_the_classes_wanted_are_kept(raster, classes, ids):
    path = raster("both.tif", bands(painted(trucks=(1, 3, 5))))
    prediction = slicedet.predict(path, Rectangles(), overlap="60px", classes=classes)
    assert set(prediction.detections.category_ids.tolist()) == ids


@pytest.mark.parametrize("setting", [{"classes": ["cat"]}, {"threshold": {"cat": 0.5}}])
def test_unknown_class_is_said_with_those_there_are_before_anything_is_run(raster, setting):
    detector = Rectangles()
    with pytest.raises(UnknownCategory, match=r"'cat'.*car, truck"):
        slicedet.predict(painted(), detector, **setting)
    assert not detector.tiles


@pytest.mark.parametrize(
    "setting",
    [
        {"slice": 31}, {"slice": "big"}, {"overlap": 1}, {"overlap": -0.1}, {"overlap": "200px"}, {"gsd": 0},
        {"gsd": -1}, {"gsd": "fine"}, {"gsd": float("nan")}, {"merge": "best"}, {"threshold": 1.5}, {"threshold": -1},
        {"threshold": {"car": 2}}, {"threshold": "high"}, {"threshold": {"car": "high"}}, {"classes": "car"},
        {"roi": 5},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_before_anything_is_run(setting):
    detector = Rectangles()
    with pytest.raises(InvalidSetting) as caught:
        slicedet.predict(painted(), detector, **setting)
    assert not detector.tiles
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("detector", ["aerial-vehicles", None, object(), Rectangles])
def test_what_is_no_detector_is_refused_with_the_way_to_get_one(detector):
    with pytest.raises(InvalidSetting, match=r"^detector .*slicedet\.load_detector\('aerial-vehicles'\)"):
        slicedet.predict(painted(), detector)


@pytest.mark.parametrize("source", [painted().tolist(), Image.fromarray(painted()), b"plain.tif", None, 5])
def test_what_is_no_image_is_refused_with_the_way_to_make_one(source):
    with pytest.raises(InvalidSetting, match=r"^image of type \w+: expected a path, a URL or an array"):
        slicedet.predict(source, Rectangles())


def test_channels_first_are_told_from_an_image():
    pixels = painted()
    with pytest.raises(UnreadableImage, match=r"looks like channels first; numpy\.moveaxis\(array, 0, -1\)"):
        slicedet.predict(bands(pixels), Rectangles())
    assert len(slicedet.predict(np.moveaxis(bands(pixels), 0, -1), Rectangles(), slice=700).detections) > 0


def test_gsd_that_enlarges_beyond_all_sense_is_refused(raster):
    path = raster("fine.tif", bands(painted()), **PLACE)
    size = Scene(path).pixel_size_m[0]
    detector = Rectangles()
    with pytest.raises(InvalidSetting, match=r"fine\.tif: gsd 1e-09 m would enlarge its pixels of .* m [\d,]+ times"):
        slicedet.predict(path, detector, gsd=1e-9)
    with pytest.raises(InvalidSetting, match=" 65 times; 64 times is the most"):
        slicedet.predict(path, detector, gsd=size / 65)
    assert not detector.tiles


def test_region_of_interest_is_not_overwritten_by_what_was_found_in_it(raster, roi):
    area = roi(0, 0, 400, 400)
    before = Path(area).read_bytes()
    prediction = slicedet.predict(raster("plain.tif", bands(painted()), **PLACE), Rectangles(), roi=area)
    with pytest.raises(OutputError, match="is the region of interest itself"):
        prediction.save(area, overwrite=True)
    assert Path(area).read_bytes() == before


def test_detector_without_preferred_size_needs_a_slice():
    with pytest.raises(InvalidSetting, match="slice"):
        slicedet.predict(painted(), Rectangles(input_size=None))
    assert len(slicedet.predict(painted(), Rectangles(input_size=None), slice=700).detections) == len(RECTANGLES)


def test_boxes_that_leave_the_tile_are_cut_and_those_outside_dropped():
    class Beyond:
        categories, input_size = ["any"], 1000

        def detect(self, tiles):
            found = [[-10, -20, 30, 40], [690, 490, 800, 900], [701, 0, 750, 50], [-9, -9, 0, 0], [5, 5, 5, 9]]
            return [Detections(found, [0.9, 0.8, 0.7, 0.6, 0.5], [0] * 5) for _ in tiles]

    assert boxes(slicedet.predict(painted(), Beyond())) == [(0, 0, 30, 40), (690, 490, 700, 500)]


@pytest.mark.parametrize("batch", [1, 3, 8, 1000])
def test_result_does_not_depend_on_the_batch(batch):
    detector = Rectangles()
    resources = Resources(batch=batch)
    prediction = slicedet.predict(painted(trucks=(1, 2)), detector, slice=100, overlap="60px", resources=resources)
    assert boxes(prediction) == sorted(RECTANGLES)
    assert len(detector.tiles) == len(slicedet.TileGrid.cover(*SIZE, 100, "60px"))


def test_detections_come_best_first():
    scores = slicedet.predict(painted(), Rectangles(), overlap="60px").detections.scores
    assert np.array_equal(scores, np.sort(scores)[::-1])


def test_nothing_found_is_a_result_and_not_an_error(raster):
    prediction = slicedet.predict(raster("dark.tif", np.zeros((3, 300, 300), np.uint8)), Rectangles())
    assert len(prediction.detections) == 0


def test_progress_counts_every_tile_up_to_the_last(raster, roi):
    path = raster("plain.tif", bands(painted()), **PLACE)
    heard = []
    prediction = slicedet.predict(
        path, Rectangles(), slice=100, overlap=0, roi=roi(0, 0, 250, 250), progress=lambda *now: heard.append(now)
    )
    assert heard[-1] == (prediction.run["tiles"]["total"],) * 2
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(heard))


def test_record_of_the_run_is_json_and_says_what_was_done(raster):
    path = raster("deep.tif", bands(painted()).astype(np.uint16) * 10, **PLACE)
    prediction = slicedet.predict(path, Rectangles(), slice=(200, 100), threshold={"*": 0.1}, classes=["car"])
    record = json.loads(json.dumps(prediction.run))
    assert record["scene"]["stretch"]["rule"] == "percentile:2,98"
    assert record["scene"]["crs"] == "EPSG:32633"
    assert record["settings"]["merge"]["method"] == "agreement"
    assert record["settings"]["classes"] == ["car"]
    assert record["detector"]["name"] == "rectangles"
    assert record["slicedet"] == slicedet.__version__
    assert record["detections"]["after_merging"] == len(prediction.detections)


def test_merge_rule_is_used_as_given():
    twice = painted([(100, 100, 150, 150)])
    rule = MergeRule("nms", "iou", 1.0)
    assert len(slicedet.predict(twice, Rectangles(), slice=200, overlap=0.5, merge=rule).detections) == 1


class Misbehaving:
    """A detector whose answer is made by a function of the tiles."""

    categories, input_size = ("car", "truck"), 200

    def __init__(self, answer):
        self.detect = answer


def one(box=(1, 1, 9, 9), score=0.5, category=0):
    return Detections([box], [score], [category])


@pytest.mark.parametrize(
    "answer",
    [
        lambda tiles: [],
        lambda tiles: [one()] * (len(tiles) + 1),
        lambda tiles: [one(category=2)] * len(tiles),
        lambda tiles: [one(category=-1)] * len(tiles),
        lambda tiles: [one(box=(1, np.nan, 9, 9))] * len(tiles),
        lambda tiles: [one(score=np.nan)] * len(tiles),
        lambda tiles: [one(box=(9, 9, 1, 1))] * len(tiles),
        lambda tiles: [Detections(np.zeros((2, 4)), [1], [0])] * len(tiles),
    ],
    ids=["none", "too many", "category 2 of 2", "category -1", "NaN box", "NaN score", "inverted", "shapes"],
)
def test_answers_that_make_no_sense_are_one_line_errors(answer):
    with pytest.raises(InvalidDetections) as caught:
        slicedet.predict(painted(), Misbehaving(answer))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fails_at", [1, 3])
def test_exception_of_the_detector_surfaces_as_itself_and_at_once(fails_at):
    calls = []

    def answer(tiles):
        calls.append(len(tiles))
        if len(calls) == fails_at:
            raise ZeroDivisionError("inside the model")
        return [Detections.empty() for _ in tiles]

    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="inside the model"):
        slicedet.predict(np.zeros((3000, 3000), np.uint8), Misbehaving(answer), slice=100)
    assert len(calls) == fails_at
    # Nine hundred tiles are not read first; this is a limit against hanging, not a measure.
    assert time.monotonic() - started < 20


def test_interruption_ends_the_run():
    def answer(tiles):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slicedet.predict(painted(), Misbehaving(answer))


def test_scene_is_usable_after_a_failed_run(raster):
    path = raster("plain.tif", bands(painted()))
    with Scene(path) as scene:
        with pytest.raises(InvalidDetections):
            slicedet.predict(scene, Misbehaving(lambda tiles: []))
        assert boxes(slicedet.predict(scene, Rectangles(), overlap="60px")) == sorted(RECTANGLES)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_broken_block_fails_the_image_or_is_skipped_and_counted(raster, damage, dtype):
    pixels = painted()[..., 0].astype(dtype) * (1 if dtype == np.uint8 else 250)
    tiling = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path = raster("hurt.tif", pixels, **tiling)
    damage(path)
    with pytest.raises(UnreadableWindow, match=r"hurt\.tif: the block at columns 0 to 127, rows 0 to 127"):
        slicedet.predict(path, Rectangles(), slice=128, overlap=0)
    prediction = slicedet.predict(path, Rectangles(), slice=128, overlap="60px", skip_unreadable=True)
    grid = slicedet.TileGrid.cover(*SIZE, 128, "60px")
    broken = [tile for tile in grid if tile.x < 128 and tile.y < 128]
    assert len(prediction.run["tiles"]["unreadable"]) == len(broken)
    assert prediction.run["tiles"]["run"] == len(grid) - len(broken)
    readable = [r for r in RECTANGLES if r[0] >= 128 or r[1] >= 128]
    assert set(readable) <= set(boxes(prediction))


def test_image_of_which_nothing_can_be_read_is_an_error_even_if_skipping(raster, damage):
    path = raster("gone.tif", bands(painted()), tiled=True, blockxsize=1024, blockysize=1024, compress="deflate")
    damage(path)
    with pytest.raises(UnreadableImage, match=r"gone\.tif"):
        slicedet.predict(path, Rectangles(), skip_unreadable=True)


def test_real_corrupt_raster(shared):
    path = shared / "geotiff/corrupt.tif"
    with pytest.raises(UnreadableWindow, match=r"corrupt\.tif: the block at columns \d+ to \d+, rows \d+ to \d+"):
        slicedet.predict(path, Rectangles(), slice=256)
    skipped = slicedet.predict(path, Rectangles(), slice=256, overlap=0, skip_unreadable=True).run["tiles"]
    assert skipped["run"] + len(skipped["unreadable"]) == 16
    assert 0 < len(skipped["unreadable"]) < 16


def test_every_real_raster_gives_boxes_within_its_frame(shared):
    for path in sorted((shared / "geotiff").glob("*.tif")):
        if path.stem in ("corrupt", "all-nodata", "inverted_lat"):
            continue
        prediction = slicedet.predict(path, Rectangles(), slice=640)
        frame = prediction.scene.width, prediction.scene.height
        assert (prediction.detections.boxes >= 0).all()
        assert (prediction.detections.boxes[:, 2:] <= frame).all()
        assert prediction.run["tiles"]["run"] > 0


@pytest.mark.parametrize("name", ["all-nodata", "inverted_lat"])
def test_real_rasters_without_any_data_are_said(shared, name):
    with pytest.raises(EmptyImage, match=rf"{name}\.tif: every pixel is nodata"):
        slicedet.predict(shared / f"geotiff/{name}.tif", Rectangles())


def test_three_line_detector_works_without_paddle_being_imported():
    script = (
        "import sys, numpy as np, slicedet\n"
        "class Dots:\n"
        "    categories, input_size = ['dot'], 64\n"
        "    detect = lambda self, tiles: [slicedet.Detections([[1, 2, 3, 4]], [0.9], [0]) for _ in tiles]\n"
        "found = slicedet.predict(np.zeros((100, 100, 3), np.uint8), Dots()).detections\n"
        "heavy = {'paddle', 'openvino', 'onnxruntime', 'sahi', 'torch'} & set(sys.modules)\n"
        "print(len(found), sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4 []"


@pytest.mark.parametrize("merge", ["agreement", "nms", "nmm", "greedy-nmm"])
def test_every_box_tells_which_tiles_made_it(raster, roi, merge):
    path = raster("plain.tif", bands(painted()), **PLACE)
    area = (115.5, 0, 420, 260.5)
    prediction = slicedet.predict(path, Rectangles(), slice=200, overlap="60px", merge=merge, roi=roi(*area))
    grid = [(t.x, t.y, t.x + t.width, t.y + t.height) for t in slicedet.TileGrid.cover(*SIZE, 200, "60px")]
    touched = [t for t in grid if t[0] < area[2] and t[2] > area[0] and t[1] < area[3]]
    counted = 0
    for index, box in enumerate(prediction.detections.boxes):
        views = prediction.views_of(index)
        assert views.scores.max() >= prediction.detections.scores[index]
        for view, tile in zip(views.boxes, views.tiles, strict=True):
            assert tuple(tile) in touched
            seen = np.clip(box, [*tile[:2]] * 2, [*tile[2:]] * 2)
            assert np.minimum(view[2:], seen[2:]).min() > 0
            assert (view[:2] >= tile[:2]).all()
            assert (view[2:] <= tile[2:]).all()
        counted += len(views)
    assert counted == (prediction.origins >= 0).sum() > len(prediction.detections) > 0
    last = len(prediction.detections) - 1
    assert np.array_equal(prediction.views_of(-1).boxes, prediction.views_of(last).boxes)
    for index in (last + 1, -last - 2):
        with pytest.raises(IndexError, match=f"detection {index}: there are {last + 1}"):
            prediction.views_of(index)
    assert len(prediction.origins) == len(prediction.views)
    if merge == "agreement":
        for index, box in enumerate(prediction.detections.boxes):
            expected = [t for t in touched if box[0] < t[2] and box[2] > t[0] and box[1] < t[3] and box[3] > t[1]]
            assert len(prediction.views_of(index)) == len(expected)


def test_what_merging_lowers_below_the_threshold_goes():
    class OneCutBox:
        """Sees, in the first tile alone, something that the tile's right edge cuts."""

        categories = ("car",)
        input_size = 100
        calls = 0

        def detect(self, tiles):
            found = [slicedet.Detections.empty() for _ in tiles]
            if not self.calls:
                found[0] = slicedet.Detections([[60, 10, 100, 40]], [0.4], [0])
            self.calls += 1
            return found

    scene = np.zeros((100, 300, 3), np.uint8)
    (score,) = slicedet.predict(scene, OneCutBox(), overlap=0).detections.scores
    assert score == pytest.approx(0.2)
    below = slicedet.predict(scene, OneCutBox(), overlap=0, threshold=0.3)
    assert len(below.detections) == 0
    assert below.origins.tolist() == [-1]


@pytest.mark.parametrize(("own", "asked", "kept"), [(0.3, None, 0), (0.3, 0.1, 1), (0.1, None, 1), (None, None, 1)])
def test_without_a_threshold_the_one_of_the_detector_holds(own, asked, kept):
    class Cut:
        """Sees a car that both tiles cut, in the first of them only: merging halves its score."""

        categories = ("car",)
        input_size = 100
        threshold = own

        def detect(self, tiles):
            return [
                slicedet.Detections([[60, 10, 100, 40]], [0.4], [0]) if tile.any() else slicedet.Detections.empty()
                for tile in tiles
            ]

    scene = np.zeros((100, 200, 3), np.uint8)
    scene[:, :100] = 255
    # What it says may be meant: boxes that merging lowers below the detector's own are kept.
    lower = None not in (own, asked) and asked < own
    with pytest.warns(SlicedetWarning, match=r"returns scores from 0\.3 on") if lower else nullcontext():
        found = slicedet.predict(scene, Cut(), overlap=0, threshold=asked)
    assert len(found.detections) == kept
