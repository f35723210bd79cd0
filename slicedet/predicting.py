"""Predicting: from a scene to its files, which are written while its detections are being found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slicedet.detectors.protocol import Detector, name_of
from slicedet.outputs.layer import Layer
from slicedet.outputs.provenance import save_provenance
from slicedet.outputs.targets import Targets, record_path
from slicedet.outputs.writing import Writing
from slicedet.pipeline import Journal, Progress, Resources, Settings, run
from slicedet.raster.scene import Scene

Outcome = tuple[dict[str, Any], list[Path]]
"""The record of a run, and the files written."""


def predict_into(
    scene: Scene,
    targets: Targets,
    load: Callable[[], Detector],
    settings: Settings,
    progress: Progress | None = None,
    resources: Resources | None = None,
) -> Outcome:
    """Runs a scene and writes it to its targets, with the record of the run beside the first.

    load: gives the detector, once the outputs are known to be possible.
    Raises the errors of `Targets.of`, `run`, `Writing` and `save_provenance`, which comes last.
    """
    paths = targets.of(scene)
    record, written = run_into(scene, paths, load(), settings, progress, resources, overwrite=targets.overwrite)
    place = record_path(paths[0], targets.overwrite)
    return record, [*written, save_provenance(record, place, targets.overwrite)]


def run_into(
    scene: Scene,
    paths: Sequence[Path],
    detector: Detector,
    settings: Settings,
    progress: Progress | None = None,
    resources: Resources | None = None,
    journal: Journal | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Runs a scene and writes it to files, which are there once all are whole; in them, detections run from its top to
    its bottom.

    Raises the errors of `run` and `Writing`.
    """
    layer = Layer(scene, tuple(detector.categories), name_of(detector), settings.skip_unreadable)
    with Writing(layer, paths, overwrite) as writing:
        prediction = run(scene, detector, settings, progress, resources, journal, writing.add)
        return prediction.run, writing.finish()
