"""Overlays, pixel by pixel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from slicedet.detections import Detections
from slicedet.errors import UnreadableWindow
from slicedet.outputs.drawing import Canvas, Drawing
from slicedet.outputs.palette import COLOURS, colour
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]

GREY = [100, 100, 100]


def drawn(boxes: list[list[float]], width: int = 200, height: int = 100, names: tuple[str, ...] = ("",)) -> Canvas:
    detections = Detections(boxes, [0.5] * len(boxes), [0] * len(boxes))
    canvas = np.zeros((height, width, 4), np.uint8)
    Drawing(detections, names, width, height).paint(canvas)
    return canvas


def test_the_line_frames_the_pixels_of_the_box() -> None:
    canvas = drawn([[20, 60, 30, 70]])
    outline = np.zeros((100, 200), bool)
    outline[59:71, 19:31] = True
    outline[60:70, 20:30] = False
    assert (canvas[outline] == (*colour(0), 255)).all()
    assert (canvas[60:70, 20:30, 3] == 0).all()


@pytest.mark.parametrize("box", [[0, 0, 200, 100], [0, 0, 1, 1], [199.6, 99.6, 200, 100], [50, 50, 50, 50]])
def test_boxes_at_the_frame_and_without_area_are_seen(box: list[float]) -> None:
    canvas = drawn([box])
    assert (canvas[..., 3] == 255).sum() >= 4


def test_windows_join_without_seams() -> None:
    rng = np.random.default_rng(1)
    low = rng.uniform(0, [380, 280], (80, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 40, (80, 2))], axis=1)
    detections = Detections(boxes, rng.uniform(0, 1, 80), rng.integers(0, 3, 80))
    drawing = Drawing(detections, ("car", "truck", "bus"), 400, 300)
    whole = np.zeros((300, 400, 4), np.uint8)
    drawing.paint(whole)
    drawing.paint_legend(whole)
    parts = np.zeros_like(whole)
    for y in range(0, 300, 70):
        for x in range(0, 400, 90):
            drawing.paint(parts[y : y + 70, x : x + 90], x, y)
            drawing.paint_legend(parts[y : y + 70, x : x + 90], x, y)
    assert (whole == parts).all()


def test_labels_cover_no_box_and_no_label() -> None:
    lone = drawn([[50, 50, 70, 70]], 400, 300, ("car",))
    crowd = drawn([[x, y, x + 20, y + 20] for x in range(50, 300, 26) for y in range(50, 250, 26)], 400, 300, ("car",))
    assert (lone[30:48, 50:70, 3] == 255).any(), "a lone box has a label above it"
    for x in range(50, 300, 26):
        for y in range(50, 250, 26):
            assert (crowd[y : y + 20, x : x + 20, 3] == 0).all(), "no label lies on a box"


def test_colours_are_distinct_and_stable() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == 24
    assert colour(3) == colour(27) == COLOURS[3]


def test_png_and_jpg(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    prediction = make_prediction(make_scene(), [[20, 60, 50, 90], [200, 100, 260, 140]])
    for name in ("out.png", "out.jpg", "out.jpeg"):
        assert prediction.save(tmp_path / name) == [tmp_path / name]
        with Image.open(tmp_path / name) as picture:
            assert (picture.size, picture.mode) == ((300, 200), "RGB")
            pixels = np.asarray(picture).astype(int)
        assert np.abs(pixels[75, 35] - GREY).max() <= 2
        assert np.abs(pixels[75, 19] - colour(0)).max() <= (0 if name.endswith("png") else 60)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_data_is_transparent_or_white(
    raster: Callable[..., Path], make_prediction: MakePrediction, tmp_path: Path
) -> None:
    mask = np.full((200, 300), 255, np.uint8)
    mask[:, :100] = 0
    with Scene(raster("masked.tif", np.full((3, 200, 300), 100, np.uint8), mask=mask)) as scene:
        prediction = make_prediction(scene, [[50, 50, 60, 60], [200, 50, 210, 60]])
        for name in ("out.png", "out.jpg", "out.tif"):
            prediction.save(tmp_path / name)
    with Image.open(tmp_path / "out.png") as picture:
        pixels = np.asarray(picture)
    assert pixels[10, 10, 3] == 0
    assert pixels[10, 150].tolist() == [*GREY, 255]
    assert pixels[55, 49].tolist() == [*colour(0), 255], "what is drawn is seen everywhere"
    with Image.open(tmp_path / "out.jpg") as picture:
        assert min(picture.getpixel((10, 10))) > 250
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.dataset_mask()[[10, 10, 55], [10, 150, 49]].tolist() == [0, 255, 255]
        assert file.files == [str(tmp_path / "out.tif")]


def test_pictures_are_fitted(make_prediction: MakePrediction, tmp_path: Path) -> None:
    with Scene(np.full((300, 10_000), 100, np.uint8)) as scene:
        make_prediction(scene, [[5000, 100, 5100, 200]]).save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (8192, 246)
        pixels = np.asarray(picture)
    columns = np.flatnonzero((pixels[120, 1000:] == colour(0)).all(axis=-1)) + 1000
    assert columns.min() < 5000 * 0.8192 <= columns.min() + 9
    assert columns.max() - 9 <= 5100 * 0.8192 < columns.max() + 1


def test_tif(grid: tuple[Affine, str], make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    transform, crs = grid
    scene = make_scene(width=5000, height=1300, transform=transform, crs=crs)
    boxes = [[20, 60, 50, 90], [4080, 1010, 4110, 1040], [4900, 1200, 5000, 1300]]
    prediction = make_prediction(scene, boxes)
    assert prediction.save(tmp_path / "out.tif") == [tmp_path / "out.tif"]
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.width, file.height, file.count, file.crs) == (5000, 1300, 3, crs)
        assert file.transform.almost_equals(transform)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.compression == rasterio.enums.Compression.deflate
        assert file.overviews(1)[:2] == [2, 4]
        assert [colour.name for colour in file.colorinterp] == ["red", "green", "blue"]
        assert file.mask_flag_enums[0] == [rasterio.enums.MaskFlags.all_valid]
        pixels = np.moveaxis(file.read(), 0, -1)
    for i, (x1, y1, x2, y2) in enumerate(boxes[:2]):
        assert (pixels[y1:y2, x1:x2] == 100).all()
        assert (pixels[y1 - 1, x1:x2] == colour(i)).all()
        assert (pixels[y1:y2, x2] == colour(i)).all()
    assert (pixels[1210:1290, 4999] == colour(2)).all(), "lines stay inside the picture"


def test_tif_without_georeference(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_prediction(make_scene("photo.tif"), []).save(tmp_path / "out.tif")
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        file = rasterio.open(tmp_path / "out.tif")
    with file:
        assert file.crs is None
        assert (file.read() == 100).all()


def test_blocks_that_cannot_be_decoded(shared: Path, make_prediction: MakePrediction, tmp_path: Path) -> None:
    with Scene(shared / "geotiff" / "corrupt.tif") as scene:
        prediction = make_prediction(scene, [[100, 100, 150, 150]])
        with pytest.raises(UnreadableWindow):
            prediction.save(tmp_path / "out.png")
        assert list(tmp_path.iterdir()) == []
        skipping = Prediction(
            prediction.detections, prediction.categories, scene, "m", {"settings": {"skip_unreadable": True}}
        )
        skipping.save(tmp_path / "out.png")
        skipping.save(tmp_path / "out.tif")
    with Image.open(tmp_path / "out.png") as picture:
        alpha = np.asarray(picture)[..., 3]
    assert alpha[:512].all()
    assert not alpha[600:1000, 600:1000].any()
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.dataset_mask() == alpha).mean() > 0.95
