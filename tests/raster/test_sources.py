"""Whatever GDAL opens is a scene: VRT, JPEG 2000, WebP, archives, subdatasets, and files on a web server."""

from __future__ import annotations

import functools
import json
import threading
import warnings
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from slicedet import Scene
from slicedet.errors import UnreadableImage
from slicedet.pipeline import describe
from slicedet.raster.source import shown

rng = np.random.default_rng(11)
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)}


@pytest.fixture
def picture() -> np.ndarray:
    return rng.integers(0, 256, (3, 130, 170), dtype=np.uint8)


def whole(scene: Scene) -> np.ndarray:
    return np.moveaxis(scene.read((0, 0, scene.width, scene.height)), -1, 0)


def test_vrt(raster, picture, tmp_path):
    raster("left.tif", picture)
    vrt = tmp_path / "crop.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">left.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        '<SrcRect xOff="20" yOff="30" xSize="100" ySize="90"/><DstRect xOff="0" yOff="0" xSize="100" ySize="90"/>'
        "</SimpleSource></VRTRasterBand>"
        for band in (1, 2, 3)
    )
    vrt.write_text(f'<VRTDataset rasterXSize="100" rasterYSize="90">{bands}</VRTDataset>')
    with Scene(vrt) as scene:
        assert np.array_equal(whole(scene), picture[:, 30:120, 20:120])


def test_vrt_whose_source_is_missing_is_said(raster, picture, tmp_path):
    test_vrt(raster, picture, tmp_path)
    (tmp_path / "left.tif").unlink()
    with pytest.raises(UnreadableImage, match=r"crop\.vrt: "), Scene(tmp_path / "crop.vrt") as scene:
        scene.read((0, 0, 50, 50))


def test_a_vrt_that_calls_itself_a_photo_is_refused(raster, picture, tmp_path):
    vrt = tmp_path / "mosaic.vrt"
    with rasterio.open(raster("left.tif", picture)) as dataset:
        rasterio.shutil.copy(dataset, vrt, driver="VRT")
    (tmp_path / "photo.png").write_bytes(vrt.read_bytes())
    with pytest.raises(UnreadableImage, match=r"photo\.png: not an image that GDAL can read"):
        Scene(tmp_path / "photo.png")
    with Scene(vrt) as scene:
        assert scene.driver == "VRT"


def test_jpeg_2000(raster, picture):
    path = raster("photo.jp2", picture, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", **PLACE)
    with Scene(path) as scene:
        assert np.array_equal(whole(scene), picture)
        assert scene.georeference is not None
        assert scene.georeference.crs.to_epsg() == 32632


@pytest.mark.parametrize(("suffix", "options"), [(".webp", {"lossless": True}), (".png", {}), (".bmp", {})])
def test_photos(tmp_path, picture, suffix, options):
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(path, **options)
    with Scene(path) as scene:
        assert np.array_equal(whole(scene), picture)
        assert scene.georeference is None


def test_cloud_optimised_geotiff(raster, picture):
    with Scene(raster("cloud.tif", picture, driver="COG", compress="deflate", **PLACE)) as scene:
        assert np.array_equal(whole(scene), picture)


def test_file_in_an_archive(raster, picture, tmp_path):
    with zipfile.ZipFile(tmp_path / "survey.zip", "w") as archive:
        archive.write(raster("inside.tif", picture), "north/inside.tif")
    with Scene(f"/vsizip/{tmp_path}/survey.zip/north/inside.tif") as scene:
        assert np.array_equal(whole(scene), picture)
        assert (scene.name, scene.stem) == ("inside.tif", "inside")


def test_subdataset_by_its_gdal_name(tmp_path):
    pages = [Image.fromarray(np.full((40, 50, 3), 60 * page, np.uint8)) for page in (1, 2, 3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with Scene(f"GTIFF_DIR:2:{tmp_path}/pages.tif") as scene:
        assert np.unique(whole(scene)).tolist() == [120]


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges, and notes how many bytes went out."""

    def send_head(self):
        path = self.translate_path(self.path.split("?")[0])
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError:
            self.send_error(404)
            return None
        asked = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.server.sent += last - first + 1
            self.wfile.write(content[first : last + 1])
        return None

    def do_GET(self):
        self.send_head()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(RangeHandler, directory=str(tmp_path)))
    served.sent = 0
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def test_window_of_a_remote_file_is_read_without_fetching_all_of_it(raster, server):
    pixels = rng.integers(0, 256, (3, 1500, 1500), dtype=np.uint8)
    path = raster("remote.tif", pixels, driver="COG", blocksize=256, compress="none", **PLACE)
    with Scene(f"http://127.0.0.1:{server.server_port}/remote.tif?token=abc") as scene:
        seen = scene.read((300, 700, 200, 150))
        assert np.array_equal(np.moveaxis(seen, -1, 0), pixels[:, 700:850, 300:500])
        assert (scene.name, scene.stem) == ("remote.tif", "remote")
    assert 0 < server.sent < path.stat().st_size / 4


SECRETS = ["{server}/{name}?token=SECRET&id=7", "/vsicurl/{server}/{name}?token=SECRET/x", "{user}/{name}"]


@pytest.mark.parametrize("form", SECRETS, ids=["query", "GDAL name", "password"])
def test_what_a_url_keeps_secret_is_in_no_record_and_no_message(raster, picture, server, form):
    raster("far.tif", picture, **PLACE)
    host = f"127.0.0.1:{server.server_port}"

    def address(name: str) -> str:
        return form.format(server=f"http://{host}", user=f"http://me:SECRET@{host}", name=name)

    with Scene(address("far.tif")) as scene:
        assert np.array_equal(whole(scene), picture)
        assert (scene.name, scene.stem) == ("far.tif", "far")
        said = json.dumps(describe(scene)) + repr(scene)
    with pytest.raises(UnreadableImage) as caught:
        Scene(address("nowhere.tif"))
    for text in (said, str(caught.value)):
        assert "SECRET" not in text
        assert host in text


def test_sources_that_differ_in_what_is_secret_stay_different():
    urls = [f"https://example.org/a.tif?{query}" for query in ("id=1", "id=2", "id=1&token=x")]
    assert len({shown(url) for url in urls}) == 3
    assert {shown(url).partition("?")[0] for url in urls} == {"https://example.org/a.tif"}
    assert shown("https://example.org/a@b/c.tif") == "https://example.org/a@b/c.tif"
    assert shown("what?.tif") == "what?.tif"


def test_photos_on_a_server_are_read_without_rasterios_warning(tmp_path, picture, server, recwarn):
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / "photo.png")
    warnings.simplefilter("always")
    filters = list(warnings.filters)
    with Scene(f"http://127.0.0.1:{server.server_port}/photo.png") as scene:
        assert np.array_equal(whole(scene), picture)
    assert [str(each.message) for each in recwarn] == []
    assert list(warnings.filters) == filters


@pytest.mark.parametrize("shape", [(130, 170), (130, 170, 3)])
def test_where_an_array_is_masked_there_is_no_data(shape):
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    mask = np.zeros(shape, bool)
    mask[:50, :60] = True
    mask[100, 100, ...] = True
    if len(shape) == 3:
        mask[120, 120, 1] = True  # The other bands still have something to show.
    with Scene(np.ma.array(pixels, mask=mask)) as scene:
        shown_pixels, valid = scene.read_masked((20, 10, 140, 115))
        assert scene.mask == "mask"
        assert np.array_equal(valid, ~(mask if mask.ndim == 2 else mask.all(axis=2))[10:125, 20:160])
        expected = pixels if len(shape) == 3 else np.repeat(pixels[..., None], 3, axis=2)
        assert np.array_equal(shown_pixels, expected[10:125, 20:160])


def test_remote_file_that_is_missing_is_said_with_its_address(server):
    address = f"http://127.0.0.1:{server.server_port}/nowhere.tif"
    with pytest.raises(UnreadableImage) as caught:
        Scene(address)
    assert str(caught.value).startswith(f"{address}: cannot be opened")
    assert "404" in str(caught.value)


def test_closing_waits_for_what_other_threads_read(tmp_path):
    path = tmp_path / "busy.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 900, 900), dtype=np.uint8)
    place = rasterio.Affine(1, 0, 0, 0, -1, 0)
    with rasterio.open(path, "w", "GTiff", 900, 900, 3, dtype="uint8", compress="deflate", transform=place) as file:
        file.write(pixels)
    scene, stop, wrong = Scene(path), threading.Event(), []

    def read():
        try:
            while not stop.is_set():
                if not np.array_equal(scene.read((0, 0, 900, 900)), pixels.transpose(1, 2, 0)):
                    wrong.append("other pixels")
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(200):
        scene.close()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
