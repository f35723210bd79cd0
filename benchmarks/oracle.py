"""A scene seen by a perfect detector: what does each way of merging recover of it, and what does it leave over?

Every tile reports the truth clipped to itself, its edges moved by up to half a pixel. What is missing or left over
after merging is the merging's fault alone. `--miss`, `--jitter` and `--cut-error` make the detector imperfect.

    python -m benchmarks.oracle --slice 640 --overlap 0.25
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import overlap
from slicedet.detections import Detections
from slicedet.merging import MergeRule
from slicedet.tiling import TileGrid

SIZE = 8000
"""Width and height of the scene in pixels."""

KINDS = ("single", "dense row", "diagonal row", "medium", "over overlap", "over tile", "large", "nested")


RULES = {
    "NMS, IoU": MergeRule("nms", "iou"),
    "NMS, IOS": MergeRule("nms", "ios"),
    "NMM, IOS": MergeRule("nmm", "ios"),
    "NMM, IOS, growing always": MergeRule("nmm", "ios", growth="always"),
    "greedy NMM, IOS": MergeRule("greedy-nmm", "ios"),
    "greedy NMM, IOS, growing always": MergeRule("greedy-nmm", "ios", growth="always"),
    "agreement": MergeRule("agreement"),
}


class Truth(NamedTuple):
    """boxes: [N, 4]. kinds: int [N], an index into KINDS."""

    boxes: NDArray[np.float64]
    kinds: NDArray[np.int64]


class Sight(NamedTuple):
    """How well the detector sees.

    jitter: edges move by up to this many pixels. miss: share of what each tile should report that it does not.
    cut_error: an edge made by the tile's edge moves inwards by up to this share of what is seen of the object.
    """

    jitter: float = 0.5
    miss: float = 0.0
    cut_error: float = 0.0


class Outcome(NamedTuple):
    """found: whether each object was recovered. surplus: detections that recover nothing."""

    found: NDArray[np.bool_]
    surplus: int


def scene(tile: int, overlap_ratio: float, seed: int) -> Truth:
    """About 3,350 objects of one class, of every kind that slicing finds hard at this tile size."""
    random = np.random.default_rng(seed)
    shared = tile * overlap_ratio

    def one(low: float, high: float) -> Callable[[], NDArray[np.float64]]:
        return lambda: np.concatenate([[0, 0], random.uniform(low, high, 2)])[None]

    def row(step: tuple[float, float], count: int) -> NDArray[np.float64]:
        corner = np.arange(count)[:, None] * np.array(step)
        return np.concatenate([corner, corner + np.array([18, 40])], 1)

    def diagonal() -> NDArray[np.float64]:
        corner = np.arange(15)[:, None] * np.full(2, 40 * (1 - 0.5**0.5)) * random.uniform(1.02, 1.15)
        return np.concatenate([corner, corner + 40], 1)

    def wide(low: float, high: float) -> NDArray[np.float64]:
        sides = np.array([random.uniform(low, high), random.uniform(0.3, 1) * low])
        return np.concatenate([[0, 0], random.permutation(sides)])[None]

    def nest() -> NDArray[np.float64]:
        sides = random.uniform(1.05, 3.2, 2) * shared
        cells = random.permutation(int(sides[0] // 50) * int(sides[1] // 50))[:4]
        corner = 50.0 * np.stack([cells % int(sides[0] // 50), cells // int(sides[0] // 50)], 1) + 5
        small = np.concatenate([corner, corner + random.uniform(18, 40, (len(cells), 2))], 1)
        return np.concatenate([[[0, 0, *sides]], small])

    makers: list[tuple[str, int, Callable[[], NDArray[np.float64]]]] = [
        ("over tile", 8, lambda: wide(1.05 * tile, 2 * tile)),
        ("large", 30, nest),
        ("over overlap", 45, lambda: wide(1.05 * shared, 0.9 * tile)),
        ("dense row", 30, lambda: row((20, 0), 25)),
        ("dense row", 30, lambda: row((0, 42), 25)),
        ("diagonal row", 20, diagonal),
        ("medium", 150, one(60, 140)),
        ("single", 1200, one(18, 45)),
    ]
    taken = np.empty((0, 4))
    boxes, kinds = [], []
    for kind, count, make in makers:
        for _ in range(count):
            item = make()
            extent = item[:, 2:].max(0)
            for _attempt in range(10_000):
                corner = random.uniform(0, SIZE - extent)
                free = (taken[:, :2] > corner + extent + 3).any(1) | (taken[:, 2:] < corner - 3).any(1)
                if free.all():
                    break
            else:
                raise RuntimeError(f"no room left for: {kind}")
            taken = np.append(taken, [[*corner, *(corner + extent)]], 0)
            boxes.append(item + np.tile(corner, 2))
            kinds += [KINDS.index(kind), *[KINDS.index("nested" if kind == "large" else kind)] * (len(item) - 1)]
    return Truth(np.concatenate(boxes), np.array(kinds))


def observe(truth: Truth, grid: TileGrid, sight: Sight, seed: int) -> Detections:
    """What a detector reports of the truth, tile by tile, in scene pixels."""
    random = np.random.default_rng(seed)
    parts = []
    for tile in grid:
        frame = np.array([tile.x, tile.y, tile.x + tile.width, tile.y + tile.height], float)
        low, high = np.tile(frame[:2], 2), np.tile(frame[2:], 2)
        pieces = np.clip(truth.boxes, low, high)
        size = pieces[:, 2:] - pieces[:, :2]
        seen = (size > 0).all(1) & (random.uniform(size=len(size)) >= sight.miss)
        pieces, size, objects = pieces[seen], size[seen], truth.boxes[seen]
        shown = size.prod(1) / (objects[:, 2:] - objects[:, :2]).prod(1)
        inwards = random.uniform(0, sight.cut_error, pieces.shape) * np.tile(size, 2) * [1, 1, -1, -1]
        edges = pieces + np.where(pieces != objects, inwards, 0)
        edges += random.uniform(-sight.jitter, sight.jitter, edges.shape)
        edges = np.sort(edges.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        scores = random.uniform(0.6, 1, len(edges)) * (0.5 + 0.5 * shown)
        parts.append(
            Detections(np.clip(edges, low, high), scores, np.zeros(len(edges)), np.tile(frame, (len(edges), 1)))
        )
    return Detections.concatenate(parts)


def judge(found: Detections, truth: Truth, threshold: float) -> Outcome:
    """Pair objects and detections one to one, best IoU first, from `threshold` on."""
    boxes = found.boxes.astype(np.float64)
    candidates = []
    for begin in range(0, len(boxes), 512):
        iou = overlap(boxes[begin : begin + 512, None], truth.boxes[None], "iou")
        row, column = np.nonzero(iou >= threshold)
        candidates.append(np.stack([iou[row, column], row + begin, column], 1))
    recovered, used = np.zeros(len(truth.boxes), bool), np.zeros(len(boxes), bool)
    for _, row, column in sorted(np.concatenate(candidates).tolist(), reverse=True):
        if not used[int(row)] and not recovered[int(column)]:
            used[int(row)] = recovered[int(column)] = True
    return Outcome(recovered, int((~used).sum()))


def main() -> None:
    """Print, for each way of merging, what was recovered, what was left over, and what kinds were lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slice", type=int, default=640, help="tile size in pixels (default: %(default)s)")
    parser.add_argument("--overlap", type=float, default=0.25, help="of neighbouring tiles (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=5, help="random scenes to add up (default: %(default)s)")
    parser.add_argument("--iou", type=float, default=0.85, help="from which on an object counts as recovered")
    parser.add_argument("--jitter", type=float, default=0.5, help="pixels by which edges move at most")
    parser.add_argument(
        "--miss", type=float, default=0.0, help="share of what each tile should report that it does not"
    )
    parser.add_argument("--cut-error", type=float, default=0.0, help="share by which cut edges move inwards at most")
    options = parser.parse_args()
    grid = TileGrid.cover(SIZE, SIZE, options.slice, options.overlap)
    sight = Sight(options.jitter, options.miss, options.cut_error)
    found = {name: np.zeros(len(KINDS), int) for name in RULES}
    surplus = dict.fromkeys(RULES, 0)
    objects, seen = np.zeros(len(KINDS), int), 0
    for seed in range(options.scenes):
        truth = scene(options.slice, options.overlap, seed)
        raw = observe(truth, grid, sight, seed)
        objects += np.bincount(truth.kinds, minlength=len(KINDS))
        seen += len(raw)
        for name, rule in RULES.items():
            outcome = judge(rule.apply(raw, (SIZE, SIZE)), truth, options.iou)
            found[name] += np.bincount(truth.kinds[outcome.found], minlength=len(KINDS))
            surplus[name] += outcome.surplus
    print(f"{options.scenes} scenes, {objects.sum()} objects, {len(grid)} tiles, {seen} detections; {sight}")
    print("| merging | recall | precision | surplus | " + " | ".join(KINDS) + " |")
    print("|" + "---|" * (4 + len(KINDS)))
    print(f"| objects | | | | {' | '.join(map(str, objects))} |")
    for name, each in found.items():
        total = each.sum()
        rates = f"{total / objects.sum():.4f} | {total / (total + surplus[name]):.4f}"
        print(f"| {name} | {rates} | {surplus[name]} | {' | '.join(map(str, each))} |")


if __name__ == "__main__":
    main()
