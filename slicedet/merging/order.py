"""The order in which merging looks at detections: best score first, ties by coordinates. Knows numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 18
"""Rows whose ties are settled together, more or less."""


def best_first(scores: NDArray[np.floating], *ties: NDArray[np.generic]) -> NDArray[np.int64]:
    """Indices that sort by score descending, then by the `ties` ascending: columns [N] or tables [N, K]."""
    order = np.argsort(-scores)
    ranked = scores[order]
    begin = 0
    while begin < len(order):
        # Some at a time, since the columns of millions take more memory than all else; equal scores stay together.
        last = ranked[min(begin + AT_ONCE, len(order)) - 1]
        end = len(order) - int(np.searchsorted(ranked[::-1], last))
        part = ranked[begin:end]
        same = np.zeros(len(part) + 1, bool)
        same[1:-1] = part[1:] == part[:-1]
        tied = begin + np.flatnonzero(same[1:] | same[:-1])
        if len(tied):
            rows = order[tied]
            columns = [column for table in ties for column in table.reshape(len(scores), -1)[rows].T]
            order[tied] = rows[np.lexsort([*columns[::-1], -scores[rows]])]
        begin = end
    return order
