"""A web server on this machine that serves files, and misbehaves where told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Host:
    """Serves `files` by their paths; `answers` by path are used up first, one a request. `requests` lists what came."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, Message]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.requests.append((self.path, self.headers))
                waiting = host.answers.get(self.path)
                answer = waiting.pop(0) if waiting else whole
                if answer is whole and self.path not in host.files:
                    answer = status(404)
                answer(self, host.files.get(self.path, b""))

            def log_message(self, *arguments: object) -> None:
                """Nothing on stderr."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Nothing on stderr where a client hangs up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Host:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("Range") for _, headers in self.requests]


def send(request: BaseHTTPRequestHandler, code: int, body: bytes, **headers: object) -> None:
    """An answer with these headers; underscores stand for hyphens."""
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    request.wfile.write(body)


def etag(body: bytes) -> str:
    """A strong validator."""
    return f'"{hash(body)}"'


def whole(request: BaseHTTPRequestHandler, body: bytes) -> None:
    """The file, or the part asked for if it did not change."""
    start = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")
    first = int(start) if request.headers.get("If-Range", etag(body)) == etag(body) else 0
    if first >= len(body) > 0:
        send(request, 416, b"", Content_Length=0, Content_Range=f"bytes */{len(body)}")
    elif first:
        place = f"bytes {first}-{len(body) - 1}/{len(body)}"
        send(request, 206, body[first:], Content_Length=len(body) - first, Content_Range=place, ETag=etag(body))
    else:
        send(request, 200, body, Content_Length=len(body), ETag=etag(body), Accept_Ranges="bytes")


def broken_off(after: int, **headers: object) -> Answer:
    """The first bytes, of the length announced."""
    return lambda request, body: send(
        request, 200, body[:after], **{"Content_Length": len(body), "ETag": etag(body), **headers}
    )


def status(code: int) -> Answer:
    """An answer without content."""
    return lambda request, body: send(request, code, b"", Content_Length=0)


def redirect(url: str) -> Answer:
    """To another URL."""
    return lambda request, body: send(request, 302, b"", Content_Length=0, Location=url)


def silent(seconds: float) -> Answer:
    """Nothing for a while, then the connection ends."""
    return lambda request, body: time.sleep(seconds)
