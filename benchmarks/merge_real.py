"""Merging on real photos with real weights: average precision of every method from the same raw detections.

Vehicles count as one class. Raw detections are collected once per tile size. Needs the shared folder beside the
project, or SLICEDET_SHARED.

    python -m benchmarks.merge_real --slice 416 --slice 320
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import slicedet
from slicedet.datasets import coco
from slicedet.detections import Detections
from slicedet.evaluation import average_precision
from slicedet.merging import MergeRule

SHARED = Path(os.environ.get("SLICEDET_SHARED", Path(__file__).parents[2] / "shared"))
DATA = SHARED / "data" / "aerial_vehicles"
VEHICLES = {"bus", "car", "minibus", "truck", "van", "vehicle"}
TILE_NMS = 0.6
"""IoU from which on boxes of one tile are one object once all vehicles are one class, as in the detector's own NMS."""

Frame = tuple[int, int]
Merge = Callable[[Detections, Frame], Detections]


def without_cut(found: Detections, frame: Frame) -> Detections:
    """The detections that do not touch an inner edge of their tile, by two pixels."""
    assert found.tiles is not None
    near = np.abs(found.boxes - found.tiles) <= 2
    inner = np.concatenate([found.tiles[:, :2] > 0, found.tiles[:, 2:] < np.array(frame)], 1)
    return found[~(near & inner).any(1)]


def rule(method: str, metric: str, growth: str = "cut") -> Merge:
    """A method of slicedet's, at threshold 0.5."""
    return lambda found, frame: MergeRule(method, metric, growth=growth).apply(found, frame)


METHODS: dict[str, Merge] = {
    "NMS, IoU": rule("nms", "iou"),
    "NMS, IOS": rule("nms", "ios"),
    "NMM, IoU": rule("nmm", "iou"),
    "NMM, IOS": rule("nmm", "ios"),
    "NMM, IOS, growing always": rule("nmm", "ios", "always"),
    "greedy NMM, IoU": rule("greedy-nmm", "iou"),
    "greedy NMM, IOS": rule("greedy-nmm", "ios"),
    "greedy NMM, IOS, growing always": rule("greedy-nmm", "ios", "always"),
    "agreement": rule("agreement", "iou"),
    "NMS, IoU, after dropping cut boxes": lambda found, frame: rule("nms", "iou")(without_cut(found, frame), frame),
}


def part(truth: coco.CocoDataset, images: list[int]) -> coco.CocoDataset:
    """The annotations of some images, given by their places in ascending order."""
    rows = np.isin(truth.image_indices, images)
    columns = {name: getattr(truth, name)[rows] for name in ("boxes", "category_ids", "crowd", "areas", "ids")}
    columns["image_indices"] = np.searchsorted(images, truth.image_indices[rows])
    return replace(truth, images=tuple(truth.images[i] for i in images), **columns)


def collect(detector: slicedet.Detector, image: Path, size: int, overlap: float) -> Detections:
    """Raw vehicles of all tiles of an image, in its pixels."""
    wanted = [index for index, name in enumerate(detector.categories) if name in VEHICLES]
    pixels = np.asarray(Image.open(image).convert("RGB"))
    parts = []
    for tile in slicedet.TileGrid.cover(pixels.shape[1], pixels.shape[0], size, overlap):
        part = pixels[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        found = detector.detect([np.ascontiguousarray(part)])[0]
        found = found[np.isin(found.category_ids, wanted)]
        found = slicedet.merge(found, "nms", "iou", TILE_NMS, class_agnostic=True)
        place = np.array([tile.x, tile.y, tile.x + tile.width, tile.y + tile.height])
        boxes = found.boxes + np.tile(place[:2], 2)
        parts.append(Detections(boxes, found.scores, np.zeros(len(found)), np.tile(place, (len(found), 1))))
    return Detections.concatenate(parts)


def main() -> None:
    """Print a table for every tile size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="picodet_s_416_coco", help="default: %(default)s")
    parser.add_argument("--weights", type=Path, help="default: the model's ONNX file in the shared folder, if any")
    parser.add_argument("--slice", type=int, action="append", help="tile size (several times; default: 416, 320)")
    parser.add_argument("--overlap", type=float, default=0.25, help="default: %(default)s")
    parser.add_argument("--split", choices=("val", "train"), default="val", help="default: %(default)s")
    options = parser.parse_args()
    own = SHARED / "models" / f"{options.model}.onnx"
    weights = options.weights or (own if own.is_file() else None)
    detector = slicedet.load_detector(options.model, weights, threshold=0.01)
    truth = coco.read(DATA / "annotations" / f"instance_{options.split}.json")
    groups: dict[str, list[int]] = {"all": list(range(len(truth.images)))}
    for index, image in enumerate(truth.images):
        groups.setdefault(f"{image.width} px wide", []).append(index)
    for size in options.slice or [416, 320]:
        raw = [collect(detector, DATA / "images" / image.file_name, size, options.overlap) for image in truth.images]
        print(f"\n{options.model}, tile {size}, {options.split}: AP50 / AP; {sum(map(len, raw))} detections")
        heads = [f"{name} ({len(images)})" for name, images in groups.items()] + ["all, scores from 0.25"]
        print(f"| merging | {' | '.join(heads)} |")
        print("|" + "---|" * (len(heads) + 1))
        for name, method in METHODS.items():
            cells = []
            for threshold in (0.0, 0.25):
                results = [
                    method(found[found.scores >= threshold], (image.width, image.height))
                    for found, image in zip(raw, truth.images, strict=True)
                ]
                for images in groups.values() if not threshold else [groups["all"]]:
                    figures = average_precision(
                        part(truth, images), [results[i] for i in images], ["vehicle"], {"*": "vehicle"}
                    )
                    cells.append(f"{figures.ap50:.3f} / {figures.ap:.3f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
