"""Agreement merging: unites what two tiles say alike of the pixels that both of them saw; see docs/merging.md."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import area, intersection_area, overlap
from slicedet.merging.claims import Claims
from slicedet.merging.edges import cut_sides, margins, numbered
from slicedet.merging.order import best_first
from slicedet.merging.pairs import BUDGET, BUDGET_PER_BOX, Floats, Integers, Pairs, Sweep, connected, expand

Flags = NDArray[np.bool_]

INSIDE = 0.5
"""Share of a box that must lie inside another object for the box to be a fragment of it."""

SLACK = 0.1
"""How far boxes are blown up when fragments are looked for, as a share of the margin: thin ones go astray."""

UNSEEN = 0.5
"""What is left of a score for every side of the object that no tile saw the end of."""

PARTNERS = 32
"""Agreements kept of each view where there are too many to hold: far more than tiles see any one place."""


class Views(NamedTuple):
    """What tiles say, tile by tile.

    boxes, tiles: float64 [N, 4], the box inside its tile. scores: float64 [N]. rank: int64 [N], lower is better.
    groups: int64 [N], equal where classes may mix. tile_ids: int64 [N], equal where the tile is.
    margins: float64 [N, 1], pixels. cut: bool [N, 4], the sides at an inner edge of the tile.
    """

    boxes: Floats
    tiles: Floats
    scores: Floats
    rank: Integers
    groups: Integers
    tile_ids: Integers
    margins: Floats
    cut: Flags

    def of(self, rows: Integers) -> Views:
        """Some of them."""
        return Views(*(column[rows] for column in self))  # type: ignore[arg-type]


class _Agreements(NamedTuple):
    """Pairs of views i, j, int64 [P], and how well they agree, float64 [P]."""

    iou: Floats
    i: Integers
    j: Integers


class Objects(NamedTuple):
    """What the groups of views stand for, in the row of each group's best view; other rows mean nothing.

    boxes: float64 [N, 4]. unseen: int64 [N], how many sides no member saw the end of.
    """

    boxes: Floats
    unseen: Integers


def unite(
    boxes: Floats, scores: Floats, groups: Integers, tiles: Floats, rank: Integers, frame: Floats, threshold: float
) -> tuple[Integers, Floats, Floats]:
    """The detection that stands for each (itself for the best of an object, -1 for a fragment), boxes and scores.

    boxes, tiles: float64 [N, 4]. scores: float64 [N]. groups: int64 [N], of which only equal ones unite. rank: int64
    [N], 0 for the best detection, each number once. frame: float64 [4], the rectangle that all tiles cover together.
    The boxes and scores returned are those of the objects, for the detections that stand for one.
    """
    tile_ids = numbered(tiles)
    place = np.argsort(tile_ids << 32 | rank)
    views = _views(boxes[place], tiles[place], scores[place], rank[place], groups[place], tile_ids[place], frame)
    statements = numbered(np.stack([views.groups, views.tile_ids], 1))
    speaker, _ = Claims("iou", threshold).make(views.boxes, statements, views.rank)
    kept = np.flatnonzero(speaker == np.arange(len(speaker)))
    views = views.of(kept)
    head = _grouped(views, *_agreeing(views, threshold))
    objects = _objects(views, head)
    spoken = np.empty_like(rank)
    spoken[kept] = np.where(_fragments(views, head, objects)[head], -1, place[kept[head]])
    owner = np.empty_like(rank)
    owner[place] = spoken[speaker]
    boxes, scores = boxes.copy(), scores.copy()
    boxes[place[kept]] = objects.boxes
    scores[place[kept]] = views.scores * UNSEEN**objects.unseen
    return owner, boxes, scores


def _views(
    boxes: Floats, tiles: Floats, scores: Floats, rank: Integers, groups: Integers, tile_ids: Integers, frame: Floats
) -> Views:
    boxes = np.clip(boxes, np.tile(tiles[:, :2], 2), np.tile(tiles[:, 2:], 2))
    return Views(boxes, tiles, scores, rank, groups, tile_ids, margins(tiles), cut_sides(boxes, tiles, frame))


def _agreeing(views: Views, threshold: float) -> Pairs:
    """Pairs of views of different tiles that agree on what both tiles saw, best agreement first."""
    count, crowded = 0, False
    parts = [_Agreements(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))]
    if len(views.boxes):
        sweep = Sweep(views.boxes, views.groups)
        near = views.of(sweep.rows)
        (run,) = sweep.within(np.ones(len(sweep.rows), bool))
        most = max(BUDGET // 4, BUDGET_PER_BOX * len(sweep.rows))
        for a, b in sweep.candidates(run):
            other = near.tile_ids[a] != near.tile_ids[b]
            a, b = a[other], b[other]
            iou = _agreement(near, a, b)
            agreed = iou >= threshold
            parts.append(_Agreements(iou[agreed], sweep.rows[a[agreed]], sweep.rows[b[agreed]]))
            count += int(agreed.sum())
            if count > most:
                parts, crowded = [_strongest(_best_agreements(parts, views.rank))], True
                count = len(parts[0].iou)
    found = _best_agreements(parts, views.rank)
    # Left out early or late, the same remain: what is among a view's best of all is so among those of any part.
    found = _strongest(found) if crowded else found
    return found.i, found.j


def _agreement(views: Views, a: Integers, b: Integers) -> Floats:
    """IoU of views on what both their tiles saw; 0 where it shows no side that both have."""
    low, high = np.maximum(views.tiles[a, :2], views.tiles[b, :2]), np.minimum(views.tiles[a, 2:], views.tiles[b, 2:])
    shared = np.concatenate([low, high], 1)
    part_a, part_b = (np.clip(views.boxes[view], np.tile(low, 2), np.tile(high, 2)) for view in (a, b))
    margins = np.minimum(views.margins[a], views.margins[b])
    # Boxes that both fill all that was shared agree on nothing.
    visible = ((np.abs(part_a - shared) > margins) & (np.abs(part_b - shared) > margins)).any(1)
    return np.where(visible, overlap(part_a, part_b, "iou"), 0)


def _best_agreements(parts: list[_Agreements], rank: Integers) -> _Agreements:
    iou, i, j = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = best_first(iou, np.minimum(rank[i], rank[j]), np.maximum(rank[i], rank[j]))
    return _Agreements(iou[order], i[order], j[order])


def _strongest(found: _Agreements) -> _Agreements:
    """Of agreements, best first, those that are among the `PARTNERS` best of one of both views."""
    pair = np.tile(np.arange(len(found.i)), 2)
    view = np.concatenate([found.i, found.j])
    order = np.argsort(view << 32 | pair)
    begins = np.flatnonzero(np.diff(view[order], prepend=-1))
    nth = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    kept = np.unique(pair[order[nth < PARTNERS]])
    return _Agreements(found.iou[kept], found.i[kept], found.j[kept])


def _grouped(views: Views, i: Integers, j: Integers) -> Integers:
    """The best view of each view's group, when groups grow pair by pair but never hold two views of one tile."""
    head = connected(len(views.boxes), i, j)
    # Where all that is connected comes from different tiles, the order of the pairs does not matter.
    tiles = int(views.tile_ids.max(initial=0)) + 1
    held = np.sort(head * tiles + views.tile_ids)
    contested = np.isin(head, held[1:][held[1:] == held[:-1]] // tiles)
    head[contested] = np.flatnonzero(contested)
    fought = contested[i]
    _grow(head, views.tile_ids, i[fought], j[fought])
    best = np.full(len(head), np.iinfo(np.int64).max)
    np.minimum.at(best, head, views.rank)
    is_best = np.flatnonzero(best[head] == views.rank)
    first = np.empty_like(head)
    first[head[is_best]] = is_best
    return first[head]


def _grow(group: Integers, tile_ids: Integers, i: Integers, j: Integers) -> None:
    """Unite the groups of each pair, in order, unless both hold a view of one tile. Changes `group`."""
    members = np.arange(len(group))  # Rings: each view points at the next of its group.
    marks = np.full(int(tile_ids.max(initial=0)) + 1, -1)
    label, ring, mark, tile = group.data, members.data, marks.data, tile_ids.data
    for turn, (a, b) in enumerate(zip(i.data, j.data, strict=True)):
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
    is_head = head == np.arange(len(head))
    pieces, complete = is_head & (objects.unseen > 0), is_head & (objects.unseen == 0)
    fragment = np.zeros(len(head), bool)
    if not pieces.any() or not complete.any():
        return fragment
    heads = np.flatnonzero(is_head)
    members = np.argsort(head)
    begin, count = np.searchsorted(head[members], heads), np.bincount(head, minlength=len(head))[heads]
    tiles = int(views.tile_ids.max()) + 1
    held = np.sort(head * tiles + views.tile_ids)
    boxes = objects.boxes + SLACK * views.margins * [-1, -1, 1, 1]
    sweep = Sweep(boxes, views.groups)
    for nth, run in enumerate(sweep.between(pieces[sweep.rows], complete[sweep.rows])):
        for a, b in sweep.candidates(run):
            piece, whole = sweep.rows[b if nth else a], sweep.rows[a if nth else b]
            share = intersection_area(boxes[piece], boxes[whole]) / area(boxes[piece])
            piece, whole = piece[share >= INSIDE], whole[share >= INSIDE]
            at = np.searchsorted(heads, piece)
            pair, position = expand(begin[at], count[at])
            key = whole[pair] * tiles + views.tile_ids[members[position]]
            # A tile that saw both said that they are two objects.
            both = held[np.minimum(np.searchsorted(held, key), len(held) - 1)] == key
            fragment[piece[np.bincount(pair[both], minlength=len(piece)) == 0]] = True
    return fragment
