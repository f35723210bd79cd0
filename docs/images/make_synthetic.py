"""Makes synthetic.jpg, the picture of painted scenes: six landscapes, and in the last one the boxes of the truth.

python docs/images/make_synthetic.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from slicedet.datasets.synthetic import Layout, paint
from slicedet.tiling import Tile

PANELS = (
    ("city", 1, 0.15, 300, 200), ("suburb", 2, 0.15, 300, 200), ("country", 3, 0.2, 300, 200),
    ("woods", 4, 0.15, 300, 200), ("roofs", 6, 0.15, 300, 200), ("city", 9, 0.06, 590, 0),
)  # fmt: skip
"""Landscape, seed, metres per pixel, and the first column and row."""

WIDTH, HEIGHT, GAP, COLUMNS = 520, 360, 6, 3


def main() -> None:
    rows = []
    for first in range(0, len(PANELS), COLUMNS):
        row = []
        for landscape, seed, gsd, x, y in PANELS[first : first + COLUMNS]:
            painted = paint(Layout(seed, landscape), gsd, Tile(x, y, WIDTH, HEIGHT))
            panel = Image.fromarray(painted.pixels)
            if gsd < 0.1:
                for box in painted.boxes.tolist():
                    ImageDraw.Draw(panel).rectangle(box, outline=(240, 228, 66), width=2)
            row.append(np.pad(np.asarray(panel), ((0, GAP), (0, GAP), (0, 0)), constant_values=255))
        rows.append(np.hstack(row))
    sheet = np.vstack(rows)[:-GAP, :-GAP]
    Image.fromarray(sheet).save(Path(__file__).with_name("synthetic.jpg"), quality=88)


if __name__ == "__main__":
    main()
