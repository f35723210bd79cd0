"""Reports: an evaluation as JSON, as a table for the terminal, and as files."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicedet.datasets.coco import CocoDataset, shown
from slicedet.errors import OutputError
from slicedet.evaluation.average_precision import Figures
from slicedet.evaluation.evaluating import Counts, Evaluation, OperatingPoint
from slicedet.evaluation.matching import IOU
from slicedet.outputs.files import check_target, staged, write_errors

if TYPE_CHECKING:
    from slicedet.raster.scene import Scene

Evaluations = Mapping[str, Evaluation]
"""Evaluations on the same dataset, by what was evaluated: "sliced", "full", or the name of a file."""

_MAIN, _IMAGES, _PLOT = "evaluation.json", "images.csv", "precision_recall.png"
_WORST_SHOWN = 5


def content(dataset: CocoDataset, evaluations: Evaluations) -> dict[str, Any]:
    """All figures, ready for JSON; null stands for what is undefined, such as the precision of no detections."""
    first = next(iter(evaluations.values()))
    return {
        "annotations": str(dataset.path),
        "images": len(dataset.images),
        "objects": first.average_precision.objects,
        "classes": list(first.classes.names),
        "not_found_by_the_model": list(first.classes.not_found),
        "evaluations": {name: _content(dataset, evaluation) for name, evaluation in evaluations.items()},
    }


def table(dataset: CocoDataset, evaluations: Evaluations) -> str:
    """The figures side by side, in lines of text."""
    first = next(iter(evaluations.values()))
    objects, names = first.average_precision.objects, first.classes.names
    lines = [
        f"{dataset.path}: {len(dataset.images)} images, {objects} objects of {len(names)} "
        f"class{'' if len(names) == 1 else 'es'} ({_listed(names)})"
    ]
    unknown = [
        f"{shown(name, 40)} ({first.average_precision.by_class[name].objects} objects)"
        for name in first.classes.not_found
    ]
    if unknown:
        lines.append(f"Not known to the model, so missed: {_listed(unknown)}")
    for name, evaluation in evaluations.items():
        left_out = [f"{count} {shown(label, 40)}" for label, count in evaluation.not_annotated.items() if count]
        if left_out:
            lines.append(f"Not in the annotations, so left out ({name}): {_listed(left_out)}")
    rows: list[tuple[str, list[str]]] = [("", list(evaluations))]

    def add(label: str, value: Callable[[Evaluation], str]) -> None:
        rows.append((label, [value(evaluation) for evaluation in evaluations.values()]))

    add("AP", lambda e: _number(e.average_precision.ap))
    add("AP50", lambda e: _number(e.average_precision.ap50))
    add("AP75", lambda e: _number(e.average_precision.ap75))
    add("AR", lambda e: _number(e.average_precision.ar))
    for size, figures in first.average_precision.by_size.items():
        label = f"AP / AP50 {size} ({figures.objects})"
        add(label, lambda e, size=size: _pair(e.average_precision.by_size[size]))  # type: ignore[misc]
    if len(names) > 1:
        for name in names:
            label = f"AP / AP50 {shown(name, 40)} ({first.average_precision.by_class[name].objects})"
            add(label, lambda e, name=name: _pair(e.average_precision.by_class[name]))  # type: ignore[misc]
    add("COCO's AP / AP50, at most 100", lambda e: _pair(e.average_precision.official))
    add(f"at threshold {_threshold(first.at_threshold)}", lambda e: "")
    add("  precision / recall", lambda e: _precision_recall(e.at_threshold.counts))
    add("  F1", lambda e: _number(e.at_threshold.counts.f1))
    add("  found / missed / false", lambda e: _counts(e.at_threshold.counts))
    add("best F1 at threshold", lambda e: "-" if e.at_best is None else _threshold(e.at_best))
    add("  precision / recall", lambda e: "-" if e.at_best is None else _precision_recall(e.at_best.counts))
    add("  F1", lambda e: "-" if e.at_best is None else _number(e.at_best.counts.f1))
    wide = max(len(label) for label, _ in rows)
    widths = [max(len(values[i]) for _, values in rows) for i in range(len(evaluations))]
    lines.append("")
    for label, values in rows:
        cells = "".join(f"  {value:>{width}}" for value, width in zip(values, widths, strict=True))
        lines.append(f"{label:<{wide}}{cells}".rstrip())
    for name, evaluation in evaluations.items():
        worst = evaluation.worst(_WORST_SHOWN)
        if worst:
            lines += ["", f"Worst images ({name}): missed, false alarms, of so many objects"]
        for index in worst:
            counts = evaluation.at_threshold.by_image[index]
            file_name = shown(dataset.images[index].file_name, 240)
            lines.append(f"{counts.misses:>6}{counts.false_alarms:>6}{counts.objects:>6}  {file_name}")
    return "\n".join(lines)


def check(folder: Path, names: Iterable[str], pictures: int, overwrite: bool = False) -> None:
    """Whether a report can be written to `folder`, to be asked before anything is computed. Raises OutputError.

    names: of the evaluations. pictures: of the worst images of each, at most.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing == folder and folder.is_dir():
        worst = [_picture(name, rank) for name in names for rank in range(1, pictures + 1)]
        for file in (_MAIN, _IMAGES, _PLOT, *worst):
            check_target(folder / file, overwrite)
    elif not existing.is_dir():
        raise OutputError(f"{folder}: cannot be made: {existing} is not a folder")
    elif not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: cannot be made: {existing} is not writable")


def save(
    folder: Path,
    dataset: CocoDataset,
    evaluations: Evaluations,
    *,
    record: Mapping[str, Any] | None = None,
    open_image: Callable[[int], Scene] | None = None,
    pictures: int = 6,
    overwrite: bool = False,
) -> list[Path]:
    """Writes evaluation.json, images.csv, precision_recall.png and a picture of each of the worst images; all or none.

    folder: made where it does not exist. record: what else is to stand in evaluation.json. open_image: gives the image
    at an index of the dataset; None for no pictures. pictures: how many, of each evaluation.
    overwrite: files that are there are replaced, and the pictures of the report that was there are removed.
    Returns the files. Raises OutputError where they cannot be written, or one exists and `overwrite` is not set;
    whatever opening an image raises.
    """
    from slicedet.evaluation import pictures as painting
    from slicedet.evaluation import plots

    check(folder, evaluations, 0 if open_image is None else pictures, overwrite)
    made = _made(folder)
    earlier = _pictures_there(folder)
    try:
        with staged(folder / _MAIN, overwrite) as path:
            everything = {**content(dataset, evaluations), **(record or {})}
            path.write_text(json.dumps(everything, indent=2, default=str) + "\n", encoding="utf-8")
            _write_images(path.with_name(_IMAGES), dataset, evaluations)
            plots.save(path.with_name(_PLOT), evaluations)
            if open_image is not None:
                for name, evaluation in evaluations.items():
                    for rank, index in enumerate(evaluation.worst(pictures), 1):
                        with open_image(index) as scene:
                            painting.save(path.with_name(_picture(name, rank)), scene, evaluation, index)
            names = sorted(file.name for file in path.parent.iterdir())
    except BaseException:
        for parent in made:
            parent.rmdir()
        raise
    with write_errors(folder, folder):
        for path in earlier:
            if path.name not in names:
                path.unlink(missing_ok=True)
    return [folder / name for name in names]


def _picture(name: str, rank: int) -> str:
    """The name of a picture of an evaluation."""
    return f"worst-{name}-{rank}.jpg"


def _pictures_there(folder: Path) -> list[Path]:
    """The pictures that belong to the evaluation.json of a folder."""
    try:
        names = list(map(str, json.loads((folder / _MAIN).read_text(encoding="utf-8"))["evaluations"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    own = re.compile(rf"worst-({'|'.join(map(re.escape, names))})-[0-9]+\.jpg")
    return sorted(path for path in folder.iterdir() if own.fullmatch(path.name))


def _made(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns what is new, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    return new


def _write_images(path: Path, dataset: CocoDataset, evaluations: Evaluations) -> None:
    """One row for each evaluation and image, the worst images first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["evaluation", "image", "objects", "found", "missed", "false_alarms"])
        for name, evaluation in evaluations.items():
            images = evaluation.at_threshold.by_image
            worst = evaluation.worst(len(images))
            faultless = sorted(set(range(len(images))) - set(worst))
            for index in (*worst, *faultless):
                counts = images[index]
                row = [counts.objects, counts.hits, counts.misses, counts.false_alarms]
                writer.writerow([name, dataset.images[index].file_name, *row])


def _content(dataset: CocoDataset, evaluation: Evaluation) -> dict[str, Any]:
    figures = evaluation.average_precision
    return {
        **_figures(figures),
        "by_size": {name: _figures(part) for name, part in figures.by_size.items()},
        "by_class": {name: _figures(part) for name, part in figures.by_class.items()},
        "coco": {name: _defined(value) for name, value in figures.official.items()},
        "at_threshold": _point(evaluation.at_threshold),
        "best_f1": None if evaluation.at_best is None else _point(evaluation.at_best),
        "best_f1_threshold_by_class": {name: curve.best_threshold() for name, curve in evaluation.curves.items()},
        "not_in_the_annotations": {name: count for name, count in evaluation.not_annotated.items() if count},
        "worst_images": [
            {"image": dataset.images[index].file_name, **_counted(evaluation.at_threshold.by_image[index])}
            for index in evaluation.worst(10)
        ],
    }


def _figures(figures: Figures) -> dict[str, Any]:
    names = ("ap", "ap50", "ap75", "ar")
    return {**{name: _defined(getattr(figures, name)) for name in names}, "objects": figures.objects}


def _point(point: OperatingPoint) -> dict[str, Any]:
    threshold = point.threshold
    if isinstance(threshold, Mapping) and set(threshold) == {"*"}:
        threshold = threshold["*"]
    return {
        "threshold": threshold,
        "iou": IOU,
        **_counted(point.counts),
        "by_class": {name: _counted(counts) for name, counts in point.by_class.items()},
    }


def _counted(counts: Counts) -> dict[str, Any]:
    return {
        "precision": _defined(counts.precision),
        "recall": _defined(counts.recall),
        "f1": _defined(counts.f1),
        "found": counts.hits,
        "missed": counts.misses,
        "false_alarms": counts.false_alarms,
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _pair(figures: Figures | Mapping[str, float]) -> str:
    if isinstance(figures, Figures):
        return f"{_number(figures.ap)} / {_number(figures.ap50)}"
    return f"{_number(figures['AP'])} / {_number(figures['AP50'])}"


def _precision_recall(counts: Counts) -> str:
    return f"{_number(counts.precision)} / {_number(counts.recall)}"


def _counts(counts: Counts) -> str:
    return f"{counts.hits} / {counts.misses} / {counts.false_alarms}"


def _threshold(point: OperatingPoint) -> str:
    if not isinstance(point.threshold, Mapping):
        return f"{point.threshold:g}"
    own = [f"{name} {value:g}" for name, value in point.threshold.items() if name != "*"]
    return ", ".join([f"{point.threshold.get('*', 0.0):g}", *own])


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(shown(name) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
