"""Agreement merging: unites what two tiles say alike of the pixels that both of them saw. docs/merging.md has the rule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import area, intersection_area, overlap
from slicedet.merging.nms import suppressors
from slicedet.merging.pairs import Floats, Integers, Sweep, expand

Flags = NDArray[np.bool_]

MARGIN = 0.02
"""How near an edge still counts as at it, as a share of the tile's longer side: detectors place cut edges badly."""

INSIDE = 0.5
"""Share of a box that must lie inside another object for the box to be a fragment of it."""

SLACK = 0.1
"""How far boxes are blown up when fragments are looked for, as a share of the margin: a sliver may be misplaced by itself."""

UNSEEN = 0.5
"""What is left of a score for every side of the object that no tile saw the end of."""


class Views(NamedTuple):
    """What tiles say, best score first, each box inside its tile.

    boxes, tiles: float64 [N, 4]. scores: float64 [N]. groups: int64 [N], equal where classes may mix.
    tile_ids: int64 [N], equal where the tile is. margins: float64 [N, 1] pixels. cut: bool [N, 4], sides at an inner edge.
    """

    boxes: Floats
    scores: Floats
    groups: Integers
    tiles: Floats
    tile_ids: Integers
    margins: Floats
    cut: Flags

    def of(self, rows: Integers) -> Views:
        """Some of them."""
        return Views(*(column[rows] for column in self))


class Objects(NamedTuple):
    """What the groups of views stand for, in the row of each group's best view; other rows mean nothing.

    boxes: float64 [N, 4]. unseen: int64 [N], how many sides no member saw the end of.
    """

    boxes: Floats
    unseen: Integers


def unite(
    boxes: Floats, scores: Floats, groups: Integers, tiles: Floats, frame: Floats, threshold: float
) -> tuple[Integers, Floats, Floats]:
    """For detections given best first: the detection that stands for each (-1 for a fragment), boxes and scores.

    boxes, tiles: float64 [N, 4]. scores: float64 [N]. groups: int64 [N], of which only equal ones unite.
    frame: float64 [4], the rectangle that all tiles cover together. Boxes and scores of those that stand for others
    are those of the object.
    """
    views = _views(boxes, scores, groups, tiles, frame)
    speaker = suppressors(views.boxes, _numbered(np.stack([groups, views.tile_ids], 1)), "iou", threshold)
    kept = np.flatnonzero(speaker == np.arange(len(boxes)))
    said = views.of(kept)
    i, j = _agreeing(said, threshold)
    head = _grouped(said, i, j)
    objects = _objects(said, head)
    owner = np.where(_fragments(said, head, objects)[head], -1, kept[head])
    position = np.zeros(len(boxes), np.int64)
    position[kept] = np.arange(len(kept))
    boxes, scores = boxes.copy(), scores.copy()
    boxes[kept] = objects.boxes
    scores[kept] = said.scores * UNSEEN**objects.unseen
    return owner[position[speaker]], boxes, scores


def _views(boxes: Floats, scores: Floats, groups: Integers, tiles: Floats, frame: Floats) -> Views:
    boxes = np.clip(boxes, np.tile(tiles[:, :2], 2), np.tile(tiles[:, 2:], 2))
    margins = MARGIN * (tiles[:, 2:] - tiles[:, :2]).max(1, keepdims=True)
    # A tile's edge is inner when it is a pixel or more inside the frame; less is the rounding of resampled tiles.
    inner = np.concatenate([tiles[:, :2] >= frame[:2] + 1, tiles[:, 2:] <= frame[2:] - 1], 1)
    return Views(boxes, scores, groups, tiles, _numbered(tiles), margins, inner & (np.abs(boxes - tiles) <= margins))


def _numbered(rows: NDArray[np.generic]) -> Integers:
    """A number for each row of a table [N, K], equal where the rows are; by the rows' values, whatever their order."""
    numbers = np.zeros(len(rows), np.int64)
    for column in rows.T:
        values, inverse = np.unique(column, return_inverse=True)
        numbers = np.unique(numbers * len(values) + inverse, return_inverse=True)[1]
    return numbers


def _agreeing(views: Views, threshold: float) -> tuple[Integers, Integers]:
    """Pairs of views of different tiles that agree on what both tiles saw, best agreement first."""
    if not len(views.boxes):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    sweep = Sweep(views.boxes, views.groups)
    found = []
    for run in sweep.within(np.arange(len(views.boxes))):
        for a, b in sweep.candidates(run):
            a, b = np.minimum(a, b), np.maximum(a, b)
            other = views.tile_ids[a] != views.tile_ids[b]
            a, b = a[other], b[other]
            low = np.maximum(views.tiles[a, :2], views.tiles[b, :2])
            high = np.minimum(views.tiles[a, 2:], views.tiles[b, 2:])
            shared = np.concatenate([low, high], 1)
            parts = [np.clip(views.boxes[view], np.tile(low, 2), np.tile(high, 2)) for view in (a, b)]
            iou = overlap(*parts, "iou")
            # Boxes that both fill what was shared agree on nothing: some side must be visible in both.
            margins = np.minimum(views.margins[a], views.margins[b])
            visible = np.logical_and(*(np.abs(part - shared) > margins for part in parts)).any(1)
            agreed = (iou >= threshold) & visible
            found.append(np.stack([-iou[agreed], a[agreed], b[agreed]]))
    agreement, i, j = np.concatenate([*found, np.empty((3, 0))], 1)
    order = np.lexsort([j, i, agreement])
    return i[order].astype(np.int64), j[order].astype(np.int64)


def _grouped(views: Views, i: Integers, j: Integers) -> Integers:
    """The best view of each view's group, when groups grow pair by pair but never hold two views of one tile."""
    head = _connected(len(views.boxes), i, j)
    # Where all that is connected comes from different tiles, the order of the pairs does not matter.
    pairs, counts = np.unique(np.stack([head, views.tile_ids], 1), axis=0, return_counts=True)
    contested = np.zeros(len(head), bool)
    contested[pairs[counts > 1, 0]] = True
    contested = contested[head]
    head[contested] = np.flatnonzero(contested)
    fought = contested[i]
    _grow(head, views.tile_ids, i[fought], j[fought])
    best = np.arange(len(head))
    np.minimum.at(best, head, np.arange(len(head)))
    return best[head]


def _connected(count: int, i: Integers, j: Integers) -> Integers:
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


def _grow(group: Integers, tile_ids: Integers, i: Integers, j: Integers) -> None:
    """Unite the groups of each pair, in order, unless both hold a view of one tile. Changes `group`."""
    members = np.arange(len(group))  # Rings: each view points at the next of its group.
    marks = np.full(int(tile_ids.max(initial=0)) + 1, -1)
    label, ring, mark, tile = memoryview(group), memoryview(members), memoryview(marks), memoryview(tile_ids)
    for turn, (a, b) in enumerate(zip(memoryview(i), memoryview(j), strict=True)):
        if label[a] == label[b]:
            continue
        member = a
        while True:
            mark[tile[member]] = turn
            member = ring[member]
            if member == a:
                break
        member = b
        while mark[tile[member]] != turn:
            member = ring[member]
            if member == b:
                break
        if mark[tile[member]] == turn:
            continue
        while True:
            label[member] = label[a]
            member = ring[member]
            if member == b:
                break
        ring[a], ring[b] = ring[b], ring[a]


def _objects(views: Views, head: Integers) -> Objects:
    """The object that each group saw."""
    boxes, margins, cut = views.boxes, views.margins, views.cut
    low, high = boxes[:, :2].copy(), boxes[:, 2:].copy()
    reached_low, reached_high = low + margins, high - margins
    np.minimum.at(low, head, boxes[:, :2])
    np.maximum.at(high, head, boxes[:, 2:])
    np.minimum.at(reached_low, head, boxes[:, :2] + margins)
    np.maximum.at(reached_high, head, boxes[:, 2:] - margins)
    # Detectors pull cut edges inwards: a box that others continue beyond its tile is cut, whatever it looks like.
    confined = (reached_low[head] >= views.tiles[:, :2]).all(1) & (reached_high[head] <= views.tiles[:, 2:]).all(1)
    whole = ~cut.any(1) & confined
    # Larger tiles enter the network at a coarser resolution: the finest whole boxes decide.
    finest = np.full(len(boxes), np.inf)
    np.minimum.at(finest, head[whole], margins[whole, 0])
    whole &= margins[:, 0] <= finest[head] * 1.01
    weights = np.maximum(views.scores, 1e-6) * whole
    total, mean = np.zeros(len(boxes)), np.zeros_like(boxes)
    np.add.at(total, head, weights)
    np.add.at(mean, head, boxes * weights[:, None])
    hull = np.concatenate([low, high], 1)
    is_whole = total > 0
    seen = np.zeros((len(boxes), 4), bool)
    np.logical_or.at(seen, head, ~cut & (np.abs(boxes - hull[head]) <= margins))
    joined = np.where(is_whole[:, None], mean / np.where(is_whole, total, 1)[:, None], hull)
    return Objects(joined, np.where(is_whole, 0, 4 - seen.sum(1)))


def _fragments(views: Views, head: Integers, objects: Objects) -> Flags:
    """Whether the group in each row is a piece that lies mostly inside an object of which other tiles saw all sides."""
    heads = np.flatnonzero(head == np.arange(len(head)))
    pieces, complete = heads[objects.unseen[heads] > 0], heads[objects.unseen[heads] == 0]
    fragment = np.zeros(len(head), bool)
    if not len(pieces) or not len(complete):
        return fragment
    members = np.argsort(head)
    begin, count = np.searchsorted(head[members], heads), np.bincount(head, minlength=len(head))[heads]
    tiles = int(views.tile_ids.max()) + 1
    held = np.sort(head * tiles + views.tile_ids)
    boxes = objects.boxes + SLACK * views.margins * [-1, -1, 1, 1]
    sweep = Sweep(boxes, views.groups)
    for nth, run in enumerate(sweep.between(pieces, complete)):
        for a, b in sweep.candidates(run):
            piece, whole = (b, a) if nth else (a, b)
            share = intersection_area(boxes[piece], boxes[whole]) / area(boxes[piece])
            piece, whole = piece[share >= INSIDE], whole[share >= INSIDE]
            at = np.searchsorted(heads, piece)
            pair, position = expand(begin[at], count[at])
            key = whole[pair] * tiles + views.tile_ids[members[position]]
            # A tile that saw both said that they are two objects.
            both = held[np.minimum(np.searchsorted(held, key), len(held) - 1)] == key
            fragment[piece[np.bincount(pair[both], minlength=len(piece)) == 0]] = True
    return fragment
