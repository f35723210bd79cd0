"""DetResult: its keys, files and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from paddlex_facts import paint
from PIL import Image as Pillow

from slicedet import Detections, Prediction, Scene
from slicedet.compat import DetResult, Model, create_model
from slicedet.compat.inputs import Image
from slicedet.errors import InvalidSetting, OutputError

FOUND = Detections([[40, 80, 240, 200], [0, 0, 120, 120], [160, 20, 400, 300]], [0.9, 0.8, 0.7], [1, 0, 1])


@pytest.fixture
def result(pictures: Path) -> DetResult:
    """Boxes in an image of 400 x 300 pixels."""
    Pillow.fromarray(paint(1, 400, 300)).save("small.bmp")
    scene = Scene("small.bmp")
    return DetResult(Image(scene, "small.bmp"), Prediction(FOUND, ("car", "bus ☂"), scene, "model", {}))


def test_it_is_a_mapping(result: DetResult) -> None:
    assert list(result) == ["input_path", "page_index", "input_img", "boxes"]
    assert {**result}["boxes"] == result["boxes"]
    np.testing.assert_array_equal(result["input_img"], paint(1, 400, 300)[..., ::-1])
    assert result["input_img"] is result["input_img"]
    assert result["input_img"].flags.c_contiguous
    assert result.get("nothing") is None


def test_boxes_come_by_class_then_score(result: DetResult) -> None:
    assert [(box["cls_id"], box["label"], round(box["score"], 4)) for box in result["boxes"]] == [
        (0, "car", 0.8),
        (1, "bus ☂", 0.9),
        (1, "bus ☂", 0.7),
    ]
    assert result["boxes"][0]["coordinate"] == [0, 0, 120, 120]


def test_printed(result: DetResult, capsys: pytest.CaptureFixture[str]) -> None:
    result.print()
    assert capsys.readouterr().out == f"{result.str}\n"
    result.print(json_format=True, indent=2)
    printed = capsys.readouterr().out
    assert json.loads(printed) == result.json
    assert printed.startswith('{\n  "res": {\n    "input_path": "small.bmp"')
    assert "☂" in printed
    result.print(json_format=True, ensure_ascii=True)
    assert "☂" not in capsys.readouterr().out


def test_saved_json(result: DetResult) -> None:
    result.save_to_json("new/folder.v2")
    text = Path("new/folder.v2/small_res.json").read_text(encoding="utf-8")
    assert json.loads(text) == result.json["res"]
    assert text.startswith('{\n    "input_path": "small.bmp",\n    "page_index": null,\n    "boxes": [\n')
    result.save_to_json("new/one.JSON", indent=1, ensure_ascii=True)
    assert "\\u2602" in Path("new/one.JSON").read_text(encoding="utf-8")
    result.save_to_json("new/one.JSON")
    assert "☂" in Path("new/one.JSON").read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".bmp", ".dib", ".webp", ".ppm", ".jpg", ".jpeg", ".png", ".PNG", ".tif"])
def test_saved_pictures(suffix: str, result: DetResult) -> None:
    result.save_to_img(f"out/any{suffix}")
    with Pillow.open(f"out/any{suffix}") as picture:
        assert picture.size == (400, 300)
        assert picture.mode == "RGB"
        difference = np.abs(np.asarray(picture).astype(int) - paint(1, 400, 300)).max(axis=2)
    assert difference[80:200, 39].mean() > 20  # The left edge of a box,
    assert difference[96:192, 180:232].mean() < (20 if suffix in (".jpg", ".jpeg", ".webp") else 1e-9)  # and within it.


def test_all_is_saved_under_the_name_of_the_input(result: DetResult) -> None:
    result.save_all("out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["small_res.bmp", "small_res.json"]


@pytest.mark.parametrize(
    ("input_path", "page", "names"),
    [
        ("a/b.ras", None, ["b_res.json", "b_res.png"]),
        ("a/b.c.tiff", 3, ["b.c_3_res.json", "b.c_3_res.tiff"]),
        ("https://example.org/x.JPG?y=1.png", None, ["x_res.JPG", "x_res.json"]),
    ],
)
def test_names(input_path: str, page: int | None, names: list[str], result: DetResult) -> None:
    result["input_path"], result["page_index"] = input_path, page
    result.save_all("out")
    assert sorted(path.name for path in Path("out").iterdir()) == names


def test_arrays_are_named_by_time_and_number(pictures: Path) -> None:
    for _ in range(3):
        scene = Scene(paint(1, 400, 300), bands=(3, 2, 1))
        result = DetResult(Image(scene), Prediction(FOUND, ("car", "bus"), scene, "model", {}))
        result.save_all("out")
    names = sorted(path.name for path in Path("out").iterdir())
    assert len(names) == 6
    assert all(re.fullmatch(r"\d{10}_\d{4}_res\.(json|png)", name) for name in names)
    assert [Path(name).stem for name in names[::2]] == [Path(name).stem for name in names[1::2]]


def test_changed_boxes_are_what_is_saved(result: DetResult) -> None:
    result["boxes"] = [box for box in result["boxes"] if box["score"] > 0.85]
    result.save_to_json("out")
    assert len(json.loads(Path("out/small_res.json").read_text())["boxes"]) == 1
    picture = np.asarray(result.img["res"]).astype(int)
    assert np.abs(picture[80:200, 39] - paint(1, 400, 300)[80:200, 39]).mean() > 20
    np.testing.assert_array_equal(picture[220:, 159], paint(1, 400, 300)[220:, 159])
    assert len(result.prediction.detections) == 3
    result["boxes"] = []
    assert result.img["res"].size == (400, 300)


def test_the_input_is_never_overwritten(result: DetResult) -> None:
    before = Path("small.bmp").read_bytes()
    with pytest.raises(OutputError, match=r"small\.bmp: is the image itself"):
        result.save_to_img("small.bmp")
    assert Path("small.bmp").read_bytes() == before


def test_folders_that_cannot_be_made(result: DetResult) -> None:
    Path("file").write_text("")
    for save in (result.save_to_json, result.save_to_img):
        with pytest.raises(OutputError, match="file"):
            save("file/out")


def test_placed_rasters(model_dir: Path, raster: Callable[..., Path], tmp_path: Path) -> None:
    place = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
    path = raster("placed.tif", paint(6, 500, 400).transpose(2, 0, 1), **place)
    (result,) = create_model(model_dir=model_dir, engine="paddle", slice=320).predict(path)
    result.prediction.save(tmp_path / "found.geojson")
    features = json.loads((tmp_path / "found.geojson").read_text())["features"]
    assert len(features) == len(result["boxes"]) > 20
    result.save_to_img(tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "placed_0_res.tif") as picture:
        assert (picture.crs, picture.transform) == (place["crs"], place["transform"])
        assert picture.shape == (400, 500)


def test_pictures_of_large_images_are_reduced(model: Model, raster: Callable[..., Path], tmp_path: Path) -> None:
    path = raster("long.tif", paint(1, 10_000, 100).transpose(2, 0, 1))
    (result,) = model.predict(path, threshold=0.0)
    assert result.img["res"].size == (8192, 82)
    result.save_to_img(tmp_path / "out.png")
    with Pillow.open(tmp_path / "out.png") as picture:
        assert picture.size == (8192, 82)
    assert max(box["coordinate"][2] for box in result["boxes"]) > 9000


def test_pixels_of_larger_images_are_not_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    profile = {"driver": "GTiff", "width": 20_000, "height": 9_000, "count": 1, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", sparse_ok=True, **profile):
        pass
    scene = Scene(path)
    result = DetResult(Image(scene, str(path), 0), Prediction(Detections.empty(), ("car",), scene, "model", {}))
    with pytest.raises(InvalidSetting, match="too many to be held at once"):
        result["input_img"]
    result.save_to_json(tmp_path / "out")
    assert (tmp_path / "out" / "huge_0_res.json").exists()
