"""Servers: how long they are waited for, and what one did where GDAL could not read.

GDAL by itself asks again only after an answer such as 503. Where a server falls silent or hangs up, it fails at once,
or takes half a block for a whole one, and says no more than that the file cannot be read.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from itertools import count
from typing import NamedTuple, TypeVar

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from slicedet.errors import UnreadableImage

STALL_SECONDS = 10
STALL_BYTES = 1000
"""A server that sends fewer bytes a second for so many seconds has stalled."""

REQUEST_SECONDS = 300
"""What one request may take."""

RETRIES = 3
FIRST_WAIT = 1.0
"""Tries after the first, and seconds before the second; each further wait is twice as long."""

PATIENCE = 180.0
"""Seconds after which no further try begins: GDAL asks a silent server for several blocks, each with a stall."""

_ELSEWHERE = ("curl", "s3", "gs", "az", "adls", "oss", "swift", "webhdfs")
_RETRIED_BY_GDAL = {429, 500, 502, 503, 504}

_CODE = re.compile(r"(?:response_code=|HTTP (?:error|response) code(?: on \S+)?: )(\d+)")
_CURL = re.compile(r"CURL error: (.*)")
_SILENT = re.compile(r"too slow|time(?:d |-)?out", re.IGNORECASE)
_CLOSED = re.compile(r"empty reply|closed|reset|(?:recv|send) failure|partial file", re.IGNORECASE)

_Result = TypeVar("_Result")


def options() -> dict[str, str]:
    """GDAL's settings for files on a server."""
    return {
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_HTTP_CONNECTTIMEOUT": "20",
        "GDAL_HTTP_TIMEOUT": str(REQUEST_SECONDS),
        "GDAL_HTTP_LOW_SPEED_TIME": str(STALL_SECONDS),
        "GDAL_HTTP_LOW_SPEED_LIMIT": str(STALL_BYTES),
        "GDAL_HTTP_MAX_RETRY": str(RETRIES),
        "GDAL_HTTP_RETRY_DELAY": str(FIRST_WAIT),
        # GDAL would remember, as long as the process lives, that a server failed, and half a block as a whole one.
        "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/vsi{name}/" for name in _ELSEWHERE),
    }


def persist(work: Callable[[], _Result], forget: Callable[[], None], name: str, doing: str, remote: bool) -> _Result:
    """What `work` returns. Where a server fails meanwhile, it is done again, after ever longer waits.

    forget: drops what `work` used, before each further try. name: of the image. doing: what `work` does, "opened" or
    "read". remote: whether the image lies on a server; otherwise it may still name files that do.
    Raises UnreadableImage, which says what the server did, where it fails to the end; else what `work` raises.
    """
    begun, wait, said = time.monotonic(), _setting("GDAL_HTTP_RETRY_DELAY"), ""
    for tries in count(1):
        start = time.monotonic()
        with _listening() as heard:
            try:
                return work()
            except (RasterioError, CPLE_BaseError) as error:
                failure = error
        now = time.monotonic()
        words = _words(failure)
        trouble = _trouble([*heard, *words], now - start, remote)
        last = tries > _setting("GDAL_HTTP_MAX_RETRY") or now - begun > PATIENCE
        if trouble is None:
            # A connection that broke may look like a broken file, but not twice like the same.
            if last or not remote or words[-1] == said:
                raise failure
            said = words[-1]
        elif last or not trouble.passing:
            made = max(tries, trouble.tries)
            after = f", after {made} tries" if made > 1 else ""
            raise UnreadableImage(f"{name}: cannot be {doing}: {trouble.words}{after}") from failure
        forget()
        time.sleep(wait)
        wait *= 2
    raise AssertionError("unreachable")


class Trouble(NamedTuple):
    """What a server did, whether that may pass, and how often GDAL has tried by itself."""

    words: str
    passing: bool
    tries: int = 1


def _trouble(texts: list[str], seconds: float, remote: bool) -> Trouble | None:
    """What GDAL's messages tell of a server, after as many seconds; None if nothing."""
    codes = [int(code) for text in texts for code in _CODE.findall(text)]
    refusals = [code for code in codes if code >= 400]
    curl = [words for text in texts for words in _CURL.findall(text)]
    stall = _setting("GDAL_HTTP_LOW_SPEED_TIME")
    if refusals:
        code, tries = refusals[-1], 1 + int(_setting("GDAL_HTTP_MAX_RETRY"))
        phrase = ""
        with suppress(ValueError):
            phrase = f" ({HTTPStatus(code).phrase})"
        words = f"the server answered HTTP {code}{phrase}"
        return Trouble(words, False, tries) if code in _RETRIED_BY_GDAL else Trouble(words, code == 408 or code > 500)
    if any("Range downloading not supported" in text for text in texts):
        return Trouble("the server does not send parts of files; download it first", False)
    known = bool(codes or curl)
    if any(_SILENT.search(words) for words in curl) or (seconds >= stall and (known or remote)):
        return Trouble(f"the server sent nothing, or hardly anything, for {stall:g} s", True)
    if any(_CLOSED.search(words) for words in curl) or (codes and not curl):
        return Trouble("the server closed the connection", True)
    return Trouble(curl[-1], False) if curl else None


def _words(error: BaseException) -> list[str]:
    """An exception and its causes in words, the first cause last."""
    words = []
    cause: BaseException | None = error
    while cause is not None:
        words.append(str(getattr(cause, "errmsg", None) or cause))
        cause = cause.__cause__
    return words


def _setting(name: str) -> float:
    """One of `options` that is a number, as the environment has it or else as slicedet does."""
    with suppress(KeyError, ValueError):
        return float(os.environ[name])
    return float(options()[name])


class _Ear(logging.Handler):
    """Keeps what is logged by one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.heard.append(record.getMessage())


@contextmanager
def _listening() -> Iterator[list[str]]:
    """GDAL's warnings in this thread, which rasterio logs; what a server answered stands nowhere else."""
    logger, ear = logging.getLogger("rasterio"), _Ear()
    logger.addHandler(ear)
    try:
        yield ear.heard
    finally:
        logger.removeHandler(ear)
