"""slicedet eval: how well a detector, or a file of predictions, agrees with annotations."""

from __future__ import annotations

from dataclasses import asdict, replace
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
    from slicedet.evaluation.running import WAYS

    names = {}
    for pair in (pair for pairs in mapping for pair in pairs.split(",")):
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals):
            raise InvalidSetting(f"map {pair!r}: expected OLD=NEW, such as car=vehicle")
        names[old] = new
    ways = list(dict.fromkeys(way.strip() for way in compare.split(",")))
    for way in ways:
        if way not in WAYS:
            raise InvalidSetting(f"compare {way!r}: expected {' or '.join(WAYS)}")
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

report_options = grouped(
    "report",
    lambda **values: values,
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
    report: dict[str, Any],
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    console: Console,
) -> None:
    """Measure how well a model agrees with annotations.

    Prints COCO's average precision by size and class, precision and recall at the threshold, the threshold of the best
    F1, and the worst images.
    """
    from slicedet.datasets import coco
    from slicedet.evaluation import evaluating, reporting
    from slicedet.evaluation.running import locate
    from slicedet.models.config import DEFAULT_THRESHOLD

    if predictions is None and images is None:
        raise click.UsageError("--images is needed to run a model, or --predictions FILE")
    if predictions is not None:
        refuse_all_but(
            _OF_FILES,
            "says how a model is run; with --predictions, leave it out (--map and --threshold choose among what is in "
            "the file)",
        )
    elif settings.roi is not None:
        raise click.UsageError(
            "--roi: objects outside would count as missed; evaluate on annotations of the region alone"
        )
    folder = report.pop("folder")
    if folder is not None:
        names = comparison["ways"] if predictions is None else ["predictions"]
        reporting.check(folder, names, 0 if images is None else report["pictures"], report["overwrite"])
    dataset = coco.read(annotations)
    paths = None if images is None else locate(dataset, images)
    record: dict[str, Any]
    if predictions is not None:
        from slicedet.evaluation.predictions import read

        saved = read(predictions, dataset)
        found: dict[str, Any] = {"predictions": saved}
        record = {"predictions": str(predictions), "images_without_annotations": list(saved.other_images)}
    else:
        found, record = _run(dataset, images, comparison, choice, settings, scenes, console)
    # A file does not say which threshold suits the model behind it.
    threshold = choice.threshold if predictions is None else {"*": DEFAULT_THRESHOLD, **choice.thresholds}
    evaluations = {
        name: evaluating.evaluate(dataset, results, threshold=threshold, mapping=comparison["mapping"])
        for name, results in found.items()
    }
    record["map"] = comparison["mapping"]
    console.say(reporting.table(dataset, evaluations))
    written = []
    if folder is not None:
        open_image = None if paths is None else lambda index: scenes.open(paths[index])
        written = reporting.save(folder, dataset, evaluations, record=record, open_image=open_image, **report)
        console.say("")
    for path in written:
        console.say(f"  {path}")
    answer = {**reporting.content(dataset, evaluations), **record, "outputs": [str(path) for path in written]}
    console.answer(answer)


def _run(
    dataset: Any,
    images: Any,
    comparison: dict[str, Any],
    choice: DetectorChoice,
    settings: Any,
    scenes: SceneChoice,
    console: Console,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model finds in each way, and the record of it."""
    from slicedet.detectors.protocol import minimum_scores, provenance_of
    from slicedet.evaluation.classes import Classes
    from slicedet.evaluation.running import LOWEST_SCORE, run

    lowest = min(LOWEST_SCORE, *choice.threshold.values())
    detector = replace(choice, thresholds={"*": lowest}).load(settings.slice)
    # Before inference, which may take hours.
    Classes.align(dataset.categories, detector.categories, comparison["mapping"])
    minimum_scores(detector.categories, choice.threshold, settings.classes)
    found = {}
    for way in comparison["ways"]:
        with console.progress(way, "image") as progress:
            found[way] = run(dataset, images, detector, settings, way=way, open_scene=scenes.open, progress=progress)
    return found, {"detector": provenance_of(detector), "settings": asdict(settings)}
