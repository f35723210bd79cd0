"""slicedet dataset: check, convert, split, slice and measure annotated images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .console import Console
from .options import console_options, grouped

source_argument = click.argument("source", type=click.Path(path_type=Path))
images_option = click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder that file names count from.  [default: images/ of the dataset]",
)


def output_option(what: str) -> Any:
    return click.option(
        "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help=f"{what}; new, or empty."
    )


mode_option = click.option(
    "--image-mode",
    type=click.Choice(["copy", "link"]),
    default="copy",
    show_default=True,
    help="Copy images, or make symbolic links to them.",
)


@click.group()
def dataset() -> None:
    """Annotated images, with COCO as the working format.

    \b
    A dataset is a folder in PaddleX's layout:
      images/
      annotations/instance_train.json
      annotations/instance_val.json
    """


@dataset.command()
@source_argument
@images_option
@click.option("--fix", is_flag=True, help="Write a repaired copy to -o; the original stays as it is.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the report, or with --fix for the repaired copy (new, or empty).  [default: output]",
)
@click.option(
    "--input-size",
    type=click.IntRange(1),
    default=640,
    show_default=True,
    metavar="PX",
    help="Input of the network that advice is for.",
)
@mode_option
@console_options
def check(
    source: Path,
    images: Path | None,
    fix: bool,
    output: Path | None,
    input_size: int,
    image_mode: str,
    console: Console,
) -> None:
    """Check a dataset (a folder, or one COCO file), and decode every image of it.

    Writes check_dataset_result.json, sample images with their boxes and a histogram of the classes. The exit code is 1
    where there is an error. With --fix it is that of the repaired copy, whose report lies in it.
    """
    from slicedet.datasets.check import check as run
    from slicedet.datasets.repair import CHANGES, check_repaired, repair
    from slicedet.datasets.report import write_failure, write_report
    from slicedet.errors import InvalidDataset

    if fix and output is None:
        raise click.UsageError("--fix needs -o DIR, where the repaired copy is to be")
    output = output or Path("output")
    try:
        with console.progress("images", "image") as progress:
            checked = run(source, images, input_size, progress)
    except InvalidDataset as error:
        if not fix:
            write_failure(error, output)
        raise
    _show_check(checked, console)
    answer: dict[str, Any] = checked.summary()
    if fix:
        changes = repair(checked, output, image_mode)
        console.say(f"\nrepaired copy in {output}:")
        for split, counts in changes.items():
            for change in CHANGES:
                if counts[change]:
                    console.say(f"  {split:6}{counts[change]:>7,}  {CHANGES[change]}")
        with console.progress("repaired images", "image") as progress:
            checked = check_repaired(checked, source, output, input_size, progress)
        left = checked.findings.summary()
        console.say(f"left in it: {left['errors']} errors, {left['warnings']} warnings")
        answer |= {"output": output, "changes": changes, "repaired": checked.summary()}
    result = write_report(checked, output)
    console.say(f"report: {result}")
    console.answer({**answer, "report": result})
    sys.exit(0 if checked.passed else 1)


def _show_check(checked: Any, console: Console) -> None:
    for name, statistics in checked.statistics.items():
        boxes, images = len(statistics.sizes), len(statistics.per_image)
        console.say(f"{name}: {images:,} images, {boxes:,} boxes, {len(statistics.classes)} categories")
    for line in checked.findings.lines():
        console.say(line)
    found = checked.findings.summary()
    console.say(f"{found['errors']:,} errors, {found['warnings']:,} warnings, {found['notes']:,} notes")
    if checked.advice is None:
        return
    advice = checked.advice
    console.say(f"\nsuggested for a network with an input of {advice.input_size}:")
    for name, value in (
        ("slice", advice.slice),
        ("overlap", advice.overlap),
        ("reg_range", list(advice.reg_range)),
        ("reg_range_whole", list(advice.reg_range_whole)),
        ("sliced", "yes" if advice.sliced else "no"),
    ):
        console.say(f"  {name:16} {value!s:12} {advice.reasons[name]}")


def _classes(classes: str | None) -> Sequence[str]:
    from slicedet.datasets.convert import check_classes

    names = [] if classes is None else [name.strip() for name in classes.split(",")]
    check_classes(names)
    return names


@dataset.command()
@source_argument
@click.option(
    "--from",
    "format",
    required=True,
    type=click.Choice(
        ["VOC", "VOCWithUnlabeled", "LabelMe", "LabelMeWithUnlabeled", "YOLO", "DOTA", "VisDrone", "GeoJSON", "COCO"],
        case_sensitive=False,
    ),
    help="Format of SOURCE.",
)
@output_option("Folder of the new dataset")
@grouped(
    "classes",
    _classes,
    click.option("--classes", metavar="A,B", help="Categories to keep, in the order of their ids.  [default: all]"),
)
@mode_option
@click.option(
    "--rasters", type=click.Path(path_type=Path), metavar="PATH", help="GeoJSON: raster or folder of rasters."
)
@click.option(
    "--class-property", metavar="NAME", help="GeoJSON: property with the category.  [default: class, else category]"
)
@click.option("--class-name", metavar="NAME", help="GeoJSON: category of features without that property.")
@console_options
def convert(
    source: Path,
    format: str,
    output: Path,
    classes: Sequence[str],
    image_mode: str,
    console: Console,
    **for_geojson: Any,
) -> None:
    """Convert annotations of another format, or COCO in another layout, to a dataset.

    Without lists or folders for train and val, all images become train; slicedet dataset split divides them.
    """
    from slicedet.datasets.convert import convert as run

    options = {name: value for name, value in for_geojson.items() if value is not None}
    if options and format.lower() != "geojson":
        raise click.UsageError(f"--{next(iter(options)).replace('_', '-')} is for --from geojson")
    with console.progress("images", "image") as progress:
        done = run(source, format, output, classes=classes, image_mode=image_mode, progress=progress, **options)
    for split, count in done.images.items():
        crowd = f", {done.crowd[split]:,} crowd regions" if done.crowd[split] else ""
        console.say(f"{split}: {count:,} images, {done.boxes[split]:,} boxes{crowd}")
    if done.unlabeled:
        console.say(f"unlabeled: {done.unlabeled:,} images, listed in annotations/unlabeled.txt only")
    console.say("categories: " + ", ".join(f"{number} {name}" for number, name in enumerate(done.categories, 1)))
    for what, count in done.left_out.items():
        console.say(f"left out: {count:,} {what}")
    if done.turned:
        console.say(f"turned: the boxes of {done.turned:,} images, as EXIF turns the image")
    if done.other_sizes:
        more = f" and {len(done.other_sizes) - 3:,} more" if len(done.other_sizes) > 3 else ""
        console.say(f"of another size than stated, boxes not scaled: {'; '.join(done.other_sizes[:3])}{more}")
    console.say(f"dataset: {output}")
    console.answer({**asdict(done), "output": output})


def _split_settings(**values: Any) -> Any:
    from slicedet.datasets.split import SplitSettings

    return SplitSettings(**values)


@dataset.command()
@source_argument
@grouped(
    "settings",
    _split_settings,
    click.option("--train-percent", default=80, show_default=True, help="Share of the images for training."),
    click.option("--val-percent", default=20, show_default=True, help="Share of the images for validation."),
    click.option("--seed", default=0, show_default=True, help="Another number gives another division."),
    click.option(
        "--group-by",
        metavar="REGEX",
        help="Keep images together whose names have the same match (or first group); 'sequence' keeps those together "
        "whose names differ in the last number only.  [default: image by image]",
    ),
)
@console_options
def split(source: Path, settings: Any, console: Console) -> None:
    """Divide the images of a dataset anew into train and val, in place.

    The annotation files that were there are kept as .bak, .bak1 and so on.
    """
    from slicedet.datasets.split import split as run

    done = run(source, settings)
    for part, count in done.images.items():
        groups = f" in {len(done.groups[part])} groups" if settings.group_by else ""
        console.say(f"{part}: {count:,} images{groups}, {done.annotations[part]:,} annotations")
    for path in done.kept:
        console.say(f"kept: {path}")
    console.answer(asdict(done))


def _slice_settings(empty_ratio: str, **values: Any) -> Any:
    from slicedet.datasets.slicing import SliceSettings
    from slicedet.errors import InvalidSetting

    try:
        ratio = None if empty_ratio == "all" else float(empty_ratio)
    except ValueError:
        raise InvalidSetting(f"empty-ratio {empty_ratio!r}: expected a number such as 0.1, or all") from None
    return SliceSettings(empty_ratio=ratio, **values)


@dataset.command("slice")
@source_argument
@images_option
@output_option("Folder of the new dataset")
@grouped(
    "settings",
    _slice_settings,
    click.option("--slice", default="640", show_default=True, metavar="PX", help="Tile size, 640 or 640x512."),
    click.option("--overlap", default="0.25", show_default=True, help="Overlap of tiles, a ratio or 160px."),
    click.option(
        "--min-visible", default=0.3, show_default=True, help="Part of a box that a tile must show to have it."
    ),
    click.option(
        "--empty-ratio",
        default="0.1",
        show_default=True,
        metavar="RATIO",
        help="Tiles without boxes for each tile with boxes, or all.",
    ),
    click.option("--seed", default=0, show_default=True, help="For the choice of tiles without boxes."),
)
@console_options
def slice_command(source: Path, images: Path | None, output: Path, settings: Any, console: Console) -> None:
    """Cut the images of a dataset into tiles with their boxes.

    Tiles of georeferenced rasters are GeoTIFFs in their place, all others PNG.
    """
    from slicedet.datasets.slicing import slice_dataset

    with console.progress("images", "image") as progress:
        done = slice_dataset(source, output, settings, images, progress)
    for part, summary in done.items():
        console.say(
            f"{part}: {summary.tiles:,} tiles of {summary.images:,} images, {summary.empty_tiles:,} of them empty "
            f"({summary.empty_left_out:,} more left out, {summary.nodata:,} without data)"
        )
        console.say(
            f"{'':{len(part)}}  {summary.tile_boxes:,} boxes from {summary.boxes:,}; {summary.cut:,} pieces cut too "
            f"small, {summary.lost:,} boxes in no tile"
        )
    console.say(f"dataset: {output}")
    console.answer({"splits": {part: asdict(summary) for part, summary in done.items()}, "output": output})


@dataset.command()
@source_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Folder for plots; new, or empty.")
@console_options
def stats(source: Path, output: Path | None, console: Console) -> None:
    """Count and measure the boxes of a dataset, with plots."""
    from slicedet.datasets.plots import write_plots
    from slicedet.datasets.stats import measure_all

    found = measure_all(source)
    for name, statistics in found.items():
        for line in statistics.lines(name):
            console.say(line)
    plots = [] if output is None else write_plots(output, found)
    for path in plots:
        console.say(f"plot: {path}")
    console.answer({"splits": {name: part.summary() for name, part in found.items()}, "plots": plots})


def _scene_settings(density: float, **values: Any) -> Any:
    from slicedet.datasets.synthetic import SceneSettings

    return SceneSettings(vehicles=density, **values)


@dataset.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="GeoTIFF to write; its truth comes beside it.",
)
@grouped(
    "settings",
    _scene_settings,
    click.option("--width", default=4000, show_default=True, metavar="PX", help="Width in pixels."),
    click.option("--height", default=4000, show_default=True, metavar="PX", help="Height in pixels."),
    click.option("--gsd", default=0.15, show_default=True, metavar="METRES", help="Pixel size."),
    click.option("--seed", default=0, show_default=True, help="Another number gives another place."),
    click.option(
        "--landscape",
        default="mixed",
        show_default=True,
        metavar="NAME",
        help="mixed, city, suburb, country, woods, water or roofs.",
    ),
    click.option(
        "--density", default=1.0, show_default=True, help="Vehicles, from 0 for none to 1 for those of a busy day."
    ),
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@console_options
def synthetic(output: Path, settings: Any, overwrite: bool, console: Console) -> None:
    """Paint an aerial scene with vehicles, and write their exact places as COCO and GeoJSON."""
    from slicedet.datasets.synthetic import write_scene

    with console.progress(output.name, "block") as progress:
        record = write_scene(output, settings, overwrite, progress)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in record.vehicles.items())
    console.say(f"{record.image}: {settings.width} x {settings.height} pixels, {counts}")
    console.say(f"truth: {record.coco}, {record.geojson}")
    console.answer(asdict(record))
