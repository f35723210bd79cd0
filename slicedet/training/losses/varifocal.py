"""Varifocal loss: a point's class score is to be the quality of its box (arXiv 2008.13367)."""

from __future__ import annotations

from paddle import Tensor

NEGATIVE_WEIGHT = 0.75
"""The paper's alpha; its gamma is 2."""

SMALLEST = 1e-38
"""What scores are kept above before their logarithm is taken."""


def varifocal(scores: Tensor, absence: Tensor, places: Tensor, qualities: Tensor) -> Tensor:
    """The sum over all scores.

    scores: [B, C, N], 0..1. absence: their cross-entropy against 0, -log(1 - score). places: [P, 3], index of each
    score that is to be the quality of a box instead of 0; P is not 0. qualities: [P], above 0.
    """
    # Nearly all scores are to be 0: all are taken for such, and the others put right.
    negative = background(scores, absence)
    absence = absence.gather_nd(places)
    presence = -scores.gather_nd(places).clip(min=SMALLEST).log()
    positive = qualities * (qualities * presence + (1 - qualities) * absence)
    return negative.sum() + (positive - negative.gather_nd(places)).sum()


def background(scores: Tensor, absence: Tensor) -> Tensor:
    """The loss of each score that is to be 0."""
    return NEGATIVE_WEIGHT * (scores.square() * absence)
