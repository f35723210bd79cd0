"""Downloads one file over http(s): resumed where it broke off, checked for its length, whole or not at all."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slicedet.errors import DownloadError

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of the whole file."""

MAX_BYTES = 4 << 30
"""No model comes near this."""

_CHUNK = 1 << 18
_WORTH_RESUMING = 1 << 20
"""An attempt that brought this many bytes does not count as failed."""


@dataclass(frozen=True)
class Patience:
    """timeout: seconds without a byte; attempts: in a row that bring nothing; backoff: seconds after the first, doubled
    after each further."""

    timeout: float = 30.0
    attempts: int = 4
    backoff: float = 0.5


def download(
    url: str, target: Path, size: int | None = None, progress: Progress | None = None, patience: Patience | None = None
) -> None:
    """Downloads `url` as `target`, overwriting it. What has come is kept beside it until then, as TARGET.part.

    size: the file's bytes, where they are known. Raises DownloadError, in one line that says why.
    """
    patience = patience or Patience()
    partial = _Partial(target, url)
    failures = 0
    while True:
        before = partial.size
        try:
            _attempt(url, partial, size, progress, patience.timeout)
            break
        except _Transient as error:
            if isinstance(error, _Stale):
                partial.discard()
            failures = 1 if partial.size - before >= _WORTH_RESUMING else failures + 1
            if failures >= patience.attempts:
                raise DownloadError(f"{shown(url)}: {error} ({failures} attempts)") from error
            time.sleep(patience.backoff * 2 ** (failures - 1))
        except OSError as error:
            raise DownloadError(f"{target}: cannot be written: {error.strerror or error}") from error
    partial.finish()


class _Transient(Exception):
    """A failure that may pass."""


class _Stale(_Transient):
    """What is there is no beginning of what the server has now."""


@dataclass
class _Origin:
    """What a partial file is a part of: the validator its server gave, and its whole length."""

    url: str
    validator: str | None
    total: int | None


class _Partial:
    """The beginning of a file, and beside it what it is the beginning of."""

    def __init__(self, target: Path, url: str) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self._url = shown(url)  # It is written beside the file, too.

    @property
    def path(self) -> Path:
        return self._path

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    @property
    def origin(self) -> _Origin | None:
        """None where there is nothing to resume from."""
        try:
            origin = _Origin(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        known = origin.validator is not None or origin.total is not None
        return origin if known and origin.url == self._url and self.size > 0 else None

    def restart(self, validator: str | None, total: int | None) -> None:
        self.discard()
        self._note.write_text(json.dumps(asdict(_Origin(self._url, validator, total))), encoding="utf-8")

    def discard(self) -> None:
        self._note.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def finish(self) -> None:
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
        self._path.replace(self._target)
        self._note.unlink(missing_ok=True)


def _attempt(url: str, partial: _Partial, size: int | None, progress: Progress | None, timeout: float) -> None:
    """Brings the partial file to its full length, or raises."""
    origin = partial.origin
    headers = {}
    if origin is not None:
        if partial.size == origin.total == (size or origin.total):
            return  # Only the renaming was left to do.
        headers["Range"] = f"bytes={partial.size}-"
        if origin.validator is not None:
            headers["If-Range"] = origin.validator
    with _opened(url, headers, timeout) as response:
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(
                f"{shown(url)}: the answer is a web page, not the file; is a login or proxy in between?"
            )
        total = _total(response)
        start = _start(response)
        if total is None and size is None and response.headers.get("Transfer-Encoding") != "chunked":
            raise DownloadError(
                f"{shown(url)}: the server states no length, so that a part could be taken for the whole"
            )
        if size is not None and total is not None and total != size:
            partial.discard()
            raise DownloadError(f"{shown(url)}: it has {total:,} bytes, {size:,} were expected")
        if total is not None and total > MAX_BYTES:
            raise DownloadError(f"{shown(url)}: it has {total:,} bytes, more than is downloaded")
        validator = _validator(response.headers)
        if start and (origin is None or start != partial.size or not _same(origin, validator, total)):
            raise _Stale("the file changed while it was being downloaded")
        if not start:
            partial.restart(validator, total)
        _receive(response, partial, total or size, progress)
    if size is not None and partial.size != size:
        received = partial.size
        partial.discard()
        raise DownloadError(f"{shown(url)}: it has {received:,} bytes, {size:,} were expected")


def _receive(response: Any, partial: _Partial, total: int | None, progress: Progress | None) -> None:
    free = shutil.disk_usage(partial.path.parent).free
    missing = (total or 0) - partial.size
    if missing > free:
        raise DownloadError(f"{partial.path.parent}: {missing / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free")
    with partial.path.open("ab") as file:
        while True:
            try:
                # What has come, rather than waiting for a full chunk: a slow line then shows progress.
                data = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Transient(_reason(error)) from error
            if not data:
                break
            file.write(data)
            file.flush()  # So that a process that is killed leaves all that came.
            if file.tell() > (total or MAX_BYTES):
                raise DownloadError(f"{shown(response.url)}: more bytes come than were announced")
            if progress is not None:
                progress(file.tell(), total or 0)
        received = file.tell()
    if total is not None and received < total:
        raise _Transient(f"broke off after {received:,} of {total:,} bytes")


def _opened(url: str, headers: Mapping[str, str], timeout: float) -> Any:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "slicedet", **headers})
        return _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        what = " ".join(f"HTTP {error.code} {error.reason}".split())
        if error.code == 416:
            raise _Stale(what) from error
        if error.code >= 500 or error.code in (408, 429):
            raise _Transient(what) from error
        raise DownloadError(f"{shown(url)}: {what}") from error
    except (http.client.InvalidURL, ValueError) as error:
        # What it says may quote the URL.
        raise DownloadError(f"{shown(url)}: no URL that can be asked, or redirected to one") from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, socket.gaierror | ssl.SSLCertVerificationError | ValueError):
            raise DownloadError(f"{shown(url)}: {_reason(error)}") from error
        raise _Transient(_reason(error)) from error


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https and no other scheme, which Python's own has."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within http and https, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            raise DownloadError(f"{shown(req.full_url)}: redirects from {before} to {after}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _total(response: Any) -> int | None:
    """Bytes of the whole file, as the server states them."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return _whole(total)


def _start(response: Any) -> int:
    """Place of the first byte of the answer in the file."""
    if response.status != 206:
        return 0
    unit, _, place = response.headers.get("Content-Range", "").partition(" ")
    first = _whole(place.partition("-")[0])
    if unit != "bytes" or not first:
        raise DownloadError(f"{shown(response.url)}: answers with a part of the file that was not asked for")
    return first


def _whole(text: str) -> int | None:
    """A number of bytes; None for what is none, or larger than any."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _validator(headers: Mapping[str, str]) -> str | None:
    """What tells this state of the file from others. A weak ETag does not."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _same(origin: _Origin, validator: str | None, total: int | None) -> bool:
    unchanged = validator is None or origin.validator is None or validator == origin.validator
    return unchanged and (total is None or origin.total is None or total == origin.total)


def shown(url: str) -> str:
    """A URL for people, without its password and query."""
    from slicedet.raster import source  # Which imports GDAL.

    return source.shown(url)


def _reason(error: Exception) -> str:
    """Why, in one line."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return " ".join(str(getattr(cause, "strerror", None) or cause).split()) or type(cause).__name__
