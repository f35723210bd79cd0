"""EXIF orientation: how stored pixels are turned into the frame that browsers and OpenCV show."""

from __future__ import annotations

import os
import re
import struct
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from slicedet.errors import UnreadableImage

Window = tuple[float, float, float, float]
"""Column, row, width and height of a rectangle in pixels."""


class Orientation(NamedTuple):
    """Rows and columns exchanged first, then mirrored along x and y."""

    transpose: bool
    flip_x: bool
    flip_y: bool

    @classmethod
    def from_exif(cls, value: int) -> Orientation:
        """The turn that EXIF tag 274 asks for; values outside 1..8 mean none, as in OpenCV."""
        return _EXIF.get(value, _EXIF[1])

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of an image stored as `width` x `height`."""
        return (height, width) if self.transpose else (width, height)

    def to_stored(self, width: int, height: int) -> Affine:
        """From pixel edges of the frame shown, `width` x `height`, to those of the stored image."""
        flip = Affine(
            -1 if self.flip_x else 1, 0, width * self.flip_x, 0, -1 if self.flip_y else 1, height * self.flip_y
        )
        return Affine(0, 1, 0, 1, 0, 0) @ flip if self.transpose else flip

    def stored_window(self, window: Window, width: int, height: int) -> Window:
        """Where a window of the frame shown, `width` x `height`, lies in the stored image."""
        x, y, w, h = window
        matrix = self.to_stored(width, height)
        (xa, ya), (xb, yb) = matrix @ (x, y), matrix @ (x + w, y + h)
        return min(xa, xb), min(ya, yb), abs(xb - xa), abs(yb - ya)

    def apply(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Stored pixels [..., H, W] as shown; a view."""
        shown = np.swapaxes(stored, -1, -2) if self.transpose else stored
        if self.flip_x:
            shown = shown[..., ::-1]
        return shown[..., ::-1, :] if self.flip_y else shown


_EXIF = {
    1: Orientation(False, False, False),
    2: Orientation(False, True, False),
    3: Orientation(False, True, True),
    4: Orientation(False, False, True),
    5: Orientation(True, False, False),
    6: Orientation(True, True, False),
    7: Orientation(True, True, True),
    8: Orientation(True, False, True),
}


_TAG = 274


def exif_value(dataset: Any, path: str | None) -> int:
    """EXIF tag 274 of an open GDAL dataset, 1 where there is none; `path` is its local file, if it is one.

    GDAL tells the tag of JPEG files only, so PNG and WebP are looked into here. GDAL also decodes a PNG that breaks off
    without a word: that raises UnreadableImage.
    """
    try:
        value = _exif_value(dataset, path)
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # Broken EXIF data turns nothing, as in OpenCV and browsers.
    return int(value) if re.fullmatch("[1-8]", str(value)) else 1


def _exif_value(dataset: Any, path: str | None) -> Any:
    if path is not None and dataset.driver in ("PNG", "WEBP"):
        from PIL import Image

        if dataset.driver == "WEBP":
            with Image.open(path) as image:
                return image.getexif().get(_TAG)
        exif = Image.Exif()
        exif.load(_png_exif(path))
        return exif.get(_TAG)
    return dataset.tags().get("EXIF_Orientation", "").strip()


def _png_exif(path: str) -> bytes:
    """The eXIf chunk of a PNG file, found by its chunk headers alone; empty where there is none."""
    block = b""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        file.seek(8)
        while header := file.read(8):
            length, kind = struct.unpack(">I4s", header) if len(header) == 8 else (end, b"")
            if kind == b"IEND":
                return block
            if file.tell() + length + 4 > end:
                break
            if kind == b"eXIf":
                block = file.read(length)
                length = 0
            file.seek(length + 4, os.SEEK_CUR)
    raise UnreadableImage(f"{path}: the file is truncated")
