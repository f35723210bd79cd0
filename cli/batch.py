"""slicedet batch: a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Console
from .options import (
    DetectorChoice,
    SceneChoice,
    console_options,
    detector_options,
    refuse_all_but,
    resource_options,
    scene_options,
    search_options,
)

if TYPE_CHECKING:
    from slicedet.batch import Report, Result


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER")
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
@click.option("--overwrite", is_flag=True, help="Replace files that no run of this batch has written.")
@click.option("--restart", is_flag=True, help="Begin anew: remove what earlier runs wrote to OUTDIR.")
@click.option("--shard", metavar="I/N", help="Run only part I of N of the images, so that machines can share them out.")
@click.option("--collect", "collecting", is_flag=True, help="Join the results of all shards: FOLDER... are theirs.")
@detector_options
@search_options
@scene_options
@resource_options
@console_options
def batch(
    folders: tuple[Path, ...],
    output: Path,
    pattern: tuple[str, ...],
    formats: tuple[str, ...],
    overwrite: bool,
    restart: bool,
    shard: str | None,
    collecting: bool,
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    resources: Any,
    console: Console,
) -> None:
    """Find objects in all images of FOLDER and the folders in it.

    OUTDIR mirrors the folders, and holds summary.csv and detections.coco.json over all images. An image that fails is
    reported, the rest goes on, and the exit code is 1. However a run ends, the same command goes on from there.
    """
    from slicedet.batch import Batch, Shard, collect
    from slicedet.errors import InvalidSetting

    if collecting:
        refuse_all_but(_OF_COLLECTING, "says how images are run; --collect joins what shards have found, leave it out")
        with _reporting(console, str(output), restart) as report:
            results = collect(folders, output, overwrite=overwrite, restart=restart, report=report)
        _conclude(console, results, output)
    if len(folders) > 1:
        raise click.UsageError("batch takes one FOLDER; only --collect takes several")
    (folder,) = folders
    try:
        part = None if shard is None else Shard.parse(shard)
        job = Batch(folder, output, pattern=pattern, formats=formats, overwrite=overwrite, restart=restart, shard=part)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    with _reporting(console, folder.name or str(folder), restart) as report:
        detector = choice.load(settings.slice)
        results = job.run(detector, choice.applied_to(settings), asdict(scenes), resources, report)
    _conclude(console, results, output)


_OF_COLLECTING = ("folders", "output", "collecting", "overwrite", "restart", "quiet", "verbose", "as_json")
"""Options that say something of joining shards."""


@contextmanager
def _reporting(console: Console, what: str, restart: bool) -> Iterator[Report]:
    """Shows how far a batch is and what fails, and on Ctrl-C says that nothing is lost."""
    from slicedet.errors import SlicedetError

    done = 0
    try:
        with console.progress(what, "image") as progress:

            def report(result: Result, total: int) -> None:
                nonlocal done
                done += 1
                if result.error:
                    console.complain(result.failure or SlicedetError(result.error))
                progress(done, total)

            yield report
    except KeyboardInterrupt:
        command = "the same command" + (" without --restart" if restart else "")
        raise click.ClickException(f"interrupted; {command} goes on from here") from None


def _conclude(console: Console, results: Sequence[Result], output: Path) -> None:
    """Says what became of all images, and ends."""
    failed = sum(bool(result.error) for result in results)
    found = sum(result.detections for result in results)
    kept = sum(result.kept for result in results)
    console.say(
        f"{len(results) - failed} of {len(results)} images"
        + (f" ({kept} from earlier runs)" if kept else "")
        + f", {found} objects, results in {output}"
    )
    console.answer({"images": [result.row() for result in results], "failed": failed, "detections": found})
    sys.exit(1 if failed else 0)
