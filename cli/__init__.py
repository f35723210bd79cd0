"""The command line: one file per command, each of which parses, calls one library function and prints."""

from __future__ import annotations

import click

from .batch import batch
from .bench import bench
from .console import Commands
from .dataset import dataset
from .demo import demo
from .eval import evaluate
from .export import export
from .info import info
from .models import models
from .predict import predict
from .train import train


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="slicedet")
def main() -> None:
    """Find small objects in aerial images too large to see whole.

    \b
    slicedet demo                                        shows what it does, on a painted scene
    slicedet predict big.tif                             from a raster to GeoJSON
    slicedet batch photos/ -o results/                   a folder of images
    slicedet bench                                       which engine and precision are fastest here
    slicedet train, eval, dataset                        models for your own objects
    """


for command in (predict, batch, bench, info, models, export, evaluate, dataset, train, demo):
    main.add_command(command)
