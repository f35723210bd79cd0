"""slicedet batch: a folder of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .console import Console
from .options import DetectorChoice, SceneChoice, console_options, detector_options, scene_options, search_options


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUTDIR", help="Folder for the results."
)
@click.option(
    "--pattern",
    multiple=True,
    metavar="GLOB",
    help="Names of images, such as '*.tif'; may be repeated.  [default: all images]",
)
@click.option(
    "--format", "formats", multiple=True, metavar="NAME",
    help="Format of each image's result; may be repeated.  [default: geojson, else coco]",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@detector_options
@search_options
@scene_options
@console_options
def batch(
    folder: Path,
    output: Path,
    pattern: tuple[str, ...],
    formats: tuple[str, ...],
    overwrite: bool,
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    console: Console,
) -> None:
    """Find objects in all images of FOLDER and the folders in it.

    OUTDIR mirrors the folders, and holds summary.csv and detections.coco.json over all images. An image that fails is
    reported, the rest goes on, and the exit code is 1.
    """
    from slicedet.batch import Batch, Result
    from slicedet.errors import InvalidSetting

    try:
        job = Batch(folder, output, pattern=pattern, formats=formats, overwrite=overwrite)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    detector = choice.load(settings.slice)
    with console.progress(folder.name or str(folder), "image") as progress:

        def report(result: Result) -> None:
            if result.error is not None:
                console.complain(result.error)
            progress(result.number, len(job.images))

        results = job.run(detector, choice.applied_to(settings), scenes.open, report)
    failed = [result for result in results if result.error is not None]
    found = sum(result.detections for result in results)
    console.say(f"{len(results) - len(failed)} of {len(results)} images, {found} objects, results in {output}")
    console.answer({"images": [result.row() for result in results], "failed": len(failed), "detections": found})
    sys.exit(1 if failed else 0)
