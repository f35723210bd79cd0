"""Agreement merging written as plainly as possible, one view at a time: what the fast code must equal."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference import Box, overlap, union

from slicedet.detections import Detections

MARGIN, INSIDE, SLACK, UNSEEN = 0.02, 0.5, 0.1, 0.5


@dataclass
class View:
    """One detection: `row` in the input, `box` within `tile`."""

    row: int
    box: Box
    tile: Box
    score: float
    category: int

    @property
    def margin(self) -> float:
        return MARGIN * max(self.tile[2] - self.tile[0], self.tile[3] - self.tile[1])


@dataclass
class Group:
    """Views of one object, best first, and what they make of it."""

    views: list[View]
    box: Box = (0, 0, 0, 0)
    unseen: int = 0
    rows: list[int] = field(default_factory=list)


def merge(found: Detections, frame: tuple[float, float], threshold: float, class_agnostic: bool) -> list[Group]:
    """The objects that remain, in no order; `rows` are the detections of the input that each is made of."""
    tiles = found.tiles.tolist()
    order = sorted(
        range(len(found)),
        key=lambda row: (-found.scores[row], found.boxes[row].tolist(), found.category_ids[row], tiles[row]),
    )
    views = []
    for row in order:
        tile, box = tuple(tiles[row]), found.boxes[row].tolist()
        clipped = tuple(min(max(box[side], tile[side % 2]), tile[side % 2 + 2]) for side in range(4))
        views.append(View(row, clipped, tile, float(found.scores[row]), int(found.category_ids[row])))
    alike = (lambda a, b: True) if class_agnostic else (lambda a, b: a.category == b.category)

    # A tile says each object once.
    said: list[View] = []
    repeats: dict[int, list[int]] = {}
    for view in views:
        for other in said:
            if other.tile == view.tile and alike(view, other) and overlap(view.box, other.box, "iou") >= threshold:
                repeats[other.row].append(view.row)
                break
        else:
            said.append(view)
            repeats[view.row] = [view.row]

    pairs = []
    for i, a in enumerate(said):
        for j in range(i + 1, len(said)):
            b = said[j]
            if a.tile != b.tile and alike(a, b):
                value = agreement(a, b)
                if value >= threshold:
                    pairs.append((-value, i, j))
    groups = [Group([view]) for view in said]
    group_of = list(range(len(said)))
    for _, i, j in sorted(pairs):
        a, b = groups[group_of[i]], groups[group_of[j]]
        if a is b or {view.tile for view in a.views} & {view.tile for view in b.views}:
            continue
        target = group_of[i]
        a.views += b.views
        group_of = [target if groups[number] is b else number for number in group_of]
    final = [groups[number] for number in sorted(set(group_of))]
    for group in final:
        group.views.sort(key=said.index)
        group.rows = [row for view in group.views for row in repeats[view.row]]
        describe(group, frame)
    return [group for group in final if not any(fragment(group, other, alike) for other in final)]


def agreement(a: View, b: View) -> float:
    """IoU of what both tiles saw, 0 where no side of both is visible there."""
    shared = (*(max(a.tile[s], b.tile[s]) for s in (0, 1)), *(min(a.tile[s], b.tile[s]) for s in (2, 3)))
    if shared[2] <= shared[0] or shared[3] <= shared[1]:
        return 0.0
    parts = [tuple(min(max(v.box[s], shared[s % 2]), shared[s % 2 + 2]) for s in range(4)) for v in (a, b)]
    margin = min(a.margin, b.margin)
    visible = any(all(abs(part[s] - shared[s]) > margin for part in parts) for s in range(4))
    return overlap(parts[0], parts[1], "iou") if visible else 0.0


def cut(view: View, side: int, frame: tuple[float, float]) -> bool:
    """Whether a side of the box lies at an inner edge of the tile."""
    edge = view.tile[side]
    inner = edge >= 1 if side < 2 else edge <= frame[side - 2] - 1
    return inner and abs(view.box[side] - edge) <= view.margin


def describe(group: Group, frame: tuple[float, float]) -> None:
    """Give a group its box and the number of its unseen sides."""
    hull = group.views[0].box
    for view in group.views:
        hull = union(hull, view.box)

    def confined(view: View) -> bool:
        return all(
            v.box[0] + v.margin >= view.tile[0]
            and v.box[1] + v.margin >= view.tile[1]
            and v.box[2] - v.margin <= view.tile[2]
            and v.box[3] - v.margin <= view.tile[3]
            for v in group.views
        )

    whole = [view for view in group.views if not any(cut(view, s, frame) for s in range(4)) and confined(view)]
    if whole:
        finest = min(view.margin for view in whole)
        whole = [view for view in whole if view.margin <= finest * 1.01]
        weights = [max(view.score, 1e-6) for view in whole]
        group.box = tuple(
            sum(w * view.box[s] for w, view in zip(weights, whole, strict=True)) / sum(weights) for s in range(4)
        )
        return
    group.box = hull
    group.unseen = sum(
        not any(not cut(view, side, frame) and abs(view.box[side] - hull[side]) <= view.margin for view in group.views)
        for side in range(4)
    )


def fragment(piece: Group, whole: Group, alike) -> bool:
    """Whether a piece with unseen sides lies mostly inside an object that other tiles saw to all its ends."""
    if not piece.unseen or whole.unseen or not alike(piece.views[0], whole.views[0]):
        return False
    if {view.tile for view in piece.views} & {view.tile for view in whole.views}:
        return False
    a, b = (
        tuple(edge + sign * SLACK * group.views[0].margin for edge, sign in zip(group.box, (-1, -1, 1, 1), strict=True))
        for group in (piece, whole)
    )
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) >= INSIDE * (a[2] - a[0]) * (a[3] - a[1]) and min(width, height) > 0
