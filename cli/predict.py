"""slicedet predict: one or several images."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from .console import Console, one_line
from .options import (
    DetectorChoice,
    SceneChoice,
    console_options,
    detector_options,
    grouped,
    resource_options,
    scene_options,
    search_options,
)

output_options = grouped(
    "destination",
    lambda **values: values,
    click.option(
        "-o", "--output", "paths", multiple=True, metavar="PATH",
        help="File to write, its suffix being the format, or folder; may be repeated.  [default: the current folder]",
    ),
    click.option(
        "--format", "formats", multiple=True, metavar="NAME",
        help="geojson, gpkg, fgb, parquet, csv, coco, jpg, png or tif; may be repeated.  [default: geojson, else coco]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace files that are there already."),
)  # fmt: skip


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@output_options
@detector_options
@search_options
@scene_options
@resource_options
@click.option(
    "--resume", is_flag=True, help="Keep finished rows of tiles beside the output, and go on from those kept earlier."
)
@console_options
def predict(
    images: tuple[str, ...],
    destination: dict[str, Any],
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    resources: Any,
    resume: bool,
    console: Console,
) -> None:
    """Find objects in images of any size and write where they are."""
    from slicedet.errors import InvalidSetting, SlicedetError
    from slicedet.outputs.targets import Targets
    from slicedet.predicting import predict_into
    from slicedet.raster.source import shown
    from slicedet.resuming import predict_resumably

    try:
        targets = Targets(images=len(images), roi=settings.roi, **destination)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    settings = _of_model(lambda: choice.applied_to(settings), console)
    detector = functools.cache(lambda: _of_model(lambda: choice.load(settings.slice), console))
    answers: list[dict[str, Any]] = []
    failed = False
    for image in images:
        try:
            with scenes.open(image) as scene, console.progress(scene.name, "tile") as progress:
                if resume:
                    record, written = predict_resumably(
                        scene, targets, detector, settings, asdict(scenes), progress, resources
                    )
                else:
                    record, written = predict_into(scene, targets, detector, settings, progress, resources)
        except KeyboardInterrupt:
            way = "the same command goes on from here" if resume else "with --resume, it would go on from here"
            raise click.ClickException(f"interrupted; {way}") from None
        except SlicedetError as error:
            console.complain(error)
            answers.append({"source": shown(image), "error": one_line(error)})
            failed = True
            continue
        console.say(_summary(record))
        for path in written:
            console.say(f"  {path}")
        answers.append({"source": shown(image), "outputs": [str(path) for path in written], **record})
    console.answer({"images": answers})
    sys.exit(1 if failed else 0)


def _of_model(ask: Callable[[], Any], console: Console) -> Any:
    """What is asked of the model; without an answer there is nothing to do for any image."""
    from slicedet.errors import SlicedetError

    try:
        return ask()
    except SlicedetError as error:
        console.complain(error)
        console.answer({"images": [], "error": one_line(error)})
        sys.exit(1)


def _summary(record: dict[str, Any]) -> str:
    """One line: how many of what, in how much time, over how many tiles."""
    counts = record["detections"]["by_class"]
    found = ", ".join(f"{counts[name]} {name}" for name in sorted(counts, key=lambda name: -counts[name]))
    tiles = record["tiles"]
    names = {"empty": "empty", "flat": "flat", "outside_roi": "outside"}
    skipped = [f"{tiles[key]} {words}" for key, words in names.items() if tiles[key]]
    if tiles["unreadable"]:
        skipped.append(f"{len(tiles['unreadable'])} unreadable")
    ran = f"{tiles['run']} tiles" + (f" ({', '.join(skipped)} left out)" if skipped else "")
    if size := record["detector"].get("input_size"):
        ran += f", network at {size[0]} x {size[1]}"
    number = record["detections"]["after_merging"]
    return (
        f"{record['scene']['source']}: {number} object{'' if number == 1 else 's'}"
        + (f" ({found})" if found else "")
        + f" in {ran}, {record['seconds']:.1f} s"
    )
