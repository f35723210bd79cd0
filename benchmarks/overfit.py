"""Whether training works: each family of networks learns eight real tiles by heart.

    python -m benchmarks.overfit SHARED/data/aerial_vehicles \\
        --pretrained picodet_s_320_coco=SHARED/models/picodet_s_320_coco.onnx

Prints the average precision on the same eight tiles; AP50 is to be above 0.9, else the exit code is 1. PicoDet's first
version weighs the boxes of objects by their scores: from random weights it first learns the easy ones, and needs many
more steps for the rest than from pretrained ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from slicedet.datasets.coco import read
from slicedet.training import config, report

MODELS = ("picodet_s_320_coco", "picodet_s_320_coco_lcnet", "ppyoloe_plus_sod_crn_s_80e_visdrone")
IMAGES = 8
CROP = 208
"""Edge of the tiles in the photos, in pixels: small cars then have some 40 pixels in a network's input of 320."""


def write_tiles(data: Path, folder: Path, size: int) -> None:
    """Eight tiles of as many photos around the vehicle nearest to the middle, in PaddleX's layout."""
    dataset = read(data / "annotations" / "instance_train.json")
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, index in enumerate(np.linspace(0, len(dataset.images) - 1, IMAGES).astype(int), 1):
        path = data / "images" / dataset.images[index].file_name
        photo = cv2.imread(str(path))
        if photo is None:
            raise SystemExit(f"{path}: cannot be read")
        boxes = dataset.boxes[dataset.of_image(index)]
        middle = np.array([photo.shape[1], photo.shape[0]]) / 2
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        nearest = centres[np.abs(centres - middle).sum(axis=1).argmin()]
        # Large vehicles of low flights get a larger tile.
        edge = int(CROP * max(1, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).max() / 60))
        edge = min(edge, *photo.shape[:2])
        x, y = (int(np.clip(nearest[axis] - edge / 2, 0, photo.shape[1 - axis] - edge)) for axis in (0, 1))
        tile = cv2.resize(photo[y : y + edge, x : x + edge], (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), tile)
        images.append({"id": number, "file_name": f"{number}.png", "width": size, "height": size})
        for box in boxes:
            whole = (box - np.array([x, y, x, y])) * size / edge
            part = np.clip(whole, 0, size)
            width, height = part[2:] - part[:2]
            if width * height < 0.3 * np.prod(whole[2:] - whole[:2]) or min(width, height) < 6:
                continue
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "bbox": [*part[:2], width, height], "area": width * height})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "vehicle"}]}
    for role in ("train", "val"):
        (folder / "annotations" / f"instance_{role}.json").write_text(json.dumps(content))


def overfit(model: str, data: Path, folder: Path, steps: int, size: int, pretrained: str | None) -> float:
    """AP50 after training on the tiles; progress on stderr."""
    from slicedet.training.trainer import train

    none = ("flip", "flip_vertical", "mosaic", "hue", "saturation", "contrast", "brightness", "blur", "jpeg", "noise")
    content = {
        "model": model,
        "dataset_dir": str(data),
        "output": str(folder),
        "input_size": size,
        "batch_size": IMAGES,
        "steps": steps,
        "tiles": None,
        "augmentation": {**dict.fromkeys(none, 0), "rotate90": False},
        "pretrained": pretrained,
        "learning_rate": 2e-3,
        "warmup_steps": 10,
        "ema_decay": 0.9,
        "static_assigner_epoch": steps // 3,
        "eval_steps": max(20, steps // 5),
        "evaluation": {"slice": "full"},
    }
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    started = time.perf_counter()
    outcome = train(config.load(path), listen=lambda record: print(report.line(record), file=sys.stderr))
    best = outcome.best or {"ap": 0.0, "ap50": 0.0, "step": 0}
    print(
        f"{model}: AP50 {best['ap50']:.3f}, AP {best['ap']:.3f} on {IMAGES} tiles after {best['step']} steps, "
        f"{time.perf_counter() - started:.0f} s",
        flush=True,
    )
    return float(best["ap50"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with images/ and annotations/")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--size", type=int, default=320, help="edge of the network's input")
    parser.add_argument("--pretrained", action="append", default=[], metavar="MODEL=FILE", help="weights to begin with")
    arguments = parser.parse_args()
    pretrained = dict(each.split("=", 1) for each in arguments.pretrained)
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiles(arguments.data, folder / "tiles", arguments.size)
        scores = [
            overfit(model, folder / "tiles", folder / model, arguments.steps, arguments.size, pretrained.get(model))
            for model in arguments.model or MODELS
        ]
    sys.exit(0 if min(scores) > 0.9 else 1)


if __name__ == "__main__":
    main()
