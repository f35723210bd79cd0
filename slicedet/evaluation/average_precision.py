"""Average precision as COCO defines it, by class and by size of the object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import CocoDataset, ImageRecord
from slicedet.datasets.stats import LARGE, SMALL
from slicedet.detections import Detections
from slicedet.errors import InvalidDataset, InvalidDetections
from slicedet.evaluation.classes import Classes
from slicedet.evaluation.parts import best_of_each, crowded, parts
from slicedet.evaluation.results import Results, Truth, compared, sides

SIZES = {"small": (0.0, SMALL**2), "medium": (SMALL**2, LARGE**2), "large": (LARGE**2, 1e10)}
"""Areas of COCO's sizes, in pixels; both ends belong to them."""

COCO_LIMIT = 100
"""Detections of one class that COCO's own figures take from an image, the best of them."""

MOST_CLASSES = 4000
"""Classes with objects that are measured at a time; COCO's tables take 0.7 MB of memory for each."""

_ALL = (0.0, 1e10)


@dataclass(frozen=True)
class Figures:
    """What COCO measures, each in 0..1; NaN where there is no object to be found.

    ap: average precision, the mean over IoU 0.50, 0.55, ..., 0.95. ap50, ap75: at IoU 0.5 and 0.75.
    ar: average recall, over the same IoU, of all detections. objects: how many there are to be found.
    """

    ap: float
    ap50: float
    ap75: float
    ar: float
    objects: int


@dataclass(frozen=True)
class AveragePrecision(Figures):
    """The figures over all classes, by size, and by class; detections are not limited in number.

    Figures over several classes are the mean of those that have objects.
    by_size: "small" (below 32 x 32 pixels), "medium" and "large" (from 96 x 96). by_class: by name.
    official: COCO's twelve figures by their names there, from at most 100 detections of a class in an image.
    """

    by_size: dict[str, Figures]
    by_class: dict[str, Figures]
    official: dict[str, float]


def average_precision(
    dataset: CocoDataset,
    found: Sequence[Detections],
    categories: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
) -> AveragePrecision:
    """How well detections agree with annotations, equal to pycocotools' figures.

    found: the detections of every image, in the order of `dataset.images`; the lower their scores reach, the better.
    categories: names that their category ids index; by default those of the dataset. Classes that the dataset lacks
    are left out, as COCO does.
    mapping: new names of classes by old name, on both sides, such as {"car": "vehicle", "van": "vehicle"}; "*" stands
    for all others, an empty new name leaves a class out.

    Raises InvalidDetections where there are more or fewer `found` than images, or an id is no category's;
    InvalidSetting or InvalidDataset where names do not fit; InvalidDataset where over MOST_CLASSES have objects.
    """
    if len(found) != len(dataset.images):
        raise InvalidDetections(f"detections of {len(found)} images, but {dataset.path} has {len(dataset.images)}")
    classes = Classes.align(dataset.categories, dataset.categories if categories is None else categories, mapping)
    return measure(dataset.images, Truth.of(dataset, classes), compared(Results.of(found), classes), classes.names)


def measure(images: Sequence[ImageRecord], truth: Truth, results: Results, names: Sequence[str]) -> AveragePrecision:
    """The figures of results whose category ids, like those of the truth, index `names`.

    Raises InvalidDataset where more than MOST_CLASSES have objects.
    """
    counted = truth.category_ids[~truth.crowd]
    present = np.unique(counted)
    if len(present) > MOST_CLASSES:
        raise InvalidDataset(
            f"{len(present):,} classes have objects, at most {MOST_CLASSES:,} are measured at a time; join some with "
            "--map, or leave them out"
        )
    precision, recall = _evaluate(images, truth, results, present)
    # Axes of both: IoU, (recall,) class, size, limit.
    areas = truth.areas[~truth.crowd]
    sizes = [(areas >= low) & (areas <= high) for low, high in (_ALL, *SIZES.values())]

    def figures(category: int | slice, size: int) -> Figures:
        objects = counted[sizes[size]]
        place = category if isinstance(category, slice) else present == category
        by_iou = precision[:, :, place, size, -1]
        return Figures(
            ap=_mean(by_iou),
            ap50=_mean(by_iou[0]),
            ap75=_mean(by_iou[5]),
            ar=_mean(recall[:, place, size, -1]),
            objects=len(objects) if isinstance(category, slice) else int((objects == category).sum()),
        )

    every = slice(None)
    official = {"AP": _mean(precision[:, :, :, 0, 2]), "AP50": _mean(precision[0, :, :, 0, 2])}
    official["AP75"] = _mean(precision[5, :, :, 0, 2])
    official |= {f"AP{size}": _mean(precision[:, :, :, i, 2]) for i, size in enumerate(SIZES, 1)}
    official |= {f"AR{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate((1, 10, COCO_LIMIT))}
    official |= {f"AR{size}": _mean(recall[:, :, i, 2]) for i, size in enumerate(SIZES, 1)}
    return AveragePrecision(
        **vars(figures(every, 0)),
        by_size={name: figures(every, i) for i, name in enumerate(SIZES, 1)},
        by_class={name: figures(i, 0) for i, name in enumerate(names)},
        official=official,
    )


def _evaluate(
    images: Sequence[ImageRecord], truth: Truth, results: Results, categories: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [IoU, recall, class, size, limit] and greatest recall [IoU, class, size, limit] of `categories`, which
    ascend; -1 where undefined."""
    # Detections of equal score count in the order of image ids there.
    number = np.argsort(np.argsort([image.id for image in images]))
    of_truth = number[truth.image_indices]
    if not crowded(truth, results):
        return _by_coco(truth, of_truth, results, number[results.image_indices], categories)
    # The limits are by image, the other figures the same for parts of images.
    few = results[best_of_each(results, COCO_LIMIT)]
    limited = _by_coco(truth, of_truth, few, number[few.image_indices], categories)
    of_truth, of_results = parts(truth, results, number)
    full = _by_coco(truth, of_truth, results, of_results, categories)
    precision, recall = (np.concatenate([a[..., :-1], b[..., -1:]], -1) for a, b in zip(limited, full, strict=True))
    return precision, recall


def _by_coco(
    truth: Truth,
    of_truth: NDArray[np.int64],
    results: Results,
    of_results: NDArray[np.int64],
    categories: NDArray[np.int32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same, of objects and detections that lie in the images `of_truth` and `of_results`, numbered from 0."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = max(of_truth.max(initial=0), of_results.max(initial=0)) + 1
    most = int(np.bincount(of_results, minlength=1).max())
    of_truth, truth = _of(categories, of_truth, truth)
    of_results, results = _of(categories, of_results, results)
    columns = {"image_id": of_truth.tolist(), "category_id": truth.category_ids.tolist()}
    annotations = _rows(
        **columns, bbox=_as_listed(truth.boxes), area=truth.areas.tolist(), iscrowd=truth.crowd.astype(int).tolist()
    )
    known = COCO()
    known.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": number, "name": str(number)} for number in range(max(len(categories), 1))],
        # An id of 0 would read as unmatched.
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }
    known.createIndex()
    columns = {"image_id": of_results.tolist(), "category_id": results.category_ids.tolist()}
    found = known.loadRes(_rows(**columns, bbox=_as_listed(results.boxes), score=results.scores.tolist()))
    evaluation = COCOeval_faster(known, found, "bbox", ranges={name: list(size) for name, size in SIZES.items()})
    evaluation.params.maxDets = [1, 10, COCO_LIMIT, max(most, COCO_LIMIT + 1)]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


_Rows = TypeVar("_Rows", Truth, Results)


def _of(categories: NDArray[np.int32], images: NDArray[np.int64], rows: _Rows) -> tuple[NDArray[np.int64], _Rows]:
    """Images and rows of these categories, which become numbers from 0."""
    kept = np.isin(rows.category_ids, categories)
    parts = {name: column[kept] for name, column in vars(rows).items()}
    numbers = np.searchsorted(categories, parts["category_ids"]).astype(np.int32)
    return images[kept], replace(rows, **{**parts, "category_ids": numbers})


def _rows(**columns: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _as_listed(boxes: NDArray[np.float64]) -> list[list[float]]:
    """Boxes as x, y, width and height."""
    return np.concatenate([boxes[:, :2], sides(boxes)], axis=1).tolist()


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is defined, NaN where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")
