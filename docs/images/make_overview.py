"""Makes overview.png, the picture of the README: a painted car park, what each tile saw of it, and the merged result.

python docs/images/make_overview.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import slicedet

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))

from own_detector import ColouredVehicles, paint_car_park  # noqa: E402

CROP = (0, 0, 640, 500)
TILE, CUT, WHOLE, PAPER = (255, 255, 255), (0, 220, 255), (240, 228, 66), (24, 26, 30)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/car_park.tif"
        paint_car_park(path)
        detector = ColouredVehicles()
        with slicedet.Scene(path) as scene:
            merged = slicedet.predict(scene, detector).detections
            grid = slicedet.TileGrid.cover(scene.width, scene.height, 256, 0.25)
            seen = []
            for tile in grid:
                (found,) = detector.detect([scene.read(tile)])
                seen += [box + np.array([tile.x, tile.y] * 2) for box in found.boxes]
            picture = Image.fromarray(scene.read(CROP))
    panels = [picture.copy(), picture.copy()]
    left, right = (ImageDraw.Draw(panel) for panel in panels)
    for tile in grid:
        left.rectangle([tile.x, tile.y, tile.x + tile.width - 1, tile.y + tile.height - 1], outline=TILE)
    for box in seen:
        left.rectangle([*box[:2], box[2] - 1, box[3] - 1], outline=CUT, width=2)
    for box in merged.boxes:
        right.rectangle([*box[:2], box[2] - 1, box[3] - 1], outline=WHOLE, width=2)
    width, height, gap, band = CROP[2], CROP[3], 20, 44
    sheet = Image.new("RGB", (2 * width + 3 * gap, height + gap + band), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(22)
    inside = [sum(box[2] < width and box[3] < height for box in boxes) for boxes in (seen, merged.boxes)]
    for number, (panel, text) in enumerate(
        zip(panels, (f"tiles, and the {inside[0]} boxes they saw", f"merged: {inside[1]} vehicles"), strict=True)
    ):
        x = gap + number * (width + gap)
        sheet.paste(panel, (x, band))
        draw.text((x, 9), text, fill=(235, 235, 235), font=font)
    sheet.save(HERE / "overview.png", optimize=True)


if __name__ == "__main__":
    main()
