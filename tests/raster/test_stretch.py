"""Stretching to uint8: by NumPy's own percentiles of valid pixels, once per scene."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from slicedet import Scene
from slicedet.errors import EmptyImage, InvalidSetting
from slicedet.raster.stretch import parse

rng = np.random.default_rng(3)


def whole(scene: Scene) -> tuple[int, int, int, int]:
    return (0, 0, scene.width, scene.height)


def stretched(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """float64 reference of one channel, not rounded."""
    return np.clip((pixels.astype(np.float64) - low) * 255 / (high - low), 0, 255)


@pytest.mark.parametrize(
    ("dtype", "offset", "spread"),
    [
        ("uint16", 300, 4000),
        ("int16", -2000, 3000),
        ("uint32", 4_000_000_000, 5000),
        ("int32", -2_000_000_000, 900),
        ("float32", 0.0, 1.0),
        ("float32", -1e4, 1e-1 * 1e4),
        ("float64", 1e9, 10.0),
        ("float64", 0.0, 1e-8),
    ],
)
@pytest.mark.parametrize("rule", ["percentile:2,98", "percentile:0.5,99", "minmax"])
def test_rules_are_numpys_on_the_valid_pixels_of_each_band(raster, dtype, offset, spread, rule):
    pixels = (offset + spread * rng.random((3, 80, 100)) ** [[[1]], [[2]], [[3]]]).astype(dtype)
    hole = rng.random((80, 100)) > 0.8
    nodata = 0 if np.dtype(dtype).kind == "u" else -30000
    pixels[:, hole] = nodata
    with Scene(raster("deep.tif", pixels, nodata=nodata), stretch=rule) as scene:
        seen, valid = scene.read_masked(whole(scene))
        assert scene.stretch.rule == rule
    assert np.array_equal(valid, ~hole)
    for band in range(3):
        sample = pixels[band][~hole].astype(np.float64)
        cuts = (0, 100) if rule == "minmax" else [float(cut) for cut in rule.split(":")[1].split(",")]
        low, high = np.percentile(sample, cuts)
        assert (scene.stretch.low[band], scene.stretch.high[band]) == pytest.approx((low, high), rel=1e-6)
        assert np.abs(seen[..., band] - stretched(pixels[band], low, high))[~hole].max() <= 0.51


@pytest.mark.parametrize("rule", ["10,200", "-100,-50.5"])
def test_given_ends_are_taken_for_all_bands(raster, rule):
    pixels = rng.integers(-300, 300, (3, 60, 70)).astype(np.int16)
    low, high = (float(end) for end in rule.split(","))
    with Scene(raster("deep.tif", pixels), stretch=rule) as scene:
        assert np.abs(np.moveaxis(scene.read(whole(scene)), -1, 0) - stretched(pixels, low, high)).max() <= 0.51


def test_none_clips_and_never_wraps(raster):
    pixels = np.array([[-5, 0, 1, 254, 255, 256, 30000]], np.int16)
    with Scene(raster("deep.tif", pixels), stretch="none") as scene:
        assert scene.read(whole(scene))[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255, 255]


def test_eight_bits_are_left_alone_unless_asked(raster):
    pixels = rng.integers(50, 100, (1, 60, 70)).astype(np.uint8)
    path = raster("dull.tif", pixels)
    with Scene(path) as scene:
        assert scene.stretch is None
        assert scene.read(whole(scene)).max() == 99
    with Scene(path, stretch="minmax") as scene:
        seen = scene.read(whole(scene))
        assert (seen.min(), seen.max()) == (0, 255)


def test_fewer_than_eight_bits_fill_the_range_from_black_to_white(raster, tmp_path):
    bits = rng.integers(0, 2, (60, 70)).astype(bool)
    Image.fromarray(bits).save(tmp_path / "bilevel.png")
    quarters = rng.integers(0, 4, (1, 60, 70)).astype(np.uint8)
    for path, expected in (
        (tmp_path / "bilevel.png", bits * 255),
        (raster("two_bits.tif", quarters, nbits=2), quarters[0] * 85),
    ):
        with Scene(path) as scene:
            assert np.array_equal(scene.read(whole(scene))[..., 0], expected)
        with Scene(path, stretch="none") as scene:
            assert scene.read(whole(scene)).max() == (1 if path.suffix == ".png" else 3)


@pytest.mark.parametrize("bits", ["0", "-1", "many", "\u00b2", "1" * 5000])
def test_bits_that_cannot_be_are_not_believed(tmp_path, raster, bits):
    raster("real.tif", np.full((1, 4, 4), 7, np.uint8))
    metadata = f'<Metadata domain="IMAGE_STRUCTURE"><MDI key="NBITS">{bits}</MDI></Metadata>'
    source = '<SimpleSource><SourceFilename relativeToVRT="1">real.tif</SourceFilename></SimpleSource>'
    band = f'<VRTRasterBand dataType="Byte" band="1">{metadata}{source}</VRTRasterBand>'
    path = tmp_path / "forged.vrt"
    path.write_text(f'<VRTDataset rasterXSize="4" rasterYSize="4">{band}</VRTDataset>', encoding="utf-8")
    with Scene(path) as scene:
        assert (scene.read(whole(scene)) == 7).all()


def test_default_for_other_types_is_2_to_98_percent(raster):
    pixels = rng.integers(0, 5000, (1, 60, 70)).astype(np.uint16)
    with Scene(raster("deep.tif", pixels)) as scene:
        assert (scene.stretch.low[0], scene.stretch.high[0]) == pytest.approx(np.percentile(pixels, [2, 98]))


def test_constant_image_is_black_and_not_an_error(raster):
    with Scene(raster("flat.tif", np.full((60, 70), 1234, np.uint16))) as scene:
        assert not scene.read(whole(scene)).any()


def test_few_pixels_unlike_all_others_stay_visible(raster):
    pixels = np.full((100, 100), 500, np.uint16)
    pixels[40, 40:60] = 3000
    with Scene(raster("borders.tif", pixels)) as scene:
        assert (scene.stretch.low, scene.stretch.high) == ((500,), (3000,))
        assert np.array_equal(scene.read(whole(scene))[..., 0], np.where(pixels == 3000, 255, 0))


@pytest.mark.parametrize("window", [(0, 0, 64, 64), (37, 11, 64, 64), (100, 90, 64, 64)])
def test_same_pixels_look_the_same_whichever_window_is_read(raster, window):
    gradient = np.add.outer(np.arange(180) * 20, np.arange(200) * 15).astype(np.uint16)
    path = raster("gradient.tif", gradient)
    with Scene(path) as first, Scene(path) as second:
        x, y, w, h = window
        alone = first.read(window)
        everything = second.read(whole(second))
        assert np.array_equal(alone, everything[y : y + h, x : x + w])


def test_stretch_of_a_large_scene_comes_from_a_sample_close_to_all_of_it(raster):
    pixels = (rng.gamma(2, 500, (1, 3000, 2600)) + np.linspace(0, 2000, 2600)).astype(np.uint16)
    with Scene(raster("large.tif", pixels, tiled=True)) as scene:
        low, high = np.percentile(pixels, [2, 98])
        assert (scene.stretch.low[0], scene.stretch.high[0]) == pytest.approx((low, high), rel=0.02)


def test_few_valid_pixels_between_the_lines_of_the_sample_are_found(raster):
    pixels = np.zeros((1, 4000, 4000), np.uint16)
    pixels[0, 1001:1003, 2001:2003] = [[100, 200], [300, 400]]
    with Scene(raster("sparse.tif", pixels, nodata=0, compress="deflate"), stretch="minmax") as scene:
        assert (scene.stretch.low, scene.stretch.high) == ((100,), (400,))


@pytest.mark.parametrize("nodata", [0, np.nan])
def test_all_nodata_is_said(raster, nodata):
    path = raster("empty.tif", np.full((50, 60), nodata, np.float32), nodata=nodata)
    with Scene(path) as scene, pytest.raises(EmptyImage, match=r"empty\.tif: every pixel is nodata"):
        scene.read(whole(scene))


def test_real_all_nodata_raster_is_said(shared):
    with Scene(shared / "geotiff/all-nodata.tif") as scene, pytest.raises(EmptyImage, match="nodata"):
        _ = scene.stretch


@pytest.mark.parametrize(
    ("rule", "canonical"),
    [
        ("percentile:2,98", "percentile:2,98"),
        (" Percentile: 2 , 98 ", "percentile:2,98"),
        ("MINMAX", "minmax"),
        ("none", "none"),
        ("0,10000", "0,10000"),
        ("-1e3,2.5", "-1e3,2.5"),
    ],
)
def test_rule_spellings(rule, canonical):
    assert parse(rule) == canonical


@pytest.mark.parametrize(
    "rule",
    ["", "best", "5,5", "9,1", "1,2,3", "1", "nan,5", "0,inf", "percentile:", "percentile:98,2", "percentile:-1,50",
     "percentile:2,101", "percentile:2", "minmax:1,2"],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(rule):
    with pytest.raises(InvalidSetting, match="stretch"):
        parse(rule)
