"""Folders of Paddle models, PaddleDetection's and PaddleX's: their YAML, checked against their program."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slicedet import yaml_files
from slicedet.errors import InvalidConfig, MissingWeights, ModelMismatch, ModelWarning, UnknownModel
from slicedet.models import config as config_file
from slicedet.models.config import INTERPOLATIONS, InputConfig, ModelConfig, NmsConfig, OutputConfig
from slicedet.models.program import Program

LAYOUTS = (("model", "infer_cfg.yml"), ("inference", "inference.yml"))
"""Stem of program and parameters, and name of the YAML: PaddleDetection's folders and PaddleX's."""

_STEPS = ("Resize", "NormalizeImage", "Permute")


@dataclass(frozen=True)
class PaddleModel:
    """A model's files and what they are: `config` as the program is, `program` None where it is an old .pdmodel."""

    program_path: Path
    params_path: Path
    config: ModelConfig
    program: Program | None

    @property
    def cut(self) -> ModelConfig | None:
        """What it is once the suppression is cut off the program; None where nobody can tell."""
        if self.program is None:
            return None
        if self.program.nms is None:
            return self.config
        return replace(self.config, output=OutputConfig("boxes-and-scores"), nms=self.program.nms)


def read(folder: Path) -> PaddleModel:
    """The model in a folder.

    Raises UnknownModel or MissingWeights where files are missing, InvalidConfig for a YAML that is none or asks for
    steps slicedet does not do, ModelMismatch for a program that is none or whose parameters are cut short. Warns
    (ModelWarning) of what the YAML says wrongly.
    """
    program_path, params_path, yaml_path = files(folder)
    content = content_of(yaml_path)
    program = Program(program_path) if program_path.suffix == ".json" else None
    if program is not None and params_path.stat().st_size < program.parameter_bytes:
        raise ModelMismatch(
            f"{params_path}: {params_path.stat().st_size} bytes, "
            f"the parameters of {program_path.name} need {program.parameter_bytes}"
        )
    try:
        config = _config(folder, yaml_path, content, program)
        config_file.check(config)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InvalidConfig(f"{yaml_path}: {error}") from error
    return PaddleModel(program_path, params_path, config, program)


def files(folder: Path) -> tuple[Path, Path, Path]:
    """The program, the parameters and the YAML of a folder. Raises UnknownModel or MissingWeights."""
    for stem, yaml_name in LAYOUTS:
        programs = [path for path in (folder / f"{stem}.json", folder / f"{stem}.pdmodel") if path.is_file()]
        wanted = {"params": folder / f"{stem}.pdiparams", "yaml": folder / yaml_name}
        missing = [path.name for path in wanted.values() if not path.is_file()]
        if not programs and len(missing) == 2:
            continue
        if not programs:
            missing.insert(0, f"{stem}.json (or .pdmodel)")
        if missing:
            raise MissingWeights(f"{folder}: half a Paddle model, {' and '.join(missing)} missing")
        return programs[0], wanted["params"], wanted["yaml"]
    raise UnknownModel(f"{folder}: no Paddle model in this folder (model.json, model.pdiparams and infer_cfg.yml)")


def around(path: Path) -> Path:
    """Of an ONNX file beside a program, where PaddleX, too, keeps one, the folder; else the path itself."""
    return path.parent if path.suffix == ".onnx" and (path.parent / "inference.json").is_file() else path


def content_of(path: Path) -> Mapping[str, Any]:
    """The keys and values of a YAML file. Raises InvalidConfig."""
    return mapping(yaml_files.read(path, InvalidConfig), path, "the file")


def _config(folder: Path, path: Path, content: Mapping[str, Any], program: Program | None) -> ModelConfig:
    steps = content.get("Preprocess")
    if not isinstance(steps, list) or not steps:
        raise ValueError("Preprocess: expected a list of steps")
    stated_name = mapping(content.get("Global") or {}, path, "Global").get("model_name")
    # PaddleX's names are few; what slicedet exports says its own besides.
    own = mapping(content.get("slicedet") or {}, path, "slicedet")
    name = next((each for each in (own.get("name"), stated_name) if isinstance(each, str) and each), None)
    name = name or folder.resolve().name
    output, nms = _output(content, program, path)
    source = _input([mapping(step, path, "Preprocess") for step in steps])
    dynamic = program is not None and dict(program.inputs).get("image", [])[2:] == [-1, -1]
    return ModelConfig(
        name=name,
        title=name,
        categories=_categories(content, program, output, path),
        input=replace(source, dynamic=dynamic),
        output=output,
        nms=nms,
        gsd=own.get("gsd"),
        slice=own.get("slice"),
        threshold=own.get("threshold", config_file.DEFAULT_THRESHOLD),
        box_voting=own.get("box_voting"),
        half_turn=own.get("half_turn", False),
    )


def _input(steps: list[Mapping[str, Any]]) -> InputConfig:
    """How the steps want the pixels. Without NormalizeImage they go in as 0..255."""
    kinds = [step.get("type") for step in steps]
    for kind in kinds:
        if kind not in _STEPS:
            raise ValueError(f"Preprocess: slicedet does not do the step {_word(kind)!r}, only {', '.join(_STEPS)}")
    if kinds.count("Resize") != 1 or kinds.count("Permute") != 1 or kinds.count("NormalizeImage") > 1:
        raise ValueError("Preprocess: expected one Resize, at most one NormalizeImage and one Permute")
    given = dict(zip(kinds, steps, strict=True))
    resize = given["Resize"]
    if resize.get("keep_ratio", True):
        raise ValueError("Preprocess: Resize with keep_ratio is not supported, only to a fixed size")
    size, code = resize.get("target_size"), resize.get("interp", 1)
    if isinstance(size, int):
        size = [size, size]
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError("Preprocess: Resize: target_size: expected height and width")
    if not isinstance(code, int) or not 0 <= code < len(INTERPOLATIONS):
        raise ValueError(f"Preprocess: Resize: interp: expected a code from 0 to {len(INTERPOLATIONS) - 1}")
    if "NormalizeImage" not in given:
        return InputConfig((size[1], size[0]), "rgb", INTERPOLATIONS[code], 1.0)
    normalize = given["NormalizeImage"]
    divide = 255.0 if normalize.get("is_scale", True) else 1.0
    kind = normalize.get("norm_type", "mean_std")
    if kind not in ("mean_std", "none"):
        raise ValueError(f"Preprocess: NormalizeImage: norm_type {_word(kind)!r}: expected mean_std or none")
    if kind == "none":
        return InputConfig((size[1], size[0]), "rgb", INTERPOLATIONS[code], divide)
    mean, std = normalize.get("mean"), normalize.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        raise ValueError("Preprocess: NormalizeImage: expected mean and std")
    return InputConfig((size[1], size[0]), "rgb", INTERPOLATIONS[code], divide, tuple(mean), tuple(std))


def _output(content: Mapping[str, Any], program: Program | None, path: Path) -> tuple[OutputConfig, NmsConfig | None]:
    """What the program gives back, told by its shapes, and the suppression it still needs."""
    stated = _stated_nms(content)
    # An old .pdmodel does not say; almost all of them have suppression inside.
    if program is None or (len(program.outputs[0]) == 2 and program.outputs[0][1] == 6):
        inside = program.nms if program else None
        if inside is not None and stated is not None and stated != inside:
            _warn(path, f"NMS says {_shown(stated)}; the graph does {_shown(inside)}, and that holds")
        return OutputConfig("rows"), None
    shapes = program.outputs
    if stated is None:
        stated = NmsConfig(0.01, 0.6, 1000, 300)
        _warn(path, f"the graph has no suppression, and NMS is not stated; {_shown(stated)} it is")
    if len(shapes) == 2 and all(len(shape) == 3 for shape in shapes) and shapes[0][2] == 4:
        return OutputConfig("boxes-and-scores"), stated
    strides = content.get("fpn_stride")
    if isinstance(strides, list) and len(shapes) == 2 * len(strides) and all(len(shape) == 3 for shape in shapes):
        return OutputConfig("picodet-heads", tuple(strides), shapes[-1][2] // 4 - 1), stated
    raise ValueError(f"slicedet does not know what outputs {', '.join(map(str, shapes))} of {program.path.name} are")


def _stated_nms(content: Mapping[str, Any]) -> NmsConfig | None:
    stated = content.get("NMS")
    if stated is None:
        return None
    keys = ("score_threshold", "nms_threshold", "nms_top_k", "keep_top_k")
    if not isinstance(stated, Mapping) or any(not isinstance(stated.get(key), int | float) for key in keys):
        raise ValueError(f"NMS: expected numbers for {', '.join(keys)}")
    return NmsConfig(*(stated[key] for key in keys))


def _categories(
    content: Mapping[str, Any], program: Program | None, output: OutputConfig, path: Path
) -> tuple[str, ...]:
    labels = content.get("label_list")
    if not isinstance(labels, list) or not labels or len(labels) > 100_000:
        raise ValueError("label_list: expected a list of names")
    names = tuple(_word(label) for label in labels)
    count = _classes(program, output) if program is not None else -1
    if count in (-1, len(names)):
        return names
    if len(names) == 80 and names[0] == "person":
        why = "those of COCO, which PaddleDetection writes where it does not find the annotations"
    else:
        why = "not those it was trained on"
    _warn(path, f"label_list has {len(names)} names, {why}; the graph has {count} classes, called class_0 and so on")
    return tuple(f"class_{index}" for index in range(count))


def _classes(program: Program, output: OutputConfig) -> int:
    """Number of classes of the graph; -1 where it does not say."""
    if output.layout == "rows":
        return program.candidates[1][1] if program.candidates else -1
    return program.outputs[1][1] if output.layout == "boxes-and-scores" else program.outputs[0][2]


def mapping(value: Any, path: Path, what: str) -> Mapping[str, Any]:
    """A value of the YAML file at `path` as keys and values. Raises InvalidConfig where it is something else."""
    if not isinstance(value, Mapping):
        raise InvalidConfig(f"{path}: {what}: expected keys and values")
    return value


def _word(value: Any) -> str:
    """A value as text, unless it is a collection, which written out may fill all memory."""
    if isinstance(value, Mapping | list | tuple | set):
        raise ValueError("expected a word, not a collection")
    return str(value)[:200]


def _shown(nms: NmsConfig) -> str:
    return f"score {nms.score_threshold}, iou {nms.iou}, top_k {nms.top_k}, keep {nms.keep}"


def _warn(path: Path, message: str) -> None:
    warnings.warn(f"{path}: {message}", ModelWarning, stacklevel=2)
