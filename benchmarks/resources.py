"""What `--streams`, `--workers` and `--batch` do to the time of a search, beside their defaults.

    python -m benchmarks.resources [--quick] [--rounds 3] [--folder DIR]

The default model with one look (`aerial-vehicles-fast`) searches a painted scene with several numbers of requests at
once, and through a detector without a stream of its own, which is handed batches; and a folder of photos with several
numbers of images read at once. All take turns; `--folder` keeps scenes and photos for the next time.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

import slicedet
from benchmarks.memory import machine
from benchmarks.speed.scenes import Files, scenes
from benchmarks.speed.times import Times, timed
from slicedet.batch import Batch
from slicedet.pipeline import Resources, Settings

MODEL = "aerial-vehicles-fast"
EDGE, QUICK_EDGE = 4000, 2000
"""Of the scene, in pixels."""

PHOTOS, QUICK_PHOTOS = 24, 6
STREAMS = {"openvino": (1, 2, 4, 8), "onnxruntime": (1, 2, 4)}
WORKERS = (1, 2, 4, 8)
BATCHES = (1, 2, 4, 8, 16, 32)


class Batched:
    """A detector that only takes batches: the next one waits until this one is answered."""

    def __init__(self, detector: slicedet.Detector) -> None:
        self._detector = detector
        self.categories = detector.categories
        self.input_size = detector.input_size

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[slicedet.Detections]:
        """Those of the detector."""
        return self._detector.detect(tiles)


class Choice(NamedTuple):
    """A value of an option; `run` searches `files` with it and returns the number of boxes."""

    option: str
    value: str
    files: Files
    run: Callable[[], int]


def search(files: Files, detector: slicedet.Detector, resources: Resources) -> int:
    """One scene."""
    return len(slicedet.predict(files.paths[0], detector, resources=resources).detections)


def search_all(files: Files, detector: slicedet.Detector, resources: Resources, output: Path) -> int:
    """A folder of photos, with the files that a batch writes."""
    fresh = Path(tempfile.mkdtemp(dir=output))  # Else it would go on from where the last one ended.
    return sum(each.detections for each in Batch(files.folder, fresh).run(detector, Settings(), resources=resources))


def choices(scene: Files, photos: Files, output: Path) -> list[Choice]:
    """All that are compared, the default of an option first."""
    made = []
    for engine, numbers in STREAMS.items():
        for number in (None, *numbers):
            detector = slicedet.load_detector(MODEL, engine=engine, streams=number)
            value = "as the engine likes" if number is None else str(number)
            made.append(Choice(f"`--streams`, {engine}", value, scene, partial(search, scene, detector, Resources())))
    detector = slicedet.load_detector(MODEL)
    default = Resources()
    for workers in sorted(WORKERS, key=lambda number: number != default.workers):
        run = partial(search_all, photos, detector, Resources(workers=workers), output)
        made.append(Choice("`--workers`", str(workers), photos, run))
    for batch in sorted(BATCHES, key=lambda number: number != default.batch):
        run = partial(search, scene, Batched(detector), Resources(batch=batch))
        made.append(Choice("`--batch`, a detector without a stream", str(batch), scene, run))
    return made


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"a scene of {QUICK_EDGE} px, {QUICK_PHOTOS} photos")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="keeps scene and photos for the next time")
    options = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with tempfile.TemporaryDirectory() as name:
        edge, count = (QUICK_EDGE, QUICK_PHOTOS) if options.quick else (EDGE, PHOTOS)
        scene, *_, photos = scenes(options.folder or Path(name), edge, count)
        compared = choices(scene, photos, Path(name))
        times = Times()
        for each in compared:  # What is loaded on first use is not to count.
            each.run()
        for number in range(options.rounds):
            for each in compared[:: 1 if number % 2 == 0 else -1]:
                times.add([each.files], f"{each.option} {each.value}", *timed(each.run))
    print(machine("openvino", "onnxruntime"), end="\n\n")
    print("| option | value | time / default's | time |\n|---|---|---|---|")
    first: dict[str, float] = {}
    for each in compared:
        seconds = times(each.files, f"{each.option} {each.value}")
        default = first.setdefault(each.option, seconds)
        shown = f"**{each.value}**" if default == seconds else each.value
        print(f"| {each.option} | {shown} | {seconds / default:.2f} | {seconds:.2f} s |")
    if options.rounds > 1:
        print(f"\nRounds apart: ± {times.apart(scene):.0%} (scene), ± {times.apart(photos):.0%} (photos).")


if __name__ == "__main__":
    main()
