"""Buildings and things on the ground that stand up: walls, roofs and what is on them, containers, stalls."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np

from slicedet.datasets.synthetic.cell import MARKS, ROOFS, Builder, hull
from slicedet.datasets.synthetic.world import Colour, Place, Point

_TILES: tuple[Colour, ...] = (
    (186, 92, 62), (172, 78, 54), (196, 110, 78), (152, 74, 58), (128, 84, 70), (104, 92, 88), (92, 92, 96),
    (206, 124, 92),
)  # fmt: skip
_FLAT: tuple[Colour, ...] = (
    (150, 150, 148), (176, 174, 168), (118, 118, 120), (92, 93, 96), (200, 198, 192), (160, 146, 130), (136, 142, 132),
)  # fmt: skip
_METAL: tuple[Colour, ...] = ((188, 192, 194), (158, 164, 168), (206, 206, 202), (120, 140, 150), (140, 82, 72))


class Style(NamedTuple):
    """What the houses of one block have in common: roof colours, and how many of them are flat."""

    tiles: tuple[Colour, ...]
    flat: float


def style(roll: random.Random) -> Style:
    """A block's style."""
    return Style(tuple(roll.choice(_TILES) for _ in range(3)), roll.choice((0.0, 0.1, 0.25)))


def house(
    builder: Builder, place: Place, length: float, depth: float, height: float, manner: Style, eaves: float = 0.0
) -> None:
    """A house with a ridge along its length, or a flat roof. height: of the walls, in metres."""
    roll = builder.roll
    if roll.random() < manner.flat:
        flats(builder, place, length, depth, height)
        return
    a, b = length / 2 + eaves, depth / 2 + eaves
    rise = depth / 2 * roll.uniform(0.5, 0.85)
    _walls(builder, place, length, depth, height)
    tone = roll.uniform(0.88, 1.1)
    red, green, blue = roll.choice(manner.tiles)
    tile = (red * tone, green * tone, blue * tone)
    hip = min(a * 0.6, b) if roll.random() < 0.2 and eaves else 0.0
    slope = math.atan2(rise, b)
    top = height + rise
    # The ridge is seen higher up, so displaced further.
    for side in (-1, 1):
        face = _lit(builder, place, (0.0, side * math.sin(slope), math.cos(slope)), tile)
        ridge = _raised(builder, place, [(a - hip, 0), (-a + hip, 0)], top)
        foot = _raised(builder, place, [(-a, side * b), (a, side * b)], height)
        builder.polygon(ROOFS, [*foot, *ridge], face, 22)
        _on_slope(builder, place, a - hip, b, height, rise, side, face)
    if hip:
        for end in (-1, 1):
            face = _lit(builder, place, (end * math.sin(slope), 0.0, math.cos(slope)), tile)
            foot = _raised(builder, place, [(end * a, -b), (end * a, b)], height)
            builder.polygon(ROOFS, [*foot, *_raised(builder, place, [(end * (a - hip), 0)], top)], face, 22)
    ridge = _raised(builder, place, [(-a + hip, -0.12), (a - hip, -0.12), (a - hip, 0.12), (-a + hip, 0.12)], top)
    builder.polygon(ROOFS, ridge, (tile[0] * 0.86, tile[1] * 0.86, tile[2] * 0.88), 8)
    if not eaves:
        # The wall between two houses stands out of the roofs a little.
        for side in (-1, 1):
            foot = _raised(builder, place, [(a - 0.15, side * b), (a + 0.15, side * b)], height)
            wall = _raised(builder, place, [(a + 0.15, 0), (a - 0.15, 0)], top)
            builder.polygon(ROOFS, [*foot, *wall], (154, 140, 132), 8)
    for _ in range(roll.randrange(1, 4)):
        _chimney(builder, place, roll.uniform(-a * 0.8, a * 0.8), roll.uniform(-1.2, 1.2), top)


def flats(builder: Builder, place: Place, length: float, depth: float, height: float) -> None:
    """A block with a flat roof, its parapet, vents, hatches, stair heads, perhaps solar panels."""
    roll = builder.roll
    colour = _varied(roll, roll.choice(_FLAT))
    _walls(builder, place, length, depth, height)
    edge = _varied(roll, (186, 184, 178))
    builder.box(ROOFS, place, 0, 0, length + 0.3, depth + 0.3, edge, 7, height)
    builder.box(ROOFS, place, 0, 0, length - 0.4, depth - 0.4, colour, 13, height)
    _parapet_shade(builder, place, length - 0.4, depth - 0.4, height, colour)
    _stains(builder, place, length - 2, depth - 2, height, colour)
    _roof_things(builder, place, length - 3, depth - 3, height, int(length * depth / 90) + 2)


def hall(builder: Builder, place: Place, length: float, depth: float, height: float) -> None:
    """A hall or shed with a metal or felt roof: seams, rows of skylights, cooling units."""
    roll = builder.roll
    _walls(builder, place, length, depth, height)
    colour = _varied(roll, roll.choice(_METAL if roll.random() < 0.5 else _FLAT))
    builder.box(ROOFS, place, 0, 0, length + 0.2, depth + 0.2, _varied(roll, (170, 170, 168)), 7, height)
    builder.box(ROOFS, place, 0, 0, length - 0.5, depth - 0.5, colour, 9, height)
    if length < 12:
        return
    _parapet_shade(builder, place, length - 0.5, depth - 0.5, height, colour)
    _stains(builder, place, length - 3, depth - 3, height, colour)
    choice = roll.random()
    if choice < 0.4:
        glass = roll.choice(((196, 204, 206), (228, 230, 228), (110, 122, 130)))
        wide, deep, step = roll.uniform(1.2, 2.2), roll.uniform(2.2, 5.0), roll.uniform(6, 9)
        for x in np.arange(-length / 2 + 4, length / 2 - 3, step).tolist():
            for y in np.arange(-depth / 2 + 4, depth / 2 - 3, step).tolist():
                _raised_box(builder, place.at(x, y), wide, deep, height, 0.5, glass)
    elif choice < 0.6:
        for x in np.arange(-length / 2 + 2, length / 2 - 2, 2.2).tolist():
            builder.box(
                ROOFS, place, x, 0, 0.15, depth - 1, (colour[0] * 0.9, colour[1] * 0.9, colour[2] * 0.9), 8, height
            )
    elif choice < 0.8:
        for x in np.arange(-length / 2 + 5, length / 2 - 7, 9.0).tolist():
            _solar(builder, place.at(x, roll.uniform(-1, 1)), 6.5, min(depth - 5, 12), height)
    _roof_things(builder, place, length - 4, depth - 4, height, int(length * depth / 160) + 2)


def container(builder: Builder, place: Place) -> None:
    """A steel container or a builders' cabin."""
    roll = builder.roll
    colour = _varied(roll, roll.choice(((60, 92, 134), (150, 66, 52), (188, 190, 188), (196, 160, 70), (86, 112, 88))))
    length = roll.choice((6.06, 6.06, 12.19))
    _shade_of(builder, place, length, 2.44, 2.6)
    builder.box(MARKS, place, 0, 0, length, 2.44, _dark(colour, 0.55), 6)
    builder.box(ROOFS, place, 0, 0, length, 2.44, colour, 8, 2.6)
    for x in np.arange(-length / 2 + 0.5, length / 2, 0.55).tolist():
        builder.box(ROOFS, place, x, 0, 0.16, 2.3, _dark(colour, 0.9), 8, 2.6)


def stack(builder: Builder, place: Place) -> None:
    """Planks, pallets or pipes in a heap."""
    roll = builder.roll
    colour = _varied(roll, roll.choice(((196, 170, 122), (158, 122, 84), (146, 146, 148), (178, 98, 74))))
    length, width, count = roll.uniform(1.5, 6), roll.uniform(1, 2.4), roll.randrange(3, 7)
    _shade_of(builder, place, length, width, 1.0)
    for k in range(count):
        y = (k + 0.5) / count * width - width / 2
        builder.box(
            ROOFS, place, roll.uniform(-0.3, 0.3), y, length, width / count * 0.9, _varied(roll, colour), 12, 0.8
        )


def stall(builder: Builder, place: Place) -> None:
    """A market stall or parasol: a coloured canvas on posts."""
    roll = builder.roll
    colour = _varied(roll, roll.choice(((204, 60, 52), (232, 230, 224), (58, 96, 150), (226, 190, 84), (70, 122, 84))))
    length, width = roll.choice(((3.0, 3.0), (4.5, 2.4), (2.6, 2.6), (6.0, 3.0)))
    _shade_of(builder, place, length, width, 2.5)
    corners = [(-length / 2, -width / 2), (length / 2, -width / 2), (length / 2, width / 2), (-length / 2, width / 2)]
    for k, normal in enumerate(((0.0, -0.35), (0.35, 0.0), (0.0, 0.35), (-0.35, 0.0))):
        face = _lit(builder, place, (*normal, 0.94), colour)
        builder.local(ROOFS, place, [corners[k], corners[(k + 1) % 4], (0.0, 0.0)], face, 6, 2.4)


def bale(builder: Builder, place: Place) -> None:
    """A bale of hay."""
    _shade_of(builder, place, 1.5, 1.3, 1.3)
    builder.box(ROOFS, place, 0, 0, 1.5, 1.3, _varied(builder.roll, (196, 178, 120)), 22, 1.0)


def _corners(length: float, width: float) -> list[Point]:
    a, b = length / 2, width / 2
    return [(-a, -b), (a, -b), (a, b), (-a, b)]


def _raised(builder: Builder, place: Place, points: list[Point], z: float) -> list[Point]:
    """Ground coordinates at which points `z` metres up are seen."""
    dx, dy = builder.light.lean[0] * z, builder.light.lean[1] * z
    return [(x + dx, y + dy) for x, y in place.points(points)]


def _shade_of(builder: Builder, place: Place, length: float, width: float, height: float) -> None:
    builder.shadow(np.array(place.points(_corners(length, width))), height)


def _dark(colour: Colour, by: float) -> Colour:
    return colour[0] * by, colour[1] * by, colour[2] * by


def _varied(roll: random.Random, colour: Colour) -> Colour:
    tone = roll.uniform(0.9, 1.08)
    return colour[0] * tone + roll.uniform(-5, 5), colour[1] * tone, colour[2] * tone + roll.uniform(-5, 5)


def _lit(builder: Builder, place: Place, normal: tuple[float, float, float], colour: Colour) -> Colour:
    """The colour of a face in the sun; one that lies flat keeps its own."""
    cos, sin = math.cos(place.angle), math.sin(place.angle)
    east, south, up = builder.light.direction
    facing = max(
        0.0, (normal[0] * cos - normal[1] * sin) * east + (normal[0] * sin + normal[1] * cos) * south + normal[2] * up
    )
    sunny = 1 - sum(builder.light.shade) / 3
    return _dark(colour, 1 - sunny + sunny * (0.35 + 0.65 * facing / up))


def _walls(builder: Builder, place: Place, length: float, depth: float, height: float) -> None:
    """The shadow on the ground, and the walls as far as they are seen."""
    _shade_of(builder, place, length, depth, height)
    corners = _corners(length, depth)
    plaster = _varied(
        builder.roll, builder.roll.choice(((196, 188, 172), (178, 172, 164), (200, 176, 140), (168, 150, 138)))
    )
    base, top = place.points(corners), _raised(builder, place, corners, height)
    for k, normal in enumerate(((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))):
        n = (k + 1) % 4
        builder.polygon(ROOFS, [base[k], base[n], top[n], top[k]], _lit(builder, place, (*normal, 0.0), plaster), 10)


def _parapet_shade(builder: Builder, place: Place, length: float, depth: float, height: float, colour: Colour) -> None:
    """What the parapet shades of the roof behind it."""
    east, south = builder.light.sun
    cos, sin = math.cos(place.angle), math.sin(place.angle)
    along, across = (east * cos + south * sin) * 0.6, (-east * sin + south * cos) * 0.6
    dark = _dark(colour, 0.62)
    a, b = length / 2, depth / 2
    x, y = -a if along > 0 else a, -b if across > 0 else b
    builder.local(ROOFS, place, [(x, -b), (x + along, -b), (x + along, b), (x, b)], dark, 8, height)
    builder.local(ROOFS, place, [(-a, y), (-a, y + across), (a, y + across), (a, y)], dark, 8, height)


def _stains(builder: Builder, place: Place, length: float, depth: float, height: float, colour: Colour) -> None:
    roll = builder.roll
    if min(length, depth) < 2:
        return
    for _ in range(roll.randrange(2, 7)):
        x, y = roll.uniform(-length / 2, length / 2), roll.uniform(-depth / 2, depth / 2)
        radius = min(roll.uniform(0.8, 4), depth / 3)
        ring = [
            (
                x + math.cos(k * 0.7) * radius * roll.uniform(0.6, 1.1),
                y + math.sin(k * 0.7) * radius * roll.uniform(0.5, 0.9),
            )
            for k in range(9)
        ]
        builder.local(ROOFS, place, ring, _dark(colour, roll.uniform(0.88, 1.07)), 13, height)


def _roof_things(builder: Builder, place: Place, length: float, depth: float, height: float, count: int) -> None:
    """Vents, cooling units, hatches, stair heads, pipes."""
    roll = builder.roll
    if min(length, depth) < 2:
        return
    for _ in range(count):
        spot = place.at(
            roll.uniform(-length / 2, length / 2), roll.uniform(-depth / 2, depth / 2), roll.choice((0.0, math.pi / 2))
        )
        choice = roll.random()
        if choice < 0.3:
            _raised_box(builder, spot, 0.7, 0.7, height, 0.7, _varied(roll, (186, 188, 188)))
        elif choice < 0.55:
            unit = _varied(roll, roll.choice(((196, 198, 198), (150, 154, 156), (216, 214, 208))))
            long, wide = roll.uniform(1.6, 4.2), roll.uniform(1.2, 2.1)
            _raised_box(builder, spot, long, wide, height, 1.3, unit)
            for x in (-long / 4, long / 4):
                builder.box(ROOFS, spot, x, 0, 0.9, 0.9, _dark(unit, 0.5), 6, height + 1.3)
        elif choice < 0.75:
            _raised_box(builder, spot, roll.uniform(1.0, 2.0), roll.uniform(1.0, 1.6), height, 0.4, (206, 212, 214))
        elif choice < 0.85 and min(length, depth) > 5:
            _raised_box(
                builder, spot, roll.uniform(3, 5.5), roll.uniform(2.4, 4), height, 2.5, _varied(roll, (150, 148, 144))
            )
        elif choice < 0.93:
            builder.box(ROOFS, spot, 0, 0, roll.uniform(3, 8), 0.25, (180, 182, 182), 6, height + 0.2)
        elif min(length, depth) > 7:
            _solar(builder, spot, roll.uniform(3, 7), roll.uniform(2, 5), height)


def _raised_box(
    builder: Builder, place: Place, length: float, width: float, floor: float, height: float, colour: Colour
) -> None:
    """A box on a roof, `floor` metres up, with its shadow on that roof."""
    corners = _corners(length, width)
    base = np.array(_raised(builder, place, corners, floor))
    sun = np.array(builder.light.sun) * height
    builder.polygon(ROOFS, hull(np.vstack([base, base + sun])), (66, 66, 70), 6)
    top = np.array(_raised(builder, place, corners, floor + height))
    builder.polygon(ROOFS, hull(np.vstack([base, top])), _dark(colour, 0.62), 5)
    builder.polygon(ROOFS, top, colour, 6)


def _solar(builder: Builder, place: Place, length: float, width: float, height: float) -> None:
    """Panels in rows: dark blue with light joints."""
    roll = builder.roll
    dark = _varied(roll, (48, 58, 84))
    rows = max(1, int(width / 1.9))
    for row in range(rows):
        y = (row - (rows - 1) / 2) * 1.9
        builder.box(ROOFS, place, 0, y, length, 1.62, (160, 164, 170), 4, height + 0.3)
        for x in np.arange(-length / 2 + 0.55, length / 2 - 0.3, 1.02).tolist():
            builder.box(ROOFS, place, x, y, 0.94, 1.54, dark, 5, height + 0.3)


def _chimney(builder: Builder, place: Place, x: float, y: float, height: float) -> None:
    roll = builder.roll
    colour = _varied(roll, roll.choice(((150, 84, 66), (176, 172, 166), (128, 120, 114))))
    _raised_box(builder, place.at(x, y), roll.uniform(0.5, 1.3), 0.6, height - 0.4, 1.1, colour)


def _on_slope(
    builder: Builder, place: Place, a: float, b: float, height: float, rise: float, side: int, face: Colour
) -> None:
    """Skylights, dormers or panels in a row on one slope of a roof."""
    roll = builder.roll
    choice = roll.random()
    if choice < 0.25 or a < 2.5:
        return

    def quad(x: float, y1: float, y2: float, wide: float) -> list[Point]:
        points = []
        for dx, y in ((-wide, y1), (wide, y1), (wide, y2), (-wide, y2)):
            points += _raised(builder, place, [(x + dx, side * y)], height + rise * (1 - y / b))
        return points

    step = roll.uniform(2.2, 4.5)
    at = roll.uniform(0.35, 0.6) * b
    window = roll.choice(((74, 82, 92), (156, 166, 174), (208, 212, 214), (96, 104, 112)))
    for x in np.arange(-a + 1.6, a - 1.4, step).tolist():
        if roll.random() < 0.15:
            continue
        if choice < 0.65:
            builder.polygon(ROOFS, quad(x, at - 0.65, at + 0.65, 0.45), _dark(face, 0.7), 5)
            builder.polygon(ROOFS, quad(x, at - 0.52, at + 0.52, 0.36), window, 5)
        elif choice < 0.85:
            spot = place.at(x, side * at)
            _raised_box(
                builder,
                spot,
                1.5,
                2.0,
                height + rise * (1 - at / b) - 0.5,
                1.0,
                _varied(roll, roll.choice((window, face, (176, 178, 178)))),
            )
        else:
            builder.polygon(ROOFS, quad(x, 0.2 * b, 0.8 * b, 0.9), (52, 62, 88), 5)
