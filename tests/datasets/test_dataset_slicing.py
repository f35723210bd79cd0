"""Tiles with their boxes: the geometry, SAHI's on the same photos, rasters in their place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from dataset_files import Dataset, load, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from slicedet.datasets.check import check
from slicedet.datasets.slicing import SliceSettings, boxes_in_tile, slice_dataset
from slicedet.errors import InvalidDataset, InvalidSetting, OutputError
from slicedet.raster.scene import Scene
from slicedet.tiling import Tile, TileGrid


@st.composite
def frames(draw: st.DrawFn) -> tuple[int, int, np.ndarray]:
    """Width and height of a frame, and boxes in it, in quarters of pixels."""
    width, height = draw(st.integers(40, 400)), draw(st.integers(40, 400))
    boxes = []
    for _ in range(draw(st.integers(1, 8))):
        x = sorted(draw(st.lists(st.integers(0, 4 * width), min_size=2, max_size=2, unique=True)))
        y = sorted(draw(st.lists(st.integers(0, 4 * height), min_size=2, max_size=2, unique=True)))
        boxes.append((x[0] / 4, y[0] / 4, x[1] / 4, y[1] / 4))
    return width, height, np.array(boxes)


@given(frames(), st.integers(32, 128), st.sampled_from([0.0, 0.2, 0.5]), st.floats(0.05, 1))
def test_pieces_are_what_a_tile_shows_of_a_box(
    frame: tuple[int, int, np.ndarray], size: int, overlap: float, min_visible: float
) -> None:
    width, height, boxes = frame
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    covered = [np.zeros((4 * height, 4 * width), bool) for _ in boxes]
    for tile in TileGrid.cover(width, height, size, overlap):
        everything = boxes_in_tile(boxes, tile, 1e-12)
        for row, box, visible in zip(everything.rows, everything.boxes, everything.visible, strict=True):
            assert (box[:2] >= 0).all()
            assert (box[2:] <= [tile.width, tile.height]).all()
            x1, y1, x2, y2 = (4 * (box + np.tile([tile.x, tile.y], 2))).astype(int)
            covered[row][y1:y2, x1:x2] = True
            assert visible == pytest.approx((box[2:] - box[:2]).prod() / areas[row])
        kept = boxes_in_tile(boxes, tile, min_visible)
        assert set(kept.rows) == {
            row for row, part in zip(everything.rows, everything.visible, strict=True) if part >= min_visible
        }
    # Together the pieces are the box: nothing of it is in no tile, nothing is added.
    for (x1, y1, x2, y2), mask in zip((4 * boxes).astype(int), covered, strict=True):
        expected = np.zeros_like(mask)
        expected[y1:y2, x1:x2] = True
        assert (mask == expected).all()


@given(frames(), st.integers(48, 128))
def test_boxes_not_larger_than_the_overlap_are_whole_in_a_tile(frame: tuple[int, int, np.ndarray], size: int) -> None:
    width, height, boxes = frame
    small = boxes[(boxes[:, 2:] - boxes[:, :2] <= size // 2).all(axis=1)]
    whole = np.zeros(len(small), bool)
    for tile in TileGrid.cover(width, height, size, f"{size // 2}px"):
        whole[boxes_in_tile(small, tile, 1.0).rows] = True
    assert whole.all()


def test_a_piece_is_told_in_the_pixels_of_its_tile() -> None:
    part = boxes_in_tile(np.array([[0.0, 0, 100, 100], [80, 90, 120, 130]]), Tile(90, 95, 50, 50), 0.5)
    assert part.rows.tolist() == [1]
    assert part.boxes.tolist() == [[0, 0, 30, 35]]
    assert part.visible.tolist() == [30 * 35 / 1600]


def test_crowd_regions_are_kept_however_little_is_visible(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.train["annotations"][0] |= {"bbox": [0, 0, 33, 33], "iscrowd": 1}
    slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32, 0, min_visible=1.0, empty_ratio=None))
    entries = [entry for entry in load(tmp_path / "tiles", "train")["annotations"] if entry["iscrowd"]]
    # 60 x 40 is four tiles, which begin at columns 0 and 28, rows 0 and 8.
    assert [entry["bbox"] for entry in entries] == [[0, 0, 32, 32], [0, 0, 5, 32], [0, 0, 32, 25], [0, 0, 5, 25]]


def test_pieces_without_width_are_not_written(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for entry, crowd in zip(dataset.train["annotations"][:2], (1, 0), strict=True):
        entry |= {"bbox": [31.9999999999999, 0, 20, 20], "area": 400, "iscrowd": crowd}
    slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32, 0, min_visible=1e-16, empty_ratio=None))
    assert min(side for entry in load(tmp_path / "tiles", "train")["annotations"] for side in entry["bbox"][2:]) > 0
    assert check(tmp_path / "tiles").findings.counts["box-empty"] == 0


def few(shared: Path, folder: Path, places: tuple[int, ...]) -> Path:
    """Annotations of some of the real photos."""
    content = json.loads((shared / "data/aerial_vehicles/annotations/instance_train.json").read_text())
    content["images"] = [content["images"][place] for place in places]
    numbers = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in numbers]
    path = folder / "few.json"
    path.write_text(json.dumps(content))
    return path


def test_tiles_and_boxes_are_those_of_sahi(shared: Path, tmp_path: Path) -> None:
    from sahi.slicing import slice_coco

    source, images = few(shared, tmp_path, (3, 30)), shared / "data/aerial_vehicles/images"
    theirs, _ = slice_coco(
        str(source), str(images), "sahi", output_dir=str(tmp_path / "sahi"), ignore_negative_samples=False,
        slice_height=416, slice_width=416, overlap_height_ratio=0.25, overlap_width_ratio=0.25, min_area_ratio=0.3,
        verbose=False,
    )  # fmt: skip
    slice_dataset(source, tmp_path / "ours", SliceSettings(416, 0.25, min_visible=0.3, empty_ratio=None), images)
    ours = load(tmp_path / "ours", "train")
    expected: dict[tuple[str, int, int], list[list[float]]] = {}
    names = {}
    for image in theirs["images"]:
        stem, x, y = re.fullmatch(r"(.+)_\d+_(\d+)_(\d+)_\d+_\d+\.\w+", image["file_name"]).groups()
        names[image["id"]] = (stem, int(x), int(y))
        expected[names[image["id"]]] = []
    for entry in theirs["annotations"]:
        expected[names[entry["image_id"]]].append([entry["category_id"], *entry["bbox"]])
    assert len(expected) == len(ours["images"]) > 20
    compared = 0
    for image in ours["images"]:
        found = [
            ([entry["category_id"], *entry["bbox"]], entry["visible"])
            for entry in ours["annotations"]
            if entry["image_id"] == image["id"]
        ]
        reference = expected[(Path(image["source"]).stem, *image["tile"][:2])]
        for row, visible in found:
            nearest = min((np.abs(np.subtract(row, other)).max() for other in reference), default=np.inf)
            # SAHI takes areas of whole pixels, so it may judge differently where just about enough is visible.
            assert nearest < 1e-3 or visible < 0.33
            compared += nearest < 1e-3
        assert len(reference) - len(found) <= sum(visible < 0.33 for _, visible in found)
    assert compared > 150


def test_real_tiles_show_their_boxes(shared: Path, tmp_path: Path) -> None:
    source, images = few(shared, tmp_path, (0, 40)), shared / "data/aerial_vehicles/images"
    summary = slice_dataset(source, tmp_path / "tiles", SliceSettings(320, empty_ratio=0.5), images)["train"]
    reference = COCO(tmp_path / "tiles" / "annotations" / "instance_train.json")
    assert len(reference.imgs) == summary.tiles
    assert len(reference.anns) == summary.tile_boxes > 100
    assert summary.lost == 0
    assert summary.empty_tiles <= 0.5 * (summary.tiles - summary.empty_tiles) + 0.5
    assert check(tmp_path / "tiles" / "annotations" / "instance_train.json").passed
    for entry in list(reference.imgs.values())[::7]:
        x, y, width, height = entry["tile"]
        with (
            Image.open(tmp_path / "tiles" / "images" / entry["file_name"]) as tile,
            Scene(images / entry["source"]) as scene,
        ):
            assert (np.asarray(tile) == scene.read((x, y, width, height))).all()


def test_tiles_of_rasters_keep_their_place(raster: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(100, 4000, (4, 150, 200)).astype(np.uint16)
    pixels[:, :, :90] = 0
    transform = rasterio.Affine(0.5, 0.1, 500000, 0.1, -0.5, 5_000_000)
    raster("images/big.tif", pixels, crs="EPSG:32633", transform=transform, nodata=0)
    content = {
        "images": [{"id": 1, "file_name": "big.tif", "width": 200, "height": 150}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [120, 80, 20, 10], "area": 200, "iscrowd": 0}
        ],
        "categories": [{"id": 7, "name": "car"}],
    }
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instance_val.json"
    path.write_text(json.dumps(content))
    summary = slice_dataset(path, tmp_path / "tiles", SliceSettings(64, 0.5, empty_ratio=None))["val"]
    assert summary.nodata > 0
    sliced = load(tmp_path / "tiles", "val")
    assert sliced["categories"] == [{"id": 7, "name": "car"}]
    assert len(sliced["images"]) == summary.tiles
    with Scene(tmp_path / "images" / "big.tif") as scene:
        for image in sliced["images"]:
            with rasterio.open(tmp_path / "tiles" / "images" / image["file_name"]) as tile:
                x, y, width, height = image["tile"]
                assert tile.crs == "EPSG:32633"
                assert tile.transform @ (0, 0) == pytest.approx(transform @ (x, y))
                assert tile.transform @ (5, 9) == pytest.approx(transform @ (x + 5, y + 9))
                # One stretch for the scene, not one for each tile.
                shown, valid = scene.read_masked((x, y, width, height))
                assert (tile.read() == np.moveaxis(shown, -1, 0)).all()
                known = np.ones((height, width), bool) if valid is None else valid
                assert ((tile.dataset_mask() > 0) == known).all()


def test_empty_tiles_are_chosen_the_same_way_each_time(shared: Path, tmp_path: Path) -> None:
    source, images = few(shared, tmp_path, (40,)), shared / "data/aerial_vehicles/images"
    names = []
    for number, seed in enumerate((0, 0, 1)):
        slice_dataset(source, tmp_path / str(number), SliceSettings(256, empty_ratio=0.3, seed=seed), images)
        names.append({image["file_name"] for image in load(tmp_path / str(number), "train")["images"]})
    assert names[0] == names[1] != names[2]
    slice_dataset(source, tmp_path / "none", SliceSettings(256, empty_ratio=0), images)
    assert {entry["image_id"] for entry in load(tmp_path / "none", "train")["annotations"]} == {
        image["id"] for image in load(tmp_path / "none", "train")["images"]
    }


def test_images_of_one_stem_make_different_tiles(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    with Image.open(tmp_path / "images" / "a1.png") as image:
        image.save(tmp_path / "images" / "a0.jpg")
    dataset.train["images"][1]["file_name"] = "a0.jpg"
    slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32))
    names = [image["file_name"] for image in load(tmp_path / "tiles", "train")["images"]]
    assert len(set(names)) == len(names)
    assert {"a0.jpg_0_0.png", "a0.png_0_0.png", "a2_0_0.png"} <= set(names)


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    dataset.val["images"][1]["width"] = 61
    dataset.val["annotations"][2]["bbox"] = [1, 1, 5, 5]
    with pytest.raises(InvalidDataset, match=r"b1\.png: is 60 x 40 pixels, its annotations say 61 x 40"):
        slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    with pytest.raises(OutputError, match="exists already"):
        slice_dataset(dataset.root, dataset.root)


@pytest.mark.parametrize(
    "values", [{"slice": 8}, {"overlap": 1.5}, {"min_visible": 0}, {"min_visible": 2}, {"empty_ratio": -1}]
)
def test_settings_without_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        SliceSettings(**values)


@pytest.mark.parametrize(
    ("edge", "said"),
    [(1 << 62, "its width and height are 4611686018427387904"), ((1 << 31) - 1, "is 60 x 40 pixels, its annotations")],
)
def test_sizes_of_no_image_are_said_before_tiles_are_laid(tmp_path: Path, edge: int, said: str) -> None:
    dataset = Dataset(tmp_path / "source")
    dataset.train["images"][0].update(width=edge, height=edge)
    with pytest.raises(InvalidDataset, match=said):
        slice_dataset(dataset.write(), tmp_path / "tiles")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_more_tiles_than_memory_holds_are_refused(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "source")
    dataset.train["images"][0].update(file_name="a0.tif", width=100_000, height=100_000)
    profile = {"driver": "GTiff", "width": 100_000, "height": 100_000, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        tmp_path / "source/images/a0.tif", "w", tiled=True, blockxsize=4096, blockysize=4096, sparse_ok=True, **profile
    ):
        pass
    with pytest.raises(InvalidDataset, match=r"a0\.tif: would be [0-9,]+ tiles, at most 1,000,000"):
        slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(slice=64, overlap=0.0))


def test_a_split_that_would_have_no_tile_is_said_before_anything_is_cut(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    for entry in dataset.val["annotations"]:
        entry["iscrowd"] = 1
    (dataset.root / "images" / "a0.png").write_bytes(b"no image")
    with pytest.raises(InvalidDataset, match=r"instance_val\.json: no tile of .* has a box.*--empty-ratio all keeps"):
        slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32))
    assert not (tmp_path / "tiles").exists()
    file = dataset.root / "annotations" / "instance_val.json"
    summary = slice_dataset(file, tmp_path / "tiles", SliceSettings(32, empty_ratio=None))["val"]
    assert summary.tiles == summary.empty_tiles == len(load(tmp_path / "tiles", "val")["images"]) == 12


def test_a_split_without_data_is_said(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    dataset.val["annotations"] = []
    for entry in dataset.val["images"]:
        Image.new("RGBA", (60, 40)).save(dataset.root / "images" / entry["file_name"])
    with pytest.raises(InvalidDataset, match=r"instance_val\.json: its images show no data"):
        slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32, empty_ratio=None))
    assert not (tmp_path / "tiles").exists()


def test_folders_parted_by_backslashes(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    picture(dataset.root / "images" / "deep" / "a0.png")
    dataset.train["images"][0]["file_name"] = "deep\\a0.png"
    slice_dataset(dataset.write(), tmp_path / "tiles", SliceSettings(32))
    sources = {image["source"]: image["file_name"] for image in load(tmp_path / "tiles", "train")["images"]}
    assert sources["deep/a0.png"].startswith("deep/a0_")
    assert all((tmp_path / "tiles" / "images" / name).is_file() for name in sources.values())
