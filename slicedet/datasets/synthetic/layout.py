"""The plan of an endless town: where its streets run, what its blocks are used for, and the traffic in its streets."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from slicedet.datasets.synthetic import blocks
from slicedet.datasets.synthetic.cell import LAND, MARKS, Builder, Cell
from slicedet.datasets.synthetic.vehicles import Vehicle, draw
from slicedet.datasets.synthetic.world import Array, Choice, Colour, Light, Point, Warp, dice

PITCH = 88.0
"""Metres between streets, on average."""

_ACROSS = 20.0
"""Metres by which a block's streets, with their trees and vehicles, reach beyond its lower edges."""

_TALLEST = 16.0
"""Metres of height whose shadows count: taller buildings stand further from the edges of their blocks."""

_CACHED = 256
"""Blocks kept: more than one row of a scene's tiles touches at 40,000 pixels of 0.15 m."""

_USES: dict[str, Choice[str]] = {
    "city": Choice(
        ("courtyards", 0.36), ("slabs", 0.16), ("halls", 0.12), ("parking", 0.12), ("plaza", 0.08), ("park", 0.10),
        ("yard", 0.06),
    ),
    "suburb": Choice(("houses", 0.66), ("slabs", 0.14), ("park", 0.08), ("halls", 0.06), ("parking", 0.06)),
    "country": Choice(("field", 0.58), ("meadow", 0.22), ("houses", 0.08), ("woods", 0.12)),
    "woods": Choice(("woods", 0.88), ("meadow", 0.12)),
    "water": Choice(("water", 0.93), ("woods", 0.04), ("meadow", 0.03)),
    "roofs": Choice(("courtyards", 0.45), ("halls", 0.38), ("slabs", 0.17)),
}  # fmt: skip
_DISTRICTS = Choice(
    ("city", 0.44), ("suburb", 0.24), ("country", 0.13), ("woods", 0.07), ("water", 0.05), ("roofs", 0.07)
)
_STRIPS = Choice((0.0, 0.3), (2.1, 0.56), (4.9, 0.14))
"""Depth of the parking along a kerb in metres."""

_NATURAL = ("woods", "meadow", "field", "water")


class Street(NamedTuple):
    """A street between two crossings: lanes each way and their width, depth of the parking strips on the lower and
    the upper side (0: none), width of the pavements, all in metres; whether it is a track of the country."""

    lanes: int
    lane: float
    parking: tuple[float, float]
    pavement: float
    rural: bool

    @property
    def carriageway(self) -> float:
        """Half the width of the lanes."""
        return self.lanes * self.lane

    def half(self, side: int) -> float:
        """From the middle to the kerb."""
        return self.carriageway + self.parking[side]


class Layout:
    """What lies where in the scenes of one seed and landscape. A function of its arguments alone."""

    def __init__(self, seed: int, landscape: str = "mixed", vehicles: float = 1.0) -> None:
        self.seed, self.landscape, self.vehicles = seed, landscape, vehicles
        self.light, self.warp = Light.of(seed), Warp(seed)
        self.cell = lru_cache(maxsize=_CACHED)(self._cell)
        self._position = lru_cache(maxsize=4096)(self._line_position)
        self._use = lru_cache(maxsize=4096)(self._block_use)
        self._street = lru_cache(maxsize=4096)(self._line_street)

    def cells(self, x1: float, y1: float, x2: float, y2: float) -> Iterator[Cell]:
        """The blocks of which something may lie in a rectangle of the ground, in metres, in a fixed order."""
        east, south = (part * _TALLEST for part in self.light.sun)
        u1, v1, u2, v2 = self.warp.plan_bounds(
            x1 - max(east, 0) - 1, y1 - max(south, 0) - 1, x2 - min(east, 0) + 1, y2 - min(south, 0) + 1
        )
        columns, rows = self._between(0, u1, u2 + _ACROSS), self._between(1, v1, v2 + _ACROSS)
        for j in rows:
            for i in columns:
                yield self.cell(i, j)

    def _between(self, axis: int, low: float, high: float) -> list[int]:
        """The numbers of the blocks of which some part lies between two plan coordinates."""
        numbers = range(math.floor(low / PITCH) - 2, math.ceil(high / PITCH) + 2)
        return [n for n in numbers if self._position(axis, n + 1) >= low and self._position(axis, n) <= high]

    def _line_position(self, axis: int, number: int) -> float:
        return (number + 0.34 * (dice(self.seed, 3, axis, number).random() - 0.5)) * PITCH

    def _block_use(self, i: int, j: int) -> str:
        landscape = self.landscape
        if landscape == "mixed":
            landscape = _DISTRICTS.draw(dice(self.seed, 4, i // 3, j // 3))
        return _USES[landscape].draw(dice(self.seed, 5, i, j))

    def _line_street(self, axis: int, i: int, j: int) -> Street | None:
        """The street at the lower edge (in u for axis 0, in v for axis 1) of block (i, j)."""
        uses = {self._use(i, j), self._use(i - 1, j) if axis == 0 else self._use(i, j - 1)}
        line = dice(self.seed, 6, axis, i if axis == 0 else j)
        main, track, wide = line.random() < 0.30, line.random() < 0.35, line.uniform(2.9, 3.3)
        if uses <= {"water"} or (uses <= set(_NATURAL) and not track):
            return None
        if uses <= set(_NATURAL):
            return Street(1, 3.0, (0.0, 0.0), 1.5, True)
        segment = dice(self.seed, 7, axis, i, j)
        parking = (_STRIPS.draw(segment), _STRIPS.draw(segment))
        return Street(2 if main else 1, wide, parking, segment.uniform(2.2, 4.2), False)

    def _crossing(self, axis: int, i: int, j: int) -> float:
        """Half the width of the streets that cross the lower end of the street at (axis, i, j)."""
        pair = ((1, i - 1, j), (1, i, j)) if axis == 0 else ((0, i, j - 1), (0, i, j))
        streets = [self._street(*key) for key in pair]
        return max((max(street.half(0), street.half(1)) for street in streets if street is not None), default=0.0)

    def _cell(self, i: int, j: int) -> Cell:
        builder = Builder(self.warp, self.light, dice(self.seed, 8, i, j), dice(self.seed, 9, i, j), self.vehicles)
        edges = [self._position(0, i), self._position(1, j), self._position(0, i + 1), self._position(1, j + 1)]
        around = [self._street(0, i, j), self._street(1, i, j), self._street(0, i + 1, j), self._street(1, i, j + 1)]
        use = self._use(i, j)
        # Each block paints the asphalt up to the middle of its streets.
        road = _asphalt(dice(self.seed, 10, i // 4, j // 4))
        paved = any(around)
        whole = (edges[0], edges[1], edges[2], edges[3])
        builder.plan(LAND, ring(whole), road, 6)
        insets = [0.0 if street is None else street.half(1 if side < 2 else 0) for side, street in enumerate(around)]
        block = (edges[0] + insets[0], edges[1] + insets[1], edges[2] - insets[2], edges[3] - insets[3])
        round_corners = tuple(
            4.5 if around[a] is not None and around[b] is not None else 0.0 for a, b in ((0, 1), (2, 1), (2, 3), (0, 3))
        )
        rural = all(street is None or street.rural for street in around)
        if paved and not rural:
            kerb: Colour = (176, 174, 168)
            builder.plan(LAND, ring(block, round_corners), kerb, 6)
            inner = _shrunk(block, [0.18 if street else 0.0 for street in around])
            builder.plan(LAND, ring(inner, round_corners), blocks.paving(dice(self.seed, 11, i // 4, j // 4)), 6)
        widths = [0.0 if street is None else street.pavement for street in around]
        plot = _shrunk(block, widths)
        colour, rough = blocks.GROUNDS[use]
        if use in _NATURAL:
            # Land without a street between its blocks must not show where they meet.
            tone = blocks.toned(dice(self.seed, 12, _NATURAL.index(use)), colour)
        else:
            tone = blocks.toned(builder.roll, colour)
        wet = [
            beside == "water"
            for beside in (self._use(i - 1, j), self._use(i, j - 1), self._use(i + 1, j), self._use(i, j + 1))
        ]
        shores = [use != "water" and water and street is None for water, street in zip(wet, around, strict=True)]
        if any(shores):
            builder.plan(LAND, ring(plot), *blocks.GROUNDS["water"])
            plot = _shrunk(plot, [7.0 * shore for shore in shores])
            builder.plan(LAND, _wavy(builder.roll, plot, shores, 4.0), (136, 128, 104), 16)
            builder.lay(_wavy(builder.roll, plot, shores, 2.6), tone, rough)
        else:
            builder.lay(ring(plot, tuple(corner * 0.5 for corner in round_corners)), tone, rough)
        blocks.BUILDERS[use](builder, plot)
        for axis, along in ((0, 1), (1, 0)):
            street = around[axis]
            if street is None:
                continue
            ends = (self._crossing(axis, i, j), self._crossing(axis, i + (axis == 1), j + (axis == 0)))
            span = (edges[along] + ends[0], edges[along + 2] - ends[1])
            crossings = (ends[0] > 0, ends[1] > 0)
            _furnish(builder, street, axis, edges[axis], span, crossings, road)
        return builder.finish()


def ring(rectangle: tuple[float, ...], radii: tuple[float, ...] = (0, 0, 0, 0), step: float = 7.0) -> Array:
    """The outline of a plan rectangle u1 v1 u2 v2 as points close enough to bend, with its corners rounded."""
    u1, v1, u2, v2 = rectangle
    corners = ((u1, v1, 1, 1, 180), (u2, v1, -1, 1, 270), (u2, v2, -1, -1, 0), (u1, v2, 1, -1, 90))
    points: list[tuple[float, float]] = []
    for (u, v, du, dv, start), radius in zip(corners, radii, strict=True):
        angles = [math.radians(start + turn) for turn in (0, 22, 45, 68, 90)] if radius else [0.0]
        for angle in angles:
            points.append(
                (u + du * radius + radius * math.cos(angle), v + dv * radius + radius * math.sin(angle))
                if radius
                else (u, v)
            )
    closed = np.array([*points, points[0]])
    parts = []
    for start, stop in pairwise(closed):
        count = max(1, math.ceil(float(np.abs(stop - start).max()) / step))
        parts.append(start + (stop - start) * (np.arange(count) / count)[:, None])
    return np.concatenate(parts)


def _wavy(roll: random.Random, plot: tuple[float, ...], shores: list[bool], out: float) -> Array:
    """The outline of a plot whose sides bulge and bend where they are shores, by about `out` metres."""
    u1, v1, u2, v2 = plot
    outline = ring(plot, step=3.0)
    for side, (axis, edge, sign) in enumerate(((0, u1, -1), (1, v1, -1), (0, u2, 1), (1, v2, 1))):
        if shores[side]:
            on = np.abs(outline[:, axis] - edge) < 0.01
            along, phase = outline[on, 1 - axis], roll.uniform(0, 6.28)
            outline[on, axis] += (
                sign * out * (0.6 + 0.4 * np.sin(along / 5.3 + phase) + 0.25 * np.sin(along / 2.1 + phase * 3))
            )
    return outline


def _shrunk(rectangle: tuple[float, ...], by: list[float]) -> tuple[float, float, float, float]:
    u1, v1, u2, v2 = rectangle
    return u1 + by[0], v1 + by[1], u2 - by[2], v2 - by[3]


def _asphalt(roll: random.Random) -> Colour:
    grey = roll.uniform(102, 162)
    return grey, grey * 0.985, grey * roll.uniform(0.95, 1.0)


def _quads(axis: int, middle: float, along: Array, across: Array) -> Array:
    """Plan quadrilaterals [N, 4, 2] from spans along a street [N, 2] and across it, from its middle [N, 2]."""
    s = along[:, [0, 1, 1, 0]]
    t = middle + across[:, [0, 0, 1, 1]]
    return np.stack([t, s] if axis == 0 else [s, t], axis=-1)


def _furnish(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], crossings: tuple[bool, bool],
    road: Colour,
) -> None:  # fmt: skip
    """Surface, markings, trees and vehicles of one street. span: of its length between the crossings, in metres."""
    if span[1] - span[0] < 14:
        return
    roll = builder.roll
    _surface(builder, street, axis, middle, span, road)
    if not street.rural:
        _markings(builder, street, axis, middle, span, crossings)
        trees = [_street_trees(builder, street, axis, middle, span, side) for side in (0, 1)]
        for side in (0, 1):
            _parked(builder, street, axis, middle, span, side, trees[side])
    _traffic(builder, street, axis, middle, span, crossings)
    if roll.random() < 0.5 and not street.rural:
        _lamps(builder, street, axis, middle, span)


def _surface(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], road: Colour
) -> None:
    """Wheel tracks, patches, drains and cracks."""
    roll = builder.roll
    whole, wide = span[1] - span[0], street.carriageway
    for lane in range(-street.lanes, street.lanes):
        centre = (lane + 0.5) * street.lane
        tone = roll.uniform(0.97, 1.02)
        for track in (-0.8, 0.8):
            strip = _strip(axis, middle, span, (centre + track - 0.3, centre + track + 0.3))
            builder.plan(LAND, strip, _scaled(road, tone), 6)
    for side in (0, 1):
        depth = street.parking[side]
        if depth:
            sign = 2 * side - 1
            near, far = sorted((sign * wide, sign * (wide + depth)))
            strip = _strip(axis, middle, (span[0] + 3, span[1] - 3), (near, far))
            builder.plan(LAND, strip, _scaled(road, roll.uniform(0.92, 1.22)), 6)
    for _ in range(roll.randrange(6)):
        start, across = span[0] + roll.random() * whole, roll.uniform(-wide, wide - 1)
        size, depth = roll.uniform(1, 16), roll.uniform(0.6, 3.2)
        patch = _strip(axis, middle, (start, min(start + size, span[1])), (across, min(across + depth, wide)))
        builder.plan(LAND, patch, _scaled(road, roll.choice((0.8, 0.88, 1.08, 1.15))), 6)
    for _ in range(roll.randrange(5)):
        start, across = span[0] + roll.random() * whole, roll.uniform(-wide, wide)
        drain = _strip(axis, middle, (start, start + 0.6), (across - 0.3, across + 0.3))
        builder.plan(LAND, drain, _scaled(road, 0.62), 6)
    for _ in range(roll.randrange(4)):
        start, across = span[0] + roll.random() * whole, roll.uniform(-wide, wide)
        drift = roll.uniform(-0.4, 0.4)
        length = roll.uniform(2, 6)
        crack = [
            (start, across),
            (start + length, across + drift),
            (start + length, across + drift + 0.05),
            (start, across + 0.05),
        ]
        points = [(s, middle + t) for s, t in crack]
        builder.plan(LAND, [(v, u) for u, v in points] if axis == 0 else points, _scaled(road, 0.72), 6)


def _strip(axis: int, middle: float, along: tuple[float, float], across: tuple[float, float]) -> list[Point]:
    """The outline of a long rectangle on the plan, with points enough to bend."""
    count = max(1, math.ceil((along[1] - along[0]) / 12))
    cuts = [along[0] + (along[1] - along[0]) * k / count for k in range(count + 1)]
    points = [(s, middle + across[0]) for s in cuts] + [(s, middle + across[1]) for s in reversed(cuts)]
    return [(v, u) for u, v in points] if axis == 0 else points


def _scaled(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _markings(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], crossings: tuple[bool, bool]
) -> None:
    """Lines between lanes, stop lines, crossings for people on foot, arrows."""
    roll = builder.roll
    white = roll.uniform(196, 246)
    paint: Colour = (white, white, white * 0.98)
    begin, end = (span[0] + 4.5 * crossings[0], span[1] - 4.5 * crossings[1])
    if street.lanes == 1 and roll.random() < 0.45:
        return
    dash, gap = (3.0, 6.0) if roll.random() < 0.6 else (2.0, 3.0)
    starts = np.arange(begin, end - dash, dash + gap)
    for lane in range(-street.lanes + 1, street.lanes):
        at = lane * street.lane
        if lane == 0 and street.lanes > 1:
            for offset in (-0.16, 0.16):
                line = _strip(axis, middle, (begin, end), (at + offset - 0.07, at + offset + 0.07))
                builder.plan(MARKS, line, paint, 6)
        else:
            across = np.tile([at - 0.09, at + 0.09], (len(starts), 1))
            builder.plan_quads(MARKS, _quads(axis, middle, np.stack([starts, starts + dash], -1), across), paint)
    wide = street.carriageway
    for low, crossing in ((True, crossings[0]), (False, crossings[1])):
        if not crossing:
            continue
        stop = (span[0] + 3.6, span[0] + 4.1) if low else (span[1] - 4.1, span[1] - 3.6)
        # Drivers keep to the right: towards the lower end that is the upper side in v and the lower in u.
        sign = (-1 if axis == 1 else 1) if low else (1 if axis == 1 else -1)
        builder.plan(MARKS, _strip(axis, middle, stop, (0.1 * sign, wide * sign)), paint, 6)
        edges = (span[0] + 0.4, span[0] + 2.9) if low else (span[1] - 2.9, span[1] - 0.4)
        style = roll.random()
        if style < 0.35:
            bars = np.arange(-wide + 0.3, wide - 0.5, 1.0)
            along = np.tile(edges, (len(bars), 1))
            builder.plan_quads(MARKS, _quads(axis, middle, along, np.stack([bars, bars + 0.5], -1)), paint)
        elif style < 0.8:
            bars = np.arange(-wide + 0.2, wide - 0.4, 0.9)
            for edge in edges:
                along = np.tile([edge - 0.06, edge + 0.06], (len(bars), 1))
                builder.plan_quads(MARKS, _quads(axis, middle, along, np.stack([bars, bars + 0.5], -1)), paint)
        if street.lanes > 1:
            for lane in range(street.lanes):
                at = sign * (lane + 0.5) * street.lane
                tail, tip = (stop[1] + 9, stop[1] + 5) if low else (stop[0] - 9, stop[0] - 5)
                inwards = (tip - tail) / 4
                shaft = _strip(axis, middle, (tail, tip - 1.4 * inwards), (at - 0.07, at + 0.07))
                builder.plan(MARKS, shaft, paint, 6)
                head = [
                    (tip - 1.6 * inwards, middle + at - 0.32),
                    (tip, middle + at),
                    (tip - 1.6 * inwards, middle + at + 0.32),
                ]
                builder.plan(MARKS, [(v, u) for u, v in head] if axis == 0 else head, paint, 6)


def _frame(
    builder: Builder, axis: int, middle: float, along: float, across: float, forward: bool
) -> tuple[float, float, float]:
    """Position and angle on the ground of what faces along a street."""
    u, v = (middle + across, along) if axis == 0 else (along, middle + across)
    place = builder.warp.place(u, v, (math.pi / 2 if axis == 0 else 0.0) + (0.0 if forward else math.pi))
    return place.x, place.y, place.angle


def _street_trees(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], side: int
) -> list[float]:
    """Trees on the pavement; returns where along the street they stand."""
    roll = builder.roll
    if roll.random() < 0.55 or street.pavement < 2.4:
        return []
    spacing, size, stands = roll.uniform(7.5, 16), roll.uniform(1.3, 3.0), []
    leaves = blocks.leaves(roll)
    at = span[0] + roll.uniform(5, 6)
    while at < span[1] - 5:
        if roll.random() < 0.85:
            across = (2 * side - 1) * (street.half(side) + 0.8 + roll.uniform(0, 0.3))
            x, y, _ = _frame(builder, axis, middle, at, across, True)
            builder.tree(x, y, size * roll.uniform(0.75, 1.15), leaves)
            stands.append(at)
        at += spacing * roll.uniform(0.9, 1.1)
    return stands


def _parked(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], side: int, trees: list[float]
) -> None:
    """Vehicles along one kerb, in line with it or square to it."""
    depth = street.parking[side]
    if not depth:
        return
    roll, moving = builder.roll, builder.moving
    crowded = roll.uniform(0.35, 0.95) * builder.busy
    sign = 2 * side - 1
    forward = (side == 1) == (axis == 1)
    square = depth > 3
    if square and roll.random() < 0.8:
        starts = np.arange(span[0] + 6, span[1] - 6, 2.55)
        near, far = sorted((sign * street.carriageway, sign * (street.carriageway + 4.8)))
        lines = np.stack([starts - 0.05, starts + 0.05], -1)
        builder.plan_quads(MARKS, _quads(axis, middle, lines, np.tile([near, far], (len(starts), 1))), (196, 196, 192))
    at = span[0] + 6.0
    while at < span[1] - 6:
        model, length, width, paint, load, gloss = draw(moving, (0.93, 0.07, 0.0, 0.0))
        step = 2.55 if square else length + moving.uniform(0.5, 1.4)
        used, jitter, slip = moving.random() < crowded, moving.gauss(0, 0.02), moving.uniform(-0.15, 0.15)
        turned = moving.random()
        if at + step > span[1] - 5:
            break
        shaded = any(abs(at + step / 2 - tree) < 3 for tree in trees) and moving.random() < 0.2
        # Longer ones would stand out into the lane.
        if used and not shaded and not (square and length > 5.2):
            across = sign * (
                street.carriageway + depth / 2 - (0 if square else 0.05) + (slip if square else slip * 0.6)
            )
            x, y, angle = _frame(
                builder, axis, middle, at + step / 2, across, forward if turned > 0.06 else not forward
            )
            angle += jitter * 1.3 + (math.pi / 2 * (1 if turned > 0.35 else -1) if square else 0)
            builder.vehicles.append(Vehicle(x, y, angle, model, length, width, paint, load, gloss))
        at += step


def _traffic(
    builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float], crossings: tuple[bool, bool]
) -> None:
    """Vehicles on the move, and queues before the crossings."""
    roll = builder.moving
    share = (0.83, 0.09, 0.05, 0.03) if street.lanes > 1 else (0.88, 0.09, 0.02, 0.01)
    if street.rural:
        share = (0.8, 0.1, 0.1, 0.0)
    for lane in range(-street.lanes, street.lanes):
        across = (lane + 0.5) * street.lane
        upwards = (lane >= 0) == (axis == 1)
        queue = roll.random() < 0.4 and crossings[1 if upwards else 0] and street.lanes > 1
        spacing = roll.uniform(18, 60) if street.lanes > 1 else roll.uniform(40, 160)
        begin, end = span[0] + 4.8, span[1] - 4.8
        # Counted from the end the lane leads to.
        at, waiting = 0.0, roll.uniform(8, 40) if queue else 0.0
        while True:
            model, length, width, paint, load, gloss = draw(roll, share)
            gap = roll.uniform(1.2, 3.0) if at < waiting else roll.expovariate(1 / spacing) + 3
            drift, jitter, present = roll.gauss(0, 0.15), roll.gauss(0, 0.012), roll.random() < builder.busy
            at += gap if at or not queue else 0
            if at + length > end - begin:
                break
            along = end - at - length / 2 if upwards else begin + at + length / 2
            at += length
            if not present:
                continue
            x, y, angle = _frame(builder, axis, middle, along, across + drift, upwards)
            builder.vehicles.append(Vehicle(x, y, angle + jitter, model, length, width, paint, load, gloss))


def _lamps(builder: Builder, street: Street, axis: int, middle: float, span: tuple[float, float]) -> None:
    """Lamp posts on one side, which show mostly by their shadows."""
    side = builder.roll.randrange(2)
    for at in np.arange(span[0] + 8, span[1] - 8, 26.0).tolist():
        sign = 2 * side - 1
        x, y, angle = _frame(builder, axis, middle, at, sign * (street.half(side) + 0.5), True)
        blocks.post(builder, x, y, angle, 7.5)
