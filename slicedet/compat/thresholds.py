"""PaddleX's thresholds: one number or one for each class id, with scores strictly above them kept."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidSetting
from slicedet.models.decoding import just_above

Threshold = float | Mapping[int, float]

REST = 0.5
"""What holds for the classes that a mapping leaves out."""


def least_scores(threshold: Threshold, categories: Sequence[str]) -> NDArray[np.float32]:
    """The least score kept of each class, float32 [categories]; above 1 where none can be.

    Raises InvalidSetting for what is not a number between 0 and 1, and for an id that no class has.
    """
    numbers: dict[int, float]
    if isinstance(threshold, Mapping):
        for id in threshold:
            if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < len(categories):
                raise InvalidSetting(
                    f"threshold of class {reprlib.repr(id)}: the model has class ids 0 to {len(categories) - 1}"
                )
        numbers = {id: _number(threshold.get(id, REST)) for id in range(len(categories))}
    else:
        numbers = dict.fromkeys(range(len(categories)), _number(threshold))
    return np.array([just_above(number) for number in numbers.values()], np.float32)


def by_name(least: NDArray[np.float32], categories: Sequence[str]) -> dict[str, float]:
    """Least scores by category, without those that cannot be met."""
    return {name: float(score) for name, score in zip(categories, least, strict=True) if score <= 1}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        shown = reprlib.repr(value)
        raise InvalidSetting(f"threshold {shown}: expected a number between 0 and 1, or one for each class id")
    return float(value)
