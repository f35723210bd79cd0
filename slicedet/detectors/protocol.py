"""The Detector protocol, what slicedet asks of anything that finds objects, and what it may say besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
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

    It may also have `name` (str), `gsd` (metres per pixel it was trained at), `tile_size` (width and height of the
    tiles it sees best, where these are not square), `threshold` (the lowest score it returns: a box that merging lowers
    below it goes), `provenance` (a mapping for the run's record), and, to work while tiles are read,
    `stream(tiles: Iterator) -> Iterator[Detections]`: it draws tiles when it has room for them and answers each, in
    order. Tiles of a stream are views of what was read: not contiguous, and not to be written to.
    """

    @property
    def categories(self) -> Sequence[str]: ...

    @property
    def input_size(self) -> int | None: ...

    def detect(self, tiles: list[NDArray[np.uint8]]) -> list[Detections]: ...


def name_of(detector: Detector) -> str:
    """The name under which results are filed: what the detector calls itself, else its type."""
    return str(getattr(detector, "name", type(detector).__name__))


def tile_size_of(detector: Detector) -> tuple[int, int] | int | None:
    """Width and height of the tiles a detector sees best, or their edge; None where it does not mind."""
    return getattr(detector, "tile_size", None) or detector.input_size


def threshold_of(detector: Detector) -> float | None:
    """The lowest score that a detector says it returns; None where it does not say."""
    return getattr(detector, "threshold", None)


def require_detector(detector: object) -> None:
    """Raises InvalidSetting for what is none, such as the name of a model."""
    if isinstance(detector, type) or not isinstance(detector, Detector):
        name = detector if isinstance(detector, str) else "aerial-vehicles"
        given = repr(detector) if isinstance(detector, str | None) else f"of type {type(detector).__name__}"
        raise InvalidSetting(
            f"detector {given}: expected an object with categories, input_size and detect(tiles), such as "
            f"slicedet.load_detector({name!r}) gives"
        )


def provenance_of(detector: Detector) -> dict[str, Any]:
    """What a detector says of itself for the record of a run."""
    return {"name": name_of(detector), "gsd": getattr(detector, "gsd", None), **getattr(detector, "provenance", {})}


def minimum_scores(
    categories: Sequence[str],
    threshold: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
) -> NDArray[np.float32]:
    """The lowest score that each category's detections need, float32 [categories].

    threshold: one number for all, or numbers by category with "*" for the others (else 0); None keeps every score.
    classes: the categories wanted; those left out need an infinite score.
    Raises UnknownCategory for a name that is not among the categories, InvalidSetting for a number outside 0..1, and
    for classes that are one text.
    """
    if isinstance(classes, str):
        raise InvalidSetting(f"classes {classes!r}: expected a list of names, such as [{classes!r}]")
    numbers = {"*": 0.0 if threshold is None else threshold} if not isinstance(threshold, Mapping) else threshold
    for name, value in numbers.items():
        check_score(value)
        if name != "*":
            _require(name, categories)
    minimum = np.array([numbers.get(name, numbers.get("*", 0.0)) for name in categories], np.float32)
    if classes is not None:
        for name in classes:
            _require(name, categories)
        minimum[[name not in classes for name in categories]] = np.inf
    return minimum


def check_score(threshold: Any) -> None:
    """Raises InvalidSetting for what is no number between 0 and 1."""
    if not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise InvalidSetting(f"threshold {threshold}: expected a number between 0 and 1")


def _require(name: str, categories: Sequence[str]) -> None:
    if name not in categories:
        shown = ", ".join(categories[:20]) + (", ..." if len(categories) > 20 else "")
        raise UnknownCategory(f"class {name!r}: the detector knows {shown}")
