"""The report of a check on disk: PaddleX's result file, sample images with their boxes, a histogram of the classes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicedet.datasets.check import Check, CheckedSplit
from slicedet.datasets.coco import shown
from slicedet.datasets.plots import write_class_histogram
from slicedet.errors import InvalidDataset, OutputError
from slicedet.outputs.files import flush_file, temporary_folder, write_errors
from slicedet.outputs.palette import colour
from slicedet.raster.scene import Scene

RESULT = "check_dataset_result.json"
SAMPLES = 10
"""Sample images of each split."""

_PICTURE_EDGE = 2048
_FOLDER = "check_dataset"


def write_report(checked: Check, output: str | Path) -> Path:
    """Writes check_dataset_result.json, check_dataset/histogram.png and check_dataset/demo_img/ into `output`.

    The folder is made where it is not there; files of an earlier report are replaced. The result has PaddleX's keys,
    and the findings and the advice besides. Returns its path. Raises OutputError where they cannot be written.
    """
    target = _made(output)
    with temporary_folder(target / RESULT) as folder, write_errors(target / RESULT, folder):
        pictures = folder / _FOLDER / "demo_img"
        pictures.mkdir(parents=True)
        attributes: dict[str, Any] = {"num_classes": len(_categories(checked))}
        taken: set[str] = set()
        for part in checked.splits:
            name = part.split.name
            attributes[f"{name}_samples"] = sum(image is not None for image in part.images)
            attributes[f"{name}_sample_paths"] = [
                f"{_FOLDER}/demo_img/{picture}" for picture in _draw_samples(checked, part, pictures, taken)
            ]
        analysis = {}
        if checked.statistics:
            write_class_histogram(folder / _FOLDER / "histogram.png", checked.statistics)
            analysis["histogram"] = f"{_FOLDER}/histogram.png"
        result = {
            "done_flag": True,
            "check_pass": checked.passed,
            "attributes": attributes,
            "analysis": analysis,
            "dataset_path": Path(os.path.abspath(checked.layout.root)).name,
            "show_type": "image",
            "dataset_type": "COCODetDataset",
            **checked.summary(),
        }
        return _move(folder, target, result)


def write_failure(error: InvalidDataset, output: str | Path) -> Path:
    """Writes PaddleX's result file of a check that could not be made."""
    target = _made(output)
    with temporary_folder(target / RESULT) as folder, write_errors(target / RESULT, folder):
        told = shown(error, 1000)
        result = {"done_flag": False, "check_pass": False, "err_type": type(error).__name__, "err_msg": told}
        return _move(folder, target, result)


def _made(output: str | Path) -> Path:
    target = Path(output)
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made a folder ({error.strerror}); choose another with -o") from error
    return target


def _move(folder: Path, target: Path, result: dict[str, Any]) -> Path:
    """Moves the files into place, the result last."""
    (folder / RESULT).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name == RESULT)
    for path in files:
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        flush_file(path)
        os.replace(path, place)
    return target / RESULT


def _categories(checked: Check) -> set[str]:
    return {name for part in checked.splits for name in part.categories.names.values()}


def _draw_samples(checked: Check, part: CheckedSplit, folder: Path, taken: set[str]) -> list[str]:
    """Pictures of the first readable images; returns their names."""
    if part.dataset is None:
        return []
    readable = {
        image.file_name
        for place, image in enumerate(part.images)
        if image is not None and place in part.decoded and not part.decoded[place].trouble
    }
    drawn: list[str] = []
    for index, image in enumerate(part.dataset.images):
        if len(drawn) == SAMPLES:
            break
        if image.file_name not in readable:
            continue
        rows = part.dataset.of_image(index)
        picture = _drawn(
            checked.layout.image(image.file_name), part.dataset.boxes[rows], part.dataset.category_ids[rows]
        )
        path = Path(image.file_name.replace("/", "_"))
        name = path.name if path.suffix.lower() in (".jpg", ".jpeg", ".png") else f"{path.stem}.png"
        others = (f"{part.split.name}{number}_{name}" for number in count(2))
        name = next(each for each in chain([name, f"{part.split.name}_{name}"], others) if each not in taken)
        taken.add(name)
        picture.save(folder / name, quality=90, compress_level=1)
        drawn.append(name)
    return drawn


def _drawn(path: Path, boxes: NDArray[np.float64], category_ids: NDArray[np.int32]) -> Image.Image:
    """An image, reduced where it is large, with the outlines of its boxes."""
    from PIL import ImageDraw

    with Scene(path) as scene:
        shrink = max(1.0, max(scene.width, scene.height) / _PICTURE_EDGE)
        size = (max(1, round(scene.width / shrink)), max(1, round(scene.height / shrink)))
        picture = Image.fromarray(scene.read((0, 0, scene.width, scene.height), size))
    draw = ImageDraw.Draw(picture)
    line = max(1, round(max(size) / 900))
    order: Sequence[int] = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable").tolist()
    for row in order:
        x1, y1, x2, y2 = (boxes[row] / shrink).tolist()
        draw.rectangle(
            (x1 - line, y1 - line, max(x2, x1 + 1), max(y2, y1 + 1)), outline=colour(int(category_ids[row])), width=line
        )
    return picture
