"""The catalogue: the configurations that come with slicedet, by name and by the names others give them."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from slicedet.errors import UnknownModel
from slicedet.models import config as config_file
from slicedet.models.config import ModelConfig

IN_FOLDER = "model.yaml"
"""Name of the configuration in a folder that holds one model."""


def names() -> list[str]:
    """Names of all models with a configuration, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def knows(model: str) -> bool:
    """Whether a text is a name or alias of the catalogue, in any case, whatever folder is called so."""
    return model in names() or len(_meant(model)) == 1  # Names need no reading of all configurations.


def find(model: str) -> ModelConfig:
    """The configuration of a catalogue name or alias, in any case, in a YAML file of the user's, or in the folder of an
    export, unless that is called like a model of the catalogue.

    Raises UnknownModel for a name that is not in the catalogue, InvalidConfig for a file that is no configuration.
    """
    if model.endswith((".yaml", ".yml")):
        path = Path(model)
        if not path.is_file():
            raise UnknownModel(f"{model}: no such file")
        return _load(path)
    if (Path(model) / IN_FOLDER).is_file() and not knows(model):
        return _load(Path(model) / IN_FOLDER)
    return _load(_folder() / f"{_resolved(model)}.yaml")


def _resolved(model: str) -> str:
    """The catalogue name that a name or alias stands for."""
    if model in names():
        return model
    if len(meant := _meant(model)) == 1:
        return meant.pop()
    spellings = {known_as.casefold(): known_as for known_as in _known_names()}
    close = [spellings[match] for match in get_close_matches(model.casefold(), spellings, 3, 0.75)]
    raise UnknownModel(
        f"{model}: unknown model; "
        + (f"did you mean {' or '.join(close)}?" if close else "slicedet models lists those there are")
    )


def _meant(model: str) -> set[str]:
    """The catalogue names that a text may stand for."""
    known = _known_names()
    if model in known:
        return {known[model]}
    return {name for known_as, name in known.items() if known_as.casefold() == model.casefold()}


@cache
def _known_names() -> dict[str, str]:
    """Catalogue names by all names they are known by."""
    known = {name: name for name in names()}
    for name in names():
        known.update(dict.fromkeys(_load(_folder() / f"{name}.yaml").aliases, name))
    return known


def _load(path: Path) -> ModelConfig:
    return config_file.load(path, _folder() / "categories")


def _folder() -> Path:
    return Path(str(files("slicedet.configs")))
