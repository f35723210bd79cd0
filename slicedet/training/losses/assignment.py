"""What all assigners share: points, matches, and how a point wanted by several boxes is settled. Knows numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from slicedet.boxes import Boxes, overlap

Indices = NDArray[np.intp]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Points:
    """The points of all levels, level by level and row by row.

    centers: [N, 2], x and y in pixels. strides: [N], pixels. counts: number of points of each level.
    """

    centers: Floats
    strides: Floats
    counts: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Points:
        """The points of levels of these heights and widths, each in the middle of its cell."""
        centers = []
        for (height, width), stride in zip(shapes, strides, strict=True):
            rows, columns = np.mgrid[:height, :width]
            centers.append((np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * stride)
        counts = tuple(len(level) for level in centers)
        return cls(
            np.concatenate(centers).astype(np.float32), np.repeat(np.asarray(strides, np.float32), counts), counts
        )

    def inside(self, boxes: Boxes) -> NDArray[np.bool_]:
        """Whether each point lies in each box and not on its edge, [G, N]."""
        return _between(self.centers, boxes[:, :2], boxes[:, 2:])

    def near(self, boxes: Boxes, radius: float) -> NDArray[np.bool_]:
        """Whether each point lies less than `radius` strides from the centre of each box in both x and y, [G, N]."""
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        found = []
        for level in self.levels():
            reach = radius * self.strides[level][0]
            found.append(_between(self.centers[level], middles - reach, middles + reach))
        return np.concatenate(found, axis=1)

    def levels(self) -> list[slice]:
        """Where the points of each level are."""
        ends = np.cumsum(self.counts).tolist()
        return [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]


class Matches(NamedTuple):
    """Points that are to find a box, of one image.

    points: [P], ascending. boxes: [P], the index of the box of each. scores: [P], what to answer for its class, 0..1.
    """

    points: Indices
    boxes: Indices
    scores: Floats


class Assigner(Protocol):
    """Matches the points of one image to its boxes.

    points: N points. boxes: G boxes, at least one, x1 y1 x2 y2 in pixels. labels: [G]. predicted: [N, 4] pixels, and
    scores: [C, N], what the network answers now.
    """

    def __call__(
        self, points: Points, boxes: Floats, labels: Indices, predicted: Floats, scores: Floats
    ) -> Matches: ...


def pairwise_iou(a: Boxes, b: Boxes) -> Floats:
    """The IoU of each box of `a` [G, 4] with each of `b` [N, 4], [G, N].

    Worked out only where boxes touch: most do not, and training waits for this.
    """
    left, top, right, bottom = b.T.copy()
    touching = (a[:, :1] < right) & (left < a[:, 2:3]) & (a[:, 1:2] < bottom) & (top < a[:, 3:])
    rows, columns = np.nonzero(touching)
    ious = np.zeros(touching.shape, np.float32)
    ious[rows, columns] = overlap(a[rows], b[columns], "iou")
    return ious


def best(groups: Indices, values: NDArray[np.floating], counts: Indices) -> Indices:
    """Places of the highest values of each group: `counts[g]` of them, or all if there are fewer.

    groups: [P], values: [P]. Of equal values the earlier one is better.
    """
    order = np.lexsort((-values, groups))
    ranked = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return order[rank < counts[ranked]]


def settle(
    boxes: Indices, points: Indices, worth: Callable[[Indices], NDArray[np.floating]]
) -> tuple[Indices, Indices]:
    """Pairs of which no two have the same point, by ascending point: (boxes [P], points [P]).

    worth: how well each box suits each of some points, [G, points]. A disputed point goes to the best of all boxes,
    even to one that did not want it, as the official assigners have it.
    """
    alone, first, times = np.unique(points, return_index=True, return_counts=True)
    chosen = boxes[first]
    disputed = times > 1
    chosen[disputed] = worth(alone[disputed]).argmax(axis=0)
    return chosen, alone


def _between(centers: Floats, low: Boxes, high: Boxes) -> NDArray[np.bool_]:
    x, y = centers.T.copy()
    return (low[:, :1] < x) & (x < high[:, :1]) & (low[:, 1:] < y) & (y < high[:, 1:])
