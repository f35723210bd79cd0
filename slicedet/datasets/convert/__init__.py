"""Other formats of annotations to COCO: one file per format, each of which reads; one that writes."""

from slicedet.datasets.convert.conversion import FORMATS, Conversion, check_classes, convert

__all__ = ["FORMATS", "Conversion", "check_classes", "convert"]
