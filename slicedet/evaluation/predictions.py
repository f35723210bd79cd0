"""Saved predictions: COCO's list of results, or a COCO document with scores such as slicedet writes."""

from __future__ import annotations

import warnings
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from slicedet.datasets.coco import CocoDataset, entries, is_list, not_whole, shown, shown_box, whole
from slicedet.datasets.layout import with_slashes
from slicedet.detectors.protocol import minimum_scores
from slicedet.errors import InvalidDataset, SlicedetWarning
from slicedet.evaluation.results import Results

FARTHEST = 1e9
"""Greatest coordinate in pixels that is taken for one: no image has as many, and areas of such boxes overflow."""

_ROUNDING = 1e-5
"""By how much a score may exceed 1: half precision rounds so."""


@dataclass(frozen=True, eq=False)
class SavedPredictions:
    """The detections of a file, matched to the images of a dataset.

    categories: names that their category ids index. results: all of them. other_images: names, or ids, of images in
    the file that the dataset does not have; their detections are left out.
    """

    categories: tuple[str, ...]
    results: Results
    other_images: tuple[str, ...]

    def above(self, threshold: float | Mapping[str, float] | None) -> Results:
        """The detections with at least these scores, see `minimum_scores`."""
        results = self.results
        minimum = minimum_scores(self.categories, threshold)[results.category_ids]
        # In single precision both, as scores are everywhere else: 0.14 is to reach a threshold of 0.14.
        return results[results.scores.astype(np.float32) >= minimum]


def read(path: str | Path, dataset: CocoDataset) -> SavedPredictions:
    """Reads predictions for the images of `dataset`.

    A list of results has the image and category ids of the dataset. A document has its own: its images are matched by
    file name, else by the last part of it where no other image of either side has that, and its categories by name.
    SlicedetWarning where images of one side are not on the other.
    Raises InvalidDataset where the file is neither, an entry is incomplete, or no image is the dataset's.
    """
    path = Path(path)
    listed = {number: with_slashes(name) for number, name in _by_id(path, "images", "file_name").items()}
    if listed:
        index_of, others = _by_name(listed, dataset)
        names = _by_id(path, "categories", "name")
    elif not is_list(path):
        raise InvalidDataset(
            f"{path}: is no file of COCO results: neither a list of them nor a document with images, categories and "
            "annotations"
        )
    else:
        index_of, others = {image.id: index for index, image in enumerate(dataset.images)}, []
        names = dict(zip(dataset.category_numbers, dataset.categories, strict=True))
    categories = list(dict.fromkeys(names.values()))
    category_of = {number: categories.index(name) for number, name in names.items()}
    boxes, scores = array("d"), array("d")
    category_ids, image_indices = array("q"), array("q")
    strangers: dict[str, None] = dict.fromkeys(others)
    for position, entry in enumerate(entries(path, "annotations"), 1):
        image, category, box, score = _parsed(f"{path}: prediction number {position}", entry)
        if image not in index_of:
            if image not in listed:
                strangers[f"image {image}"] = None
            continue
        if category not in category_of:
            category_of[category] = len(categories)
            categories.append(f"category {category}")
        x, y, width, height = box
        boxes.extend((x, y, x + width, y + height))
        scores.append(score)
        category_ids.append(category_of[category])
        image_indices.append(index_of[image])
    if strangers and not (index_of if listed else image_indices):
        raise InvalidDataset(
            f"{path}: none of its images is in {dataset.path}; it has {', '.join(map(shown, list(strangers)[:3]))}, "
            f"the annotations {shown(dataset.images[0].file_name)}"
        )
    _warn_of_differences(path, dataset, list(strangers), len(set(index_of.values())))
    order = np.argsort(np.frombuffer(image_indices, np.int64), kind="stable")
    results = Results(
        np.frombuffer(boxes, np.float64).reshape(-1, 4),
        np.frombuffer(scores, np.float64),
        np.frombuffer(category_ids, np.int64).astype(np.int32),
        np.frombuffer(image_indices, np.int64),
    )
    return SavedPredictions(tuple(categories), results[order], tuple(strangers))


def _by_id(path: Path, section: str, key: str) -> dict[int, str]:
    """What the entries of a section are called, by their ids."""
    named = {}
    for position, entry in enumerate(entries(path, section), 1):
        number = whole(entry.get("id"))
        if number is None or key not in entry:
            what = not_whole(entry, "id") if number is None else f"has no {key}"
            raise InvalidDataset(f"{path}: number {position} of its {section}: {what}")
        named[number] = str(entry[key])
    return named


def _by_name(listed: dict[int, str], dataset: CocoDataset) -> tuple[dict[int, int], list[str]]:
    """The dataset's index of each image listed, by its id in the list, and the names of those it does not have."""
    index_by_name = {image.file_name: index for index, image in enumerate(dataset.images)}
    names = dict.fromkeys(listed.values())
    here, there = (Counter(map(_last, side)) for side in (names, index_by_name))
    by_last = {_last(name): index for name, index in index_by_name.items()}
    for name in names:
        if here[_last(name)] == there[_last(name)] == 1:
            index_by_name.setdefault(name, by_last[_last(name)])
    index_of = {number: index_by_name[name] for number, name in listed.items() if name in index_by_name}
    return index_of, [name for name in names if name not in index_by_name]


def _last(name: str) -> str:
    return PurePosixPath(name).name


def _warn_of_differences(path: Path, dataset: CocoDataset, strangers: Sequence[str], met: int) -> None:
    """Says which images count on one side only."""
    said, there = [], dataset.path
    if strangers:
        names = ", ".join(map(shown, strangers[:3])) + (", ..." if len(strangers) > 3 else "")
        said.append(f"{len(strangers)} of its images are left out, as {there} does not have them ({names})")
    if met < len(dataset.images):
        said.append(
            f"{len(dataset.images) - met} of the {len(dataset.images)} images of {there} are not in it, so their "
            "objects count as missed"
        )
    if said:
        warnings.warn(f"{path}: {'; '.join(said)}", SlicedetWarning, stacklevel=3)


def _parsed(where: str, entry: dict[str, Any]) -> tuple[int, int, list[float], float]:
    """Image, category, box (x, y, width, height) and score of a prediction."""
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in entry:
            raise InvalidDataset(f"{where} has no {key}; each needs image_id, category_id, bbox and score")
    image, category = whole(entry["image_id"]), whole(entry["category_id"])
    if image is None or category is None:
        raise InvalidDataset(f"{where}: {not_whole(entry, 'image_id' if image is None else 'category_id')}")
    values = entry["bbox"]
    try:
        score, box = float(entry["score"]), [float(value) for value in values] if isinstance(values, list) else []
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidDataset(f"{where} has a bbox or score that is no number") from error
    if len(box) != 4 or not all(abs(value) <= FARTHEST for value in box) or min(box[2:]) < 0:
        raise InvalidDataset(f"{where} has no usable bbox: {shown_box(values)}")
    if not 0 <= score <= 1 + _ROUNDING:
        raise InvalidDataset(f"{where} has the score {score:g}, but scores lie in 0..1; percentages are to be divided")
    return image, category, box, score
