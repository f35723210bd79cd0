"""Writing of very many detections: time, size and memory of every format.

Boxes of about 20 px lie all over a scene of 100000 x 100000 pixels that has no content; each format is written by a
process of its own, which first writes a few boxes, so that only the writing counts.

    python -m benchmarks.writing --rows 2000000

Overlays as GeoTIFF have 10 gigapixels, whatever is drawn on them; they are written only when asked for by name.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slicedet.detections import Detections
from slicedet.outputs import FORMATS, default_name
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

EDGE = 100_000
CATEGORIES = ("car", "truck", "bus", "van", "trailer")
VRT = """<VRTDataset rasterXSize="{edge}" rasterYSize="{edge}">
<SRS>EPSG:32633</SRS><GeoTransform>400000, 0.1, 0, 5000000, 0, -0.1</GeoTransform>
{bands}</VRTDataset>"""
BAND = '<VRTRasterBand dataType="Byte" band="{}"><ColorInterp>{}</ColorInterp></VRTRasterBand>\n'

_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")


class Measured(NamedTuple):
    """seconds: of writing. megabytes: of the file. added: megabytes added to the memory of the process at its peak."""

    seconds: float
    megabytes: float
    added: float


def detections(count: int, seed: int = 0) -> Detections:
    """`count` boxes of 10 to 30 px, best score first."""
    random = np.random.default_rng(seed)
    boxes = np.empty((count, 4), np.float32)
    boxes[:, :2] = random.uniform(0, EDGE - 30, (count, 2))
    boxes[:, 2:] = boxes[:, :2] + random.uniform(10, 30, (count, 2))
    scores = np.sort(random.uniform(0.25, 1, count))[::-1].astype(np.float32)
    return Detections(boxes, scores, random.integers(0, len(CATEGORIES), count, np.int32))


def measured(format: str, count: int, folder: str) -> Measured:
    """Time, size and memory of writing `count` detections."""
    bands = "".join(BAND.format(number, name) for number, name in enumerate(("Red", "Green", "Blue"), 1))
    image, target = Path(folder) / "empty.vrt", Path(folder) / default_name("out", format)
    image.write_text(VRT.format(edge=EDGE, bands=bands))
    with Scene(image) as scene:
        few, all_ = (Prediction(detections(n), CATEGORIES, scene, "benchmark", {}) for n in (1000, count))
        if format != "tif":
            few.save(target)
        before = _forget_peak()
        start = time.perf_counter()
        all_.save(target, overwrite=True)
        seconds = time.perf_counter() - start
        return Measured(seconds, target.stat().st_size / 1e6, _peak() - before)


def _peak() -> float:
    """The most memory this process has had, in megabytes."""
    if _STATUS.exists():
        return _kilobytes("VmHWM") * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _forget_peak() -> float:
    """Memory now, in megabytes, from which the peak counts on where the system can forget the one before."""
    if not _FORGET_PEAK.exists():
        return _peak()
    _FORGET_PEAK.write_text("5")
    return _kilobytes("VmRSS") * 1024 / 1e6


def _kilobytes(field: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(field))


def main() -> None:
    """Print a table of all formats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="how many (several times; default: 2000000)")
    parser.add_argument("--format", choices=FORMATS, action="append", help="default: all but tif")
    parser.add_argument("--folder", help="where to write; by default the system's folder for temporary files")
    options = parser.parse_args()
    print("| format | rows | seconds | file | memory added to the arrays at the peak |")
    print("|---|---|---|---|---|")
    for count in options.rows or [2_000_000]:
        for format in options.format or [name for name in FORMATS if name != "tif"]:
            with (
                tempfile.TemporaryDirectory(dir=options.folder) as folder,
                multiprocessing.get_context("spawn").Pool(1) as pool,
            ):
                result = pool.apply(measured, (format, count, folder))
            print(
                f"| {format} | {count:,} | {result.seconds:.1f} s | {result.megabytes:,.0f} MB "
                f"| {result.added:,.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
