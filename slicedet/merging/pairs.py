"""Finds the pairs of boxes that match, by a sweep over horizontal strips, in bounded chunks. Knows numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import overlap

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Pairs = tuple[Integers, Integers]

CHUNK = 1 << 18
"""Candidate pairs looked at together: few enough to stay in the cache."""

BUDGET = 1 << 22
"""Candidate pairs behind one batch of matches, which bounds the memory a crowd takes."""

ALL_PAIRS = 64
"""Up to this many boxes, trying all pairs is quicker than sweeping."""


class Entries(NamedTuple):
    """Boxes cut into the strips they cross, in the order of the sweep.

    begin, end: the stretch of the sweep in which boxes that may match it begin. strip: its strip. row: its box.
    """

    begin: Floats
    end: Floats
    strip: Integers
    row: Integers


class Run(NamedTuple):
    """For each entry of `left`, the `count` entries of `right` from `start` on, which may match it."""

    left: Entries
    right: Entries
    start: Integers
    count: Integers


class Sweep:
    """An index of N boxes. Each box is entered in every strip it crosses; groups have strips of their own."""

    def __init__(self, boxes: Floats, groups: Integers) -> None:
        """boxes: float64 [N, 4], x1 y1 x2 y2, N > 0. groups: int64 [N], from 0; only boxes of one group meet."""
        heights = boxes[:, 3] - boxes[:, 1]
        left, top = boxes[:, :2].min(0)
        right, bottom = boxes[:, 2:].max(0)
        # As tall as the usual box; but a few giants must not fill many strips, nor specks in a wide frame need many.
        height = max(np.median(heights), heights.mean() / 4, (bottom - top) / len(boxes)) or 1.0
        self._first = np.floor((boxes[:, 1] - top) / height).astype(np.int64)
        last = np.floor((boxes[:, 3] - top) / height).astype(np.int64)
        self._crossed = last - self._first + 1
        self._first += groups * (int(last.max()) + 1)
        self._begin = boxes[:, 0] - left
        self._width = boxes[:, 2] - boxes[:, 0]
        self._span = 2 * (right - left) or 1.0
        self.boxes = boxes

    def entries(self, rows: Integers, reach: float) -> Entries:
        """The entries of some boxes, sorted; `reach` is how much of its width a box sweeps, 0..1."""
        index, nth = expand(np.zeros(len(rows), np.int64), self._crossed[rows])
        row = rows[index]
        strip = self._first[row] + nth
        begin = strip * self._span + self._begin[row]
        order = np.argsort(begin)
        begin, strip, row = begin[order], strip[order], row[order]
        end = begin + self._width[row] * reach
        return Entries(begin, end + 4 * np.spacing(end), strip, row)

    def within(self, rows: Integers, reach: float = 1.0) -> list[Run]:
        """What may match among `rows`: each pair once for every strip it shares."""
        own = self.entries(rows, reach)
        start = np.arange(1, len(own.row) + 1)
        return [Run(own, own, start, np.searchsorted(own.begin, own.end, "right") - start)]

    def between(self, some: Integers, rows: Integers, reach: float = 1.0) -> list[Run]:
        """What may match between `some` and `rows`: each pair once for every strip it shares, its first box in `some`
        in the first run, its second box in `some` in the second."""
        a, b = self.entries(some, reach), self.entries(rows, reach)
        start = np.searchsorted(b.begin, a.begin, "left")
        later = np.searchsorted(a.begin, b.begin, "right")
        return [
            Run(a, b, start, np.searchsorted(b.begin, a.end, "right") - start),
            Run(b, a, later, np.searchsorted(a.begin, b.end, "right") - later),
        ]

    def candidates(self, run: Run) -> Iterator[Pairs]:
        """Pairs of boxes (left, right) of a run that share an area, in chunks; each pair once."""
        total = np.cumsum(run.count)
        cuts = np.searchsorted(total, np.arange(CHUNK, total[-1] + CHUNK, CHUNK), "left") + 1
        x1, y1, x2, y2 = self.boxes.T
        for begin, end in pairwise([0, *cuts]):
            index, position = expand(run.start[begin:end], run.count[begin:end])
            a, b = run.left.row[begin:end][index], run.right.row[position]
            # A pair that shares several strips counts in the first of them.
            met = run.left.strip[begin:end][index] == np.maximum(self._first[a], self._first[b])
            a, b = a[met], b[met]
            met = (y1[a] < y2[b]) & (y1[b] < y2[a]) & (x1[a] < x2[b]) & (x1[b] < x2[a])
            yield a[met], b[met]


def expand(start: Integers, count: Integers) -> Pairs:
    """For runs of `count` numbers from `start` on: the index of the run and the number, for every number in them."""
    index = np.repeat(np.arange(len(count)), count)
    offset = np.cumsum(count) - count
    return index, np.arange(len(index)) + (start - offset)[index]


def matches_in_order(
    boxes: Floats, groups: Integers, metric: str, threshold: float, owner: Integers, transitive: bool
) -> Iterator[Pairs]:
    """Batches of matching pairs (i, j), i < j, of boxes given best first; ordered by i, then by j.

    owner: int64 [N], -1 where a box is not decided. The caller decides boxes between batches: from then on pairs whose
    j is decided stay out, and unless `transitive` those whose i is. All pairs of an i are in one batch, so when the
    batches after it come, every box up to that i can be decided. Memory is bounded however crowded the boxes are.
    """
    count = len(boxes)
    if count <= ALL_PAIRS:
        i, j = np.triu_indices(count, 1)
        yield _matching(boxes, i, j, metric, threshold, groups)
        return
    sweep = Sweep(boxes, groups)
    reach = 1 - threshold if metric == "iou" else 1.0  # In IoU the overlap is at least `threshold` of either width.
    begin = 0
    while begin < count:
        live = begin + np.flatnonzero(owner[begin:] < 0)
        if not len(live):
            return
        some = np.arange(begin, count) if transitive and begin else live
        runs = sweep.between(some, live, reach) if transitive and begin else sweep.within(live, reach)
        expected = sum(int(run.count.sum()) for run in runs)
        if expected > BUDGET and len(some) > 1:
            # Half the candidates are on the side of the other box.
            some = some[: max(len(some) * BUDGET // (2 * expected), 1)]
            runs = sweep.between(some, live, reach)
        begin = int(some[-1]) + 1
        yield _sorted_matches(sweep, runs, metric, threshold)


def _sorted_matches(sweep: Sweep, runs: list[Run], metric: str, threshold: float) -> Pairs:
    found = []
    for nth, run in enumerate(runs):
        for a, b in sweep.candidates(run):
            if len(runs) == 1:
                i, j = np.minimum(a, b), np.maximum(a, b)
            else:
                i, j = (b, a) if nth else (a, b)
                i, j = i[i < j], j[i < j]
            i, j = _matching(sweep.boxes, i, j, metric, threshold)
            found.append(i * len(sweep.boxes) + j)
    return np.divmod(np.sort(np.concatenate([*found, np.empty(0, np.int64)])), len(sweep.boxes))


def _matching(
    boxes: Floats, i: Integers, j: Integers, metric: str, threshold: float, groups: Integers | None = None
) -> Pairs:
    met = overlap(boxes[i], boxes[j], metric) >= threshold
    if groups is not None:
        met &= groups[i] == groups[j]
    return i[met], j[met]
