"""Pile: detections of a whole scene as they come, in few large pieces of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.merging.order import best_first

SMALLEST, LARGEST = 1 << 14, 1 << 20
"""Rows of one piece: as many as there are already, within these. Millions of detections in thousands of small arrays
would leave the memory between them unusable."""

Array = NDArray[Any]


class Pile:
    """Detections one after the other, to be taken all at once."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Array]] = {}
        self._room = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, detections: Detections) -> None:
        """Adds detections, which have a tile each, all or none of them."""
        while len(detections):
            if not self._room:
                self._room = min(max(self._count, SMALLEST), LARGEST)
                self._grow(detections, self._room)
            part, detections = detections[: self._room], detections[self._room :]
            for name, pieces in self._columns.items():
                begin = len(pieces[-1]) - self._room
                pieces[-1][begin : begin + len(part)] = getattr(part, name)
            self._room -= len(part)
            self._count += len(part)

    def take(self) -> tuple[Detections, NDArray[np.int64]]:
        """All of them, best score first, ties by coordinates; and the place that each had in the pile, which is empty
        afterwards."""
        columns: dict[str, Any] = {}
        for name, pieces in self._columns.items():
            pieces[-1] = pieces[-1][: len(pieces[-1]) - self._room]
            columns[name] = np.concatenate(pieces)
            pieces.clear()
        self._columns, self._room, self._count = {}, 0, 0
        if not columns:
            return Detections.empty(), np.empty(0, np.int64)
        order = best_first(columns["scores"], columns["boxes"], columns["category_ids"])
        for values in columns.values():
            # One number of each at a time: a second copy of millions of boxes would be most of the memory of a search.
            for numbers in values.reshape(len(order), -1).T:
                numbers[:] = numbers[order]
        return Detections(**columns), order

    def _grow(self, like: Detections, rows: int) -> None:
        for name in ("boxes", "scores", "category_ids", "tiles"):
            values = getattr(like, name)
            if values is not None:
                self._columns.setdefault(name, []).append(np.empty((rows, *values.shape[1:]), values.dtype))
