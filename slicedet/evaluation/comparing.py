"""Comparing: annotations with what a detector finds in their images, or with a file of predictions, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slicedet.datasets import coco
from slicedet.datasets.coco import CocoDataset
from slicedet.detectors.protocol import Detector, minimum_scores, provenance_of
from slicedet.evaluation import predictions as saved
from slicedet.evaluation import reporting
from slicedet.evaluation.classes import Classes
from slicedet.evaluation.evaluating import Evaluation, Found, Threshold, evaluate
from slicedet.evaluation.running import check_ways, locate, run
from slicedet.models.config import DEFAULT_THRESHOLD
from slicedet.pipeline import Progress, Settings
from slicedet.raster.scene import Scene

OpenScene = Callable[[str | Path], Scene]


@dataclass(frozen=True)
class ReportFiles:
    """Where a report goes: a folder, with so many pictures of the worst images; `overwrite` replaces an earlier one."""

    folder: Path
    pictures: int = 6
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well annotations are met.

    evaluations: by way ("sliced", "full"), or that of "predictions". content: all figures, and what they were made of,
    ready for JSON. files: those of the report.
    """

    dataset: CocoDataset
    evaluations: Mapping[str, Evaluation]
    content: Mapping[str, Any]
    files: Sequence[Path]

    def table(self) -> str:
        """The figures side by side, in lines of text."""
        return reporting.table(self.dataset, self.evaluations)


def compare_detector(
    annotations: str | Path,
    images: str | Path,
    detector: Detector,
    settings: Settings | None = None,
    *,
    threshold: Threshold,
    ways: Sequence[str] = ("sliced",),
    mapping: Mapping[str, str] | None = None,
    open_scene: OpenScene = Scene,
    report: ReportFiles | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Runs a detector over the images of COCO annotations and compares what it finds with them.

    images: the folder they are in. detector: one that returns scores from `running.LOWEST_SCORE` on. threshold: at
    which precision, recall and single images are looked at. ways: how images are shown to it, of `running.WAYS`.
    mapping: classes renamed on both sides, as of `average_precision`. open_scene: chooses bands and stretch.
    progress: called with the number of images done and of all, each counted once for each way.
    Raises OutputError, InvalidDataset and InvalidSetting before anything is run, as far as it can be told; and whatever
    `slicedet.predict` raises.
    """
    settings = settings or Settings()
    dataset, paths = _prepared(annotations, Path(images), ways, report)
    # Before inference, which may take hours.
    check_ways(ways)
    Classes.align(dataset.categories, detector.categories, mapping)
    minimum_scores(detector.categories, threshold, settings.classes)
    found = {}
    for number, way in enumerate(ways):

        def tell(done: int, total: int, before: int = number * len(paths)) -> None:
            if progress is not None:
                progress(before + done, len(ways) * total)

        found[way] = run(dataset, Path(images), detector, settings, way=way, open_scene=open_scene, progress=tell)
    record = {"detector": provenance_of(detector), "settings": asdict(settings)}
    return _compared(dataset, found, record, threshold, mapping, paths, open_scene, report)


def compare_predictions(
    annotations: str | Path,
    predictions: str | Path,
    *,
    images: str | Path | None = None,
    threshold: Threshold = DEFAULT_THRESHOLD,
    mapping: Mapping[str, str] | None = None,
    open_scene: OpenScene = Scene,
    report: ReportFiles | None = None,
) -> Comparison:
    """Compares a file of COCO results, or a .coco.json of slicedet, with COCO annotations.

    images: the folder of the images, for pictures of the worst in the report; without it there are none. The rest is as
    in `compare_detector`. Raises OutputError, InvalidDataset and InvalidSetting.
    """
    dataset, paths = _prepared(annotations, None if images is None else Path(images), ["predictions"], report)
    found = saved.read(predictions, dataset)
    record = {"predictions": str(predictions), "images_without_annotations": list(found.other_images)}
    return _compared(dataset, {"predictions": found}, record, threshold, mapping, paths, open_scene, report)


def _prepared(
    annotations: str | Path, images: Path | None, names: Sequence[str], report: ReportFiles | None
) -> tuple[CocoDataset, list[Path]]:
    """The annotations, and the paths of their images; whether the report can be written is asked first."""
    if report is not None:
        reporting.check(report.folder, names, 0 if images is None else report.pictures, report.overwrite)
    dataset = coco.read(annotations)
    return dataset, [] if images is None else locate(dataset, images)


def _compared(
    dataset: CocoDataset,
    found: Mapping[str, Found],
    record: dict[str, Any],
    threshold: Threshold,
    mapping: Mapping[str, str] | None,
    paths: Sequence[Path],
    open_scene: OpenScene,
    report: ReportFiles | None,
) -> Comparison:
    evaluations = {
        name: evaluate(dataset, results, threshold=threshold, mapping=mapping) for name, results in found.items()
    }
    record["map"] = dict(mapping or {})
    files: list[Path] = []
    if report is not None:
        files = reporting.save(
            report.folder,
            dataset,
            evaluations,
            record=record,
            open_image=(lambda index: open_scene(paths[index])) if paths else None,
            pictures=report.pictures,
            overwrite=report.overwrite,
        )
    return Comparison(dataset, evaluations, {**reporting.content(dataset, evaluations), **record}, files)
