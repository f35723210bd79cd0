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

CHUNK = 1 << 16
"""Candidate pairs looked at together: few enough to stay in the cache."""

BUDGET = 1 << 22
BUDGET_PER_BOX = 8
"""Candidate pairs behind one batch of matches: the first, or the second times the boxes. It bounds a crowd's memory."""


class Entries(NamedTuple):
    """Boxes cut into the strips they cross, in the order of the sweep.

    begin, end: the stretch of the sweep in which boxes that may match it begin. strip: its strip. box: its place in
    `Sweep.boxes`.
    """

    begin: Floats
    end: Floats
    strip: Integers
    box: Integers


class Run(NamedTuple):
    """For each entry of `left`, the `length` entries of `right` from `start` on, which may match it."""

    left: Entries
    right: Entries
    start: Integers
    length: Integers


class Sweep:
    """An index of N boxes. Each box is entered in every strip it crosses; groups have strips of their own.

    boxes: float64 [N, 4], the boxes as neighbours in memory where they are in the frame. rows: int64 [N], which of the
    boxes given each is.
    """

    def __init__(self, boxes: Floats, groups: Integers, shared: Floats | float = 0.0) -> None:
        """boxes: float64 [N, 4], x1 y1 x2 y2, N > 0. groups: int64 [N], from 0; only boxes of one group meet.

        shared: [N, 2], the width and height that a box has at least in common with any that matches it. Pairs that have
        less may be missed, and fewer are looked at.
        """
        # Boxes with that much in common still touch when each gives it up at its right and bottom edge; the shade that
        # is kept outweighs rounding.
        reach = np.maximum(boxes[:, 2:] - boxes[:, :2] - shared * (1 - 1e-6), 0)
        heights = reach[:, 1]
        left, top = boxes[:, :2].min(0)
        right, bottom = boxes[:, 2:].max(0)
        # As tall as the usual box; but a few giants must not fill many strips, nor specks in a wide frame need many.
        height = max(np.median(heights), heights.mean() / 4, (bottom - top) / len(boxes)) or 1.0
        first = np.floor((boxes[:, 1] - top) / height).astype(np.int64)
        last = np.floor((boxes[:, 1] + heights - top) / height).astype(np.int64)
        crossed = last - first + 1
        first += groups * (int(last.max()) + 1)
        self._left, self._span = left, 2 * (right - left) or 1.0
        self.rows = np.argsort(first * self._span + (boxes[:, 0] - left))
        self.boxes = boxes[self.rows]
        self._first, self._crossed, self._reach = first[self.rows], crossed[self.rows], reach[self.rows, 0]

    def within(self, live: NDArray[np.bool_]) -> list[Run]:
        """What may match among the boxes that are `live` (bool [N], by place): each pair once per strip it shares."""
        own = self._entries(live)
        start = np.arange(1, len(own.box) + 1)
        return [Run(own, own, start, np.searchsorted(own.begin, own.end, "right") - start)]

    def between(self, some: NDArray[np.bool_], live: NDArray[np.bool_]) -> list[Run]:
        """The same between the boxes of `some` and those that are `live`: in the first run a pair begins in `some`, in
        the second it ends there."""
        a, b = self._entries(some), self._entries(live)
        start = np.searchsorted(b.begin, a.begin, "left")
        later = np.searchsorted(a.begin, b.begin, "right")
        return [
            Run(a, b, start, np.searchsorted(b.begin, a.end, "right") - start),
            Run(b, a, later, np.searchsorted(a.begin, b.end, "right") - later),
        ]

    def candidates(self, run: Run) -> Iterator[Pairs]:
        """Pairs of boxes (left, right) of a run that share an area, as places in `boxes`, in chunks; each pair once."""
        total = np.cumsum(run.length)
        cuts = np.searchsorted(total, np.arange(CHUNK, total[-1] + CHUNK, CHUNK), "left") + 1
        x1, y1, x2, y2 = self.boxes.T
        for begin, end in pairwise([0, *cuts]):
            index, position = expand(run.start[begin:end], run.length[begin:end])
            a, b = run.left.box[begin:end][index], run.right.box[position]
            # A pair that shares several strips counts in the first of them.
            met = run.left.strip[begin:end][index] == np.maximum(self._first[a], self._first[b])
            a, b = a[met], b[met]
            met = (y1[a] < y2[b]) & (y1[b] < y2[a]) & (x1[a] < x2[b]) & (x1[b] < x2[a])
            yield a[met], b[met]

    def _entries(self, chosen: NDArray[np.bool_]) -> Entries:
        boxes = np.flatnonzero(chosen)
        box, strip = expand(self._first[boxes], self._crossed[boxes])
        box = boxes[box]
        # Rounding keeps the order of sums, so no pair is lost to it.
        begin = strip * self._span + (self.boxes[box, 0] - self._left)
        order = np.argsort(begin)
        begin, strip, box = begin[order], strip[order], box[order]
        end = begin + self._reach[box]
        return Entries(begin, end + 4 * np.spacing(end), strip, box)


def expand(start: Integers, count: Integers) -> Pairs:
    """For runs of `count` numbers from `start` on: the index of the run and the number, for every number in them."""
    index = np.repeat(np.arange(len(count)), count)
    return index, np.arange(len(index)) + np.repeat(start - np.cumsum(count) + count, count)


def connected(count: int, i: Integers, j: Integers) -> Integers:
    """The lowest member of the connected component of each of `count` nodes."""
    lowest = np.arange(count)
    while len(i):
        a, b = lowest[i], lowest[j]
        apart = a != b
        i, j, a, b = i[apart], j[apart], a[apart], b[apart]
        np.minimum.at(lowest, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(lowest, jumped := lowest[lowest]):
            lowest = jumped
    return lowest


def shared_by_matches(boxes: Floats, metric: str, threshold: float) -> Floats:
    """The width and height that each box has at least in common with any that matches it: [N, 2], or [2] for all."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    if metric == "iou":
        return threshold * sizes
    # The smaller of both boxes shares that much of its own sides; what has no area matches nothing.
    return threshold * sizes[(sizes > 0).all(1)].min(0, initial=np.inf)


def batches_of_matches(
    sweep: Sweep, rank: Integers, metric: str, threshold: float, owner: Integers, transitive: bool
) -> Iterator[Pairs]:
    """Batches of matching pairs (i, j), as places in `sweep.boxes`, where i ranks before j.

    rank: int64 [N], 0 for the best box. owner: int64 [N], -1 where a box is not decided; both by place. In each batch
    pairs are ordered by i, then by rank of j; all pairs of an i are in one batch, and those of an i that ranks before
    it in the same or an earlier one. The caller decides boxes between batches: from then on pairs whose j is decided
    stay out, and unless `transitive` those whose i is. Memory is bounded however crowded the boxes are.
    """
    count = len(rank)
    budget = max(BUDGET, BUDGET_PER_BOX * count)
    begin = 0
    while begin < count:
        later = rank >= begin
        live = later & (owner < 0)
        if not live.any():
            return
        some = later if transitive else live
        runs = sweep.within(live) if np.array_equal(some, live) else sweep.between(some, live)
        expected = sum(int(run.length.sum()) for run in runs)
        begin = count
        if expected > budget:
            ranks = np.sort(rank[some])
            # Half the candidates are on the side of the other box.
            ranks = ranks[max(len(ranks) * budget // (2 * expected), 1) :]
            begin = int(ranks[0]) if len(ranks) else count
            runs = sweep.between(some & (rank < begin), live)
        yield _matches(sweep, runs, rank, metric, threshold)


def _matches(sweep: Sweep, runs: list[Run], rank: Integers, metric: str, threshold: float) -> Pairs:
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for nth, run in enumerate(runs):
        for a, b in sweep.candidates(run):
            met = overlap(sweep.boxes[a], sweep.boxes[b], metric) >= threshold
            a, b = a[met], b[met]
            ordered = rank[a] < rank[b]
            if len(runs) == 1:
                found.append((np.where(ordered, a, b), np.where(ordered, b, a)))
            else:
                found.append((b[~ordered], a[~ordered]) if nth else (a[ordered], b[ordered]))
    i, j = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(i << 32 | rank[j])
    return i[order], j[order]
