"""How a scene is searched: what decides the result, and what only decides how fast it comes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slicedet.errors import InvalidSetting
from slicedet.merging import MergeRule
from slicedet.tiling import TileGrid, parse_overlap


@dataclass(frozen=True)
class Settings:
    """What decides the result; see `slicedet.predict` for what each setting means. Raises InvalidSetting."""

    slice: int | str | tuple[int, int] | None = None
    overlap: float | str = 0.25
    merge: MergeRule = field(default_factory=MergeRule)
    threshold: float | Mapping[str, float] | None = None
    classes: Sequence[str] | None = None
    gsd: float | str = "auto"
    roi: str | Path | None = None
    full_image: bool = False
    skip_unreadable: bool = False
    skip_flat: bool = False
    keep_views: bool = False

    def __post_init__(self) -> None:
        if self.slice is None:
            parse_overlap(self.overlap)
        else:
            TileGrid.cover(1, 1, self.slice, self.overlap)
        if self.gsd not in ("auto", "native") and not (isinstance(self.gsd, int | float) and 0 < self.gsd < np.inf):
            raise InvalidSetting(f"gsd {self.gsd!r}: expected auto, native or metres per pixel")
        if not isinstance(self.roi, str | Path | None):
            raise InvalidSetting(f"roi of type {type(self.roi).__name__}: expected the path of a vector file")


@dataclass(frozen=True)
class Resources:
    """What decides how fast a result comes, and never the result. Raises InvalidSetting.

    workers: images read at the same time, each in a thread of its own. batch: tiles handed together to detectors that
    have no stream of their own.
    """

    workers: int = min(4, os.cpu_count() or 1)
    batch: int = 8

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("batch", self.batch)):
            if not isinstance(value, int) or value < 1:
                raise InvalidSetting(f"{name} {value!r}: expected a whole number, at least 1")
