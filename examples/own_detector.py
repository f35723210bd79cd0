"""A detector of one's own: anything with `categories`, `input_size` and `detect` works on images of any size.

    python examples/own_detector.py car_park.tif vehicles.geojson

Without arguments it paints a georeferenced car park first, and finds the vehicles in it by their colour.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np
import rasterio
from PIL import Image, ImageDraw
from rasterio.transform import from_origin

import slicedet


class ColouredVehicles:
    """Finds patches of strong colour: enough for a painted scene, and an example of what a detector is."""

    categories = ("vehicle",)
    input_size = 256

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        return [self._detect(tile) for tile in tiles]

    def _detect(self, tile: np.ndarray) -> slicedet.Detections:
        colourful = (tile.max(axis=2).astype(int) - tile.min(axis=2) > 60).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(colourful)
        x, y, width, height, area = stats[1:][stats[1:, 4] > 30].T
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        return slicedet.Detections(boxes, 0.5 + 0.5 * area / (width * height), np.zeros(len(boxes)))


def paint_car_park(path: str, seed: int = 7) -> None:
    """Paints rows of parked vehicles as a GeoTIFF of 1200 x 800 pixels at 0.1 m near Minsk, and writes it to `path`."""
    rng = np.random.default_rng(seed)
    scene = Image.new("RGB", (1200, 800), (92, 92, 90))
    draw = ImageDraw.Draw(scene)
    for y in range(30, 760, 150):
        for x in range(30, 1160, 34):
            draw.line([(x, y), (x, y + 54)], fill=(200, 200, 196), width=2)
            if rng.random() < 0.7:
                left, top = x + 7 + int(rng.integers(0, 4)), y + 3 + int(rng.integers(0, 6))
                colour = [(190, 40, 40), (40, 70, 180), (210, 160, 40), (40, 140, 90)][int(rng.integers(4))]
                draw.rounded_rectangle([left, top, left + 19, top + 43], 5, fill=colour)
                draw.rectangle([left + 3, top + 10, left + 16, top + 16], fill=tuple(c // 2 for c in colour))
    pixels = np.asarray(scene).astype(int) + rng.integers(-6, 7, (800, 1200, 1))
    profile = {"driver": "GTiff", "width": 1200, "height": 800, "count": 3, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(
        path, "w", **profile, crs="EPSG:32635", transform=from_origin(539_000, 5_973_000, 0.1, 0.1)
    ) as file:
        file.write(pixels.clip(0, 255).astype(np.uint8).transpose(2, 0, 1))


def main() -> None:
    if len(sys.argv) not in (1, 3):
        sys.exit("usage: python examples/own_detector.py [car_park.tif vehicles.geojson]")
    image, result = sys.argv[1:] or ("car_park.tif", "vehicles.geojson")
    if len(sys.argv) == 1:
        paint_car_park(image)
    prediction = slicedet.predict(image, ColouredVehicles(), overlap=0.25)
    prediction.save(result, overwrite=True)
    print(f"{len(prediction.detections)} vehicles, written to {result}")


if __name__ == "__main__":
    main()
