"""JSON with NaN and Infinity, which Python writes and no JSON parser need read, as a stream of valid JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

_WORDS = (b"NaN", b"Infinity")
_PIECE = 1 << 20
_LONGEST = len(b"-Infinity")

# Strings are matched too, so that what stands inside them is left alone; one that is still open reaches to the end.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?P<open>\\?\Z)?"?|-?Infinity|NaN', re.DOTALL)


class NullForNaN:
    """A binary file whose NaN and Infinity read as null; for parsers that call `read`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
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


def has_nonfinite(path: Path) -> bool:
    """Whether NaN or Infinity stands anywhere in a file."""
    kept = b""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            if any(word in kept + piece for word in _WORDS):
                return True
            kept = piece[-_LONGEST:]
    return False


def _as_null(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0].startswith(b'"') else b"null"
