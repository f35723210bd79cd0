"""slicedet demo: what slicedet does, shown on a painted scene."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from .console import Console
from .options import console_options


@click.command()
@click.option(
    "-o", "--output", "folder", default="slicedet-demo", show_default=True, metavar="DIR", help="Folder of all files."
)
@click.option(
    "--size", default=4000, show_default=True, type=click.IntRange(500, 40000), help="Edge of the scene in pixels."
)
@click.option("--seed", default=1, show_default=True, help="Another number paints another place.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@console_options
def demo(folder: str, size: int, seed: int, overwrite: bool, console: Console) -> None:
    """Paint an aerial scene, find its vehicles, and count what was found.

    Nothing is downloaded: the scene is made on the spot, and the model comes with slicedet.
    """
    from slicedet.datasets.synthetic import SceneSettings
    from slicedet.demo import demonstrate

    with ExitStack() as stack:

        def progress(what: str) -> Callable[[int, int], None]:
            return stack.enter_context(console.progress(what, "tile"))

        shown = demonstrate(folder, SceneSettings(size, size, seed=seed), progress, overwrite)
    counts = shown.counts
    console.say(
        f"{size} x {size} pixels painted in {shown.painting:.1f} s, searched in {shown.searching:.1f} s: "
        f"{counts.hits} of {counts.objects} vehicles found ({counts.recall:.1%}), {counts.misses} missed, "
        f"{counts.false_alarms} false alarms ({1 - counts.precision:.1%} of what was found)"
    )
    for path in [shown.image, *shown.outputs]:
        console.say(f"  {path}")
    console.say(f"open {Path(folder) / 'scene.overlay.jpg'}, or {Path(folder) / 'scene.geojson'} in QGIS")
    console.answer(asdict(shown))
