"""The catalogue: the configurations that come with slicedet, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from slicedet.errors import UnknownModel
from slicedet.models import config as config_file
from slicedet.models.config import ModelConfig


def names() -> list[str]:
    """Names of all models with a configuration, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find(model: str) -> ModelConfig:
    """The configuration of a catalogue name, or in a YAML file of the user's.

    Raises UnknownModel for a name that is not in the catalogue, InvalidConfig for a file that is no configuration.
    """
    if model.endswith((".yaml", ".yml")):
        path = Path(model)
        if not path.is_file():
            raise UnknownModel(f"{model}: no such file")
    elif model in names():
        path = _folder() / f"{model}.yaml"
    else:
        raise UnknownModel(f"{model}: unknown model; there are {', '.join(names())}")
    return config_file.load(path, _folder() / "categories")


def _folder() -> Path:
    return Path(str(files("slicedet.configs")))
