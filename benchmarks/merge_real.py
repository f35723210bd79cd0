"""Merging on real photos with real weights: average precision of every method from the same raw detections.

Vehicles count as one class. Raw detections are collected once per tile size; with `--threshold` weak ones are dropped
before merging. Needs the shared folder beside the project, or SLICEDET_SHARED.

    python benchmarks/merge_real.py --slice 416 --slice 320
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import slicedet
from slicedet.detections import Detections
from slicedet.merging import MergeRule
from slicedet.merging.nms import suppress

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


def rule(method: str, metric: str) -> Merge:
    """A method of slicedet's, at threshold 0.5."""
    return lambda found, frame: MergeRule(method, metric).apply(found, frame)


METHODS: dict[str, Merge] = {
    "NMS, IoU": rule("nms", "iou"),
    "NMS, IOS": rule("nms", "ios"),
    "NMM, IoU": rule("nmm", "iou"),
    "NMM, IOS": rule("nmm", "ios"),
    "greedy NMM, IoU": rule("greedy-nmm", "iou"),
    "greedy NMM, IOS": rule("greedy-nmm", "ios"),
    "agreement": rule("agreement", "iou"),
    "NMS, IoU, after dropping cut boxes": lambda found, frame: rule("nms", "iou")(without_cut(found, frame), frame),
}


def ground_truth(split: str) -> dict[str, Any]:
    """The annotations of a split, as one class."""
    truth = json.loads((DATA / "annotations" / f"instance_{split}.json").read_text())
    for annotation in truth["annotations"]:
        annotation.update(category_id=0, iscrowd=annotation.get("iscrowd", 0))
    truth["categories"] = [{"id": 0, "name": "vehicle"}]
    return truth


def collect(detector: slicedet.Detector, image: Path, size: int, overlap: float) -> Detections:
    """Raw vehicles of all tiles of an image, in its pixels."""
    wanted = [index for index, name in enumerate(detector.categories) if name in VEHICLES]
    pixels = np.asarray(Image.open(image).convert("RGB"))
    parts = []
    for tile in slicedet.TileGrid.cover(pixels.shape[1], pixels.shape[0], size, overlap):
        part = pixels[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        found = detector.detect([np.ascontiguousarray(part)])[0]
        found = found[np.isin(found.category_ids, wanted)]
        found = found[suppress(found.boxes, found.scores, None, "iou", TILE_NMS)]
        place = np.array([tile.x, tile.y, tile.x + tile.width, tile.y + tile.height])
        boxes = found.boxes + np.tile(place[:2], 2)
        parts.append(Detections(boxes, found.scores, np.zeros(len(found)), np.tile(place, (len(found), 1))))
    return Detections.concatenate(parts)


def average_precision(truth: dict[str, Any], results: dict[int, Detections], images: list[int]) -> tuple[float, float]:
    """AP at IoU 0.5, and AP averaged over IoU 0.5 to 0.95, for some images, with no limit to detections."""
    rows = [
        {"image_id": image, "category_id": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for image in images
        for (x1, y1, x2, y2), score in zip(results[image].boxes.tolist(), results[image].scores.tolist(), strict=True)
    ]
    if not rows:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(rows), "bbox")
        evaluation.params.imgIds = images
        evaluation.params.maxDets = [1, 10, max(map(len, results.values()))]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return float(precision[0].mean()), float(precision.mean())


def main() -> None:
    """Print a table for every tile size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="picodet_s_416_coco", help="default: %(default)s")
    parser.add_argument("--weights", type=Path, help="default: the model's ONNX file in the shared folder")
    parser.add_argument("--slice", type=int, action="append", help="tile size (several times; default: 416, 320)")
    parser.add_argument("--overlap", type=float, default=0.25, help="default: %(default)s")
    parser.add_argument("--split", choices=("val", "train"), default="val", help="default: %(default)s")
    options = parser.parse_args()
    weights = options.weights or SHARED / "models" / f"{options.model}.onnx"
    detector = slicedet.load_detector(options.model, weights, threshold=0.01)
    truth = ground_truth(options.split)
    groups: dict[str, list[int]] = {"all": [image["id"] for image in truth["images"]]}
    for image in truth["images"]:
        groups.setdefault(f"{image['width']} px wide", []).append(image["id"])
    frames = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    for size in options.slice or [416, 320]:
        raw = {
            image["id"]: collect(detector, DATA / "images" / image["file_name"], size, options.overlap)
            for image in truth["images"]
        }
        print(f"\n{options.model}, tile {size}, {options.split}: AP50 / AP; {sum(map(len, raw.values()))} detections")
        heads = [f"{name} ({len(images)})" for name, images in groups.items()] + ["all, scores from 0.25"]
        print(f"| merging | {' | '.join(heads)} |")
        print("|" + "---|" * (len(heads) + 1))
        for name, method in METHODS.items():
            cells = []
            for threshold in (0.0, 0.25):
                results = {i: method(found[found.scores >= threshold], frames[i]) for i, found in raw.items()}
                for images in groups.values() if not threshold else [groups["all"]]:
                    cells.append("{:.3f} / {:.3f}".format(*average_precision(truth, results, images)))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
