"""Evaluation: average precision as COCO defines it, and what a detector finds and misses at its threshold."""

from slicedet.evaluation.average_precision import AveragePrecision, Figures, average_precision

__all__ = ["AveragePrecision", "Figures", "average_precision"]
