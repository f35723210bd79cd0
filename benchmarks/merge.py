"""Merging of very many boxes: time and memory of slicedet beside SAHI, and supervision where it is installed.

The boxes are 20 px, four of each object, moved by up to 1 px, in a frame of 20000 x 20000; each measurement runs in a
process of its own, which first makes all its objects, so that only the merging counts.

    python -m benchmarks.merge --boxes 100000 --boxes 300000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from slicedet.detections import Detections
from slicedet.merging import METHODS, merge

FRAME = 20_000
STRIDE = 320
"""Tiles are twice as long, so that four of them see each object."""


class Measured(NamedTuple):
    """seconds: of merging. megabytes: added to the peak memory of the process. remaining: boxes after merging."""

    seconds: float
    megabytes: float
    remaining: int


def boxes(count: int, seed: int = 0) -> Detections:
    """`count` boxes, one from each of the four tiles that see an object, in random order."""
    random = np.random.default_rng(seed)
    copy = np.arange(count) % 4
    corner = np.repeat(random.uniform(STRIDE, FRAME - STRIDE - 20, (-(-count // 4), 2)), 4, 0)[:count]
    tile = (corner // STRIDE - np.stack([copy % 2, copy // 2], 1)) * STRIDE
    found = np.concatenate([corner, corner + 20], 1) + random.uniform(-1, 1, (count, 4))
    tiles = np.concatenate([tile, tile + 2 * STRIDE], 1)
    return Detections(found, random.uniform(0.1, 1, count), np.zeros(count), tiles)[random.permutation(count)]


def measured(run: Callable[[], int]) -> Measured:
    """Time and memory of `run`, which returns how many boxes remain."""
    scale = 1024 if sys.platform == "darwin" else 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale / 1024
    start = time.perf_counter()
    remaining = run()
    seconds = time.perf_counter() - start
    return Measured(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale / 1024 - before, remaining)


def slicedet(method: str, metric: str, count: int) -> Measured:
    """slicedet's merging; a first small one keeps the imports out of the measurement."""
    found = boxes(count)
    merge(boxes(1000), method, metric)
    return measured(lambda: len(merge(found, method, metric)))


def sahi(method: str, metric: str, count: int) -> Measured:
    """SAHI's merging of its own objects."""
    from sahi.postprocess.combine import GreedyNMMPostprocess, NMMPostprocess, NMSPostprocess
    from sahi.prediction import ObjectPrediction

    kind: Any = {"nms": NMSPostprocess, "nmm": NMMPostprocess, "greedy-nmm": GreedyNMMPostprocess}[method]
    postprocess = kind(match_threshold=0.5, match_metric=metric.upper(), class_agnostic=False)

    def objects(found: Detections) -> list[ObjectPrediction]:
        rows = zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
        return [ObjectPrediction(bbox=box, category_id=0, category_name="object", score=score) for box, score in rows]

    postprocess(objects(boxes(1000)))
    made = objects(boxes(count))
    return measured(lambda: len(postprocess(made)))


def supervision(method: str, metric: str, count: int) -> Measured:
    """supervision's non-maximum suppression or merging."""
    import supervision as sv

    found = boxes(count)
    given = sv.Detections(xyxy=found.boxes, confidence=found.scores, class_id=found.category_ids.astype(int))
    overlap = getattr(sv.OverlapMetric, metric.upper())
    run = given.with_nms if method == "nms" else given.with_nmm
    return measured(lambda: len(run(threshold=0.5, overlap_metric=overlap)))


def apart(library: Callable[[str, str, int], Measured], method: str, metric: str, count: int) -> Measured:
    """A measurement in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(library, (method, metric, count))


def main() -> None:
    """Print a table of all methods, sizes and libraries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, action="append", help="how many (several times; default: 100000, 300000)")
    parser.add_argument("--metric", choices=("iou", "ios"), default="ios", help="default: %(default)s")
    parser.add_argument("--alone", action="store_true", help="do not run the other libraries")
    parser.add_argument("--supervision-most", type=int, default=10_000, help="it needs a matrix of all pairs")
    options = parser.parse_args()
    print("| boxes | method | slicedet | memory added | SAHI | memory added | SAHI / slicedet | supervision |")
    print("|---|---|---|---|---|---|---|---|")
    for count in options.boxes or [100_000, 300_000]:
        for method in METHODS:
            ours = apart(slicedet, method, options.metric, count)
            row = [f"{count:,}", method, f"{ours.seconds:.2f} s", f"{ours.megabytes:.0f} MB", "", "", "", ""]
            if not options.alone and method != "agreement":
                theirs = apart(sahi, method, options.metric, count)
                ratio = f"{theirs.seconds / ours.seconds:.0f}"
                row[4:7] = f"{theirs.seconds:.2f} s", f"{theirs.megabytes:.0f} MB", ratio
                if find_spec("supervision") and count <= options.supervision_most and method != "greedy-nmm":
                    row[7] = f"{apart(supervision, method, options.metric, count).seconds:.2f} s"
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
