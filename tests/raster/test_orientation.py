"""EXIF orientation: the frame is the one that OpenCV and browsers show."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image, ImageOps

from slicedet import Scene

HEIGHT, WIDTH = 48, 80


@pytest.fixture
def photo(tmp_path):
    """Writes a smooth picture [48, 80, 3] with an EXIF orientation, and returns its path."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 3, y * 5, 255 - x - y], -1).astype(np.uint8)

    def write(suffix: str, orientation: int | None, **options) -> str:
        exif = Image.Exif()
        if orientation is not None:
            exif[274] = orientation
        path = tmp_path / f"photo{suffix}"
        Image.fromarray(pixels).save(path, exif=exif, **options)
        return path

    return write


def pillow_shows(path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def whole(scene: Scene) -> tuple[int, int, int, int]:
    return (0, 0, scene.width, scene.height)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".webp", {"lossless": True})])
def test_png_and_webp_are_turned_exactly_as_pillow_does(photo, suffix, options, orientation):
    path = photo(suffix, orientation, **options)
    expected = pillow_shows(path)
    with Scene(path) as scene:
        assert (scene.height, scene.width) == expected.shape[:2]
        assert scene.exif_orientation == orientation
        assert np.array_equal(scene.read(whole(scene)), expected)
        assert np.array_equal(scene.read((5, 7, 30, 20)), expected[7:27, 5:35])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_as_opencv_does(photo, orientation):
    path = photo(".jpg", orientation, quality=95, subsampling=0)
    expected = cv2.imread(str(path))[..., ::-1].astype(int)
    with Scene(path) as scene:
        seen = scene.read(whole(scene)).astype(int)
        assert seen.shape == expected.shape
        assert np.abs(seen - expected).max() <= 2
        part = scene.read((11, 13, 25, 31))
        assert np.array_equal(part, scene.read(whole(scene))[13:44, 11:36])


@pytest.mark.parametrize("orientation", [None, 0, 9, 255])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_no_or_senseless_orientation_turns_nothing(photo, suffix, orientation):
    with Scene(photo(suffix, orientation)) as scene:
        assert (scene.width, scene.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("block", [b"garbage", b"II*\0", b"Exif\0\0junk"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_broken_exif_turns_nothing(tmp_path, suffix, block):
    path = tmp_path / f"photo{suffix}"
    picture = Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30))
    if suffix == ".png":
        # Pillow will not write a broken chunk itself, so it goes in after the header (8 + 25 bytes).
        picture.save(path)
        chunk = b"eXIf" + block
        content = path.read_bytes()
        chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        path.write_bytes(content[:33] + chunk + content[33:])
    else:
        picture.save(path, exif=block)
    with Scene(path) as scene:
        assert (scene.width, scene.height, scene.exif_orientation) == (WIDTH, HEIGHT, 1)
        assert scene.read(whole(scene)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("orientation", [6, 7])
def test_reduced_photo_is_turned_too(photo, orientation):
    path = photo(".png", orientation)
    with Scene(path) as scene:
        seen = scene.read(whole(scene), (scene.width // 4, scene.height // 4)).astype(float)
    expected = cv2.resize(pillow_shows(path), (HEIGHT // 4, WIDTH // 4), interpolation=cv2.INTER_AREA)
    assert np.abs(seen - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mask_turns_with_the_pixels(tmp_path, orientation):
    rng = np.random.default_rng(orientation)
    pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    pixels[..., 3] = 255 * (rng.random((HEIGHT, WIDTH)) > 0.5)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "alpha.png"
    Image.fromarray(pixels).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    with Scene(path) as scene:
        seen, valid = scene.read_masked(whole(scene))
    assert np.array_equal(seen, expected[..., :3])
    assert np.array_equal(valid, expected[..., 3] > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_georeference_follows_the_turn(photo, orientation):
    """A pixel's colour says where it was stored, and the world file where that is on the ground."""
    path = photo(".png", orientation)
    path.with_suffix(".pgw").write_text("0.5\n0.1\n0.2\n-0.5\n1000\n2000\n")
    with rasterio.open(path) as dataset:
        stored, to_map = hwc(dataset.read()), dataset.transform
    with Scene(path) as scene:
        shown = scene.read(whole(scene))
        for x, y in [(0, 0), (3, 40), (20, 11), (scene.width - 1, scene.height - 1)]:
            (row,), (column,) = np.nonzero((stored == shown[y, x]).all(axis=-1))
            expected = to_map @ (column + 0.5, row + 0.5)
            assert scene.georeference is not None
            assert scene.georeference.from_pixels(np.array([x + 0.5, y + 0.5])) == pytest.approx(expected, abs=1e-9)


def hwc(bands: np.ndarray) -> np.ndarray:
    return np.moveaxis(bands, 0, -1)


def test_real_photos_look_as_in_opencv(shared):
    path = next(iter(sorted((shared / "data/aerial_vehicles/images").glob("DJI*"))))
    expected = cv2.imread(str(path))[..., ::-1].astype(int)
    with Scene(path) as scene:
        assert (scene.height, scene.width) == expected.shape[:2]
        seen = scene.read((500, 300, 640, 640)).astype(int)
    assert np.abs(seen - expected[300:940, 500:1140]).mean() < 1
