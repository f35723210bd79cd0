"""From what a network gives back to candidate boxes, and from candidates to the detections of a tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.merging.claims import Claims
from slicedet.models.config import ModelConfig, NmsConfig

Floats = NDArray[np.float32]


def expected_outputs(config: ModelConfig) -> list[tuple[int | None, ...]]:
    """Shapes of the network's outputs in order; None where any length will do."""
    classes = len(config.categories)
    if config.output.layout == "rows":
        return [(None, 6)]
    if config.output.layout == "boxes-and-scores":
        return [(1, None, 4), (1, classes, None)]
    points: list[int] = [-(-config.input.size[0] // s) * -(-config.input.size[1] // s) for s in config.output.strides]
    bins = 4 * (config.output.reg_max + 1)
    return [*((1, n, classes) for n in points), *((1, n, bins) for n in points)]


def candidates(config: ModelConfig, outputs: Sequence[Floats], minimum: float) -> Detections:
    """The boxes of one image, in input pixels, whose score is at least `minimum`; an anchor may stand for several
    classes.

    "picodet-heads": a side's distance from its cell's centre is the mean of a softmax over reg_max + 1 bins, in strides
    (Li et al., Generalized Focal Loss, 2020).
    """
    if config.output.layout == "rows":
        rows = outputs[0][(outputs[0][:, 1] >= minimum) & (outputs[0][:, 0] >= 0)]
        return Detections(rows[:, 2:6], rows[:, 1], rows[:, 0].astype(np.int32))
    if config.output.layout == "boxes-and-scores":
        category_ids, points = _reaching(outputs[1][0], minimum)
        return Detections(outputs[0][0][points], outputs[1][0][category_ids, points], category_ids.astype(np.int32))
    strides = config.output.strides
    levels = [
        _level(scores[0], logits[0], stride, -(-config.input.size[0] // stride), minimum)
        for stride, scores, logits in zip(strides, outputs[: len(strides)], outputs[len(strides) :], strict=True)
    ]
    scores, category_ids, logits, centres, stride = (np.concatenate(column) for column in zip(*levels, strict=True))
    bins = logits.reshape(len(logits), 4, config.output.reg_max + 1)
    weights = np.exp(bins - bins.max(axis=-1, keepdims=True))
    mean = weights @ np.arange(bins.shape[-1], dtype=np.float32) / weights.sum(axis=-1)
    boxes = np.concatenate([centres - mean[:, :2], centres + mean[:, 2:]], axis=-1) * stride
    return Detections(boxes, scores, category_ids.astype(np.int32))


def _level(
    scores: Floats, logits: Floats, stride: int, columns: int, minimum: float
) -> tuple[Floats, NDArray[np.int64], Floats, Floats, Floats]:
    """Of the scores of one level that reach the minimum: themselves, their classes, and of their cells the logits, the
    centres and the stride."""
    points, category_ids = _reaching(scores, minimum)
    rows, places = np.divmod(points, columns)
    centres = np.stack([places, rows], axis=-1).astype(np.float32) + np.float32(0.5)
    strides = np.full((len(points), 1), stride, np.float32)
    return scores[points, category_ids], category_ids, logits[points], centres, strides


def _reaching(scores: Floats, minimum: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the scores that reach the minimum; np.nonzero takes several times as long."""
    return np.divmod(np.flatnonzero(scores.ravel() >= minimum), scores.shape[1])


def suppressed(found: Detections, nms: NmsConfig) -> Detections:
    """What per-class suppression leaves of one tile's candidates, best score first.

    Box for box what Paddle's multiclass_nms3 leaves: of equal scores the lower class comes first, then the earlier
    point; overlaps have to be greater than `nms.iou`.
    """
    order = np.lexsort((found.category_ids, -found.scores))
    if len(found) > nms.top_k:
        ids = found.category_ids[order]
        by_class = np.argsort(ids, kind="stable")
        rank = np.arange(len(ids)) - np.searchsorted(ids[by_class], ids[by_class])
        order = order[np.sort(by_class[rank < nms.top_k])]
    rank = np.arange(len(order))
    groups = found.category_ids[order].astype(np.int64)
    owner, _ = Claims("iou", above(nms.iou)).make(found.boxes[order].astype(np.float64), groups, rank)
    return found[order[owner == rank][: nms.keep]]


def above(threshold: float) -> float:
    """The least float32 greater than a threshold, for what is compared with it by >=."""
    return float(np.nextafter(np.float32(threshold), np.float32(2)))
