"""Merging while tiles still come: what no later tile can touch is merged and let go. Knows numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.merging import Frame, MergeRule
from slicedet.merging.agreement import SLACK
from slicedet.merging.edges import MARGIN
from slicedet.merging.pairs import Floats, Integers, Sweep, connected

ENOUGH = 20_000
"""Detections that must have come before another round of merging pays."""


class Settled(NamedTuple):
    """detections: what remains of those that are settled. given: int64 [N], which these were, counted from 0 in the
    order they were added. rows: int64 [N], the row of `detections` each went into, -1 for none."""

    detections: Detections
    given: Integers
    rows: Integers


class GradualMerge:
    """`MergeRule.trace` for detections that come from the top of a frame to its bottom, in bounded memory.

    Detections whose boxes touch, directly or through others, are merged in one round, so that the boxes are those of
    one merging of all.
    """

    def __init__(self, rule: MergeRule, frame: Frame) -> None:
        self._rule = rule
        self._frame = frame
        self._parts: list[Detections] = []
        self._given: list[Integers] = []
        self._reach = 0.0
        self._added = 0
        self._waiting = 0
        self._fresh = 0

    def add(self, detections: Detections, later: float) -> Settled | None:
        """Takes the detections of some tiles; what comes afterwards lies in tiles that begin at y = `later` or below.

        Gives what is settled, from time to time.
        """
        count = len(detections)
        if count:
            self._parts.append(detections)
            self._given.append(np.arange(self._added, self._added + count))
            self._added += count
            self._waiting += count
            self._fresh += count
            if detections.tiles is not None:
                self._reach = max(self._reach, float((detections.tiles[:, 2:] - detections.tiles[:, :2]).max()))
        # As many as already wait, so that the whole costs no more than a few times the number of detections.
        if self._fresh < max(ENOUGH, self._waiting - self._fresh):
            return None
        waiting, given = self._taken()
        # Agreement also asks for fragments a little beside a box, both blown up; rounding is far below a pixel. More
        # would chain what stands in rows, such as parked cars, and nothing of a large field would ever be settled.
        slack = 2 * SLACK * MARGIN * self._reach + 1
        settled = above(waiting.boxes.astype(np.float64), later, slack)
        self._parts, self._given = [waiting[~settled]], [given[~settled]]
        self._waiting = len(self._parts[0])
        return self._merged(waiting[settled], given[settled])

    def finish(self) -> Settled:
        """All that still waits, settled."""
        return self._merged(*self._taken())

    def _taken(self) -> tuple[Detections, Integers]:
        waiting = Detections.concatenate(self._parts), np.concatenate([np.empty(0, np.int64), *self._given])
        self._parts, self._given, self._waiting, self._fresh = [], [], 0, 0
        return waiting

    def _merged(self, detections: Detections, given: Integers) -> Settled:
        merged, rows = self._rule.trace(detections, self._frame)
        return Settled(merged, given, rows)


def above(boxes: Floats, line: float, slack: float) -> NDArray[np.bool_]:
    """Which boxes belong to a cluster that ends above y = `line`: bool [N].

    boxes: float64 [N, 4]. Boxes nearer to each other than `slack` pixels are of one cluster, and so are clusters whose
    bounding boxes are.
    """
    bounds = boxes + np.array([-slack, -slack, slack, slack]) / 2
    cluster = np.arange(len(boxes))
    while len(bounds):
        lowest, number = np.unique(_touching(bounds), return_inverse=True)
        if len(lowest) == len(bounds):
            break
        hulls = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(lowest), 1))
        np.minimum.at(hulls[:, :2], number, bounds[:, :2])
        np.maximum.at(hulls[:, 2:], number, bounds[:, 2:])
        bounds, cluster = hulls, number[cluster]
    return bounds[cluster, 3] + slack / 2 < line


def _touching(bounds: Floats) -> Integers:
    """The lowest member of each box's cluster of overlapping boxes."""
    lowest = np.arange(len(bounds))
    sweep = Sweep(bounds, np.zeros(len(bounds), np.int64))
    for run in sweep.within(np.ones(len(bounds), bool)):
        for a, b in sweep.candidates(run):
            i, j = lowest[sweep.rows[a]], lowest[sweep.rows[b]]
            lowest = connected(len(bounds), i, j)[lowest]
    return lowest
