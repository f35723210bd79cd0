"""JSON as tools write it, with NaN, Infinity and a byte order mark, as a stream of valid JSON that is not deep."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slicedet.errors import InvalidDataset

DEEPEST = 100
"""Levels of lists and objects in each other that are read; segmentations have five."""

_WORDS = (b"NaN", b"Infinity")
_PIECE = 1 << 20
_LONGEST = len(b"-Infinity")

# Strings are matched too, so that what stands inside them is left alone; one that is still open reaches to the end.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?P<open>\\?\Z)?"?|-?Infinity|NaN', re.DOTALL)


_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}"')


class NullForNaN:
    """A binary file without its byte order mark whose NaN and Infinity read as null; for parsers that call `read`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        _pass_mark(file)
        self._kept = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, more or fewer than `size`; b"" at the end of the file."""
        if size == 0:
            return b""
        while True:
            piece = self._file.read(_PIECE)
            text = self._kept + piece
            end = self._complete(text) if piece else len(text)
            self._kept = text[end:]
            if end or not piece:
                return _TOKEN.sub(_as_null, text[:end])

    @staticmethod
    def _complete(text: bytes) -> int:
        """Up to where `text` ends in the middle of neither a string nor a word."""
        last = 0
        for match in _TOKEN.finditer(text):
            if match["open"] is not None:
                return match.start()
            last = match.end()
        return max(last, len(text) - _LONGEST)


@contextmanager
def open_json(path: Path) -> Iterator[BinaryIO | NullForNaN]:
    """A file for a parser that calls `read`. Raises OSError, and InvalidDataset where it is nested over DEEPEST levels:
    parsers that keep the way to where they are would fill the memory."""
    with open(path, "rb") as file:
        nonfinite = _has_nonfinite(path, file)
        file.seek(0)
        if nonfinite:
            yield NullForNaN(file)
        else:
            _pass_mark(file)
            yield file


def _has_nonfinite(path: Path, file: BinaryIO) -> bool:
    """Whether NaN or Infinity stands anywhere. Raises InvalidDataset where the file is nested too deep."""
    found, depth, in_string, tail, escape = False, 0, False, b"", b""
    while piece := file.read(_PIECE):
        found = found or any(word in tail + piece for word in _WORDS)
        tail = piece[-_LONGEST:]
        text = escape + piece
        if b"\\" in text:
            text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        escape = b"\\" if text.endswith(b"\\") else b""
        marks = np.frombuffer(text.translate(None, _NO_STRUCTURE), np.uint8)
        if not len(marks):
            continue
        inside = np.bitwise_xor.accumulate(marks == ord('"')) ^ in_string
        in_string = bool(inside[-1])
        depths = depth + np.cumsum(np.where(inside, 0, _STEPS[marks]), dtype=np.int64)
        depth = int(depths[-1])
        if depths.max() > DEEPEST:
            raise InvalidDataset(f"{path}: is nested over {DEEPEST} levels deep, which no annotations are")
    return found


def _pass_mark(file: BinaryIO) -> None:
    """Steps over the byte order mark at the beginning."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)


def _as_null(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0].startswith(b'"') else b"null"
