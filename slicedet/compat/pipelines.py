"""create_pipeline: PaddleX's two pipelines of detection, by name, by YAML or by its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from slicedet.compat.model import Model, create_model
from slicedet.compat.result import DetResult
from slicedet.compat.thresholds import Threshold
from slicedet.errors import InvalidConfig, InvalidSetting
from slicedet.merging import MergeRule
from slicedet.models import paddle_folder


class _Kind(NamedTuple):
    """A pipeline: the section of its model in its YAML, and the model that it has by default."""

    section: str
    model_name: str


_KINDS = {
    "small_object_detection": _Kind("SmallObjectDetection", "PP-YOLOE_plus_SOD-L"),
    "object_detection": _Kind("ObjectDetection", "PicoDet-S"),
}

_TEXTS = ("model_name", "model_dir", "engine")
_HANDED_ON = ("img_size", "engine_config", "use_hpip", "hpi_config")
"""Keys of a YAML that say the same as arguments of create_model, and are judged there."""


class Pipeline:
    """A model with the predict of PaddleX's pipelines, whose arguments come in another order."""

    def __init__(self, name: str, model: Model) -> None:
        self.pipeline_name = name
        self.model = model

    def predict(
        self, input: Any, threshold: Threshold | None = None, *, batch_size: int | None = None
    ) -> Iterator[DetResult]:
        """As `Model.predict`."""
        return self.model.predict(input, batch_size, threshold)

    __call__ = predict


def create_pipeline(
    pipeline: str | Path | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    device: str | None = None,
    engine: str | None = None,
    slice: int | str | tuple[int, int] | None = None,
    overlap: float | str | None = None,
    merge: str | MergeRule | None = None,
    weights: str | Path | None = None,
    **paddlex_only: Any,
) -> Pipeline:
    """PaddleX's create_pipeline for detection.

    pipeline: "small_object_detection", "object_detection", or a YAML file of PaddleX's for either.
    config: the content of such a YAML, instead. All else as in `create_model`.
    Raises InvalidSetting for another pipeline, InvalidConfig for a YAML that is none of these, and what `create_model`
    raises.
    """
    where = "config"
    if config is None:
        if pipeline is None:
            raise InvalidSetting("pipeline and config: one of them is needed")
        where = str(pipeline)
        config = _read(Path(pipeline)) if where.endswith((".yaml", ".yml")) else {"pipeline_name": where}
    if not isinstance(config, Mapping):
        raise InvalidSetting(f"config of type {type(config).__name__}: expected keys and values, as in PaddleX's YAML")
    name = config.get("pipeline_name")
    if not isinstance(name, str) or name not in _KINDS:
        close = get_close_matches(str(name)[:100], _KINDS, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_KINDS)}, and YAML files of these"
        raise InvalidSetting(f"pipeline {str(name)[:100]!r}: slicedet has none of this name; {hint}")
    kind = _KINDS[name]
    section = _section(config, kind.section, where) if "SubModules" in config else {}
    handed_on = {key: section.get(key) or config.get(key) for key in _HANDED_ON}
    model = create_model(
        section.get("model_name") or kind.model_name,
        section.get("model_dir"),
        device=device,
        engine=engine or section.get("engine") or config.get("engine"),
        batch_size=section.get("batch_size", 1),
        threshold=section.get("threshold"),
        slice=slice,
        overlap=overlap,
        merge=merge,
        weights=weights,
        **{**handed_on, **paddlex_only},
    )
    return Pipeline(name, model)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InvalidSetting(f"{path}: no such file")
    return paddle_folder.content_of(path)


def _section(config: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """What is stated of the model. Raises InvalidConfig where that is not what slicedet can do."""
    modules = config["SubModules"]
    section = modules.get(name) if isinstance(modules, Mapping) else None
    if not isinstance(section, Mapping):
        raise InvalidConfig(f"{where}: SubModules.{name}: expected keys and values")
    for key, value in section.items():
        if key in _TEXTS and not isinstance(value, str | None):
            raise InvalidConfig(f"{where}: SubModules.{name}.{key}: expected a text")
        known = key in (*_TEXTS, *_HANDED_ON, "module_name", "batch_size", "threshold")
        if not known and value:
            raise InvalidConfig(f"{where}: SubModules.{name}.{str(key)[:80]}: slicedet does not do this; leave it out")
    return section
