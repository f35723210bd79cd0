"""Times of all rounds."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.speed.scenes import Files

PAUSE = 0.25
"""Seconds before each run: the threads of the engine before go on waiting for work, and take a core each."""


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a run, and what it returns."""
    gc.collect()
    time.sleep(PAUSE)
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


class Times:
    """Seconds of all rounds, and boxes, by files and contender."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._boxes: dict[tuple[str, str], int] = {}

    def add(self, files: Iterable[Files], contender: str, seconds: float, boxes: int) -> None:
        """One run, which counts for all these files."""
        for each in files:
            self._seconds.setdefault((each.name, contender), []).append(seconds)
            self._boxes[each.name, contender] = boxes
        names = ", ".join(each.name for each in files)
        print(f"{names}: {contender}: {seconds:.2f} s, {boxes:,} boxes", file=sys.stderr)

    def __call__(self, files: Files, contender: str) -> float:
        """The median."""
        return statistics.median(self._seconds[files.name, contender])

    def boxes(self, files: Files, contender: str) -> int:
        """Of the last round; all are the same."""
        return self._boxes[files.name, contender]

    def apart(self, files: Files) -> float:
        """How far the rounds of a contender were from its median, as a share of it: the median of all contenders."""
        each = (seconds for (name, _), seconds in self._seconds.items() if name == files.name)
        return statistics.median((max(some) - min(some)) / 2 / statistics.median(some) for some in each)
