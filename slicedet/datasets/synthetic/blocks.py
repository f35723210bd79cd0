"""What stands in the blocks of a town and on the land around it: one function for each use of a block."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from slicedet.datasets.synthetic import buildings
from slicedet.datasets.synthetic.cell import LAND, MARKS, ROOFS, Builder
from slicedet.datasets.synthetic.vehicles import Vehicle, draw
from slicedet.datasets.synthetic.world import Array, Choice, Colour, Place

Plot = tuple[float, float, float, float]

GROUNDS: dict[str, tuple[Colour, float]] = {
    "courtyards": ((140, 138, 132), 12), "slabs": ((104, 120, 74), 21), "halls": ((124, 123, 120), 11),
    "parking": ((122, 121, 119), 10), "plaza": ((172, 166, 156), 9), "park": ((98, 118, 68), 22),
    "yard": ((156, 138, 110), 26), "houses": ((106, 120, 74), 22), "field": ((148, 138, 92), 16),
    "meadow": ((116, 126, 80), 22), "woods": ((74, 82, 52), 24), "water": ((62, 84, 84), 9),
}  # fmt: skip
"""Colour and roughness of the ground, by use."""

_LEAVES: Choice[Colour] = Choice(
    ((92, 118, 62), 0.45), ((76, 102, 54), 0.3), ((112, 132, 74), 0.15), ((92, 112, 84), 0.07), ((136, 118, 62), 0.03),
)  # fmt: skip
_NEEDLES: Colour = (62, 86, 56)
_LEANEST = 6.0
"""Metres below which a plot is left as it is."""


def toned(roll: random.Random, colour: Colour, spread: float = 0.1) -> Colour:
    """A colour, a little lighter or darker and a little redder or bluer."""
    tone = roll.uniform(1 - spread, 1 + spread)
    return colour[0] * tone * roll.uniform(0.97, 1.03), colour[1] * tone, colour[2] * tone * roll.uniform(0.96, 1.04)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(a + (b - a) * share for a, b in zip(one, other, strict=True))  # type: ignore[return-value]


def paving(roll: random.Random) -> Colour:
    """The colour of a district's pavements."""
    grey = roll.uniform(128, 190)
    return grey, grey * roll.uniform(0.96, 0.99), grey * roll.uniform(0.9, 0.98)


def leaves(roll: random.Random) -> Colour:
    """The colour of a kind of tree."""
    return _LEAVES.draw(roll)


def post(builder: Builder, x: float, y: float, angle: float, height: float) -> None:
    """A thin post with an arm, and its shadow."""
    place = Place(x, y, angle)
    lean, sun = builder.light.lean, builder.light.sun
    for (dx, dy), colour in ((sun, (58.0, 58.0, 60.0)), (lean, (150.0, 152.0, 152.0))):
        along = math.hypot(dx, dy) * height
        if along > 0.3:
            builder.box(MARKS, Place(x, y, math.atan2(dy, dx)), along / 2, 0, along, 0.14, colour, 4)
    builder.box(MARKS, place, 0, 0, 0.5, 0.3, (178, 178, 174), 4, z=height)


def _size(plot: Plot) -> tuple[float, float]:
    return plot[2] - plot[0], plot[3] - plot[1]


def _free(plot: Plot) -> bool:
    return min(_size(plot)) > _LEANEST


def _rectangle(u1: float, v1: float, u2: float, v2: float) -> Array:
    """A plan rectangle with enough points to bend."""
    count = max(2, math.ceil(max(u2 - u1, v2 - v1) / 9))
    part = np.linspace(0, 1, count, endpoint=False)
    corners = np.array([(u1, v1), (u2, v1), (u2, v2), (u1, v2)])
    sides = [a + (b - a) * part[:, None] for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    return np.concatenate(sides)


def _blob(roll: random.Random, u: float, v: float, radius: float, wobble: float = 0.3, points: int = 14) -> Array:
    """A rounded shape with an uneven rim, on the plan."""
    turn = np.linspace(0, 2 * math.pi, points, endpoint=False)
    phases = [roll.uniform(0, 6.28) for _ in range(3)]
    reach = radius * (1 + wobble * sum(np.sin((k + 2) * turn + phase) / (k + 2) for k, phase in enumerate(phases)))
    return np.stack([u + np.cos(turn) * reach, v + np.sin(turn) * reach * roll.uniform(0.7, 1.3)], axis=-1)


def _spots(
    builder: Builder, plot: Plot, count: int, colours: tuple[Colour, ...], size: tuple[float, float], rough: float
) -> None:
    """Patches of other colours on the ground, which fade out in rings."""
    roll = builder.roll
    for _ in range(count):
        radius = min(roll.uniform(*size), 0.45 * min(_size(plot)))
        u, v = roll.uniform(plot[0] + radius, plot[2] - radius), roll.uniform(plot[1] + radius, plot[3] - radius)
        rim, colour = _blob(roll, u, v, radius * 0.8), toned(roll, roll.choice(colours), 0.05)
        for share in (1.0, 0.85, 0.7):
            builder.plan(LAND, (rim - (u, v)) * share + (u, v), _mixed(builder.ground, colour, 1.25 - share), rough)


def _scatter_trees(
    builder: Builder, plot: Plot, count: int, size: tuple[float, float], margin: float = 1.5, keep: Array | None = None
) -> None:
    """Trees anywhere in a plot, save within 5 m of the plan points `keep` [N, 2]."""
    roll = builder.roll
    kind = leaves(roll)
    for _ in range(count):
        u, v = roll.uniform(plot[0] + margin, plot[2] - margin), roll.uniform(plot[1] + margin, plot[3] - margin)
        conifer, radius, other = roll.random() < 0.15, roll.uniform(*size), leaves(roll)
        if keep is not None and len(keep) and (np.abs(keep - (u, v)).max(axis=1) < radius + 2.5).any():
            continue
        place = builder.warp.place(u, v)
        colour = _NEEDLES if conifer else kind if roll.random() < 0.6 else other
        builder.tree(place.x, place.y, radius, colour, conifer)


def _park_vehicle(
    builder: Builder, u: float, v: float, angle: float, share: tuple[float, float, float, float], occupied: float,
    longest: float = 20.0,
) -> None:  # fmt: skip
    """Perhaps a vehicle at a point of the plan."""
    moving = builder.moving
    model, length, width, paint, load, gloss = draw(moving, share)
    there, jitter, along, across = (
        moving.random() < occupied * builder.busy,
        moving.gauss(0, 0.025),
        moving.uniform(-0.25, 0.25),
        moving.gauss(0, 0.08),
    )
    turn = 0.0 if moving.random() < 0.65 else math.pi
    if there and length <= longest:
        spot = builder.warp.place(u, v, angle + turn).at(along, across)
        builder.vehicles.append(Vehicle(spot.x, spot.y, spot.angle + jitter, model, length, width, paint, load, gloss))


def _car_park(builder: Builder, plot: Plot, occupied: float, trees: bool) -> None:
    """Rows of bays with aisles between, bay lines, islands with trees."""
    roll = builder.roll
    wide, deep = _size(plot)
    if wide < 9 or deep < 12:
        return
    grey = roll.uniform(98, 158)
    builder.plan(LAND, _rectangle(*plot), (grey, grey * 0.99, grey * 0.97), 6)
    line: Colour = (roll.uniform(175, 225),) * 3
    bay, depth, aisle = 2.5, 5.0, 6.2
    lines = roll.random() < 0.85
    rows: list[tuple[float, float]] = []
    v = plot[1] + 0.4
    while v + depth <= plot[3]:
        rows.append((v, -math.pi / 2))
        second = v + 2 * depth + aisle
        if second <= plot[3]:
            rows.append((v + depth + aisle, math.pi / 2))
        v = second + 0.1
    stands = []
    for top, angle in rows:
        starts = np.arange(plot[0] + 1.2, plot[2] - 1.2 - bay, bay)
        if lines and len(starts):
            edges = np.append(starts, starts[-1] + bay)
            quads = np.stack(
                [
                    np.stack([edges - 0.05, np.full_like(edges, top)], -1),
                    np.stack([edges + 0.05, np.full_like(edges, top)], -1),
                    np.stack([edges + 0.05, np.full_like(edges, top + depth)], -1),
                    np.stack([edges - 0.05, np.full_like(edges, top + depth)], -1),
                ],
                axis=1,
            )
            builder.plan_quads(MARKS, quads, line)
        popular = occupied * roll.uniform(0.5, 1.25)
        for number, start in enumerate(starts.tolist()):
            if trees and number % 9 == 4:
                builder.plan(
                    LAND, _rectangle(start + 0.3, top + 0.4, start + bay - 0.3, top + depth - 0.4), (108, 122, 74), 21
                )
                stands.append((start + bay / 2, top + depth / 2))
                continue
            _park_vehicle(builder, start + bay / 2, top + depth / 2, angle, (0.92, 0.08, 0.0, 0.0), popular, 5.6)
    kind = leaves(roll)
    for u, v in stands:
        place = builder.warp.place(u, v)
        builder.tree(place.x, place.y, roll.uniform(1.0, 2.0), kind)


def _courtyards(builder: Builder, plot: Plot) -> None:
    """Houses wall to wall along the streets, tiled roofs, courtyards with trees, sheds and a few vehicles."""
    roll = builder.roll
    if min(_size(plot)) < 34:
        _houses(builder, plot)
        return
    depth = roll.uniform(10.5, 13.5)
    yard = (plot[0] + depth, plot[1] + depth, plot[2] - depth, plot[3] - depth)
    green = roll.random() < 0.5
    builder.lay(_rectangle(*yard), toned(roll, (104, 122, 74) if green else (148, 142, 134)), 26 if green else 11)
    _spots(builder, yard, roll.randrange(2, 6), ((150, 144, 132), (100, 118, 68), (128, 122, 116)), (2, 6), 18)
    style = buildings.style(roll)
    wings = ((plot[0], plot[1], plot[2], plot[1] + depth, False), (plot[0], plot[3] - depth, plot[2], plot[3], False),
             (plot[0], yard[1], yard[0], yard[3], True), (yard[2], yard[1], plot[2], yard[3], True))  # fmt: skip
    for u1, v1, u2, v2, upright in wings:
        if roll.random() < 0.06:
            continue
        low, high = (v1, v2) if upright else (u1, u2)
        count = max(1, round((high - low) / roll.uniform(14, 24)))
        for k in range(count):
            a, b = low + (high - low) * k / count, low + (high - low) * (k + 1) / count
            middle, across = (a + b) / 2, (u1 + u2) / 2 if upright else (v1 + v2) / 2
            place = builder.warp.place(across, middle, math.pi / 2) if upright else builder.warp.place(middle, across)
            buildings.house(builder, place, b - a + 0.1, depth, roll.uniform(11, 16), style)
    if min(_size(yard)) > 16:
        inner = (yard[0] + 3, yard[1] + 3, yard[2] - 3, yard[3] - 3)
        cars = []
        if not green:
            side = roll.randrange(2)
            edge = inner[1] + 1 if side == 0 else inner[3] - 1
            for u in np.arange(inner[0], inner[2] - 2.5, 2.6).tolist():
                cars.append((u + 1.3, edge))
                _park_vehicle(builder, u + 1.3, edge, math.pi / 2, (0.9, 0.1, 0, 0), 0.35, 5.3)
        for _ in range(roll.randrange(3)):
            u, v = roll.uniform(inner[0] + 3, inner[2] - 3), roll.uniform(inner[1] + 5, inner[3] - 5)
            if v - inner[1] > 8 and inner[3] - v > 8:
                cars.append((u, v))
                buildings.hall(builder, builder.warp.place(u, v), roll.uniform(4, 9), roll.uniform(3, 5), 2.8)
        _scatter_trees(builder, inner, roll.randrange(3, 12), (1.0, 3.6), keep=np.array(cars).reshape(-1, 2))


def _slabs(builder: Builder, plot: Plot) -> None:
    """Blocks of flats between lawns and trees, with a car park."""
    roll = builder.roll
    _lawn(builder, plot)
    wide, deep = _size(plot)
    cut = plot[3] - min(18.0, deep * 0.3)
    length = min(wide - 6, roll.uniform(30, 58))
    stands = []
    gap = roll.uniform(24, 22)
    for v in np.arange(plot[1] + 9, cut - 8, gap).tolist():
        u = roll.uniform(plot[0] + length / 2 + 1, max(plot[0] + length / 2 + 1, plot[2] - length / 2 - 1))
        buildings.flats(builder, builder.warp.place(u, v), length, roll.uniform(10, 13), roll.uniform(9, 24))
        stands += [(u + d, v + e) for d in np.linspace(-length / 2, length / 2, 8) for e in (-5, 0, 5)]
        path = v + gap / 2 - 1
        if path + 2 < cut:
            builder.plan(LAND, _rectangle(plot[0], path, plot[2], path + 1.8), (164, 158, 150), 6)
            stands += [(u, path) for u in np.arange(plot[0], plot[2], 6)]
    _car_park(builder, (plot[0], cut, plot[2], plot[3]), 0.7, trees=roll.random() < 0.4)
    lawn = (plot[0], plot[1], plot[2], cut - 2)
    if _free(lawn):
        _scatter_trees(builder, lawn, roll.randrange(8, 22), (1.2, 4.2), keep=np.array(stands).reshape(-1, 2))


def _halls(builder: Builder, plot: Plot) -> None:
    """A hall with a flat roof and what stands on it, a loading yard, a car park."""
    roll = builder.roll
    wide, deep = _size(plot)
    if min(wide, deep) < 40:
        _car_park(builder, plot, 0.6, trees=True)
        return
    cut = plot[1] + deep * roll.uniform(0.45, 0.62)
    side = roll.uniform(0.62, 0.9) * wide
    place = builder.warp.place(plot[0] + 2 + side / 2, (plot[1] + cut) / 2)
    buildings.hall(builder, place, side - 2, cut - plot[1] - 5, roll.uniform(6, 12))
    for v in np.arange(plot[1] + 5, cut - 4, 4.0).tolist():
        if plot[2] - plot[0] - side > 22:
            _park_vehicle(
                builder, plot[0] + side + 13, v, 0.0, (0.0, 0.3, 0.7, 0.0), 0.45, plot[2] - plot[0] - side - 6
            )
        elif roll.random() < 0.3:
            spot = builder.warp.place(plot[0] + side + 4, v)
            buildings.container(builder, spot)
    _car_park(builder, (plot[0] + 1, cut + 2, plot[2] - 1, plot[3] - 1), 0.65, trees=roll.random() < 0.6)


def _parking(builder: Builder, plot: Plot) -> None:
    """A large car park within a strip of green."""
    inner = (plot[0] + 3, plot[1] + 3, plot[2] - 3, plot[3] - 3)
    builder.plan(LAND, _rectangle(*plot), toned(builder.roll, (104, 120, 72)), 21)
    _car_park(builder, inner, builder.roll.uniform(0.35, 0.9), trees=builder.roll.random() < 0.7)


def _plaza(builder: Builder, plot: Plot) -> None:
    """A paved square: joints, planters, benches, stalls, people."""
    roll = builder.roll
    wide, deep = _size(plot)
    joint = toned(roll, (150, 144, 136))
    for u in np.arange(plot[0] + 4, plot[2], roll.uniform(4, 9)).tolist():
        builder.plan_quads(
            LAND, np.array([[(u, plot[1]), (u + 0.25, plot[1]), (u + 0.25, plot[3]), (u, plot[3])]]), joint, 8
        )
    for v in np.arange(plot[1] + 4, plot[3], roll.uniform(4, 9)).tolist():
        builder.plan_quads(
            LAND, np.array([[(plot[0], v), (plot[2], v), (plot[2], v + 0.25), (plot[0], v + 0.25)]]), joint, 8
        )
    _spots(builder, plot, 3, ((186, 176, 160), (156, 150, 144)), (4, 11), 8)
    for _ in range(roll.randrange(4, 12)):
        u, v = roll.uniform(plot[0] + 4, plot[2] - 4), roll.uniform(plot[1] + 4, plot[3] - 4)
        place = builder.warp.place(u, v, roll.choice((0.0, math.pi / 2)))
        choice = roll.random()
        if choice < 0.45:
            builder.box(LAND, place, 0, 0, 5.4, 2.4, (186, 184, 178), 6)
            builder.box(LAND, place, 0, 0, 4.9, 1.9, toned(roll, (92, 108, 58)), 36)
            for k in range(3):
                bush = place.at(-1.6 + 1.6 * k, 0)
                builder.tree(bush.x, bush.y, roll.uniform(0.5, 0.9), leaves(roll))
        elif choice < 0.7:
            buildings.stall(builder, place)
        else:
            builder.tree(place.x, place.y, roll.uniform(1.5, 3.2), leaves(roll))
    if roll.random() < 0.5:
        u, v = plot[0] + wide * roll.uniform(0.3, 0.7), plot[1] + deep * roll.uniform(0.3, 0.7)
        builder.plan(LAND, _blob(roll, u, v, 5.2, 0.0), (188, 184, 176), 6)
        builder.plan(LAND, _blob(roll, u, v, 4.6, 0.0), (84, 118, 126), 8)
    _people(builder, plot, roll.randrange(4, 24))


def _people(builder: Builder, plot: Plot, count: int) -> None:
    """People on foot: small dark dots with shadows."""
    roll = builder.roll
    for _ in range(count):
        place = builder.warp.place(roll.uniform(plot[0], plot[2]), roll.uniform(plot[1], plot[3]), roll.uniform(0, 3.1))
        sun = builder.light.sun
        along = math.hypot(*sun) * 1.7
        builder.box(
            MARKS, Place(place.x, place.y, math.atan2(sun[1], sun[0])), along / 2, 0, along, 0.35, (78, 78, 82), 4
        )
        builder.box(
            MARKS, place, 0, 0, 0.5, 0.3, roll.choice(((52, 52, 62), (150, 62, 58), (188, 186, 182), (64, 82, 128))), 4
        )


def _lawn(builder: Builder, plot: Plot) -> None:
    _spots(builder, plot, builder.roll.randrange(4, 10), ((122, 132, 78), (92, 116, 62), (132, 128, 88)), (3, 12), 22)


def _park(builder: Builder, plot: Plot) -> None:
    """Lawns, paths, groups of trees, perhaps a pond."""
    roll = builder.roll
    _lawn(builder, plot)
    if not _free(plot):
        return
    wide, deep = _size(plot)
    path = toned(roll, (172, 160, 138))
    u, bend = np.linspace(plot[0], plot[2], 14), roll.uniform(2, 6)
    v = plot[1] + deep * roll.uniform(0.3, 0.7) + bend * np.sin(np.linspace(0, roll.uniform(3, 7), 14))
    upper, lower = np.stack([u, v - 1.3], -1), np.stack([u, v + 1.3], -1)
    builder.plan(LAND, np.concatenate([upper, lower[::-1]]), path, 14)
    if roll.random() < 0.4:
        radius = 0.16 * min(wide, deep)
        centre = (plot[0] + wide * 0.25, plot[1] + deep * 0.2)
        builder.plan(LAND, _blob(roll, *centre, radius + 0.8, 0.25), (134, 126, 98), 18)
        builder.plan(LAND, _blob(roll, *centre, radius, 0.25), (64, 86, 84), 7)
    _scatter_trees(builder, plot, roll.randrange(10, 55), (1.2, 5.2), keep=np.stack([u, v], -1))
    _people(builder, plot, roll.randrange(8))


def _yard(builder: Builder, plot: Plot) -> None:
    """A building site or yard: bare soil, heaps, containers, stacks of material, an excavation."""
    roll = builder.roll
    if not _free(plot):
        return
    _spots(builder, plot, 10, ((168, 150, 120), (140, 124, 100), (150, 146, 138), (122, 108, 88)), (3, 14), 26)
    for _ in range(roll.randrange(2, 6)):
        radius = roll.uniform(1.5, 4.5)
        u, v = roll.uniform(plot[0] + 5, plot[2] - 5), roll.uniform(plot[1] + 5, plot[3] - 5)
        ring = builder.warp.to_ground(_blob(roll, u, v, radius))
        builder.shadow(ring, radius * 0.35)
        builder.polygon(ROOFS, ring, toned(roll, (176, 158, 128)), 26)
        builder.polygon(ROOFS, ring.mean(axis=0) + (ring - ring.mean(axis=0)) * 0.5, toned(roll, (190, 172, 142)), 22)
    for _ in range(roll.randrange(3, 12)):
        u, v = roll.uniform(plot[0] + 7, plot[2] - 7), roll.uniform(plot[1] + 7, plot[3] - 7)
        place = builder.warp.place(u, v, roll.choice((0.0, math.pi / 2)) + roll.gauss(0, 0.06))
        if roll.random() < 0.55:
            buildings.container(builder, place)
        else:
            buildings.stack(builder, place)


def _houses(builder: Builder, plot: Plot) -> None:
    """Detached houses with gardens, sheds, drives and vehicles on them."""
    roll = builder.roll
    wide, deep = _size(plot)
    if wide < 20 or deep < 24:
        _lawn(builder, plot)
        return
    style = buildings.style(roll)
    count = max(1, round(wide / roll.uniform(17, 23)))
    lot = wide / count
    for row, edge in ((0, plot[1]), (1, plot[3])):
        sign = 1 - 2 * row
        for k in range(count):
            left = plot[0] + k * lot
            garden = (left, min(edge, edge + sign * deep / 2), left + lot, max(edge, edge + sign * deep / 2))
            builder.lay(_rectangle(*garden), toned(roll, (106, 124, 72), 0.16), 22)
            _spots(builder, garden, 3, ((128, 130, 82), (92, 116, 64), (150, 136, 108), (164, 158, 148)), (1.2, 4), 21)
            length, depth = roll.uniform(9, min(13, lot - 5)), roll.uniform(8, 10.5)
            setback = roll.uniform(4.5, 8)
            u, v = left + lot - length / 2 - roll.uniform(0.8, 1.5), edge + sign * (setback + depth / 2)
            drive = (
                left + 0.6,
                min(edge, edge + sign * (setback + 5)),
                left + 3.6,
                max(edge, edge + sign * (setback + 5)),
            )
            builder.plan(LAND, _rectangle(*drive), toned(roll, (160, 152, 144), 0.15), 6)
            turned = roll.random() < 0.35
            place = builder.warp.place(u, v, math.pi / 2) if turned and length < depth + 2 else builder.warp.place(u, v)
            buildings.house(builder, place, length, depth, roll.uniform(5, 8), style, eaves=0.5)
            _park_vehicle(builder, left + 2.1, edge + sign * 3.4, math.pi / 2, (0.93, 0.07, 0, 0), 0.55, 5.3)
            stands = [(u, v), (u - 4, v), (u + 4, v), (left + 2.1, edge + sign * 3), (left + 2.1, edge + sign * 6)]
            back = edge + sign * (setback + depth + 6)
            if roll.random() < 0.55:
                shed = (left + roll.uniform(3, lot - 3), back + sign * roll.uniform(0, 4))
                stands.append(shed)
                buildings.hall(builder, builder.warp.place(*shed), roll.uniform(2.4, 4), roll.uniform(2, 3), 2.4)
            if roll.random() < 0.22:
                pool = (left + lot * 0.6, back)
                stands.append(pool)
                spot = builder.warp.place(*pool)
                builder.box(LAND, spot, 0, 0, 8.4, 4.6, (196, 190, 180), 6)
                builder.box(LAND, spot, 0, 0, 7.2, 3.4, (92, 168, 190), 5)
            keep = np.array(stands)
            _scatter_trees(builder, garden, roll.randrange(3, 9), (0.6, 3.4), margin=0.8, keep=keep)


def _field(builder: Builder, plot: Plot) -> None:
    """A field with furrows, or standing corn with tramlines."""
    roll = builder.roll
    colours: tuple[Colour, ...] = (
        (150, 124, 92),
        (184, 166, 110),
        (116, 130, 82),
        (128, 108, 84),
        (168, 150, 98),
        (100, 118, 72),
    )
    base = toned(roll, roll.choice(colours))
    builder.lay(_rectangle(*plot), base, 20)
    upright = roll.random() < 0.5
    low, high = (plot[0], plot[2]) if upright else (plot[1], plot[3])
    spacing, depth = roll.choice((0.75, 1.5, 3.0)), roll.uniform(0.03, 0.12)
    starts = np.arange(low, high - spacing, spacing)
    near = starts[::2]
    far, tone = near + spacing * 0.5, 1 - depth
    first, last = (plot[1], plot[3]) if upright else (plot[0], plot[2])
    for a, b in pairwise(np.linspace(first, last, 7)):
        ends = np.stack([np.full_like(near, a), np.full_like(near, b)])
        corners = [(near, ends[0]), (far, ends[0]), (far, ends[1]), (near, ends[1])]
        quads = np.stack([np.stack(pair if upright else pair[::-1], -1) for pair in corners], axis=1)
        builder.plan_quads(LAND, quads, (base[0] * tone, base[1] * tone, base[2] * tone), 20)
    tram = roll.uniform(14, 24)
    for at in np.arange(low + tram / 2, high, tram).tolist():
        for wheel in (-0.9, 0.9):
            track = (
                (at + wheel - 0.2, plot[1], at + wheel + 0.2, plot[3])
                if upright
                else (plot[0], at + wheel - 0.2, plot[2], at + wheel + 0.2)
            )
            builder.plan(LAND, _rectangle(*track), (base[0] * 0.86, base[1] * 0.86, base[2] * 0.86), 14)
    if roll.random() < 0.5:
        _hedge(builder, plot)


def _hedge(builder: Builder, plot: Plot) -> None:
    """Bushes and trees along one edge."""
    roll = builder.roll
    at, kind = plot[0] + 1, leaves(roll)
    while at < plot[2] - 1:
        radius = roll.uniform(0.7, 3.2)
        place = builder.warp.place(at, plot[1] + 2.6 + roll.uniform(-0.6, 0.6))
        builder.tree(place.x, place.y, radius, kind if roll.random() < 0.7 else leaves(roll))
        at += radius * roll.uniform(1.1, 3.5)


def _meadow(builder: Builder, plot: Plot) -> None:
    """Grass, mown in places, with single trees and bales."""
    roll = builder.roll
    _lawn(builder, plot)
    _spots(builder, plot, 8, ((140, 142, 92), (104, 122, 68), (150, 140, 100)), (5, 20), 22)
    if _free(plot):
        _scatter_trees(builder, plot, roll.randrange(2, 12), (0.7, 4.5))
    for _ in range(roll.choice((0, 0, 0, 9))):
        place = builder.warp.place(
            roll.uniform(plot[0] + 5, plot[2] - 5), roll.uniform(plot[1] + 5, plot[3] - 5), roll.uniform(0, 3)
        )
        buildings.bale(builder, place)


def _woods(builder: Builder, plot: Plot) -> None:
    """Crowns beside crowns, with clearings of bare ground between."""
    roll = builder.roll
    _spots(builder, plot, 16, ((120, 108, 84), (84, 92, 54), (146, 132, 106), (66, 70, 46)), (2, 9), 22)
    pine, thick = roll.random() < 0.35, roll.uniform(0.55, 1.0)
    spacing = roll.uniform(4.6, 6.8)
    for u in np.arange(plot[0] + 2, plot[2] - 1, spacing).tolist():
        for v in np.arange(plot[1] + 2, plot[3] - 1, spacing).tolist():
            there, du, dv = roll.random() < thick, roll.uniform(-0.45, 0.45), roll.uniform(-0.45, 0.45)
            size, conifer, kind = roll.uniform(0.4, 0.86), pine != (roll.random() < 0.15), leaves(roll)
            if there:
                place = builder.warp.place(u + du * spacing, v + dv * spacing)
                builder.tree(
                    place.x, place.y, size * spacing * (0.8 if conifer else 1.0), _NEEDLES if conifer else kind, conifer
                )


def _water(builder: Builder, plot: Plot) -> None:
    """Open water: swells, streaks, glints, perhaps boats, which are no vehicles here."""
    roll = builder.roll
    _spots(builder, plot, 7, ((58, 80, 82), (66, 88, 86), (68, 84, 78)), (8, 30), 6)
    if roll.random() < 0.5:
        for _ in range(roll.randrange(20, 160)):
            u, v = roll.uniform(plot[0], plot[2]), roll.uniform(plot[1], plot[3])
            size = roll.uniform(0.08, 0.4)
            glint = [(u, v), (u + size * 2, v), (u + size * 2, v + size), (u, v + size)]
            builder.plan(MARKS, np.array(glint), (roll.uniform(120, 225),) * 3, 4)


BUILDERS: dict[str, Callable[[Builder, Plot], None]] = {
    "courtyards": _courtyards, "slabs": _slabs, "halls": _halls, "parking": _parking, "plaza": _plaza, "park": _park,
    "yard": _yard, "houses": _houses, "field": _field, "meadow": _meadow, "woods": _woods, "water": _water,
}  # fmt: skip
"""What fills a plot, by use."""
