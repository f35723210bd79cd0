"""Detections: parallel arrays of boxes, scores and categories, the currency of the whole library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slicedet.errors import InvalidDetections


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections in one pixel frame.

    boxes: float32 [N, 4], x1 y1 x2 y2 as pixel edges (0, 0 is the outer corner of the first pixel).
    scores: float32 [N], 0..1.
    category_ids: int32 [N], from 0, an index into the categories of the detector.
    tiles: float32 [N, 4], the rectangle of the tile each detection comes from in the same frame; None where unknown.

    Raises InvalidDetections where shapes disagree, a number is not finite, or a box is inverted.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    tiles: NDArray[np.float32] | None = None

    def __init__(
        self, boxes: ArrayLike, scores: ArrayLike, category_ids: ArrayLike, tiles: ArrayLike | None = None
    ) -> None:
        put = object.__setattr__  # Frozen.
        put(self, "boxes", _rectangles(boxes))
        put(self, "scores", np.asarray(scores, np.float32))
        put(self, "category_ids", np.asarray(category_ids, np.int32))
        put(self, "tiles", None if tiles is None else _rectangles(tiles))
        count = len(self.scores)
        shapes = {"boxes": (count, 4), "scores": (count,), "category_ids": (count,), "tiles": (count, 4)}
        for name, values in self._arrays():
            if values.shape != shapes[name]:
                raise InvalidDetections(f"{name} has shape {list(values.shape)}, expected {list(shapes[name])}")
            if not np.isfinite(values).all():
                raise InvalidDetections(f"{name} holds NaN or infinite values")
        if (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise InvalidDetections("boxes are not x1 y1 x2 y2: some end before they begin")
        if count and self.category_ids.min() < 0:
            raise InvalidDetections("category_ids holds negative values")

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All parts one after the other; `tiles` stays known only if it is known for every non-empty part."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.empty()
        columns: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            columns[field.name] = None if any(v is None for v in values) else np.concatenate(values)
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: ArrayLike | slice) -> Detections:
        """The detections at an index array, a boolean mask or a slice."""
        keep = index if isinstance(index, slice) else np.atleast_1d(np.asarray(index))
        if not isinstance(keep, slice) and keep.size == 0:
            keep = keep.astype(np.intp)
        return Detections(**{name: values[keep] for name, values in self._arrays()})

    def replace(self, **columns: ArrayLike | None) -> Detections:
        """A copy with some columns exchanged."""
        return replace(self, **columns)  # type: ignore[arg-type]

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for field in fields(self):
            values = getattr(self, field.name)
            if values is not None:
                yield field.name, values


def _rectangles(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    return array.reshape(0, 4) if array.size == 0 else array
