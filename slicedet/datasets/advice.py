"""Tile size, overlap and reg_range that follow from the sizes of a dataset's boxes, each with its reason."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slicedet.datasets.stats import Statistics

WANTED_PX = 40.0
"""Size in pixels of the network's input at which objects are best found: the middle of 25 to 60."""

FINEST_STRIDE = 8
_LOWEST_DISTANCE = -2
_STEP = 32
_OVERLAPS = (0.1, 0.5)


@dataclass(frozen=True)
class Advice:
    """Suggested settings, with the statistics they follow from.

    slice: tile edge in pixels. overlap: ratio of it. reg_range: bounds of the distances that a PP-YOLOE+ head tells, in
    strides, for tiles of that size and, as reg_range_whole, for whole images. sliced: whether tiles are worth it by
    PaddleDetection's rule. reasons: how each follows, under its name.
    """

    input_size: int
    slice: int
    overlap: float
    reg_range: tuple[int, int]
    reg_range_whole: tuple[int, int]
    sliced: bool
    reasons: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def advise(statistics: Statistics, input_size: int) -> Advice | None:
    """Settings for a network whose input is `input_size` pixels a side; None without boxes."""
    if not len(statistics.sizes):
        return None
    median = float(np.median(statistics.sizes))
    longest = float(np.percentile(statistics.sides.max(axis=1), 95))
    wanted = input_size * median / WANTED_PX
    edge = max(2 * _STEP, _STEP * round(wanted / _STEP), _STEP * math.ceil(2 * longest / _STEP))
    overlap = float(np.clip(math.ceil(longest / edge * 20) / 20, *_OVERLAPS))
    reasons = {
        "slice": f"the median box of {median:.0f} px becomes {median * input_size / edge:.0f} px in an input of "
        f"{input_size} (about {WANTED_PX:.0f} is best), and tiles are at least twice the {longest:.0f} px that 95 % of "
        "the boxes do not exceed",
        "overlap": f"{overlap:g} of {edge} is {overlap * edge:.0f} px: a box not larger than that, as 95 % are "
        f"({longest:.0f} px), is whole in at least one tile",
    }
    tiles, reasons["reg_range"] = _reg_range(statistics.sides / edge, input_size, f"tiles of {edge}")
    whole, reasons["reg_range_whole"] = _reg_range(statistics.mean_shares, input_size, "whole images, their mean boxes")
    width, height = statistics.image_sizes.mean(axis=0)
    tiny = float((statistics.mean_shares < 0.04).mean())
    sliced = bool(min(width, height) > 1500 and tiny > 0.5)
    reasons["sliced"] = (
        f"images are {width:.0f} x {height:.0f} on average, and {tiny:.0%} of their mean box sides are below 0.04 of "
        "the image's; PaddleDetection's rule for tiles is over 1500 x 1500 and over half"
    )
    return Advice(input_size, edge, overlap, tiles, whole, sliced, reasons)


def _reg_range(shares: Any, input_size: int, of: str) -> tuple[tuple[int, int], str]:
    """The range by PaddleDetection's tip, for sides of boxes [N, 2] as parts of the picture's."""
    shares = shares.reshape(-1)
    # Larger objects are found on the coarser levels, where the same distance is half or a quarter of the strides.
    shares = np.where(shares < 0.2, shares, np.where(shares < 0.4, shares / 2, shares / 4))
    share = float(np.percentile(shares, 95))
    highest = max(round(share * input_size / FINEST_STRIDE) + 1, 2)
    reason = (
        f"{of}: 95 % of box sides (halved from 0.2, quartered from 0.4 of the picture on) are at most {share:.3f} of "
        f"it, which is {share * input_size / FINEST_STRIDE:.1f} strides of {FINEST_STRIDE} px in {input_size}; plus 1"
    )
    return (_LOWEST_DISTANCE, highest), reason
