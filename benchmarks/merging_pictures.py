"""Draws the pictures of docs/merging.md: the rule of agreement, and what each way of merging makes of a small scene.

python -m benchmarks.merging_pictures
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.oracle import RULES, Sight, Truth, judge, observe
from slicedet.merging import MergeRule
from slicedet.tiling import TileGrid

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SCALE = 2
INK, TILE, SHARED, OBJECT = "#222222", "#8a8a8a", "#fff3c4", "#e4e4e4"
GOOD, BAD, A, B = "#1a7f37", "#d1242f", "#0969da", "#bf5700"
WIDTH, HEIGHT = 720, 500

Box = tuple[float, float, float, float]


class Sheet:
    """A drawing of boxes in scene pixels, shifted to a panel."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(14 * SCALE)
        self.origin = (0, 0)

    def box(self, box: Iterable[float], color: str, width: int = 2, fill: str | None = None) -> None:
        """The outline of a box."""
        x, y = self.origin
        x1, y1, x2, y2 = box
        place = [(x1 + x) * SCALE, (y1 + y) * SCALE, (x2 + x) * SCALE, (y2 + y) * SCALE]
        self.draw.rectangle(place, fill=fill, outline=color, width=width * SCALE // 2)

    def text(self, x: float, y: float, words: str, color: str = INK) -> None:
        """Words, their upper left corner at x, y."""
        place = ((x + self.origin[0]) * SCALE, (y + self.origin[1]) * SCALE)
        self.draw.text(place, words, fill=color, font=self.font)

    def save(self, name: str) -> None:
        """Into the documentation's images."""
        self.image.save(IMAGES / name, optimize=True)


def the_rule() -> None:
    """Three pairs of detections: one object cut by a tile, two nested ones, and two that fill what both tiles saw."""
    tile_a, tile_b, shared = (20, 40, 220, 190), (150, 40, 350, 190), (150, 40, 220, 190)
    pairs: list[tuple[str, str, Box, Box]] = [
        ("cut by tile B, whole in A", "alike inside S: they agree", (70, 80, 208, 140), (150, 82, 206, 138)),
        ("a small object on a large one", "unlike inside S: two objects", (60, 70, 220, 160), (160, 85, 205, 115)),
        ("both fill S", "nothing visible: no evidence", (40, 40, 220, 190), (150, 40, 330, 190)),
    ]
    sheet = Sheet(370 * 3, 240)
    for nth, (title, verdict, a, b) in enumerate(pairs):
        sheet.origin = (370 * nth, 0)
        sheet.text(20, 10, title)
        sheet.box(shared, SHARED, fill=SHARED)
        sheet.box(tile_a, TILE)
        sheet.box(tile_b, TILE)
        sheet.text(26, 44, "A", A)
        sheet.text(334, 44, "B", B)
        sheet.text(180, 170, "S")
        sheet.box(a, A, 5)
        sheet.box(b, B, 5)
        sheet.text(20, 204, verdict, GOOD if nth == 0 else BAD)
    sheet.save("merging_rule.png")


def the_scene() -> Truth:
    """Objects that slicing finds hard, for tiles of 256 pixels."""
    diagonal = [(40 + 13 * n, 330 + 13 * n, 84 + 13 * n, 374 + 13 * n) for n in range(7)]
    row = [(190 + 24 * n, 40, 210 + 24 * n, 84) for n in range(14)]
    nested = [(300, 180, 420, 290), (318, 200, 344, 224), (372, 240, 398, 266)]
    large = [(470, 130, 700, 330), (500, 200, 530, 225), (600, 260, 640, 290)]
    wide = [(180, 400, 690, 450)]
    single = [(60, 60, 96, 90), (170, 200, 206, 228), (60, 250, 100, 280)]
    boxes = np.array([*diagonal, *row, *nested, *large, *wide, *single], float)
    return Truth(boxes, np.zeros(len(boxes), int))


def the_methods() -> None:
    """What the tiles reported of the scene, and what three ways of merging make of it."""
    truth, grid = the_scene(), TileGrid.cover(WIDTH, HEIGHT, 256, 0.25)
    raw = observe(truth, grid, Sight(), seed=1)
    sheet = Sheet(2 * WIDTH + 60, 2 * (HEIGHT + 50) + 10)
    panels: list[tuple[str, MergeRule | None]] = [("the tiles", None)]
    panels += [(name, RULES[name]) for name in ("NMS, IoU", "greedy NMM, IOS, growing always", "agreement")]
    for nth, (name, rule) in enumerate(panels):
        sheet.origin = (20 + (WIDTH + 20) * (nth % 2), 36 + (HEIGHT + 50) * (nth // 2))
        sheet.box((0, 0, WIDTH, HEIGHT), TILE)
        for box in truth.boxes:
            sheet.box(box, OBJECT, fill=OBJECT if rule is None else None, width=1)
        if rule is None:
            for tile in grid:
                sheet.box((tile.x, tile.y, tile.x + tile.width, tile.y + tile.height), "#c9c9c9", width=1)
            for box in raw.boxes:
                sheet.box(box, A)
            sheet.text(0, -24, f"{len(raw)} detections in {len(grid)} tiles of {len(truth.boxes)} objects")
            continue
        found = rule.apply(raw, (WIDTH, HEIGHT))
        outcome = judge(found, truth, 0.85)
        for box, missed in zip(truth.boxes, ~outcome.found, strict=True):
            if missed:
                sheet.box(box, "#ffd7d5", fill="#ffd7d5")
        for box in found.boxes.astype(float):
            one = judge(found[(found.boxes == box.astype(np.float32)).all(1)], truth, 0.85)
            sheet.box(box, GOOD if one.found.any() else BAD)
        lost = int((~outcome.found).sum())
        sheet.text(0, -24, f"{name}: {lost} lost (pink), {outcome.surplus} surplus (red)", BAD if lost else GOOD)
    sheet.save("merging_methods.png")


if __name__ == "__main__":
    the_rule()
    the_methods()
