"""Plots of a dataset's statistics as PNG. Imports matplotlib when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicedet.datasets.coco import shown as cut
from slicedet.datasets.stats import LARGE, SMALL, Statistics, joined
from slicedet.datasets.writing import new_folder
from slicedet.outputs.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The dark blue and orange of Okabe and Ito, then the rest of the palette.
_SHADES = ["#0072B2", "#E69F00", *("#" + "".join(f"{part:02x}" for part in colour) for colour in COLOURS[2:])]

_LONGEST_NAME = 24
_MOST_CLASSES = 60


def write_class_histogram(path: Path, statistics: Mapping[str, Statistics]) -> None:
    """A bar for each class and split, the classes with the most boxes of the first split first."""
    names = list(dict.fromkeys(name for part in statistics.values() for name in part.classes))
    first = next(iter(statistics.values())).classes
    names.sort(key=lambda name: (-first.get(name, 0), -sum(part.classes.get(name, 0) for part in statistics.values())))
    left_out = len(names) - _MOST_CLASSES
    names = names[:_MOST_CLASSES]
    figure, axes = _figure(max(6.0, 1.5 + 0.55 * len(names) * max(1, len(statistics) * 0.7)), 5.0)
    thickness = 0.8 / len(statistics)
    for number, (split, part) in enumerate(statistics.items()):
        counts = [part.classes.get(name, 0) for name in names]
        middles = np.arange(len(names)) + (number - (len(statistics) - 1) / 2) * thickness
        bars = axes.bar(middles, counts, thickness * 0.95, label=split, color=_SHADES[number])
        axes.bar_label(bars, labels=[f"{count:,}" for count in counts], fontsize=7, padding=1)
    shown = [label(name) for name in names]
    slanted = len(names) > 8 or max(map(len, shown), default=0) > 10
    axes.set_xticks(range(len(names)), shown, rotation=40 if slanted else 0, ha="right" if slanted else "center")
    counts = [count for part in statistics.values() for count in part.classes.values()]
    if max(counts, default=0) > 50 * max(min((count for count in counts if count), default=1), 1):
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, max(counts) * 3)
    axes.set_ylabel("boxes")
    axes.set_title("Boxes per class" + (f" ({left_out} more classes left out)" if left_out > 0 else ""))
    axes.legend(frameon=False)
    figure.savefig(path)


def write_plots(output: str | Path, statistics: Mapping[str, Statistics]) -> list[Path]:
    """Writes classes.png, box_sizes.png, boxes_per_image.png and positions.png into a folder that is new or empty.

    Returns their paths. Raises OutputError where they cannot be written.
    """
    writers = {
        "classes.png": write_class_histogram,
        "box_sizes.png": _write_sizes,
        "boxes_per_image.png": _write_per_image,
        "positions.png": _write_positions,
    }
    with new_folder(output) as folder:
        for name, write in writers.items():
            write(folder / name, statistics)
    return [Path(output) / name for name in writers]


def label(name: str) -> str:
    """The name of a category as a plot is to show it: not too long, and no formula, which matplotlib would make of
    what stands between dollar signs."""
    return cut(name, _LONGEST_NAME).replace("$", r"\$")


def _write_sizes(path: Path, statistics: Mapping[str, Statistics]) -> None:
    figure, axes = _figure(7, 4.2)
    sizes = joined(list(statistics.values())).sizes
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (1.0, 2.0)
    edges = np.geomspace(max(low / 1.2, 0.5), max(high * 1.2, 2.0), 41)
    for number, (split, part) in enumerate(statistics.items()):
        axes.hist(part.sizes, edges.tolist(), label=split, color=_SHADES[number], alpha=0.75)
    for limit in (SMALL, LARGE):
        axes.axvline(limit, color="0.4", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024) if edges[0] <= tick <= edges[-1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("size of box (square root of its area), px; dashed: COCO's small, medium, large")
    axes.set_ylabel("boxes")
    axes.set_title("Sizes of boxes")
    axes.legend(frameon=False)
    figure.savefig(path)


def _write_per_image(path: Path, statistics: Mapping[str, Statistics]) -> None:
    figure, axes = _figure(7, 4.2)
    most = max((int(part.per_image.max(initial=0)) for part in statistics.values()), default=0)
    edges = np.linspace(-0.5, most + 0.5, min(most + 2, 41))
    for number, (split, part) in enumerate(statistics.items()):
        axes.hist(part.per_image, edges.tolist(), label=split, color=_SHADES[number], alpha=0.75)
    axes.set_xlabel("boxes in an image")
    axes.set_ylabel("images")
    axes.set_title("Boxes per image")
    axes.legend(frameon=False)
    figure.savefig(path)


def _write_positions(path: Path, statistics: Mapping[str, Statistics]) -> None:
    figure, axes = _figure(4.6, 4.2)
    picture = axes.imshow(joined(list(statistics.values())).positions, extent=(0, 1, 1, 0), cmap="viridis")
    axes.set_xlabel("part of the image's width")
    axes.set_ylabel("part of the image's height")
    axes.set_title("Where boxes have their centres")
    figure.colorbar(picture, ax=axes, label="boxes")
    figure.savefig(path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # Without pyplot, which keeps figures and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure((width, height), dpi=120, layout="constrained")
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
