"""Stretching pixels of any type to uint8, once per scene, so that all tiles of a scene look alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidSetting


@dataclass(frozen=True)
class Stretch:
    """The values, one per channel, that become 0 and 255; those outside are clipped."""

    rule: str
    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Pixels [channels, H, W] of any real type as uint8."""
        low, high = (np.array(ends, np.float64)[:, None, None] for ends in (self.low, self.high))
        # A constant channel has no range to stretch: all of it becomes 0.
        scale = np.divide(255, high - low, out=np.zeros_like(low), where=high > low)
        # float32 holds 16 bits exactly, at half the memory; 32 bit integers need float64.
        exact = np.result_type(pixels.dtype, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            values = (pixels - low.astype(exact)) * scale.astype(exact)
            return np.clip(np.nan_to_num(np.rint(values)), 0, 255).astype(np.uint8)


def parse(rule: str) -> str:
    """The rule in its canonical spelling: "percentile:LO,HI", "minmax", "LO,HI" or "none".

    Raises InvalidSetting for anything else.
    """
    text = re.sub(r"\s+", "", str(rule)).lower()
    if text in ("none", "minmax"):
        return text
    try:
        low, high = (float(part) for part in text.removeprefix("percentile:").split(","))
    except ValueError:
        low, high = np.nan, np.nan
    ceiling = 100 if text.startswith("percentile:") else np.inf
    if not (low < high and np.isfinite([low, high]).all()) or (ceiling == 100 and not 0 <= low < high <= 100):
        raise InvalidSetting(f"stretch {rule!r}: expected percentile:2,98, minmax, LO,HI (LO below HI) or none")
    return text


def default(dtype: str, bits: str) -> str:
    """The rule for pixels of a type when nothing is asked for. bits: of each pixel, in GDAL's words, which count where
    they are fewer than the 8 of uint8, as in bilevel scans."""
    if dtype != "uint8":
        return "percentile:2,98"
    return f"0,{2 ** int(bits) - 1}" if re.fullmatch("[1-7]", bits) else "none"


def given(rule: str, channels: int) -> Stretch | None:
    """The stretch by a rule that names its own ends, "LO,HI" or "none"; None where they are to be measured."""
    if rule == "minmax" or rule.startswith("percentile:"):
        return None
    low, high = (0.0, 255.0) if rule == "none" else (float(end) for end in rule.split(","))
    return Stretch(rule, (low,) * channels, (high,) * channels)


def measure(rule: str, sample: NDArray[Any]) -> Stretch:
    """The stretch by "percentile:LO,HI" or "minmax" for channels whose valid pixels are `sample` [channels, n > 0]."""
    cuts = [0.0, 100.0] if rule == "minmax" else [float(cut) for cut in rule.removeprefix("percentile:").split(",")]
    low, high = np.percentile(sample, cuts, axis=1)
    # Where nearly all pixels are alike, such as black borders that are no nodata, the others must not vanish.
    alike = low == high
    low[alike], high[alike] = sample[alike].min(axis=1), sample[alike].max(axis=1)
    return Stretch(rule, tuple(low.tolist()), tuple(high.tolist()))
