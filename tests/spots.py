"""A detector that needs no network, and pictures for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from slicedet import Detections


class Spots:
    """Finds bright pixels, one box around all those of a tile; counts the tiles it has seen.

    pause: seconds for each tile. log: file that gets a byte for each tile, whatever becomes of the process.
    fails_after: tiles after which it raises KeyboardInterrupt.
    """

    categories, input_size, name = ("spot", "stain"), 128, "spots"

    def __init__(self, pause: float = 0, log: Path | None = None, fails_after: int | None = None) -> None:
        self.pause = pause
        self.log = log
        self.fails_after = fails_after
        self.seen = 0

    def detect(self, tiles: list[np.ndarray]) -> list[Detections]:
        return [self.found(tile) for tile in tiles]

    def found(self, tile: np.ndarray) -> Detections:
        if self.fails_after is not None and self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += 1
        if self.log is not None:
            with self.log.open("ab") as file:
                file.write(b".")
        time.sleep(self.pause)
        rows, columns = np.nonzero(tile[..., 0] > 200)
        if not len(rows):
            return Detections.empty()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections([box], [0.9], [0])


def spotted(x: int, y: int, size: tuple[int, int] = (100, 80)) -> np.ndarray:
    """A dark picture [3, H, W] with a spot of 10 x 6 pixels."""
    pixels = np.full((3, size[1], size[0]), 20, np.uint8)
    pixels[:, y : y + 6, x : x + 10] = 250
    return pixels


def strewn(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A dark picture [3, H, W] with a spot every 40 pixels or so."""
    pixels = np.full((3, height, width), 20, np.uint8)
    random = np.random.default_rng(seed)
    for y in range(0, height - 20, 40):
        for x in range(0, width - 20, 40):
            dx, dy, w, h = random.integers((0, 0, 4, 4), (8, 8, 12, 12))
            pixels[:, y + dy : y + dy + h, x + dx : x + dx + w] = 250
    return pixels


def tree(folder: Path, records: bool = True) -> dict[str, bytes]:
    """Every file and folder below, with the content of files; the manifest, and if asked for records of runs, which
    hold times, left out."""
    paths = [path for path in sorted(folder.rglob("*")) if ".slicedet" not in path.parts]
    content = {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"" for path in paths}
    return {name: data if records or not name.endswith(".run.json") else b"" for name, data in content.items()}
