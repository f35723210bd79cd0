"""The learning rate of each step, a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine (arXiv 1608.03983) down to 0.

    rate: at its greatest. warmup: steps of warm-up, which begins at `start` times the rate. length: step at which the
    cosine, counted from step 0, reaches 0.
    """

    rate: float
    warmup: int
    start: float
    length: int

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.warmup:
            return self.rate * (self.start + (1 - self.start) * step / self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * min(step / self.length, 1.0)))
