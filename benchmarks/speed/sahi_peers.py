"""SAHI around the same networks, in wrappers from the usual to the best that can be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction

from benchmarks.speed.networks import (
    F32,
    ORT,
    Engine,
    Network,
    Outputs,
    compiled,
    decoded,
    fitted,
    onnx_session,
    openvino_model,
)
from benchmarks.speed.scenes import OVERLAP, Files, Pixels
from slicedet.detectors.network import normalised

AT_ONCE = 32
"""Tiles that SAHI hands over together, where it does."""

MERGINGS = {"greedy NMM": "GREEDYNMM", "NMS": "NMS"}
"""SAHI's default, and what is quickest."""

LEAST = 0.1
"""Threshold below which SAHI changes its merging."""

Infer = Callable[[list[Pixels]], Iterable[Outputs]]
"""Runs a network on tiles of its input's size; what it gave last may no longer be valid when the next is taken."""


class Wrapper(DetectionModel):
    """A network inside SAHI, with no more around it than SAHI wants: `infer` takes some tiles of the network's size.

    Boxes are decoded and suppressed by slicedet's functions, and made into lists at once, not one by one.
    """

    def __init__(self, network: Network, infer: Infer, threshold: float) -> None:
        self._infer = infer
        self._config = network.config
        self._names = list(network.config.categories)
        super().__init__(model=network, confidence_threshold=threshold, device="cpu")

    def set_model(self, model: Network, **_: Any) -> None:
        self.model = model
        self.category_mapping = {str(index): name for index, name in enumerate(self._names)}

    def perform_inference(self, image: Pixels) -> None:
        self.perform_batch_inference([image])

    def perform_batch_inference(self, images: list[Pixels]) -> None:
        outputs = self._infer([fitted(image, self._config) for image in images])
        found = (decoded(self._config, each, self.confidence_threshold) for each in outputs)
        self._original_predictions = [
            (image.shape, detections) for image, detections in zip(images, found, strict=True)
        ]

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        width, height = self._config.input.size
        self._object_prediction_list_per_image = []
        for (shape, found), shift, full in zip(
            self._original_predictions, shift_amount_list, full_shape_list, strict=True
        ):
            limits = np.array([shape[1], shape[0]] * 2, np.float32)
            boxes = np.clip(found.boxes * (limits / [width, height, width, height]), 0, limits).tolist()
            rows = zip(boxes, found.scores.tolist(), found.category_ids.tolist(), strict=True)
            self._object_prediction_list_per_image.append(
                [
                    ObjectPrediction(box, category, self._names[category], None, score, shift, full)
                    for box, score, category in rows
                    if box[0] < box[2] and box[1] < box[3]
                ]
            )


def one_by_one(graph: Any, prepared: Callable[[Pixels], NDArray[Any]]) -> Infer:
    """OpenVINO that runs tile after tile, and copies neither its inputs nor what it says."""
    request = graph.create_infer_request()

    def infer(tiles: list[Pixels]) -> Iterator[Outputs]:
        for tile in tiles:
            request.infer({0: prepared(tile)}, share_inputs=True)
            yield [tensor.data for tensor in request.output_tensors]

    return infer


def side_by_side(graph: Any) -> Infer:
    """OpenVINO that runs several tiles at a time."""
    import openvino

    queue = openvino.AsyncInferQueue(graph)
    results: dict[int, Outputs] = {}
    queue.set_callback(
        lambda request, index: results.update({index: [tensor.data.copy() for tensor in request.output_tensors]})
    )

    def infer(tiles: list[Pixels]) -> Iterator[Outputs]:
        for index, tile in enumerate(tiles):
            queue.start_async({0: tile[None]}, index, share_inputs=True)
        queue.wait_all()
        return (results.pop(index) for index in range(len(tiles)))

    return infer


class Peer(NamedTuple):
    """What SAHI is wrapped around. at_once: tiles handed over together. engine: of slicedet's, to compare with."""

    name: str
    infer: Infer
    at_once: int
    engine: Engine


def peers(network: Network, engines: Sequence[Engine]) -> list[Peer]:
    """From what most users have to the best that can be done."""
    inputs = network.config.input
    session = onnx_session(network, uint8=False)
    name = session.get_inputs()[0].name
    plain = compiled(openvino_model(network, uint8=False), "f32")
    found = [
        Peer(
            "ONNX Runtime f32, NumPy",
            lambda tiles: (session.run(None, {name: normalised(tile, inputs)[None]}) for tile in tiles),
            1,
            ORT,
        ),
        Peer("OpenVINO f32, NumPy", one_by_one(plain, lambda tile: normalised(tile, inputs)[None]), 1, F32),
    ]
    model = openvino_model(network, uint8=True)
    for engine in engines:
        if engine.name == "openvino":
            lean = compiled(model, engine.precision, PERFORMANCE_HINT="LATENCY")
            many = compiled(model, engine.precision, PERFORMANCE_HINT="THROUGHPUT")
            found += [
                Peer(f"{engine}, lean", one_by_one(lean, lambda tile: tile[None]), 1, engine),
                Peer(f"{engine}, lean, {AT_ONCE} at once", side_by_side(many), AT_ONCE, engine),
            ]
    return found


def by_sahi(files: Files, model: Wrapper, size: int, at_once: int, merging: str) -> int:
    """SAHI's own function for each file, without its pass over the whole image, which slicedet does not make either."""
    return sum(
        len(
            get_sliced_prediction(
                str(path),
                model,
                slice_height=size,
                slice_width=size,
                overlap_height_ratio=OVERLAP,
                overlap_width_ratio=OVERLAP,
                perform_standard_pred=False,
                postprocess_type=merging,
                batch_size=at_once,
                verbose=0,
            ).object_prediction_list
        )
        for path in files.paths
    )
