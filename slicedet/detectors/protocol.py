"""The Detector protocol, what slicedet asks of anything that finds objects, and what it may say besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.errors import InvalidSetting, UnknownCategory


@runtime_checkable
class Detector(Protocol):
    """Any object with these three members is a detector.

    categories: names that category ids index, from 0.
    input_size: tile edge in pixels it sees best, the default slice; None where it does not mind.
    detect: takes tiles, uint8 RGB [H, W, 3] of any size, and returns as many Detections, each in the pixels of its own
    tile.

    It may also have `name` (str), `gsd` (metres per pixel it was trained at), `provenance` (a mapping for the run's
    record), and, to work while tiles are read, `stream(tiles: Iterator) -> Iterator[Detections]`: it draws tiles when
    it has room for them and answers each, in order. Tiles of a stream are views of what was read: not contiguous, and
    not to be written to.
    """

    @property
    def categories(self) -> Sequence[str]: ...

    @property
    def input_size(self) -> int | None: ...

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[Detections]: ...


def name_of(detector: Detector) -> str:
    """The name under which results are filed: what the detector calls itself, else its type."""
    return str(getattr(detector, "name", type(detector).__name__))


def provenance_of(detector: Detector) -> dict[str, Any]:
    """What a detector says of itself for the record of a run."""
    return {"name": name_of(detector), **getattr(detector, "provenance", {})}


def minimum_scores(
    categories: Sequence[str],
    threshold: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
) -> NDArray[np.float32]:
    """The lowest score that each category's detections need, float32 [categories].

    threshold: one number for all, or numbers by category with "*" for the others (else 0); None keeps every score.
    classes: the categories wanted; those left out need an infinite score.
    Raises UnknownCategory for a name that is not among the categories, InvalidSetting for a number outside 0..1.
    """
    numbers = {"*": threshold or 0.0} if not isinstance(threshold, Mapping) else threshold
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise InvalidSetting(f"threshold {value}: expected a number between 0 and 1")
        if name != "*":
            _require(name, categories)
    minimum = np.array([numbers.get(name, numbers.get("*", 0.0)) for name in categories], np.float32)
    if classes is not None:
        for name in classes:
            _require(name, categories)
        minimum[[name not in classes for name in categories]] = np.inf
    return minimum


def _require(name: str, categories: Sequence[str]) -> None:
    if name not in categories:
        shown = ", ".join(categories[:20]) + (", ..." if len(categories) > 20 else "")
        raise UnknownCategory(f"class {name!r}: the detector knows {shown}")
