"""slicedet bench: which engine and precision are fastest on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from slicedet.models import DEFAULT_MODEL

from .console import Console
from .options import console_options, grouped

if TYPE_CHECKING:
    from slicedet.bench import Bench, Timing
    from slicedet.detectors.choice import EngineChoice


def _size(slice: str | None) -> tuple[int, int] | None:
    from slicedet.tiling import parse_slice

    return None if slice is None else parse_slice(slice)


@click.command()
@click.argument("model", metavar="[MODEL]", default=DEFAULT_MODEL)
@click.option("--weights", metavar="PATH", help="Weights file, where the model does not bring its own.")
@click.option("--device", default="cpu", show_default=True, help="Device as the engines name it.")
@click.option("--tiles", default=32, show_default=True, type=click.IntRange(1), help="Tiles to time them on.")
@click.option("--image", metavar="PATH", help="Image to cut them from.  [default: a painted scene of streets]")
@grouped(
    "size",
    _size,
    click.option(
        "--slice",
        metavar="PX",
        help="Size of the tiles, as for predict: 640 or 640x512 (width x height).  [default: the model's own]",
    ),
)
@console_options
def bench(
    model: str,
    weights: str | None,
    device: str,
    tiles: int,
    image: str | None,
    size: tuple[int, int] | None,
    console: Console,
) -> None:
    """Time every engine and precision at hand, and choose one.

    All are compared with f32, the reference. The fastest of those that agree with it (99 % of the detections matched at
    IoU 0.9, scores that differ by at most 0.01 in the mean) is kept for --precision auto of other commands, until
    machine, weights or engines change. Other programs that run meanwhile blur the times.
    """
    from slicedet.bench import BUSY
    from slicedet.bench import bench as measure

    with console.progress("timing", "run") as progress:
        made = measure(model, weights, device, tiles, image, size, progress)
    for line in _table(made):
        console.say(line)
    if made.load > BUSY:
        console.say(f"this machine was busy when it began ({made.load:.1f} programs a core): the times may mislead")
    console.answer(asdict(made))


def _table(made: Bench) -> list[str]:
    """What was measured, fastest first, what was not, and what was chosen."""
    about = made.circumstances
    width, height = made.tile_size
    reference = made.timings[0]
    rows = [["time", "tiles/s", "engine", "precision", "requests", "matched", "score difference"]]
    rows += [_row(timing, reference) for timing in sorted(made.timings, key=lambda timing: timing.ratio)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{about['model']} on {about['device']} ({about['hardware']['CPU']}, {about['cores']} cores): {made.tiles} "
        f"tiles of {width} x {height} pixels, {made.source}, {made.detections} detections from {made.threshold:g} on",
        *("  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows),
        *(f"not timed: {name}: {why}" for name, why in made.left_out.items()),
        *(
            f"--precision auto{'' if engine == 'auto' else f' --engine {engine}'} is now {_named(way)}"
            for engine, way in made.chosen.items()
        ),
    ]


def _row(timing: Timing, reference: Timing) -> list[str]:
    way, agreement = timing.way, timing.agreement
    row = [f"{timing.ratio:.2f}", f"{1 / timing.seconds:.1f}", way.engine, way.precision, str(timing.requests or 1)]
    if timing is reference:
        return [*row, "reference", ""]
    return [
        *row,
        f"{agreement.matched:.2%}",
        f"{agreement.mean_score:.2g} in the mean, {agreement.largest_score:.2g} at most",
    ]


def _named(way: EngineChoice) -> str:
    requests = "" if way.streams is None else f" with {way.streams} request{'s' * (way.streams > 1)} at once"
    return f"{way.engine} in {way.precision}{requests}"
