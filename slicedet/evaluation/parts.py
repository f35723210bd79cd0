"""Parts: images with so many boxes that COCO's table of all overlaps would not fit, cut where nothing overlaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slicedet.evaluation.matching import overlapping
from slicedet.evaluation.results import Results, Truth
from slicedet.merging.pairs import connected

PAIRS = 1 << 22
"""Most pairs of a detection and an object of one image that are laid out as a table, 8 bytes each."""

_BOXES = 512
"""Boxes in a part, unless more of them hang together."""

_LEAST_IOU = 0.5 - 1e-6
"""What overlaps by less is no match at any of COCO's thresholds."""


def crowded(truth: Truth, results: Results) -> bool:
    """Whether some image has more than PAIRS pairs."""
    counts = (np.bincount(each.image_indices, minlength=1) for each in (truth, results))
    objects, detections = (count.astype(np.float64) for count in counts)
    images = min(len(objects), len(detections))
    return bool((objects[:images] * detections[:images]).max() > PAIRS)


def parts(truth: Truth, results: Results, number: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The part, numbered from 0, of every object and of every detection. What may match lies in one part, each part in
    one image, so matching part by part is matching image by image.

    number: int64 [images], each once; parts are numbered in this order of their images.
    """
    detections, objects, _ = overlapping(truth, results, _LEAST_IOU)
    first = len(results)
    together = connected(first + len(truth.boxes), detections, first + objects)
    groups, group, sizes = np.unique(together, return_inverse=True, return_counts=True)
    images = number[np.concatenate([results.image_indices, truth.image_indices])[groups]]
    # Groups are numbered by their first detection: so are parts, and equal scores keep their order, as far as can be.
    order = np.lexsort((groups, images))
    before = np.cumsum(sizes[order]) - sizes[order]
    begins = np.searchsorted(images[order], images[order])
    place = np.empty_like(before)
    place[order] = (before - before[begins]) // _BOXES
    _, part = np.unique(np.stack([images, place], axis=1), axis=0, return_inverse=True)
    of_all = part.reshape(-1)[group]
    return of_all[first:], of_all[:first]


def best_of_each(results: Results, limit: int) -> NDArray[np.bool_]:
    """Which results are among the `limit` best of their class in their image."""
    order = np.lexsort((-results.scores, results.category_ids, results.image_indices))
    keys = np.stack([results.image_indices, results.category_ids], axis=1)[order]
    begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
    nth = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    best = np.zeros(len(order), bool)
    best[order[nth < limit]] = True
    return best
