"""The demonstration: a painted scene, searched with default settings, and how much of it was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slicedet.datasets import coco
from slicedet.datasets.synthetic import SceneSettings, write_scene
from slicedet.detectors.loading import load_detector
from slicedet.evaluation.classes import Classes
from slicedet.evaluation.evaluating import Counts
from slicedet.evaluation.matching import match
from slicedet.evaluation.results import Results, Truth, compared
from slicedet.models import DEFAULT_MODEL
from slicedet.outputs import default_name
from slicedet.pipeline import predict
from slicedet.publishing import make_folder

FORMATS = ("geojson", "gpkg", "coco", "jpg")

Progress = Callable[[str], Callable[[int, int], None]]
"""Called with the name of what begins, gives what is called with the steps done and of all steps."""


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration came to.

    image: the scene, whose truth lies beside it. outputs: the files of the prediction. counts: vehicles found and
    missed, and false alarms, at IoU 0.5. painting, searching: seconds.
    """

    image: Path
    outputs: list[Path]
    counts: Counts
    painting: float
    searching: float


def demonstrate(
    folder: str | Path, settings: SceneSettings, progress: Progress, overwrite: bool = False
) -> Demonstration:
    """Paints a scene into a folder, finds its vehicles with the model that comes with slicedet, and counts.

    Raises OutputError where the folder holds files of these names, unless `overwrite`, or cannot be written.
    """
    folder = Path(folder)
    make_folder(folder)
    started = time.perf_counter()
    scene = write_scene(folder / "scene.tif", settings, overwrite, progress("painting"))
    painted = time.perf_counter()
    detector = load_detector(DEFAULT_MODEL)
    prediction = predict(scene.image, detector, progress=progress("searching"))
    outputs = [
        path for name in FORMATS for path in prediction.save(folder / default_name("scene", name), overwrite=overwrite)
    ]
    searched = time.perf_counter()
    truth = coco.read(scene.coco)
    classes = Classes.align(truth.categories, prediction.categories, {"*": "vehicle"})
    matches = match(Truth.of(truth, classes), compared(Results.of([prediction.detections]), classes))
    counts = Counts(int(matches.found.sum()), int(matches.missed.sum()), int(matches.false_alarm.sum()))
    return Demonstration(scene.image, outputs, counts, painted - started, searched - painted)
