"""Peak memory of searching very large GeoTIFFs with a detector that costs nothing and finds millions of objects.

    python -m benchmarks.memory [--quick] [--detections 5000000] [--folder DIR]

The files are sparse: a block in 64 holds pixels, the others are read as zeros, which are data like any other, so every
tile is run. Objects stand on a lattice, so that neighbouring tiles see those in their overlap at the same place and
merging has its usual work. `--detections` is the number in the largest file; smaller ones hold as many per area.

Each measurement is the peak of a process of its own, less that of one that imports all of it and loads the detector.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.tiling import TileGrid

SLICE, OVERLAP = 640, 0.25
STRIDE = SLICE - int(SLICE * OVERLAP)
EDGE = 20
"""Of an object, in pixels."""

BLOCK, FILLED = 512, 8
"""Edge of a file's blocks; every so many hold pixels, along either axis."""

SIZES, QUICK = (10_000, 30_000, 100_000), (2_000, 6_000)
MEGABYTE = 1 << 20


class Measured(NamedTuple):
    """peak: bytes. seconds: of searching and writing. detections, tiles: how many."""

    peak: int
    seconds: float
    detections: int
    tiles: int


class Free:
    """A detector that sees the same boxes on every tile, and does not look."""

    categories = tuple("abcdefghij")
    input_size = None

    def __init__(self, found: Detections) -> None:
        self._found = found

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[Detections]:
        """As many copies as there are tiles."""
        return [self._found] * len(tiles)


def machine(*distributions: str) -> str:
    """One line: the processor, its cores and memory, and the versions of what is measured."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "rasterio", *distributions))
    python = f"Python {platform.python_version()}"
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()}; {python}, {versions}"


def lattice(per_area: float) -> Detections:
    """The objects that a tile sees whole, about `per_area` to a square pixel; the next tile sees its own at the same
    places of the scene."""
    columns = max(1, round(per_area**0.5 * STRIDE)) if per_area else 0
    if columns == 0:
        return Detections.empty()
    step = STRIDE / columns
    if step < EDGE + 2:
        raise SystemExit(f"{columns**2} objects of {EDGE} px do not fit into {STRIDE} x {STRIDE} pixels")
    corner = (step - EDGE) / 2 + step * np.arange(int((SLICE - (step + EDGE) / 2) // step) + 1)
    x, y = (axis.ravel() for axis in np.meshgrid(corner, corner))
    place = (np.round(x / step).astype(int) % columns) + columns * (np.round(y / step).astype(int) % columns)
    boxes = np.stack([x, y, x + EDGE, y + EDGE], 1)
    return Detections(boxes, 0.5 + 0.4 * np.sin(place), place % len(Free.categories))


def sparse(path: Path, edge: int) -> None:
    """Writes a square GeoTIFF of uint8 RGB, deflated, most blocks of which take no space."""
    import rasterio
    from rasterio.windows import Window

    if path.exists():
        return
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": edge, "height": edge, "count": 3, "dtype": "uint8", "crs": "EPSG:32632",
        "transform": rasterio.Affine(0.1, 0, 691_000, 0, -0.1, 5_336_000), "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "deflate", "interleave": "pixel", "photometric": "rgb", "SPARSE_OK": "TRUE",
        "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    random = np.random.default_rng(0)
    partial = path.with_suffix(".partial.tif")
    with rasterio.open(partial, "w", **profile) as dataset:
        for y in range(0, edge - BLOCK, BLOCK * FILLED):
            for x in range(0, edge - BLOCK, BLOCK * FILLED):
                dataset.write(random.integers(1, 64, (3, BLOCK, BLOCK), np.uint8), window=Window(x, y, BLOCK, BLOCK))
    partial.rename(path)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux hands ru_maxrss on to what a process starts.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def idle(per_area: float) -> int:
    """Peak of importing and loading alone."""
    for name in ("slicedet.pipeline", "slicedet.outputs.geojson", "rasterio", "pyproj", "shapely"):
        import_module(name)
    Free(lattice(per_area))
    return peak()


def search(path: Path, per_area: float, geojson: Path | None) -> Measured:
    """A search of one file, with default settings besides the tiles: in memory, or into a file."""
    from slicedet.outputs.targets import Targets
    from slicedet.pipeline import Settings, run
    from slicedet.predicting import predict_into
    from slicedet.raster.scene import Scene

    detector, settings = Free(lattice(per_area)), Settings(slice=SLICE, overlap=OVERLAP)
    start = time.perf_counter()
    with Scene(path) as scene:
        if geojson is None:
            record = run(scene, detector, settings).run
        else:
            record, _ = predict_into(scene, Targets([geojson]), lambda: detector, settings)
    seconds = time.perf_counter() - start
    return Measured(peak(), seconds, record["detections"]["after_merging"], record["tiles"]["run"])


def measure(edge: int, per_area: float, folder: Path) -> str:
    """A row of the table."""
    path = folder / f"sparse_{edge}.tif"
    sparse(path, edge)
    baseline = apart(idle, per_area)
    empty = apart(search, path, 0.0, None)
    found = apart(search, path, per_area, None)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        written = apart(search, path, per_area, Path(name) / "found.geojson")
        size = (Path(name) / "found.geojson").stat().st_size
    if found.tiles != len(TileGrid.cover(edge, edge, SLICE, OVERLAP)) or found.detections != written.detections:
        raise SystemExit(
            f"{path}: {found.tiles} tiles and {found.detections} detections are not what was to be measured"
        )

    def beyond(measured: Measured) -> str:
        return f"{(measured.peak - baseline) / MEGABYTE:,.0f} MB"

    return (
        f"| {edge:,} | {3 * edge**2 / (found.peak - baseline):.1f} | {found.tiles:,} | {found.detections:,} | "
        f"{beyond(empty)} | {beyond(found)} | {beyond(written)} | {size / MEGABYTE:,.0f} MB | "
        f"{empty.seconds:,.0f} s, {found.seconds:,.0f} s, {written.seconds:,.0f} s | {baseline / MEGABYTE:,.0f} MB |"
    )


def main() -> None:
    """Print a table of all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"files of {' and '.join(map(str, QUICK))} px a side")
    parser.add_argument("--size", type=int, action="append", help="edge in pixels (several times)")
    parser.add_argument("--detections", type=int, default=5_000_000, help="in the largest (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keeps the files for the next time")
    options = parser.parse_args()
    sizes = options.size or (QUICK if options.quick else SIZES)
    per_area = options.detections / max(SIZES) ** 2
    print(machine(), end="\n\n")
    print(
        "| edge, px | pixels / peak | tiles | detections | peak, none found | peak, in memory | "
        "peak, GeoJSON written | size | seconds | subtracted |"
    )
    print("|" + "---|" * 10)
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        for edge in sizes:
            print(measure(edge, per_area, folder), flush=True)


if __name__ == "__main__":
    main()
