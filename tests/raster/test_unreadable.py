"""Files that cannot be read: one line that names the file and what is wrong with it."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import RasterioIOError

from slicedet import Scene
from slicedet.errors import InvalidBands, SlicedetError, UnreadableImage, UnreadableWindow

rng = np.random.default_rng(5)


def failure(source) -> str:
    """The message with which a source cannot be opened, or read at full size."""
    with pytest.raises(UnreadableImage) as caught, Scene(source) as scene:
        scene.read((0, 0, scene.width, scene.height))
    message = str(caught.value)
    assert "\n" not in message
    assert str(source) in message
    return message


def test_missing_file(tmp_path):
    assert "no such file" in failure(tmp_path / "nowhere.tif")


def test_empty_file(tmp_path):
    (tmp_path / "empty.tif").touch()
    assert "0 bytes" in failure(tmp_path / "empty.tif")


@pytest.mark.parametrize("content", [b"hello world", b"\x89PNG\r\n\x1a\n", b"II*\x00\xff\xff\xff\xff", b"\xff\xd8\xff"])
def test_not_an_image(tmp_path, content):
    (tmp_path / "text.tif").write_bytes(content)
    failure(tmp_path / "text.tif")


def test_folder(tmp_path):
    assert "folder" in failure(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(raster):
    path = raster("secret.tif", np.zeros((5, 5), np.uint8))
    path.chmod(0)
    assert "permission" in failure(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_file_in_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert "permission" in failure(tmp_path / "closed" / "secret.tif")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, f"{'x' * 300}: file name too long"),
        ("bad\udcff.tif", "bad\\udcff.tif: its name is not UTF-8; rename it"),
        ("a\0b.tif", "a\0b.tif: no file can have this name"),
        ("", "'': no such file"),
    ],
    ids=["long", "not UTF-8", "null", "empty"],
)
def test_names_that_no_image_can_have(name, said):
    with pytest.raises(UnreadableImage) as caught:
        Scene(name)
    assert str(caught.value) == said


def test_unreachable_host():
    assert "cannot be opened" in failure("http://127.0.0.1:9/big.tif")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_truncated_file_fails_rather_than_turning_grey(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    failure(path)


def test_truncated_tiff_tells_the_first_bad_block(raster):
    pixels = rng.integers(0, 256, (1, 512, 512), dtype=np.uint8)
    path = raster("cut.tif", pixels, tiled=True, blockxsize=128, blockysize=128)
    with open(path, "rb+") as file:
        file.truncate(path.stat().st_size - 3 * 128 * 128)
    with Scene(path) as scene:
        assert np.array_equal(scene.read((0, 0, 512, 384))[..., 0], pixels[0, :384])
        with pytest.raises(UnreadableWindow, match="columns 128 to 255, rows 384 to 511"):
            scene.read((0, 0, 512, 512))


def test_corrupt_blocks_are_named_by_their_position_and_the_others_read(shared):
    path = shared / "geotiff/corrupt.tif"
    size = 512
    for x, y in [(x, y) for y in (0, size) for x in (0, size)]:
        window = rasterio.windows.Window(x, y, size, size)
        with rasterio.open(path) as dataset, Scene(path) as scene:
            try:
                expected = dataset.read(window=window)
            except RasterioIOError:
                with pytest.raises(UnreadableWindow) as caught:
                    scene.read((x, y, size, size))
                place = f"columns {x} to {x + size - 1}, rows {y} to {y + size - 1}"
                words = rf"{re.escape(str(path))}: the block at {place} cannot be decoded \(.+\)"
                assert re.fullmatch(words, str(caught.value))
            else:
                assert np.array_equal(scene.read((x, y, size, size)), np.moveaxis(expected, 0, -1))


def test_reading_goes_on_after_a_corrupt_block(raster, damage):
    pixels = rng.integers(0, 4000, (1, 512, 512)).astype(np.uint16)
    path = raster("hurt.tif", pixels, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    damage(path)
    with Scene(path, stretch="0,4000") as scene:
        with pytest.raises(UnreadableWindow, match="columns 0 to 255, rows 0 to 255"):
            scene.read((0, 0, 512, 512))
        assert scene.read((256, 0, 256, 512)).any()


def test_stretch_is_measured_from_the_blocks_that_can_be_read(raster, damage):
    pixels = rng.integers(0, 4000, (1, 512, 512)).astype(np.uint16)
    path = raster("hurt.tif", pixels, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    damage(path)
    with Scene(path) as scene:
        expected = np.percentile(pixels, [2, 98])
        assert (scene.stretch.low[0], scene.stretch.high[0]) == pytest.approx(expected, rel=0.1, abs=20)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_container_without_bands_names_one_of_its_subdatasets(tmp_path):
    for page in range(2):
        with rasterio.open(
            tmp_path / "pages.gpkg", "w", driver="GPKG", width=64, height=64, count=3, dtype="uint8",
            crs="EPSG:3857", transform=rasterio.Affine(1, 0, 0, 0, -1, 0), RASTER_TABLE=f"page{page}",
            APPEND_SUBDATASET="YES" if page else "NO",
        ) as dataset:  # fmt: skip
            dataset.write(np.full((3, 64, 64), 50 + page, np.uint8))
    with pytest.raises(InvalidBands, match="subdatasets") as caught:
        Scene(tmp_path / "pages.gpkg")
    name = str(caught.value).split("such as ")[1]
    with Scene(name) as scene:
        assert scene.read((10, 10, 5, 5)).max() == 50


def test_raster_without_bands_is_said(tmp_path):
    path = tmp_path / "none.vrt"
    path.write_text('<VRTDataset rasterXSize="20" rasterYSize="20"></VRTDataset>')
    with pytest.raises(SlicedetError, match=r"none\.vrt: ") as caught:
        Scene(path)
    assert "\n" not in str(caught.value)
