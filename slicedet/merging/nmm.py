"""Non-maximum merging: the best box takes in what it matches and grows to enclose it."""

from __future__ import annotations

import numpy as np

from slicedet.merging.pairs import Floats, Integers, matches_in_order


def absorb(boxes: Floats, groups: Integers, metric: str, threshold: float, transitive: bool) -> tuple[Integers, Floats]:
    """For boxes given best first: the keeper that takes each (itself for a keeper), and the boxes with keepers grown.

    Boxes are visited best first. One that is still live becomes a keeper. It is offered, best first, the live boxes
    after it that match its own box, and takes those that also match what it has grown to. Where it does not, the box
    stays live: a later keeper may take it, or it becomes a keeper when its turn comes.
    If `transitive`, a box that was taken is visited as well, and what matches it is offered to its keeper.
    """
    owner = np.full(len(boxes), -1)
    grown = np.ascontiguousarray(boxes.T)
    for i, j in matches_in_order(boxes, groups, metric, threshold, owner, transitive):
        _walk(i, j, owner, grown, metric == "iou", threshold, transitive)
    return np.where(owner < 0, np.arange(len(owner)), owner), grown.T


def _walk(
    i: Integers, j: Integers, owner: Integers, grown: Floats, union: bool, threshold: float, transitive: bool
) -> None:
    """Offer each box of `j` to the keeper of the box of `i`, in order. Every offer hangs on those before, so one by one."""
    keeper_of = memoryview(owner)
    x1, y1, x2, y2 = (memoryview(column) for column in grown)
    for a, b in zip(memoryview(i), memoryview(j), strict=True):
        if keeper_of[b] >= 0:
            continue
        keeper = keeper_of[a]
        if keeper < 0:
            keeper = keeper_of[a] = a
        elif keeper != a and not transitive:
            continue
        left, top, right, bottom = x1[keeper], y1[keeper], x2[keeper], y2[keeper]
        begin, over, end, under = x1[b], y1[b], x2[b], y2[b]
        area, other = (right - left) * (bottom - top), (end - begin) * (under - over)
        width = (right if right < end else end) - (left if left > begin else begin)
        height = (bottom if bottom < under else under) - (top if top > over else over)
        shared = width * height  # Both are positive: the keeper encloses a box that matches this one.
        whole = area + other - shared if union else (area if area < other else other)
        if shared / whole >= threshold:
            keeper_of[b] = keeper
            x1[keeper], y1[keeper] = (left if left < begin else begin), (top if top < over else over)
            x2[keeper], y2[keeper] = (right if right > end else end), (bottom if bottom > under else under)
