"""From what a network gives back to candidate boxes, and from candidates to the detections of a tile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import overlap
from slicedet.detections import Detections
from slicedet.errors import InvalidDetections
from slicedet.merging.claims import Claims
from slicedet.merging.order import best_first
from slicedet.models.config import ModelConfig, NmsConfig

Floats = NDArray[np.float32]

VOTERS = 0.5
"""Share of a box's score that a candidate needs to vote on its place."""


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


def sees_turned(config: ModelConfig) -> bool:
    """Whether the network also sees each image turned: not where suppression inside the graph is in the way."""
    return config.half_turn and config.output.layout != "rows"


def decoded(config: ModelConfig, outputs: Iterable[Sequence[Floats]], threshold: float) -> Detections:
    """What a network finds in one image, in input pixels, best score first, from `threshold` on.

    outputs: of each look at the image, that at the turned one last; each is done with before the next is drawn.
    """
    nms = config.nms
    if nms is None or config.output.layout == "rows":
        # Rows have been suppressed inside the graph.
        (rows,) = outputs
        found = candidates(config, rows, threshold)
        return found[best_first(found.scores, found.boxes, found.category_ids)]
    # A mean needs the scores of both looks, however low, or it would depend on the threshold.
    lowest = 0 if config.half_turn else threshold if config.box_voting is None else VOTERS * threshold
    upright, *turned = [candidates(config, look, max(lowest, just_above(nms.score_threshold))) for look in outputs]
    looks = [upright, *(turned_back(each, config.input.size) for each in turned)]
    found = Detections.concatenate(looks)
    kept, owners = _suppression(found, nms)
    kept = kept[found.scores[kept] >= threshold]
    result = found[kept]
    if config.box_voting is not None:
        result = voted(result, found[found.scores >= VOTERS * threshold], config.box_voting)
    if not turned:
        return result
    result = result.replace(scores=_means_of_looks(found, list(map(len, looks)), owners)[kept])
    result = result[best_first(result.scores, result.boxes, result.category_ids)]
    return result[result.scores >= threshold]


def candidates(config: ModelConfig, outputs: Sequence[Floats], minimum: float) -> Detections:
    """The boxes of one image, in input pixels, whose score is at least `minimum`; an anchor may stand for several
    classes.

    "picodet-heads": a side's distance from its cell's centre is the mean of a softmax over reg_max + 1 bins, in strides
    (Li et al., Generalized Focal Loss, 2020). Scores and classes that are no numbers are left out. Raises
    InvalidDetections for boxes that are none, and for a class that the configuration does not have.
    """
    if config.output.layout == "rows":
        rows = outputs[0][(outputs[0][:, 1] >= minimum) & (outputs[0][:, 0] >= 0)]
        if len(rows) and rows[:, 0].max() >= len(config.categories):
            raise InvalidDetections(f"class {rows[:, 0].max():.6g} (from 0), of {len(config.categories)} there are")
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


def turned_back(found: Detections, size: tuple[int, int]) -> Detections:
    """Boxes of an image of this width and height, turned by 180 degrees, where they are in the upright one."""
    return found.replace(boxes=np.array([*size, *size], np.float32) - found.boxes[:, [2, 3, 0, 1]])


def suppressed(found: Detections, nms: NmsConfig) -> Detections:
    """What per-class suppression leaves of one tile's candidates, best score first.

    Box for box what Paddle's multiclass_nms3 leaves: of equal scores the lower class comes first, then the earlier
    point; overlaps have to be greater than `nms.iou`.
    """
    kept, _ = _suppression(found, nms)
    return found[kept]


def _suppression(found: Detections, nms: NmsConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of what per-class suppression leaves, best score first, and of the box each candidate gave way to: itself
    for one that stands, -1 beyond `nms.top_k`."""
    order = np.lexsort((found.category_ids, -found.scores))
    if len(found) > nms.top_k:
        ids = found.category_ids[order]
        by_class = np.argsort(ids, kind="stable")
        rank = np.arange(len(ids)) - np.searchsorted(ids[by_class], ids[by_class])
        order = order[np.sort(by_class[rank < nms.top_k])]
    rank = np.arange(len(order))
    groups = found.category_ids[order].astype(np.int64)
    owner, _ = Claims("iou", just_above(nms.iou)).make(found.boxes[order].astype(np.float64), groups, rank)
    owners = np.full(len(found), -1)
    owners[order] = order[owner]
    return order[owner == rank][: nms.keep], owners


def _means_of_looks(found: Detections, lengths: Sequence[int], owners: NDArray[np.int64]) -> Floats:
    """The mean, over all looks, of the best score that each gives the object of a box, 0 where it sees none; by
    candidate."""
    best = np.zeros((len(found), len(lengths)), np.float32)
    look = np.repeat(np.arange(len(lengths)), lengths)
    there = owners >= 0
    np.maximum.at(best, (owners[there], look[there]), found.scores[there])
    return np.asarray(best.mean(axis=1), np.float32)


def voted(kept: Detections, found: Detections, iou: float) -> Detections:
    """The kept boxes of one tile, each at the mean of the candidates of its class that overlap it by at least `iou`,
    weighted by score (Gidaris and Komodakis, 2015, arXiv 1505.01749).

    What has less than VOTERS of a box's score has no vote, so that places do not depend on the threshold, if `found`
    reaches down to VOTERS of it.
    """
    own = kept.category_ids[:, None] == found.category_ids
    near = overlap(kept.boxes[:, None], found.boxes, "iou") >= iou
    votes = np.where(own & near & (found.scores >= VOTERS * kept.scores[:, None]), found.scores, 0).astype(np.float64)
    # A box without area overlaps nothing, not even itself.
    some, elected = votes.any(1), kept.boxes.copy()
    elected[some] = votes[some] @ found.boxes / votes[some].sum(1, keepdims=True)
    return kept.replace(boxes=elected)


def just_above(threshold: float) -> float:
    """The least float32 greater than a threshold, for what is compared with it by >=."""
    return float(np.nextafter(np.float32(threshold), np.float32(2)))
