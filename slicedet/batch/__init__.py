"""Batch: one detector over all images of a folder, on one machine or several, going on where it was broken off."""

from slicedet.batch.collecting import collect
from slicedet.batch.listing import IMAGE_SUFFIXES, Shard
from slicedet.batch.results import Report, Result
from slicedet.batch.running import Batch

__all__ = ["IMAGE_SUFFIXES", "Batch", "Report", "Result", "Shard", "collect"]
