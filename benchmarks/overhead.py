"""What a tile costs besides the network: a detector that returns 20 boxes and costs nothing, at 400 and 40,000 tiles.

    python -m benchmarks.overhead [--quick] [--rounds 3] [--folder DIR]

The files are the sparse ones of memory.py. The rest is the time of `predict` less that of reading the same windows in
the same order with rasterio alone, in one thread. Merging is timed on its own, on all that the tiles saw at once.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

import slicedet
from benchmarks.memory import Free, machine, sparse
from slicedet.detections import Detections
from slicedet.merging import MergeRule
from slicedet.raster.source import CACHE_BYTES
from slicedet.tiling import TileGrid

SLICE, OVERLAP = 416, 0.25
STRIDE = SLICE - int(SLICE * OVERLAP)
BOXES = 20
COUNTS, QUICK = (20, 200), (10, 40)
"""Tiles along either axis."""


def twenty() -> Detections:
    """Boxes of 10 to 40 px anywhere in a tile."""
    random = np.random.default_rng(0)
    corner = random.uniform(0, SLICE - 40, (BOXES, 2))
    boxes = np.concatenate([corner, corner + random.uniform(10, 40, (BOXES, 2))], 1)
    return Detections(boxes, random.uniform(0.3, 1, BOXES), random.integers(0, len(Free.categories), BOXES))


def read(path: Path, grid: TileGrid) -> None:
    """The windows of all tiles, with as large a cache as slicedet gives GDAL."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(path) as dataset:
        for tile in grid:
            dataset.read(window=Window(*tile))


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(along: int, rounds: int, folder: Path) -> tuple[int, float, float, float]:
    """Tiles, and seconds of predict, of reading and of merging, medians over rounds."""
    edge = SLICE + STRIDE * (along - 1)
    path = folder / f"sparse_{edge}.tif"
    sparse(path, edge)
    grid = TileGrid.cover(edge, edge, SLICE, OVERLAP)
    detector, rule = Free(twenty()), MergeRule()
    views = slicedet.predict(path, detector, slice=SLICE, overlap=OVERLAP, merge=rule).views
    if len(views) != BOXES * along**2:
        raise SystemExit(f"{path}: {len(views)} boxes of {along**2} tiles are not what was to be measured")
    works: list[Callable[[], object]] = [
        lambda: slicedet.predict(path, detector, slice=SLICE, overlap=OVERLAP, merge=rule, keep_views=False),
        lambda: read(path, grid),
        lambda: rule.apply(views, (edge, edge)),
    ]
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    predicting, reading, merging = map(statistics.median, zip(*times, strict=True))
    return len(grid), predicting, reading, merging


def main() -> None:
    """Print a table of both counts of tiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(str(n**2) for n in QUICK)} tiles")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="keeps the files for the next time")
    options = parser.parse_args()
    print(machine(), end="\n\n")
    print("| tiles | rest / rest of the first row | predict / reading | rest | of it merging | reading | predict |")
    print("|---|---|---|---|---|---|---|")
    first = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for along in QUICK if options.quick else COUNTS:
            tiles, predicting, reading, merging = measure(along, options.rounds, folder)
            rest = predicting - reading
            first = first or rest / tiles
            parts = (f"{1000 * part / tiles:.3f} ms" for part in (rest, merging, reading, predicting))
            ratios = f"{rest / tiles / first:.2f} | {predicting / reading:.2f}"
            print(f"| {tiles:,} | {ratios} | {' | '.join(parts)} |", flush=True)


if __name__ == "__main__":
    main()
