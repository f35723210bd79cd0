"""TileGrid: the overlapping tiles that cover a frame. Pure integers: no pixels, no files, no model, no numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from slicedet.errors import InvalidSetting

SMALLEST_SLICE = 32
"""Shortest tile edge in pixels: the coarsest stride of the networks at hand, below which they see nothing."""

LARGEST_SLICE = 1 << 16
"""Longest tile edge in pixels; a tile is held in memory as a whole."""


class Tile(NamedTuple):
    """A rectangle of the frame, in whole pixels: columns x..x+width, rows y..y+height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class TileGrid:
    """Tiles of at most `tile_width` x `tile_height` pixels over a frame of `width` x `height`, row by row.

    The stride is the tile size less the overlap (pixels, rounded down from a ratio). The last column and row are
    shifted back inside the frame, so they overlap more; a frame smaller than a tile is one tile of its own size.
    The same grid as SAHI's for the same numbers.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    overlap_x: int
    overlap_y: int

    @classmethod
    def cover(cls, width: int, height: int, slice: int | str | tuple[int, int], overlap: float | str) -> TileGrid:
        """The grid for a frame of `width` x `height` pixels.

        slice: tile size in pixels, as for `parse_slice`. overlap: as for `parse_overlap`.
        Raises InvalidSetting for a tile below 32 or above 65536 pixels, or an overlap that is negative or not smaller
        than the tile.
        """
        tile_width, tile_height = parse_slice(slice)
        amount = parse_overlap(overlap)
        overlaps = []
        for size in (tile_width, tile_height):
            pixels = amount if isinstance(amount, int) else int(amount * size)
            if pixels >= size:
                raise InvalidSetting(f"overlap {overlap}: {pixels} px leave no step between tiles of {size} px")
            overlaps.append(pixels)
        return cls(width, height, tile_width, tile_height, *overlaps)

    @property
    def columns(self) -> list[int]:
        """First pixel column of each column of tiles."""
        return _starts(self.width, self.tile_width, self.overlap_x)

    @property
    def rows(self) -> list[int]:
        """First pixel row of each row of tiles."""
        return _starts(self.height, self.tile_height, self.overlap_y)

    def __len__(self) -> int:
        return _count(self.width, self.tile_width, self.overlap_x) * _count(
            self.height, self.tile_height, self.overlap_y
        )

    def __iter__(self) -> Iterator[Tile]:
        width, height = min(self.tile_width, self.width), min(self.tile_height, self.height)
        columns = self.columns
        for y in self.rows:
            for x in columns:
                yield Tile(x, y, width, height)


def parse_slice(value: int | str | tuple[int, int]) -> tuple[int, int]:
    """Tile width and height in pixels, from 640, "640", "640x512" (width x height) or (640, 512).

    Raises InvalidSetting for anything else, and for edges below 32 or above 65536 pixels.
    """
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    match = re.fullmatch(r"(\d{1,99})(?:x(\d{1,99}))?", text.strip().lower())
    if not match:
        raise InvalidSetting(f"slice {value!r}: expected pixels such as 640 or 640x512")
    size = (int(match[1]), int(match[2] or match[1]))
    if min(size) < SMALLEST_SLICE:
        raise InvalidSetting(f"slice {value}: tiles need at least {SMALLEST_SLICE} pixels a side")
    if max(size) > LARGEST_SLICE:
        raise InvalidSetting(f"slice {value}: tiles have at most {LARGEST_SLICE} pixels a side")
    return size


def parse_overlap(value: float | str) -> float | int:
    """Overlap of neighbouring tiles: a ratio of the tile size in 0..1 (float), or pixels from "160px" (int).

    Raises InvalidSetting for a negative overlap, a ratio of 1 or more, and anything else.
    """
    text = str(value).strip().lower()
    if match := re.fullmatch(r"(\d{1,9})\s*px", text):
        return int(match[1])
    try:
        ratio = float(text)
    except ValueError:
        raise InvalidSetting(f"overlap {value!r}: expected a ratio such as 0.25 or pixels such as 160px") from None
    if not 0 <= ratio < 1:
        raise InvalidSetting(f"overlap {value}: a ratio lies between 0 and 1; pixels are written 160px")
    return ratio


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """First pixels of the tiles along one axis; the last one is shifted back inside."""
    last = max(length - size, 0)
    return [*range(0, last, size - overlap), last]


def _count(length: int, size: int, overlap: int) -> int:
    """How many these are."""
    return len(range(0, max(length - size, 0), size - overlap)) + 1
