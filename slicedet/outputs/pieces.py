"""Pieces: detections are written some thousands at a time, so that memory does not grow with how many there are."""

from __future__ import annotations

from collections.abc import Iterator

PIECE = 50_000
"""Detections in a piece: some ten megabytes, whatever they are made into."""


def pieces(count: int) -> Iterator[slice]:
    """The rows of `count` detections in their order, PIECE at a time."""
    return (slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE))
