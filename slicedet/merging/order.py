"""The order in which merging looks at detections: best score first, ties by coordinates. Knows numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_first(scores: NDArray[np.floating], *ties: NDArray[np.generic]) -> NDArray[np.int64]:
    """Indices that sort by score descending, then by the `ties` ascending: columns [N] or tables [N, K]."""
    order = np.argsort(-scores)
    ranked = scores[order]
    same = np.zeros(len(order) + 1, bool)
    same[1:-1] = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(same[1:] | same[:-1])
    if len(tied):
        rows = order[tied]
        columns = [column for table in ties for column in table.reshape(len(scores), -1)[rows].T]
        order[tied] = rows[np.lexsort([*columns[::-1], -scores[rows]])]
    return order
