"""Detectors: what finds boxes on tiles. The protocol, and how one is loaded by name."""

from slicedet.detectors.loading import load_detector
from slicedet.detectors.protocol import Detector

__all__ = ["Detector", "load_detector"]
