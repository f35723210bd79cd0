"""What predict is given: arrays, files, pages, folders and URLs."""

from __future__ import annotations

import gc
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from host import Host, broken_off, silent, status
from paddlex_facts import paint
from PIL import Image as Pillow

from slicedet.compat import Model, create_model
from slicedet.compat.inputs import file_name, images
from slicedet.errors import DownloadError, InvalidSetting, SlicedetError, UnreadableImage
from slicedet.models.download import Patience


def test_arrays_are_blue_green_red() -> None:
    array = paint(1, 100, 75)
    (image,) = images(array)
    np.testing.assert_array_equal(image.scene.read((0, 0, 100, 75)), array[..., ::-1])
    assert (image.input_path, image.page_index) == (None, None)


def test_arrays_may_be_views() -> None:
    array = paint(1, 200, 150)[::-1, ::2]
    (image,) = images([array])
    np.testing.assert_array_equal(image.scene.read((0, 0, 100, 150)), array[..., ::-1])


@pytest.mark.parametrize("shape", [(5, 5), (5, 5, 1), (5, 5, 4), (3,), (0, 5, 3)])
def test_arrays_of_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(SlicedetError, match="array"):
        next(images(np.zeros(shape, np.uint8)))


def test_arrays_of_other_types() -> None:
    with pytest.raises(InvalidSetting, match=r"array float64 of shape \[5, 5, 3\]: expected uint8"):
        next(images(np.zeros((5, 5, 3))))


def test_folders_are_searched_in_the_order_of_their_paths(pictures: Path) -> None:
    Pillow.new("RGB", (40, 40)).save("B.webp")
    Pillow.new("RGB", (40, 40)).save("below/z.jp2")  # Not one of PaddleX's.
    found = [(image.input_path, image.page_index) for image in images(str(pictures))]
    assert [(str(Path(path).relative_to(pictures)), page) for path, page in found] == [
        ("B.webp", None),
        ("b.png", None),
        ("below/a.JPG", None),
        ("pages.tif", 0),
        ("pages.tif", 1),
    ]
    assert [image.input_path for image in images(["below/z.jp2", Path("b.png")])] == ["below/z.jp2", "b.png"]


def test_overviews_and_masks_are_no_pages(raster: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 700), dtype=np.uint8)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = raster("placed.tif", pixels, mask=np.arange(600)[:, None] * np.ones(700) > 20, tiled=True)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    (image,) = images(path)
    assert (image.page_index, image.scene.width) == (0, 700)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.png", "missing.png: no such file"),
        (f"{300 * 'long'}.png", "file name too long"),
        ("b\udcff.png", "b\\udcff.png: its name is not UTF-8"),
        ("notes.txt", "notes.txt: expected the suffix of an image"),
        ("paper.pdf", "paper.pdf: pages of PDFs are not read"),
        ("empty", "empty: no image in it"),
        ("ftp://example.org/a.png", "expected a URL that begins with https:// or http://"),
        ("/vsicurl/http://example.org/a.png", "expected a URL that begins with"),
        ("http://example.org/picture", "expected the suffix of an image"),
        (5, "input of type int"),
        ([["b.png"]], "input of type list"),
        (None, "input of type NoneType"),
    ],
)
def test_what_is_no_image(given: object, said: str, pictures: Path) -> None:
    Path("empty").mkdir()
    Path("paper.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises((InvalidSetting, UnreadableImage)) as raised:
        list(images(given))
    assert said in str(raised.value)


def encoded(format: str, width: int = 400, height: int = 300) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(paint(1, width, height)).save(file, format)
    return file.getvalue()


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_urls_are_downloaded_and_deleted(model: Model, host: Host, downloads: Path, tmp_path: Path) -> None:
    host.files["/a%20b.png?key=1"] = encoded("PNG")
    url = f"{host.url}/a%20b.png?key=1"
    (result,) = model.predict(url)
    (expected,) = model.predict(np.ascontiguousarray(paint(1, 400, 300)[..., ::-1]))
    assert result["boxes"] == expected["boxes"] != []
    assert result["input_path"] == url
    result.save_all(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a b_res.json", "a b_res.png"]
    assert result["input_img"].shape == (300, 400, 3)
    assert len(list(downloads.iterdir())) == 1
    prediction = result.prediction
    del result
    gc.collect()
    assert prediction.scene.read((0, 0, 400, 300)).any()
    del prediction
    gc.collect()
    assert list(downloads.iterdir()) == []


class Parts(SimpleHTTPRequestHandler):
    """Gives the parts of files that are asked for."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[str]:
    """URL of a server of parts of the files in the temporary folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Parts, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_tiffs_behind_urls_are_read_by_windows(
    model_dir: Path, host: Host, parts: str, downloads: Path, raster: Callable[..., Path]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 700, 700), dtype=np.uint8)
    path = raster("big.tif", pixels, tiled=True, blockxsize=256, blockysize=256)
    host.files["/big.tif"] = path.read_bytes()
    sliced = create_model(model_dir=model_dir, engine="paddle", slice=320, threshold=0.0)
    (result,) = sliced.predict(f"{parts}/big.tif")
    assert (result["input_path"], result["page_index"]) == (f"{parts}/big.tif", 0)
    assert result.prediction.run["tiles"]["run"] == 9
    assert list(downloads.iterdir()) == []
    # A server that does not give parts.
    (again,) = sliced.predict(f"{host.url}/big.tif")
    assert again["boxes"] == result["boxes"] != []
    assert len(list(downloads.iterdir())) == 1


def test_urls_that_give_nothing(host: Host, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slicedet.models.download.Patience", lambda: Patience(0.2, 2, 0.0))
    host.files |= {"/short.png": encoded("PNG"), "/slow.png": b"x", "/text.png": b"no picture"}
    host.answers = {
        "/short.png": [broken_off(100)] + [status(500)] * 9,
        "/slow.png": [silent(0.5)] * 9,
    }
    for name in ("missing.png", "short.png", "slow.png"):
        with pytest.raises(DownloadError, match=name):
            next(images(f"{host.url}/{name}"))
    with pytest.raises(UnreadableImage, match="not an image"):
        next(images(f"{host.url}/text.png"))
    gc.collect()
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.png", "b.png"),
        ("https://example.org/x/b.png?size=1/2#part", "b.png"),
        ("https://example.org/..%2f..%2fb.png", "b.png"),
    ],
)
def test_names_of_files(path: str, name: str) -> None:
    assert file_name(path) == name


def test_images_too_large_to_be_seen_whole(model: Model, raster: Callable[..., Path]) -> None:
    path = raster("wide.tif", np.zeros((1, 8, 8), np.uint8))
    profile = {"driver": "GTiff", "width": 20_000, "height": 9_000, "count": 3, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", sparse_ok=True, **profile):
        pass
    with pytest.raises(InvalidSetting, match=r"20000 x 9000 pixels are too many .*; slice=640 searches them by tiles"):
        next(model.predict(path))
