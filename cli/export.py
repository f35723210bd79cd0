"""slicedet export: a model as files that others run."""

from __future__ import annotations

import click

from .console import Console
from .options import console_options


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Folder to make.")
@click.option(
    "--format",
    "kind",
    default="paddle",
    show_default=True,
    metavar="NAME",
    help="paddle (for PaddleX, PaddleDetection and slicedet), onnx or openvino.",
)
@click.option(
    "--input-size",
    metavar="PX",
    help="960, 960x640 (width x height), multiples of 32, or dynamic for any such.  [default: the model's own]",
)
@click.option(
    "--nms/--no-nms",
    default=None,
    help="Suppression of overlapping boxes inside the graph, or not.  [default: inside for paddle alone]",
)
@click.option(
    "--weights",
    metavar="PATH",
    help="Trained .pdparams, or a folder of Paddle's.  [default: those of the configuration, else the official "
    ".pdparams, once pulled]",
)
@click.option("--overwrite", is_flag=True, help="Replace an export that is there already.")
@console_options
def export(
    model: str,
    folder: str,
    kind: str,
    input_size: str | None,
    nms: bool | None,
    weights: str | None,
    overwrite: bool,
    console: Console,
) -> None:
    """Write a model as a folder that Paddle, ONNX Runtime or OpenVINO run.

    MODEL is a name (see slicedet models), a YAML file with a network section, a folder with such a model.yaml (a
    training's best_model), or, for onnx and openvino, aerial-vehicles or the folder of any Paddle model. What is
    written is run and compared with the network before it takes its place.
    """
    from slicedet.errors import InvalidSetting
    from slicedet.export import ExportSettings
    from slicedet.export import export as write

    try:
        settings = ExportSettings(kind, input_size, nms)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    made = write(model, folder, settings, weights=weights, overwrite=overwrite)
    width, height = made.config.input.size
    size = "any size" if made.config.input.dynamic else f"{width} x {height}"
    console.say(
        f"{made.folder}: {made.config.name}, {size}, differs from the network by at most {made.pixels:.2g} px and "
        f"{made.score:.2g} in score"
    )
    for path in made.files:
        console.say(f"  {path}")
    console.answer(
        {
            "name": made.config.name,
            "folder": made.folder,
            "files": made.files,
            "format": kind,
            "input_size": made.config.input.size,
            "dynamic": made.config.input.dynamic,
            "largest_differences": {"pixels": made.pixels, "score": made.score},
        }
    )
