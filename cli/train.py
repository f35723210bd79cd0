"""slicedet train: a network on annotated images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from .console import Console
from .options import console_options


@click.command()
@click.argument("config")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value of the configuration, such as batch_size=8 or tiles.near_objects=0.5; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option("--overwrite", is_flag=True, help="Begin anew where the output folder holds a training already.")
@console_options
def train(config: str, changes: tuple[str, ...], resume: bool, overwrite: bool, console: Console) -> None:
    """Train a network and export the best of it.

    CONFIG is a YAML file in slicedet's keys or in PaddleX's, or the name of one that comes with slicedet.
    """
    if resume and overwrite:
        raise click.UsageError("--resume goes on with a training, --overwrite begins anew: choose one")
    import warnings

    from slicedet.errors import InvalidSetting, SlicedetWarning
    from slicedet.paddle_import import import_paddle
    from slicedet.training import config as configuration
    from slicedet.training import report
    from slicedet.training.checkpoint import FILE_NAME

    try:
        settings = configuration.load(config, changes)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    import_paddle()
    with warnings.catch_warnings():
        # Of batch norms that behave as they are meant to.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("default", SlicedetWarning)
        from slicedet.training.trainer import train as run

        def listen(record: dict[str, Any]) -> None:
            if not console.quiet:
                click.echo(report.line(record), err=True)

        try:
            outcome = run(settings, resume=resume, overwrite=overwrite, listen=listen)
        except KeyboardInterrupt:
            checkpoint = settings.output / FILE_NAME
            if not checkpoint.is_file():
                raise
            raise click.ClickException(f"interrupted; --resume goes on from {checkpoint}") from None
    best = outcome.best
    console.say(
        f"{outcome.output}: {outcome.steps} steps"
        + (f", the best after {best['step']}: AP {best['ap']:.4f}, AP50 {best['ap50']:.4f}" if best else "")
    )
    for path in (outcome.weights, outcome.model):
        console.say(f"  {path}")
    console.answer(asdict(outcome))
