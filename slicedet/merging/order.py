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
    same = np.zeros(len(order) + 1, bool)
    same[1:-1] = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(same[1:] | same[:-1])
    if not len(tied):
        return order
    # Some at a time, since the columns of millions take more memory than all else; equal scores stay together.
    begins = np.flatnonzero(np.diff(ranked[tied], prepend=np.inf))
    cuts = np.searchsorted(begins, np.arange(AT_ONCE, len(tied), AT_ONCE))
    for places in np.split(tied, np.unique(begins[cuts[cuts < len(begins)]])):
        rows = order[places]
        columns = [column for table in ties for column in table.reshape(len(scores), -1)[rows].T]
        order[places] = rows[np.lexsort([*columns[::-1], -scores[rows]])]
    return order
