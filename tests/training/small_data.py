"""A dataset small enough to train on in seconds: dark images with bright rectangles. And trainings on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from slicedet.training.config import TrainingConfig, load

Box = tuple[int, int, int, int]


def write_dataset(
    folder: Path, role: str = "train", images: int = 3, names: Sequence[str] = ("car",), empty: bool = False
) -> Path:
    """Images of 160 x 128 in PaddleX's layout, each with two rectangles of the categories in turn; its annotations."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": index + 1, "name": name} for index, name in enumerate(names)]
    for image in range(images):
        rng = np.random.default_rng(image)
        pixels = rng.integers(0, 60, (128, 160, 3), np.uint8)
        content["images"].append({"id": image + 1, "file_name": f"{role}{image}.png", "width": 160, "height": 128})
        for place in range(0 if empty else 2):
            x, y = (int(rng.integers(4, 50)) + 70 * place, int(rng.integers(4, 90)))
            pixels[y : y + 24, x : x + 32] = 255
            number = len(content["annotations"])
            entry = {"id": number + 1, "image_id": image + 1, "category_id": number % len(names) + 1, "iscrowd": 0}
            content["annotations"].append({**entry, "bbox": [x, y, 32, 24], "area": 32 * 24})
        cv2.imwrite(str(folder / "images" / f"{role}{image}.png"), pixels)
    path = folder / "annotations" / f"instance_{role}.json"
    path.write_text(json.dumps(content))
    return path


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A training of a few steps on the dataset in `folder`."""
    return {
        "model": "picodet_s_320_coco",
        "output": str(folder / "output"),
        "dataset_dir": str(folder),
        "input_size": 64,
        "batch_size": 2,
        "steps": 5,
        "warmup_steps": 2,
        "log_interval": 2,
        "checkpoint_seconds": 0,
        "replicas": 2,
        "workers": 2,
        "tiles": {"scale": [0.5, 1.0]},
        **changes,
    }


def small_model(folder: Path) -> Path:
    """PicoDet's neck and head with two levels behind a backbone of two stages: what is done once for every layer, above
    all in the export, takes a fifth of a catalogue model's time."""
    content = yaml.safe_load((Path(str(files("slicedet.configs"))) / "picodet_s_320_coco.yaml").read_text())
    content["network"] = {
        "backbone": {"type": "CSPResNet", "channels": [8, 16, 32], "blocks": [1, 1], "alpha": True, "levels": 1},
        "neck": {"type": "CSPPAN", "channels": 16},
        "head": {"type": "PicoHead", "strides": [8, 16], "convs": 1, "reg_max": 7},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**content, "downloads": None}))
    return path


def configured(folder: Path, **changes: Any) -> TrainingConfig:
    """The same of a small network, read from training.yaml in the folder."""
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(settings(folder, **{"model": str(small_model(folder)), **changes})))
    return load(path)


def train(config: TrainingConfig, **arguments: Any) -> Any:
    """slicedet.training.trainer.train, whose import takes seconds."""
    from slicedet.training.trainer import train as run

    return run(config, **arguments)


class Said(Exception):
    """Ends a training at a message."""


def message(number: int, config: TrainingConfig, **arguments: Any) -> str:
    """The message of this number, from 1, at which the training ends."""
    heard = []

    def listen(record: dict[str, Any]) -> None:
        heard.append(record["message"])
        if len(heard) == number:
            raise Said

    with pytest.raises(Said):
        train(config, listen=listen, **arguments)
    return str(heard[-1])
