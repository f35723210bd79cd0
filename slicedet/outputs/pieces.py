"""Pieces: detections are written some thousands at a time, so that memory does not grow with how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slicedet.detections import Detections

PIECE = 10_000
"""Detections in a piece: some megabytes, and less than a second, whatever they are made into."""


def pieces(count: int) -> Iterator[slice]:
    """The rows of `count` detections in their order, PIECE at a time."""
    return (slice(start, min(start + PIECE, count)) for start in range(0, count, PIECE))


def regrouped(parts: Iterable[Detections]) -> Iterator[Detections]:
    """Detections that come in parts of any size, PIECE at a time, so that files do not depend on how they came."""
    waiting: list[Detections] = []
    room = PIECE
    for part in parts:
        while len(part):
            waiting.append(part[:room])
            part = part[room:]
            room -= len(waiting[-1])
            if not room:
                yield Detections.concatenate(waiting)
                waiting, room = [], PIECE
    if waiting:
        yield Detections.concatenate(waiting)
