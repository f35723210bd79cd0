"""Results: what was found in all images of a dataset, and the true objects to compare them with, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import CocoDataset
from slicedet.detections import Detections
from slicedet.errors import InvalidDetections
from slicedet.evaluation.classes import Classes


@dataclass(frozen=True, eq=False)
class Results:
    """N detections as parallel arrays ordered by image; in double precision, so that files are taken at their word.

    boxes: float64 [N, 4], x1 y1 x2 y2 in pixels of the image. scores: float64 [N]. category_ids: int32 [N].
    image_indices: int64 [N], ascending, index the images of the dataset.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    category_ids: NDArray[np.int32]
    image_indices: NDArray[np.int64]

    @classmethod
    def of(cls, found: Sequence[Detections]) -> Results:
        """The detections of every image, in the order of the images."""
        return cls(
            np.concatenate([np.empty((0, 4)), *(part.boxes for part in found)]),
            np.concatenate([np.empty(0), *(part.scores for part in found)]),
            np.concatenate([np.empty(0, np.int32), *(part.category_ids for part in found)]),
            np.repeat(np.arange(len(found)), [len(part) for part in found]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Results:
        return Results(self.boxes[rows], self.scores[rows], self.category_ids[rows], self.image_indices[rows])


@dataclass(frozen=True, eq=False)
class Truth:
    """N true objects as parallel arrays ordered by image; `category_ids` index the classes that are compared."""

    boxes: NDArray[np.float64]
    category_ids: NDArray[np.int32]
    image_indices: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: CocoDataset, classes: Classes) -> Truth:
        """The objects of a dataset that belong to a class that is compared."""
        category_ids = classes.of_truth[dataset.category_ids]
        rows = category_ids >= 0
        return cls(
            dataset.boxes[rows],
            category_ids[rows],
            dataset.image_indices[rows],
            dataset.crowd[rows],
            dataset.areas[rows],
        )


def sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Widths and heights [N, 2] of boxes [N, 4], as a file has them."""
    # A file's width of 21.32 is to be 21.32 again: the last bit decides where an IoU of exactly 0.5 falls.
    return np.round(boxes[:, 2:] - boxes[:, :2], 9)


def compared(results: Results, classes: Classes) -> Results:
    """The results that belong to a class that is compared, with `category_ids` that index these classes.

    Raises InvalidDetections for a category id that is none of the detector's.
    """
    if len(results) and results.category_ids.max() >= len(classes.of_found):
        raise InvalidDetections(
            f"category id {results.category_ids.max()}: there are {len(classes.of_found)} categories"
        )
    category_ids = classes.of_found[results.category_ids]
    rows = category_ids >= 0
    return Results(results.boxes[rows], results.scores[rows], category_ids[rows], results.image_indices[rows])
