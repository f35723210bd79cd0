"""Plots of precision and recall."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slicedet.datasets.plots import label
from slicedet.evaluation.evaluating import Evaluation, OperatingPoint
from slicedet.evaluation.matching import IOU
from slicedet.outputs.palette import COLOURS

_LINES = [COLOURS[i] for i in (6, 2, 4, 3, 5, 1)]
"""The palette's colours that show on white."""

_CLASSES_SHOWN = 12


def save(path: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes a PNG of precision over recall, of both over the threshold, and by class where there are several."""
    from matplotlib.figure import Figure

    first = next(iter(evaluations.values()))
    several = sum(figures.objects > 0 for figures in first.average_precision.by_class.values()) > 1
    columns = 3 if several else 2
    figure = Figure(figsize=(5.2 * columns, 4.8), dpi=130, layout="constrained")
    axes = figure.subplots(1, columns)
    _precision_recall(axes[0], evaluations)
    _by_threshold(axes[1], evaluations)
    if several:
        _by_class(axes[2], evaluations)
    figure.suptitle(f"Detections and objects at IoU {IOU}")
    # Without it, the file would differ between versions of matplotlib alone.
    figure.savefig(path, metadata={"Software": None})


def _precision_recall(axes, evaluations: Mapping[str, Evaluation]) -> None:  # type: ignore[no-untyped-def]
    for number, (name, evaluation) in enumerate(evaluations.items()):
        colour = _colour(number)
        curve = evaluation.curve
        text = f"{label(name)}, AP50 {evaluation.average_precision.ap50:.3f}"
        axes.plot(curve.recall, curve.precision, color=colour, label=text)
        _mark(axes, evaluation.at_threshold, "o", colour)
        if evaluation.at_best is not None:
            _mark(axes, evaluation.at_best, "*", colour)
    axes.plot([], [], "o", color="0.3", label="at the threshold")
    axes.plot([], [], "*", color="0.3", label="best F1")
    _finish(axes, "recall", "precision", "All classes together")


def _by_threshold(axes, evaluations: Mapping[str, Evaluation]) -> None:  # type: ignore[no-untyped-def]
    for number, (name, evaluation) in enumerate(evaluations.items()):
        curve = evaluation.curve
        # Thresholds fall: what holds at one holds down to the next.
        for values, style, what in ((curve.precision, "--", "precision"), (curve.recall, ":", "recall")):
            axes.step(curve.thresholds, values, style, color=_colour(number), where="post", linewidth=1)
            if number == 0:
                axes.plot([], [], style, color="0.3", linewidth=1, label=what)
        best = "" if evaluation.at_best is None else f", best at {evaluation.at_best.threshold:g}"
        axes.step(curve.thresholds, curve.f1, color=_colour(number), where="post", label=f"F1, {label(name)}{best}")
    _finish(axes, "threshold", "", "By threshold")


def _by_class(axes, evaluations: Mapping[str, Evaluation]) -> None:  # type: ignore[no-untyped-def]
    title, evaluation = next(iter(evaluations.items()))
    by_class = evaluation.average_precision.by_class
    shown = sorted((n for n in by_class if by_class[n].objects), key=lambda n: -by_class[n].objects)[:_CLASSES_SHOWN]
    for number, name in enumerate(shown):
        curve, figures = evaluation.curves[name], by_class[name]
        text = f"{label(name)} ({figures.objects}), AP50 {figures.ap50:.3f}"
        style = "-" if number < len(_LINES) else "--"
        axes.plot(curve.recall, curve.precision, style, color=_colour(number), label=text)
    _finish(axes, "recall", "precision", f"By class, {label(title)}")


def _mark(axes, point: OperatingPoint, marker: str, colour: tuple[float, ...]) -> None:  # type: ignore[no-untyped-def]
    axes.plot(
        [point.counts.recall], [point.counts.precision], marker, color=colour, markersize=9, markeredgecolor="white"
    )


def _finish(axes, x: str, y: str, title: str) -> None:  # type: ignore[no-untyped-def]
    axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")


def _colour(number: int) -> tuple[float, ...]:
    return tuple(value / 255 for value in _LINES[number % len(_LINES)])
