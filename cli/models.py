"""slicedet models: the catalogue."""

from __future__ import annotations

import click

from .console import Console
from .options import console_options


@click.command()
@console_options
def models(console: Console) -> None:
    """List the models that slicedet knows by name."""
    from slicedet.models import catalogue

    configs = [catalogue.find(name) for name in catalogue.names()]
    console.answer(
        {
            "models": [
                {
                    "name": config.name,
                    "title": config.title,
                    "input_size": config.input.size,
                    "layout": config.output.layout,
                    "categories": config.categories,
                    "gsd": config.gsd,
                    "weights": config.weights,
                    "license": config.license,
                }
                for config in configs
            ]
        }
    )
    width = max(len(config.name) for config in configs)
    for config in configs:
        console.say(f"{config.name:{width}}  {config.title}{'' if config.weights else ' (needs --weights)'}")
