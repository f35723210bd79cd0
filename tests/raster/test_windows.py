"""A scene's windows are the file's own pixels: bands, masks, palettes, arrays, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from slicedet import Scene
from slicedet.errors import InvalidBands, UnreadableImage

RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
GREY, ALPHA, NIR, OTHER = ColorInterp.gray, ColorInterp.alpha, ColorInterp.undefined, ColorInterp.undefined
rng = np.random.default_rng(7)


def noise(bands: int, height: int = 90, width: int = 120, dtype=np.uint8) -> np.ndarray:
    return rng.integers(1, 255, (bands, height, width)).astype(dtype)


def whole(scene: Scene) -> tuple[int, int, int, int]:
    return (0, 0, scene.width, scene.height)


def hwc(bands: np.ndarray) -> np.ndarray:
    return np.moveaxis(bands, 0, -1)


LAYOUTS = {
    "strips": {},
    "tiles": {"tiled": True, "blockxsize": 64, "blockysize": 32, "compress": "deflate"},
    "band interleaved": {"interleave": "band", "compress": "lzw"},
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    """A file of 203 x 157 noise and its pixels [3, H, W]."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 157, 203), dtype=np.uint8)
    path = tmp_path_factory.mktemp("layout") / "noise.tif"
    shape = {"count": 3, "height": 157, "width": 203, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.1, 0, 5e5, 0, -0.1, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **LAYOUTS[request.param]) as dataset:
        dataset.colorinterp = RGB
        dataset.write(pixels)
    with Scene(path) as scene:
        yield scene, path, pixels


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=st.integers(0, 202), y=st.integers(0, 156), width=st.integers(1, 203), height=st.integers(1, 157))
def test_any_window_is_what_rasterio_reads(layout, x, y, width, height):
    scene, path, pixels = layout
    width, height = min(width, 203 - x), min(height, 157 - y)
    seen = scene.read((x, y, width, height))
    with rasterio.open(path) as dataset:
        assert np.array_equal(seen, hwc(dataset.read(window=Window(x, y, width, height))))
    assert np.array_equal(seen, hwc(pixels)[y : y + height, x : x + width])
    assert seen.dtype == np.uint8
    assert seen.flags.c_contiguous
    assert scene.read_masked((x, y, width, height))[1] is None


@pytest.mark.parametrize(
    ("meaning", "shown"),
    [
        (RGB, [1, 2, 3]),
        (RGB[::-1], [3, 2, 1]),
        ([NIR, *RGB], [2, 3, 4]),
        ([*RGB, NIR], [1, 2, 3]),
        ([*RGB, NIR, NIR], [1, 2, 3]),
        ([ALPHA, *RGB], [2, 3, 4]),
        ([GREY, OTHER, OTHER, OTHER], [1, 2, 3]),
        ([OTHER, OTHER], [1]),
        ([OTHER, ALPHA], [1]),
        ([GREY, ALPHA], [1]),
        ([GREY], [1]),
        ([ColorInterp.red, ColorInterp.green, OTHER], [1, 2, 3]),
        ([ColorInterp.red, ALPHA, ColorInterp.green, OTHER], [1, 3, 4]),
    ],
)
def test_bands_shown_are_rgb_by_meaning_else_the_first(raster, meaning, shown):
    pixels = noise(len(meaning))
    with Scene(raster("bands.tif", pixels, colors=meaning)) as scene:
        assert list(scene.band_numbers) == shown
        expected = pixels[[number - 1 for number in shown]]
        assert np.array_equal(scene.read(whole(scene)), hwc(np.broadcast_to(expected, (3, 90, 120))))


@pytest.mark.parametrize("asked", [(4, 3, 2), (1, 1, 5), (5,), (2,)])
def test_bands_asked_for_are_shown(raster, asked):
    pixels = noise(5)
    with Scene(raster("five.tif", pixels, colors=[*RGB, NIR, NIR]), bands=asked) as scene:
        expected = np.broadcast_to(pixels[[number - 1 for number in asked]], (3, 90, 120))
        assert np.array_equal(scene.read((10, 20, 30, 40)), hwc(expected)[20:60, 10:40])


@pytest.mark.parametrize("asked", [(0, 1, 2), (1, 2, 4), (-1,), (1, 2), (1, 2, 3, 1), ()])
def test_bands_that_are_not_there_are_refused_by_name(raster, asked):
    path = raster("three.tif", noise(3))
    with pytest.raises(InvalidBands, match=r"three\.tif: ") as caught:
        Scene(path, bands=asked)
    assert "\n" not in str(caught.value)


def test_complex_pixels_are_refused(raster):
    with pytest.raises(InvalidBands, match="complex"):
        Scene(raster("radar.tif", noise(1).astype(np.complex64)))


@pytest.mark.parametrize("bands", [1, 3])
def test_alpha_is_a_mask_and_not_a_colour(raster, bands):
    pixels = noise(bands + 1)
    pixels[-1] = rng.choice([0, 1, 128, 255], (90, 120))
    meaning = [*(RGB if bands == 3 else [GREY]), ALPHA]
    with Scene(raster("alpha.tif", pixels, colors=meaning)) as scene:
        seen, valid = scene.read_masked(whole(scene))
        assert scene.mask == "alpha"
        assert np.array_equal(seen, hwc(np.broadcast_to(pixels[:-1], (3, 90, 120))))
        assert np.array_equal(valid, pixels[-1] > 0)


@pytest.mark.parametrize("internal", [True, False], ids=["inside the file", "beside it as .msk"])
def test_mask_inside_or_beside_the_file(raster, internal):
    pixels, mask = noise(3), rng.random((90, 120)) > 0.4
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = raster("masked.tif", pixels, mask=mask)
    assert path.with_name("masked.tif.msk").exists() != internal
    with Scene(path) as scene:
        seen, valid = scene.read_masked((30, 10, 50, 60))
        assert scene.mask == "mask"
        assert np.array_equal(valid, mask[10:70, 30:80])
        assert np.array_equal(seen, hwc(pixels)[10:70, 30:80])


def test_nodata_is_where_all_bands_have_the_value(raster):
    pixels = rng.integers(0, 3, (3, 90, 120), dtype=np.uint8)
    with Scene(raster("nodata.tif", pixels, nodata=0)) as scene:
        assert scene.mask == "nodata"
        assert np.array_equal(scene.read_masked(whole(scene))[1], (pixels != 0).any(axis=0))


def test_bands_that_are_not_shown_do_not_count_as_data(raster):
    pixels = rng.integers(0, 3, (5, 90, 120), dtype=np.uint8)
    with Scene(raster("nodata.tif", pixels, nodata=0), bands=(2, 3, 4)) as scene:
        valid = scene.read_masked(whole(scene))[1]
        assert np.array_equal(valid, (pixels[1:4] != 0).any(axis=0))
        assert not np.array_equal(valid, (pixels != 0).any(axis=0))


def test_bands_of_several_types_are_refused_by_name(raster, tmp_path):
    parts = {"Byte": raster("a.tif", noise(1)), "UInt16": raster("b.tif", noise(1).astype(np.uint16))}
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename>{path}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (kind, path) in enumerate([*parts.items(), ("Byte", parts["Byte"])], 1)
    )
    path = tmp_path / "mixed.vrt"
    path.write_text(f'<VRTDataset rasterXSize="120" rasterYSize="90">{bands}</VRTDataset>')
    with pytest.raises(InvalidBands, match=r"mixed\.vrt: bands 1, 2, 3 are of several types \(uint8, uint16\)"):
        Scene(path)
    with Scene(path, bands=[2]) as scene:
        assert scene.dtype == "uint16"


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not declared"])
def test_nan_is_no_data_in_floats(raster, declared):
    pixels = noise(3, dtype=np.float32)
    hole = rng.random((90, 120)) > 0.7
    pixels[:, hole] = np.nan
    path = raster("nan.tif", pixels, **({"nodata": np.nan} if declared else {}))
    with Scene(path, stretch="0,255") as scene:
        seen, valid = scene.read_masked(whole(scene))
        assert np.array_equal(valid, ~hole)
        assert np.array_equal(seen[~hole], hwc(pixels)[~hole].astype(np.uint8))


def test_infinite_pixels_are_no_data(raster):
    pixels = noise(1, dtype=np.float32)
    pixels[0, 5, 5], pixels[0, 6, 6] = np.inf, -np.inf
    with Scene(raster("infinite.tif", pixels), stretch="0,255") as scene:
        assert np.argwhere(~scene.read_masked(whole(scene))[1]).tolist() == [[5, 5], [6, 6]]


def test_palette_is_expanded_and_its_transparent_entries_are_no_data(raster):
    indices = rng.integers(0, 6, (90, 120), dtype=np.uint8)
    colours = [(0, 0, 0, 0), (255, 0, 0, 255), (9, 8, 7, 255), (1, 2, 3, 128), (4, 4, 4, 0), (5, 6, 7, 255)]
    path = raster("palette.png", indices, palette=dict(enumerate(colours)), driver="PNG")
    lut = np.array(colours, np.uint8)[indices]
    with Scene(path) as scene:
        seen, valid = scene.read_masked((7, 9, 100, 80))
        assert scene.has_palette
        assert scene.stretch is None
        assert np.array_equal(seen, lut[9:89, 7:107, :3])
        assert np.array_equal(valid, (lut[..., 3] > 0)[9:89, 7:107])


def test_palette_with_more_colours_than_pixels_can_name(raster, tmp_path):
    entries = "".join(f'<Entry c1="{n % 256}" c2="0" c3="9" c4="255"/>' for n in range(300))
    path = tmp_path / "palette.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="90"><VRTRasterBand dataType="Byte" band="1">'
        f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable><SimpleSource><SourceFilename>"
        f"{raster('a.tif', noise(1))}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    with rasterio.open(tmp_path / "a.tif") as dataset, Scene(path) as scene:
        assert np.array_equal(scene.read(whole(scene))[..., 0], dataset.read(1))


def test_palette_of_a_tiff_is_expanded(raster):
    indices = rng.integers(0, 256, (90, 120), dtype=np.uint8)
    colours = {i: (i, 255 - i, i // 2, 255) for i in range(256)}
    with Scene(raster("palette.tif", indices, palette=colours, nodata=3)) as scene:
        seen, valid = scene.read_masked(whole(scene))
        assert np.array_equal(seen, np.stack([indices, 255 - indices, indices // 2], -1))
        assert np.array_equal(valid, indices != 3)


def test_reduced_palette_shows_only_its_own_colours(raster):
    indices = rng.integers(0, 2, (90, 120), dtype=np.uint8)
    with Scene(raster("palette.tif", indices, palette={0: (200, 0, 0, 255), 1: (0, 0, 200, 255)})) as scene:
        colours = {tuple(colour) for colour in scene.read(whole(scene), (40, 30)).reshape(-1, 3).tolist()}
        assert colours == {(200, 0, 0), (0, 0, 200)}


@pytest.mark.parametrize("size", [(60, 45), (30, 15), (12, 9)])
def test_reduced_window_is_the_mean_of_its_pixels(raster, size):
    pixels = np.kron(rng.integers(0, 256, (3, 9, 12), dtype=np.uint8), np.ones((10, 10), np.uint8))
    with Scene(raster("blocks.tif", pixels)) as scene:
        seen = scene.read(whole(scene), size)
    assert seen.shape == (size[1], size[0], 3)
    fx, fy = 120 // size[0], 90 // size[1]
    means = hwc(pixels).reshape(size[1], fy, size[0], fx, 3).mean(axis=(1, 3))
    inside = np.abs(seen.astype(float) - means) <= 1
    # Halving is bicubic, which rings at the edges of the blocks; reducing more is averaging.
    assert inside.mean() > (0.3 if size == (60, 45) else 0.999)
    assert abs(seen.mean() - pixels.mean()) < 1


def test_nodata_does_not_bleed_into_a_reduced_window(raster):
    pixels = np.full((3, 90, 120), 200, np.uint8)
    pixels[:, :, 55:] = 0
    with Scene(raster("edge.tif", pixels, nodata=0)) as scene:
        seen, valid = scene.read_masked(whole(scene), (12, 9))
    assert valid is not None
    assert set(seen[valid].ravel().tolist()) == {200}


@pytest.mark.parametrize("bands", [None, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "change", ["plain", "flipped", "mirrored", "strided", "fortran", "read-only", "one row", "one column", "one pixel"]
)
def test_array_is_read_as_it_looks(bands, change):
    array = rng.integers(0, 256, (90, 120) if bands is None else (90, 120, bands), dtype=np.uint8)
    array = {
        "plain": array,
        "flipped": array[::-1],
        "mirrored": array[:, ::-1],
        "strided": array[::2, ::3],
        "fortran": np.asfortranarray(array),
        "read-only": np.frombuffer(array.tobytes(), np.uint8).reshape(array.shape),
        "one row": np.broadcast_to(array[:1], array.shape),
        "one column": np.broadcast_to(array[:, :1], array.shape),
        "one pixel": np.broadcast_to(array[:1, :1], array.shape),
    }[change]
    shown = array[..., None] if bands is None else array
    shown = np.repeat(shown[..., :1], 3, axis=2) if shown.shape[2] < 3 else shown[..., :3]
    with Scene(array) as scene:
        assert (scene.height, scene.width) == array.shape[:2]
        assert np.array_equal(scene.read(whole(scene)), shown)
        assert np.array_equal(scene.read((3, 5, 20, 30)), shown[5:35, 3:23])
        assert scene.georeference is None


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_array_of_any_type_and_byte_order(dtype, order):
    values = np.arange(90 * 120).reshape(90, 120) % 256
    with Scene(values.astype(np.dtype(dtype).newbyteorder(order)), stretch="0,255") as scene:
        assert np.array_equal(scene.read(whole(scene))[..., 1], values)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 5), (0, 5), (5, 0, 3), (5, 5, 0)])
def test_array_of_another_shape_is_refused(shape):
    with pytest.raises(UnreadableImage, match="shape"):
        Scene(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "int64", "float16", "U3"])
def test_array_of_another_type_is_refused(dtype):
    with pytest.raises(InvalidBands, match="type"):
        Scene(np.zeros((5, 5), dtype))


def test_many_threads_read_the_same_as_one(raster):
    pixels = noise(3, 512, 512)
    path = raster("shared.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    windows = [(x, y, 96, 96) for x in range(0, 416, 32) for y in range(0, 416, 32)]
    with Scene(path) as scene, ThreadPoolExecutor(8) as threads:
        for (x, y, w, h), seen in zip(windows, threads.map(scene.read, windows), strict=True):
            assert np.array_equal(seen, hwc(pixels)[y : y + h, x : x + w])


def test_threads_measure_one_stretch(raster):
    pixels = rng.integers(0, 4000, (1, 400, 400)).astype(np.uint16)
    with Scene(raster("deep.tif", pixels)) as scene, ThreadPoolExecutor(8) as threads:
        assert len({id(stretch) for stretch in threads.map(lambda _: scene.stretch, range(32))}) == 1


def test_leaving_the_block_closes_every_handle_and_reading_reopens(raster):
    path = raster("handles.tif", noise(3))
    with Scene(path) as scene, ThreadPoolExecutor(4) as threads:
        list(threads.map(scene.read, [(0, 0, 50, 50)] * 16))
        open_files = [path.name for _ in open_descriptors(path)]
        assert open_files
    assert not open_descriptors(path)
    assert scene.read((0, 0, 10, 10)).shape == (10, 10, 3)
    scene.close()
    assert not open_descriptors(path)


def open_descriptors(path) -> list[str]:
    """The process's open descriptors of a file."""
    from pathlib import Path

    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to see open files")
    found = []
    for link in folder.iterdir():
        try:
            found += [link.name] if link.resolve() == path.resolve() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("name", ["RGB_byte", "colorado_rgb", "colorado_mask", "colorado_nodata", "colorado_alpha"])
def test_real_rasters_show_their_colours_and_masks(shared, name):
    path = shared / "geotiff" / f"{name}.tif"
    with rasterio.open(path) as dataset, Scene(path) as scene:
        seen, valid = scene.read_masked(whole(scene))
        assert np.array_equal(seen, hwc(dataset.read([1, 2, 3])))
        mask = dataset.dataset_mask() > 0
        assert np.array_equal(mask, np.ones_like(mask) if valid is None else valid)
