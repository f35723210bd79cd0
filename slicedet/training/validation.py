"""Average precision of a network while it trains: the whole pipeline, with the network as it is in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import paddle

from slicedet import pipeline
from slicedet.datasets.coco import CHECK
from slicedet.detections import Detections
from slicedet.detectors.network import Image, NetworkDetector, Outputs, normalised
from slicedet.errors import EmptyImage, InvalidDataset
from slicedet.evaluation import Figures
from slicedet.evaluation.evaluating import evaluate
from slicedet.evaluation.predictions import SavedPredictions
from slicedet.evaluation.results import Results
from slicedet.merging import MergeRule
from slicedet.models.config import DEFAULT_THRESHOLD, ModelConfig
from slicedet.networks import Network
from slicedet.raster.scene import Scene
from slicedet.tiling import SMALLEST_SLICE
from slicedet.training.config import EvaluationConfig, SourceConfig
from slicedet.training.sources import Categories, joined, opened, present, read_all

_BATCH = 4
"""Tiles run at a time: more do not go faster on a CPU, and take more memory."""


class Score(NamedTuple):
    """How a network does on the validation images. threshold: the score that it works well from; the default one where
    it found nothing."""

    figures: Figures
    threshold: float


class NetworkEngine:
    """A network in memory as an engine of slicedet.detectors, in eval mode."""

    def __init__(self, network: Network, config: ModelConfig) -> None:
        self._network = network
        self._config = config
        self.provenance: dict[str, Any] = {"engine": "training"}

    def stream(self, images: Iterable[Image]) -> Iterator[Outputs]:
        """Boxes [1, N, 4] and scores [1, C, N] of each image, uint8 RGB of the network's input size."""
        self._network.eval()
        remaining = iter(images)
        while part := list(islice(remaining, _BATCH)):
            batch = np.stack([normalised(image, self._config.input) for image in part])
            with paddle.no_grad():
                boxes, scores = (value.numpy() for value in self._network(paddle.to_tensor(batch)))
            yield from ([boxes[index : index + 1], scores[index : index + 1]] for index in range(len(batch)))


class Validation:
    """The validation images of a training, to be searched again and again.

    Raises InvalidDataset where they have other categories than those trained, or no object of these, or an image is
    missing or of another size than stated; UnreadableImage where one is no image.
    """

    def __init__(
        self, sources: tuple[SourceConfig, ...], categories: Categories, config: EvaluationConfig, model: ModelConfig
    ) -> None:
        datasets = read_all(sources)
        self.dataset = joined(datasets, categories)
        if self.dataset.crowd.all():
            listed = ", ".join(str(source.annotations) for source in sources)
            raise InvalidDataset(f"{listed}: holds no object of the trained categories; {CHECK}")
        self._paths = [
            present(dataset, source.images, image)
            for dataset, source in zip(datasets, sources, strict=True)
            for image in dataset.images
        ]
        for path, image in zip(self._paths, self.dataset.images, strict=True):
            opened(path, image).close()
        self._config = config
        self._model = model

    def score(self, network: Network) -> Score:
        """Searches all images; the network stays as it is, in eval mode."""
        detector = NetworkDetector(self._model, NetworkEngine(network, self._model), self._config.threshold, {})
        # Paddle lets every package talk that would tell more than warnings.
        logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
        found = Results.of([self._search(detector, index) for index in range(len(self._paths))])
        evaluation = evaluate(self.dataset, SavedPredictions(self._model.categories, found, ()))
        threshold = evaluation.curve.working_threshold()
        return Score(evaluation.average_precision, DEFAULT_THRESHOLD if threshold is None else threshold)

    def _search(self, detector: NetworkDetector, index: int) -> Detections:
        image = self.dataset.images[index]
        # A tile larger than the image is the image.
        whole = max(image.width, SMALLEST_SLICE), max(image.height, SMALLEST_SLICE)
        # As `slicedet eval` shows images to the model that comes out, so that its figures are the same.
        slice, gsd = (whole, "native") if self._config.slice == "full" else (self._config.slice, "auto")
        settings = pipeline.Settings(
            slice, self._config.overlap, MergeRule(self._config.merge), self._config.threshold, gsd=gsd
        )
        with Scene(self._paths[index]) as scene:
            try:
                return pipeline.run(scene, detector, settings).detections
            except EmptyImage:
                return Detections.empty()
