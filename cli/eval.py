"""slicedet eval: how well a detector, or a file of predictions, agrees with annotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .console import Console
from .options import (
    DetectorChoice,
    SceneChoice,
    console_options,
    detector_options,
    grouped,
    refuse_all_but,
    scene_options,
    search_options,
)


def _comparison(mapping: tuple[str, ...], compare: str) -> dict[str, Any]:
    from slicedet.errors import InvalidSetting
    from slicedet.evaluation.running import check_ways

    names = {}
    for pair in (pair for pairs in mapping for pair in pairs.split(",")):
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals):
            raise InvalidSetting(f"map {pair!r}: expected OLD=NEW, such as car=vehicle")
        names[old] = new
    ways = list(dict.fromkeys(way.strip() for way in compare.split(",")))
    check_ways(ways)
    return {"mapping": names, "ways": ways}


comparison_options = grouped(
    "comparison",
    _comparison,
    click.option(
        "--map", "mapping", multiple=True, metavar="OLD=NEW,...",
        help="Classes renamed on both sides before they are compared; * stands for all others, an empty NEW leaves a "
        "class out. May be repeated.",
    ),
    click.option(
        "--compare", default="sliced", show_default=True, metavar="sliced,full",
        help="How images are shown to the model: in tiles, whole, or both side by side.",
    ),
)  # fmt: skip


def _report(folder: Path | None, **values: Any) -> Any:
    from slicedet.evaluation.comparing import ReportFiles

    return None if folder is None else ReportFiles(folder, **values)


report_options = grouped(
    "report",
    _report,
    click.option(
        "-o", "--output", "folder", type=click.Path(path_type=Path), metavar="DIR",
        help="Folder for evaluation.json, images.csv, precision_recall.png and pictures of the worst images.",
    ),
    click.option(
        "--worst", "pictures", default=6, show_default=True, type=click.IntRange(0),
        help="How many of the worst images to draw.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace files that are there already."),
)  # fmt: skip


_OF_FILES = {
    *("annotations", "images", "predictions", "mapping", "folder", "pictures", "overwrite", "threshold"),
    *("bands", "stretch", "quiet", "verbose", "as_json"),
}
"""Options that say something of saved predictions, and of the pictures made of them."""


@click.command("eval")
@click.option(
    "--annotations", required=True, type=click.Path(path_type=Path), metavar="FILE", help="COCO annotations to meet."
)
@click.option("--images", type=click.Path(path_type=Path), metavar="DIR", help="Folder with the images.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="COCO results, or a .coco.json of slicedet, instead of running a model.",
)
@comparison_options
@report_options
@detector_options
@search_options
@scene_options
@console_options
def evaluate(
    annotations: Path,
    images: Path | None,
    predictions: Path | None,
    comparison: dict[str, Any],
    report: Any,
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    console: Console,
) -> None:
    """Measure how well a model agrees with annotations.

    Prints COCO's average precision by size and class, precision and recall at the threshold, the threshold of the best
    F1, and the worst images.
    """
    from slicedet.evaluation import comparing
    from slicedet.evaluation.running import LOWEST_SCORE
    from slicedet.models.config import DEFAULT_THRESHOLD

    common = {"mapping": comparison["mapping"], "open_scene": scenes.open, "report": report}
    if predictions is not None:
        refuse_all_but(
            _OF_FILES,
            "says how a model is run; with --predictions, leave it out (--map and --threshold choose among what is in "
            "the file)",
        )
        # A file does not say which threshold suits the model behind it.
        threshold = {"*": DEFAULT_THRESHOLD, **choice.thresholds}
        compared = comparing.compare_predictions(annotations, predictions, images=images, threshold=threshold, **common)
    elif images is None:
        raise click.UsageError("--images is needed to run a model, or --predictions FILE")
    elif settings.roi is not None:
        raise click.UsageError(
            "--roi: objects outside would count as missed; evaluate on annotations of the region alone"
        )
    else:
        lowest = min(LOWEST_SCORE, *choice.threshold.values())
        detector = replace(choice, thresholds={"*": lowest}).load(settings.slice)
        with console.progress("images", "image") as progress:
            compared = comparing.compare_detector(
                annotations,
                images,
                detector,
                settings,
                threshold=choice.threshold,
                ways=comparison["ways"],
                progress=progress,
                **common,
            )
    console.say(compared.table())
    if compared.files:
        console.say("")
    for path in compared.files:
        console.say(f"  {path}")
    console.answer({**compared.content, "outputs": [str(path) for path in compared.files]})
