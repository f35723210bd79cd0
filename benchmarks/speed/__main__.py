"""From file to GeoJSON: slicedet beside its floor, SAHI and PaddleX, on the same pixels with the same networks.

    python -m benchmarks.speed [--edge 8000] [--photos 60] [--rounds 3] [--network NAME] [--paddlex-python PYTHON]
                               [--files KIND] [--folder DIR]

The floor is what cannot be left out: the network alone, as fast as its engine runs it, on tiles that lie in memory as
uint8, and one bare read of all pixels by rasterio. SAHI runs the same ONNX file on the same tiles, inside wrappers
written for it here; PaddleX runs the same weights in a Paddle folder. All contenders see the same threshold and
suppress the boxes of a tile by the same rule. They are loaded and warm before the first round, and take turns.

PicoDet has the weights of the shared folder (or SLICEDET_SHARED, or `slicedet models pull`), PP-YOLOE+ SOD weights made
by a rule. `--folder` keeps scenes and networks for the next time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rasterio.errors import NotGeoreferencedWarning

import slicedet
from benchmarks.memory import machine
from benchmarks.speed.floor import bare_read, network_alone
from benchmarks.speed.networks import BF16, F32, ORT, SLICES, Engine, Network, decoded, fitted, has_bf16, network
from benchmarks.speed.paddlex_peer import paddlex
from benchmarks.speed.sahi_peers import AT_ONCE, LEAST, MERGINGS, Peer, Wrapper, by_sahi, peers
from benchmarks.speed.scenes import KINDS, OVERLAP, Files, Pixels, scenes, tiles_of
from benchmarks.speed.times import Times, timed
from slicedet.batch import Batch
from slicedet.pipeline import Settings

BOXES = 10
"""That a tile has on average, of which the threshold is made."""

Run = Callable[[], int]
"""One complete job; returns the number of boxes."""


class Job(NamedTuple):
    """files: those that the run counts for."""

    files: tuple[Files, ...]
    contender: str
    run: Run


def sliced(files: Files, detector: slicedet.Detector, size: int, output: Path) -> int:
    """What a user does: predicts and saves a raster, or runs the batch over a folder of photos."""
    if files.kind != "photos":
        prediction = slicedet.predict(files.paths[0], detector, slice=size, overlap=OVERLAP)
        prediction.save(output / "found.geojson", overwrite=True)
        return len(prediction.detections)
    fresh = Path(tempfile.mkdtemp(dir=output))  # Else it would go on from where the last one ended.
    results = Batch(files.folder, fresh).run(detector, Settings(slice=size, overlap=OVERLAP))
    if failed := [result.error for result in results if result.error]:
        raise SystemExit(str(failed[0]))
    return sum(result.detections for result in results)


def threshold_for(detector: slicedet.Detector, tiles: Sequence[Pixels]) -> float:
    """The score from which tiles have BOXES boxes on average."""
    some = list(tiles[:: max(1, len(tiles) // AT_ONCE)])
    scores = np.sort(np.concatenate([found.scores for found in detector.detect(some)]))[::-1]
    return max(LEAST, math.floor(1e4 * scores[min(BOXES * len(some), len(scores)) - 1]) / 1e4)


def require_same(detector: slicedet.Detector, peer: Peer, network: Network, tiles: list[Pixels], low: float) -> None:
    """Stops where SAHI's wrapper does not say of whole tiles what slicedet does."""
    expected = sum(map(len, detector.detect(tiles)))
    found = sum(len(decoded(network.config, outputs, low)) for outputs in peer.infer(tiles))
    # Their graphs round differently, most of all to the 8 bits of bf16, and a box may stand at the threshold.
    if abs(found - expected) > 1 + (0.05 if peer.engine == BF16 else 0.01) * expected:
        raise SystemExit(f"{peer.name}: {found} boxes where slicedet finds {expected}: not the same network")


def measure(network: Network, album: list[Files], options: argparse.Namespace, work: Path) -> None:
    """Runs all contenders on all files, and prints the table."""
    size, config = network.slice, network.config
    engines = [engine for engine in (ORT, F32, BF16) if engine != BF16 or has_bf16()]
    rasters = tuple(files for files in album if files.kind != "photos")  # One scene, so their tiles are the same.
    photos = tuple(files for files in album if files.kind == "photos")
    tiles = {alike: tiles_of(alike[0], size) for alike in (rasters, photos) if alike}
    inputs = {files: [fitted(tile, config) for tile in each] for files, each in tiles.items()}
    some = next(iter(inputs.values()))

    def load(engine: Engine, threshold: float) -> slicedet.Detector:
        return slicedet.load_detector(
            network.model, network.onnx, engine.name, precision=engine.precision, threshold=threshold
        )

    threshold = threshold_for(load(F32, LEAST), some)
    detectors = {engine: load(engine, threshold) for engine in engines}
    others = peers(network, engines)
    jobs = [Job((files,), "read", partial(bare_read, files)) for files in album]
    for engine, detector in detectors.items():
        alone = network_alone(network, engine, some)
        jobs += [Job(files, f"alone {engine}", partial(alone, each)) for files, each in inputs.items()]
        jobs += [Job((files,), str(engine), partial(sliced, files, detector, size, work)) for files in album]
    for peer in others:
        require_same(detectors[peer.engine], peer, network, some[:AT_ONCE], threshold)
        wrapper = Wrapper(network, peer.infer, threshold)
        for name, merging in MERGINGS.items():
            run = partial(by_sahi, model=wrapper, size=size, at_once=peer.at_once, merging=merging)
            jobs += [Job((files,), f"{peer.name}, {name}", partial(run, files)) for files in album]

    times = Times()
    with ExitStack() as stack:
        rival = None
        if options.paddlex_python:
            rival = stack.enter_context(paddlex(options.paddlex_python, network, list(tiles.values()), threshold))
        for job in jobs:
            if album[0] in job.files:  # What is loaded on first use is not to count.
                job.run()
        for number in range(options.rounds):
            for job in jobs[:: 1 if number % 2 == 0 else -1]:
                times.add(job.files, job.contender, *timed(job.run))
            if rival is not None:
                for index, files in enumerate(tiles):
                    times.add(files, "PaddleX", *rival.run(index))
        print(f"\n### `{config.name}`, tiles of {size}\n\nScores from {threshold:g}.", end=" ")
        print(f"PaddleX runs in its mode `{rival.mode}`.\n" if rival else "\n")
    counts = {each: len(some) for files, some in tiles.items() for each in files}
    print_table(times, counts, engines, others, rival is not None)


def print_table(
    times: Times, counts: dict[Files, int], engines: Sequence[Engine], others: Sequence[Peer], with_paddlex: bool
) -> None:
    """Ratios, and seconds in brackets; then what the floor is made of."""

    def row(what: str, cell: Callable[[Files], str]) -> None:
        print(f"| {what} | {' | '.join(map(cell, counts))} |", flush=True)

    def ratio(what: str, contender: str, compared: Callable[[Files], float]) -> None:
        row(what, lambda files: f"{times(files, contender) / compared(files):.2f} ({times(files, contender):.2f} s)")

    def floor(engine: Engine, files: Files) -> float:
        return times(files, f"alone {engine}") + times(files, "read")

    def ours(engine: Engine, files: Files) -> float:
        return times(files, str(engine))

    def alone(engine: Engine, files: Files) -> str:
        return f"{times(files, f'alone {engine}'):.2f} s"

    row("ratio (time)", lambda files: files.name)
    print("|---|" + "---|" * len(counts))
    for engine in engines:
        ratio(f"**slicedet / floor**, {engine}", str(engine), partial(floor, engine))
    for peer in others:
        for name in MERGINGS:
            ratio(f"SAHI / slicedet, {peer.name}, {name}", f"{peer.name}, {name}", partial(ours, peer.engine))
    if with_paddlex:
        ratio(f"PaddleX, tiles alone / slicedet, {F32}", "PaddleX", partial(ours, F32))
    for engine in engines:
        row(f"network alone, {engine}", partial(alone, engine))
    row("bare read", lambda files: f"{times(files, 'read'):.2f} s")
    row("rounds apart", lambda files: f"± {times.apart(files):.0%}")
    row("tiles", lambda files: f"{counts[files]:,}")
    lean = next(peer.name for peer in others if peer.engine == F32)
    row("boxes by slicedet", lambda files: f"{times.boxes(files, str(F32)):,}")
    row("boxes by SAHI", lambda files: " / ".join(f"{times.boxes(files, f'{lean}, {name}'):,}" for name in MERGINGS))


def main() -> None:
    """Print the tables of both networks."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edge", type=int, default=8000, help="of the scene, in pixels (default: %(default)s)")
    parser.add_argument("--photos", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--network", action="append", choices=SLICES, help="default: both")
    parser.add_argument("--files", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--paddlex-python", metavar="PYTHON", help="of an environment with paddlex[cv]")
    parser.add_argument("--folder", type=Path, help="keeps scenes and networks for the next time")
    options = parser.parse_args()
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    # SAHI reads GeoTIFFs by OpenCV, which does not know their tags.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    print(machine("openvino", "onnxruntime", "sahi"))
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        album = scenes(folder, options.edge, options.photos, options.files or KINDS)
        for chosen in options.network or SLICES:
            work = Path(name) / f"results_{chosen}"
            work.mkdir()
            measure(network(chosen, folder, options.paddlex_python is not None), album, options, work)


if __name__ == "__main__":
    main()
