"""slicedet models: the catalogue, and the official weights of what is in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .console import Console, one_line
from .options import Command, console_options

if TYPE_CHECKING:
    from slicedet.models.config import ModelConfig


def kind_option(default: str) -> Callable[[Command], Command]:
    """The kind of official files; `default` says in words which, where none is named."""
    return click.option(
        "--kind",
        type=click.Choice(("onnx", "paddle", "pdparams")),
        metavar="KIND",
        help=f"onnx, paddle or pdparams.  [default: {default}]",
    )


@click.group(invoke_without_command=True)
@console_options
def models(console: Console) -> None:
    """The models that slicedet knows by name, and their official weights.

    Without a command, the list. SLICEDET_HOME is the folder of downloaded weights; SLICEDET_MODEL_MIRROR, a URL or a
    folder, is where they come from instead of their official hosts.
    """
    command = click.get_current_context().invoked_subcommand
    if command is None:
        _list(console)
    elif console != Console(False, False, False):
        raise click.UsageError(f"options come after the command: slicedet models {command} ...")


@models.command("list")
@console_options
def list_models(console: Console) -> None:
    """List the models that slicedet knows by name."""
    _list(console)


@models.command()
@click.argument("name")
@console_options
def show(name: str, console: Console) -> None:
    """Show what slicedet knows of a model, and where its weights are."""
    from slicedet.models import cache, catalogue

    config = catalogue.find(name)
    here = {kind: cache.find(config, kind) for kind in config.downloads}
    console.answer({"model": _described(config), "downloaded": {kind: path for kind, path in here.items() if path}})
    console.say(f"{config.name}: {config.title}")
    for label, value in (
        ("also known as", ", ".join(config.aliases)),
        ("input", f"{config.input.size[0]} x {config.input.size[1]} pixels"),
        ("output", config.output.layout),
        ("categories", ", ".join(config.categories)),
        ("tiles", config.slice and f"{config.slice} pixels"),
        ("threshold", config.threshold),
        ("trained at", config.gsd and f"{config.gsd} m per pixel"),
        ("weights", config.weights),
        ("license", config.license),
        ("source", config.source),
    ):
        if value:
            console.say(f"  {label + ':':15} {value}")
    for kind, download in config.downloads.items():
        console.say(f"  {kind + ':':15} {here[kind] or f'{download.url} (not downloaded)'}")


@models.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@kind_option("the first that show lists")
@click.option("--force", is_flag=True, help="Download again what is there.")
@console_options
def pull(names: tuple[str, ...], kind: str | None, force: bool, console: Console) -> None:
    """Download the official weights of models, unless they are there."""
    from slicedet.errors import SlicedetError
    from slicedet.models import cache, catalogue

    answers: list[dict[str, Any]] = []
    for name in names:
        try:
            config = catalogue.find(name)
            with console.progress(config.name, "B") as progress:
                path = cache.pull(config, kind, progress, force)
        except SlicedetError as error:
            console.complain(error)
            answers.append({"name": name, "error": one_line(error)})
            continue
        console.say(f"{config.name}: {path}")
        answers.append({"name": config.name, "path": path})
    console.answer({"models": answers})
    sys.exit(1 if any("error" in answer for answer in answers) else 0)


@models.command()
@click.argument("name")
@kind_option("the first that is downloaded, in the order of show")
@console_options
def path(name: str, kind: str | None, console: Console) -> None:
    """Print where the downloaded weights of a model are, as for --weights."""
    from slicedet.errors import MissingWeights
    from slicedet.models import cache, catalogue

    config = catalogue.find(name)
    found = cache.find(config, kind)
    if found is None:
        option = f"--kind {kind} " if kind else ""
        raise MissingWeights(f"{config.name}: not downloaded; slicedet models pull {option}{name} does it")
    console.answer({"name": config.name, "path": found})
    console.say(str(found))


def _list(console: Console) -> None:
    from slicedet.models import catalogue

    configs = [catalogue.find(name) for name in catalogue.names()]
    console.answer({"models": [_described(config) for config in configs]})
    width = max(len(config.name) for config in configs)
    for config in configs:
        console.say(f"{config.name:{width}}  {config.title}")


def _described(config: ModelConfig) -> dict[str, Any]:
    return {
        "name": config.name,
        "title": config.title,
        "aliases": config.aliases,
        "input_size": config.input.size,
        "layout": config.output.layout,
        "categories": config.categories,
        "gsd": config.gsd,
        "weights": config.weights,
        "downloads": {kind: download.url for kind, download in config.downloads.items()},
        "license": config.license,
    }
