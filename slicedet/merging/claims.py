"""The greedy walk behind NMS and both kinds of NMM: the best box claims those that match it, then the next one does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import overlap
from slicedet.merging.pairs import Floats, Integers, Pairs, Sweep, batches_of_matches, shared_by_matches

ALL_PAIRS = 64
"""Up to this many boxes, trying all pairs is quicker than sweeping."""

STEPS = 32
"""Claims of one keeper that are settled side by side with those of others; more are rare, and wait for the walk."""


@lru_cache(ALL_PAIRS + 1)
def _all_pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(count, 1)


class Pieces(NamedTuple):
    """Of boxes: tile_ids, int64 [N], the tile of each; cut, bool [N], whether an inner edge of that tile cuts it."""

    tile_ids: Integers
    cut: NDArray[np.bool_]

    def of(self, rows: Integers) -> Pieces:
        """Those of some boxes."""
        return Pieces(self.tile_ids[rows], self.cut[rows])


@dataclass(frozen=True)
class Claims:
    """How boxes are claimed.

    Boxes are visited by rank. One that is still live becomes a keeper. It is offered, by rank, the live boxes after it
    that match its own box, and takes them. Boxes match where `slicedet.boxes.overlap(a, b, metric) >= threshold` (above
    0) and their groups are the same.
    grow: a keeper takes only boxes that also match what it has grown to, and grows to enclose them. A box it refuses
    stays live: a later keeper may take it, or it becomes a keeper when its turn comes.
    transitive: a box that was taken is visited as well, and what matches it is offered to its keeper.
    """

    metric: str
    threshold: float
    grow: bool = False
    transitive: bool = False

    def make(
        self, boxes: Floats, groups: Integers, rank: Integers, pieces: Pieces | None = None
    ) -> tuple[Integers, Floats]:
        """The keeper that takes each box (itself for a keeper), and the boxes with keepers grown.

        boxes: float64 [N, 4]. groups: int64 [N], from 0. rank: int64 [N], 0 for the best box, each number once.
        pieces: if given, a keeper grows only if its tile cuts it, and only by boxes of other tiles.
        """
        if len(boxes) <= ALL_PAIRS:
            order = np.argsort(rank)
            first, second = _all_pairs(len(boxes))
            i, j = order[first], order[second]
            met = (groups[i] == groups[j]) & (overlap(boxes[i], boxes[j], self.metric) >= self.threshold)
            walk = _Walk(self, boxes.copy(), rank, pieces)
            walk.one_by_one(i[met], j[met])
            return walk.owners(), walk.boxes
        sweep = Sweep(boxes, groups, shared_by_matches(boxes, self.metric, self.threshold))
        walk = _Walk(self, sweep.boxes.copy(), rank[sweep.rows], None if pieces is None else pieces.of(sweep.rows))
        for i, j in batches_of_matches(
            sweep, walk.rank, self.metric, self.threshold, walk.owner, transitive=self.transitive
        ):
            i, j = walk.side_by_side(i, j)
            order = np.argsort(walk.rank[i] << 32 | walk.rank[j])
            walk.one_by_one(i[order], j[order])
        owner, grown = np.empty_like(walk.owner), np.empty_like(boxes)
        owner[sweep.rows] = sweep.rows[walk.owners()]
        grown[sweep.rows] = walk.boxes
        return owner, grown


class _Walk:
    """Claims being made. boxes: float64 [N, 4]. owner: int64 [N], -1 where a box is not decided."""

    def __init__(self, rule: Claims, boxes: Floats, rank: Integers, pieces: Pieces | None) -> None:
        self.rule, self.boxes, self.rank, self.pieces = rule, boxes, rank, pieces
        self.owner = np.full(len(boxes), -1)

    def owners(self) -> Integers:
        """The owner of each box; what nobody claimed is a keeper."""
        return np.where(self.owner < 0, np.arange(len(self.owner)), self.owner)

    def side_by_side(self, i: Integers, j: Integers) -> Pairs:
        """Settle most pairs (i, j), given by i and then by rank of j, and return those that are left."""
        while len(i):
            before = len(i)
            settled = self._settle(i, j)
            undecided = ~settled & (self.owner[j] < 0)
            if not self.rule.transitive:
                undecided &= self._may_keep(i)
            i, j = i[undecided], j[undecided]
            if len(i) > before // 2:
                break
        return i, j

    def _may_keep(self, i: Integers) -> NDArray[np.bool_]:
        owner = self.owner[i]
        return (owner < 0) | (owner == i)

    def _settle(self, i: Integers, j: Integers) -> NDArray[np.bool_]:
        """Make the claims that hang on no others: those of keepers that are the best match of all they match.

        They can be made for all such keepers at once, first their best ones, then their second best. Returns which
        pairs that settles.
        """
        nobody = len(self.rank)
        best = np.full(nobody, nobody)
        np.minimum.at(best, j, self.rank[i])
        begins = np.flatnonzero(np.diff(i, prepend=-1))
        ends = np.append(begins[1:], len(i))
        shared = np.add.reduceat(best[j] != self.rank[i], begins) > 0
        free = ~shared & (best[i[begins]] == nobody) & self._may_keep(i[begins])
        at, ends = begins[free], ends[free]
        self.owner[i[at]] = i[at]
        settled = np.zeros(len(i), bool)
        for _ in range(STEPS):
            settled[at] = True
            keeper, offered = i[at], j[at]
            if self.rule.grow:
                a, b = self.boxes[keeper], self.boxes[offered]
                taken = overlap(a, b, self.rule.metric) >= self.rule.threshold
                grows = taken if self.pieces is None else taken & self._continues(keeper, offered, self.pieces)
                self.boxes[keeper[grows]] = np.concatenate(
                    [np.minimum(a, b)[grows, :2], np.maximum(a, b)[grows, 2:]], 1
                )
                keeper, offered = keeper[taken], offered[taken]
            self.owner[offered] = keeper
            more = at + 1 < ends
            at, ends = at[more] + 1, ends[more]
            if not len(at):
                break
        return settled

    @staticmethod
    def _continues(keeper: Integers, offered: Integers, pieces: Pieces) -> NDArray[np.bool_]:
        """Whether a tile cuts the keeper, and another one saw what it is offered."""
        return pieces.cut[keeper] & (pieces.tile_ids[keeper] != pieces.tile_ids[offered])

    def one_by_one(self, i: Integers, j: Integers) -> None:
        """Offer each box of `j` to the keeper of the box of `i`, in order: every offer may hang on those before."""
        if not len(i):
            return
        grow, transitive, threshold = self.rule.grow, self.rule.transitive, self.rule.threshold
        union = self.rule.metric == "iou"
        columns = np.ascontiguousarray(self.boxes.T)
        keeper_of = self.owner.data
        x1, y1, x2, y2 = (column.data for column in columns)
        guarded = self.pieces is not None
        if self.pieces is not None:
            cut, tile = self.pieces.cut.data, self.pieces.tile_ids.data
        for a, b in zip(i.data, j.data, strict=True):
            if keeper_of[b] >= 0:
                continue
            keeper = keeper_of[a]
            if keeper < 0:
                keeper = keeper_of[a] = a
            elif keeper != a and not transitive:
                continue
            if grow:
                left, top, right, bottom = x1[keeper], y1[keeper], x2[keeper], y2[keeper]
                begin, over, end, under = x1[b], y1[b], x2[b], y2[b]
                area, other = (right - left) * (bottom - top), (end - begin) * (under - over)
                width = (right if right < end else end) - (left if left > begin else begin)
                height = (bottom if bottom < under else under) - (top if top > over else over)
                if width <= 0 or height <= 0:
                    continue  # It matches a box that the keeper took without growing.
                shared = width * height
                if shared / (area + other - shared if union else (area if area < other else other)) < threshold:
                    continue
                if guarded and not (cut[keeper] and tile[keeper] != tile[b]):
                    keeper_of[b] = keeper
                    continue
                x1[keeper], y1[keeper] = (left if left < begin else begin), (top if top < over else over)
                x2[keeper], y2[keeper] = (right if right > end else end), (bottom if bottom > under else under)
            keeper_of[b] = keeper
        self.boxes = np.ascontiguousarray(columns.T)
