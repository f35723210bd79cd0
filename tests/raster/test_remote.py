"""Files on servers that stall, hang up, refuse or lie: tried again after a wait, then told in one clear line."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio

import slicedet
from slicedet import Detections, Scene
from slicedet.batch import Batch
from slicedet.errors import UnreadableImage, UnreadableWindow
from slicedet.pipeline import Settings
from slicedet.raster import servers

EDGE = 1024
WINDOW = (300, 400, 500, 450)
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000)}


class Request(NamedTuple):
    """A request that came in: its method, and the first and last byte asked for, None where all were."""

    method: str
    range: tuple[int, int] | None


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's `behave` says: "well", an HTTP status, or one of the ways to fail below."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        start, _, stop = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        first, last = int(start), min(int(stop or self.server.size - 1), self.server.size - 1)
        with self.server.lock:
            self.server.requests.append(Request(self.command, (first, last) if asked else None))
            behaviour = self.server.behave(self.server.requests[-1])
        content = self.server.path.read_bytes()
        if behaviour == "stall":
            self.server.over.wait(60)
            self.close_connection = True
        elif behaviour == "hang up":
            self.hang_up()
        elif isinstance(behaviour, int):
            self.answer(behaviour, b"no")
        elif behaviour == "ignore the range":
            self.answer(200, content)
        elif behaviour == "send too little":
            self.answer(206, content[first : (first + last) // 2], f"bytes {first}-{last}/{len(content)}")
        elif behaviour in ("stop in the middle", "trickle") and asked:
            self.answer(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}", behaviour)
        elif asked:
            self.answer(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}")
        else:
            self.answer(200, content)

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, content_range: str = "", behaviour: str = "") -> None:
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            if behaviour == "stop in the middle":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.hang_up()
            elif behaviour == "trickle":
                self.close_connection = True
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    if self.server.over.wait(0.1):
                        return
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves one file under any name, and keeps what was asked."""

    daemon_threads = True
    # GDAL hangs up on answers that it does not want.
    handle_error = lambda self, *_: None  # noqa: E731

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.path, self.size = path, path.stat().st_size
        self.url = f"http://127.0.0.1:{self.server_port}/{path.name}"
        self.lock, self.over = threading.Lock(), threading.Event()
        self.requests: list[Request] = []
        self.behave: Callable[[Request], str | int] = lambda request: "well"

    def fail(self, behaviour: str | int, times: int | None = None) -> None:
        """From now on, answers so many requests (None: all) with `behaviour`, and the others well."""
        begun = len(self.requests)

        def behave(_: Request) -> str | int:
            return behaviour if times is None or len(self.requests) - begun <= times else "well"

        self.behave = behave


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, EDGE, EDGE), dtype=np.uint8)


@pytest.fixture
def server(raster: Callable[..., Path], pixels: np.ndarray) -> Iterator[Server]:
    """A server of a tiled GeoTIFF."""
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel"}
    with Server(raster("far.tif", pixels, **tiles, **PLACE)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield serving
        serving.over.set()
        serving.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GDAL_HTTP", "CPL_VSIL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(servers, "STALL_SECONDS", 1)
    monkeypatch.setattr(servers, "RETRIES", 2)
    monkeypatch.setattr(servers, "FIRST_WAIT", 0.05)


def seen(scene: Scene) -> np.ndarray:
    return np.moveaxis(scene.read(WINDOW), -1, 0)


def expected(pixels: np.ndarray) -> np.ndarray:
    x, y, width, height = WINDOW
    return pixels[:, y : y + height, x : x + width]


def vrt_of(server: Server, path: Path) -> Path:
    """A local file that shows the one on the server."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename>/vsicurl/{server.url}'
        f'</SourceFilename><SourceBand>{band}</SourceBand><SourceProperties RasterXSize="{EDGE}" RasterYSize="{EDGE}" '
        f'DataType="Byte" BlockXSize="256" BlockYSize="256"/><SrcRect xOff="0" yOff="0" xSize="{EDGE}" ySize="{EDGE}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{EDGE}" ySize="{EDGE}"/></SimpleSource></VRTRasterBand>'
        for band in (1, 2, 3)
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'<VRTDataset rasterXSize="{EDGE}" rasterYSize="{EDGE}">{bands}</VRTDataset>')
    return path


SLOW = ("stall", "trickle")
"""What takes a second for each request, so that it is tried less often; how often a server may fail is seen by what
fails at once."""

PASSING = ["stall", "trickle", "stop in the middle", "hang up", "send too little", 429, 500, 503, 520]


@pytest.mark.parametrize("behaviour", PASSING)
def test_trouble_at_opening_that_passes(behaviour: str | int, server: Server, pixels: np.ndarray) -> None:
    server.fail(behaviour, times=1 if behaviour in SLOW else 2)
    with Scene(server.url) as scene:
        assert np.array_equal(seen(scene), expected(pixels))


@pytest.mark.parametrize("behaviour", PASSING)
def test_trouble_in_reading_that_passes(behaviour: str | int, server: Server, pixels: np.ndarray) -> None:
    with Scene(server.url) as scene:
        server.fail(behaviour, times=4)
        assert np.array_equal(seen(scene), expected(pixels))
        if behaviour not in SLOW:
            server.fail(behaviour, times=1)
            assert np.array_equal(np.moveaxis(scene.read((0, 0, 50, 50)), -1, 0), pixels[:, :50, :50])


def test_buckets(server: Server, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = {"AWS_S3_ENDPOINT": server.url.split("/")[2], "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    for name, value in {**settings, "HOME": str(tmp_path), "CPL_AWS_AUTODETECT_EC2": "NO"}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnreadableImage, match=r"^s3://bucket/far.tif: cannot be opened \(.*AWS_NO_SIGN_REQUEST"):
        Scene("s3://bucket/far.tif")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    with Scene("s3://bucket/far.tif") as scene:
        server.fail("hang up", times=2)
        assert np.array_equal(seen(scene), expected(pixels))
    server.fail(403)
    with pytest.raises(UnreadableImage, match=r"^s3://bucket/other.tif: .*: the server answered HTTP 403"):
        Scene("s3://bucket/other.tif")


def test_trouble_behind_a_local_file_that_passes(server: Server, pixels: np.ndarray, tmp_path: Path) -> None:
    with Scene(vrt_of(server, tmp_path / "near.vrt")) as scene:
        for behaviour in ("hang up", 503):
            scene.close()
            server.fail(behaviour, times=2)
            assert np.array_equal(seen(scene), expected(pixels))


LASTING = [
    ("stall", "the server sent nothing, or hardly anything, for 1 s"),
    ("hang up", "the server closed the connection, after 2 tries"),
    (503, "the server answered HTTP 503 (Service Unavailable), after 2 tries"),
    (520, "the server answered HTTP 520, after 2 tries"),
    (404, "the server answered HTTP 404 (Not Found)"),
    (403, "the server answered HTTP 403 (Forbidden)"),
    ("ignore the range", "the server does not send parts of files; download it first"),
]


@pytest.mark.parametrize(("behaviour", "words"), LASTING)
def test_trouble_at_opening_that_lasts(
    behaviour: str | int, words: str, server: Server, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "RETRIES", 0 if behaviour in SLOW else 1)
    server.fail(behaviour)
    with pytest.raises(UnreadableImage) as caught:
        Scene(server.url)
    assert str(caught.value) == f"{server.url}: cannot be opened: {words}"
    # The failure is not remembered.
    server.fail("nothing", times=0)
    with Scene(server.url) as scene:
        assert np.array_equal(seen(scene), expected(pixels))


@pytest.mark.parametrize(("behaviour", "words"), [*LASTING, ("stop in the middle", LASTING[1][1])])
def test_trouble_in_reading_that_lasts(
    behaviour: str | int, words: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "RETRIES", 0 if behaviour in SLOW else 1)
    with Scene(server.url) as scene:
        server.fail(behaviour)
        with pytest.raises(UnreadableImage) as caught:
            scene.read(WINDOW)
    assert str(caught.value) == f"{server.url}: cannot be read: {words}"
    assert not isinstance(caught.value, UnreadableWindow)


def test_no_further_try_after_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PATIENCE", 0)
    server.fail("hang up")
    with pytest.raises(UnreadableImage, match=r"closed the connection$"):
        Scene(server.url)


def test_what_the_environment_sets_stays(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STALL_SECONDS", 600)
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    for behaviour, words in (("stall", "for 1 s"), (503, r"HTTP 503 \(Service Unavailable\)")):
        server.fail(behaviour)
        with pytest.raises(UnreadableImage, match=rf"{words}$"):
            Scene(server.url)


def test_a_broken_file_is_not_blamed_on_its_server(
    raster: Callable[..., Path], damage: Callable[[Path], None], pixels: np.ndarray, server: Server
) -> None:
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    damage(raster("far.tif", pixels, **tiles, **PLACE))
    server.size = server.path.stat().st_size
    with Scene(server.url) as scene:
        with pytest.raises(UnreadableWindow, match="columns 0 to 255, rows 0 to 255 cannot be decoded"):
            scene.read((0, 0, 300, 300))
        assert np.array_equal(np.moveaxis(scene.read((300, 0, 99, 99)), -1, 0), pixels[:, :99, 300:399])


def test_what_is_no_image(server: Server) -> None:
    server.path.write_text("<html>" + 1000 * " ")
    server.size = server.path.stat().st_size
    with pytest.raises(UnreadableImage) as caught:
        Scene(server.url)
    assert str(caught.value).startswith(f"{server.url}: cannot be opened (")
    assert "\n" not in str(caught.value)
    assert "server" not in str(caught.value)


def test_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/far.tif"
        with pytest.raises(UnreadableImage) as caught:
            Scene(url)
    assert str(caught.value).startswith(f"{url}: cannot be opened: ")
    assert "connect" in str(caught.value)


def test_no_block_is_fetched_twice(server: Server, pixels: np.ndarray) -> None:
    whole = np.zeros_like(pixels)
    with Scene(server.url) as scene:
        header = len(server.requests)
        for y in range(0, EDGE, 256):
            for x in range(0, EDGE, 256):
                whole[:, y : y + 256, x : x + 256] = np.moveaxis(scene.read((x, y, 256, 256)), -1, 0)
    assert np.array_equal(whole, pixels)
    fetched = Counter[int]()
    for request in server.requests[header:]:
        assert request.method == "GET"
        assert request.range is not None
        first, last = request.range
        # GDAL fetches whole pages of its own, which share their ends.
        fetched.update(range(first // 256**2 + 1, last // 256**2))
    assert max(fetched.values()) == 1
    assert sum(request.range[1] + 1 - request.range[0] for request in server.requests if request.range) < (
        1.05 * server.size
    )


class Nothing:
    """Finds nothing."""

    categories, input_size, name = ("spot",), 256, "nothing"

    def detect(self, tiles: list[np.ndarray]) -> list[Detections]:
        return [Detections.empty() for _ in tiles]


def test_one_image_of_a_folder_fails_alone(
    raster: Callable[..., Path], server: Server, pixels: np.ndarray, tmp_path: Path
) -> None:
    for name in ("a.tif", "z.tif"):
        raster(f"in/{name}", pixels, **PLACE)
    far = vrt_of(server, tmp_path / "in/far.vrt")
    server.fail("hang up")
    results = Batch(tmp_path / "in", tmp_path / "out").run(Nothing(), Settings())
    assert {result.image: str(result.error or "") for result in results} == {
        "a.tif": "",
        "far.vrt": f"{far}: cannot be read: the server closed the connection, after 3 tries",
        "z.tif": "",
    }


def test_tiles_of_a_dead_server_are_not_skipped_as_unreadable(server: Server) -> None:
    with Scene(server.url) as scene:
        server.fail(503)
        with pytest.raises(UnreadableImage, match="HTTP 503"):
            slicedet.predict(scene, Nothing(), skip_unreadable=True)
