"""PaddleX's Python calls, create_model and create_pipeline, on slicedet's detectors and pipeline."""

from slicedet.compat.model import Model, create_model
from slicedet.compat.pipelines import Pipeline, create_pipeline
from slicedet.compat.result import DetResult

__all__ = ["DetResult", "Model", "Pipeline", "create_model", "create_pipeline"]
