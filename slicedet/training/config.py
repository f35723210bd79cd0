"""TrainingConfig: what is trained on which images and how. Read from YAML, in slicedet's keys or in PaddleX's."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from slicedet import yaml_files
from slicedet.errors import InvalidSetting, InvalidTraining, UnknownModel
from slicedet.merging import METHODS
from slicedet.models import catalogue
from slicedet.tiling import SMALLEST_SLICE, parse_slice

Check = Callable[[Any], Any]
"""Turns a value of the YAML into the field's, or raises ValueError("expected ...")."""


def _number(low: float = -math.inf, high: float = math.inf, above: bool = False) -> Check:
    """A finite number from `low` (greater than it, with `above`) to `high`."""

    def check(value: Any) -> float:
        wanted = f"expected a number {'above' if above else 'from'} {low:g}" + (f" to {high:g}" if high < 1e9 else "")
        try:
            # YAML 1.1 takes 6e-4 for a text.
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(wanted) from None
        if isinstance(value, bool) or not low <= number <= high or (above and number == low) or math.isinf(number):
            raise ValueError(wanted)
        return number

    return check


def _whole(low: int) -> Check:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"expected a whole number, {low} or more")
        return value

    return check


def _pair(low: float) -> Check:
    """Two numbers from `low` up, the smaller first."""

    def check(value: Any) -> tuple[float, float]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("expected two numbers, [least, greatest]")
        first, last = (_number(low, above=True)(each) for each in value)
        if first > last:
            raise ValueError("expected two numbers, [least, greatest]")
        return first, last

    return check


def _list(each: Check) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError("expected a list")
        return tuple(each(item) for item in value)

    return check


def _choice(*names: str) -> Check:
    def check(value: Any) -> str:
        # YAML 1.1 takes off for false.
        text = "off" if value is False else str(value).lower()
        if text not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return text

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text")
    return value


def _path(value: Any) -> Path:
    if isinstance(value, str) and "://" in value:
        raise ValueError(
            "expected a path on this machine, of what was downloaded before (slicedet models pull --kind pdparams)"
        )
    return Path(value) if isinstance(value, Path) else Path(_text(value))


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _edge(value: Any) -> int:
    edge = _whole(32)(value)
    if edge % 32:
        raise ValueError("expected a multiple of 32")
    return int(edge)


def _slice(value: Any) -> Any:
    if value != "full":
        try:
            parse_slice(value)
        except InvalidSetting:
            raise ValueError(f"expected full, or pixels such as 640 or 640x512, {SMALLEST_SLICE} or more") from None
    return value


@dataclass(frozen=True)
class SourceConfig:
    """Annotated images. annotations: COCO JSON. images: their folder. weight: how often tiles are drawn from here,
    relative to the other sources; whole images come once an epoch, whatever it is. false_alarms: the annotations are
    what a detector found in images that hold nothing; tiles near them are background. Images without any are left
    out."""

    annotations: Annotated[Path, _path]
    images: Annotated[Path, _path]
    weight: Annotated[float, _number(0, above=True)] = 1.0
    false_alarms: Annotated[bool, _truth] = False


@dataclass(frozen=True)
class SyntheticConfig:
    """Painted tiles. share: of all tiles, 0..1. gsd: metres per pixel of the tile, drawn from this range.
    categories: the trained categories of what is painted, by its painted category; others are ignored."""

    share: Annotated[float, _number(0, 1)] = 0.0
    gsd: Annotated[tuple[float, float], _pair(0)] = (0.08, 0.25)
    categories: Annotated[Mapping[str, str] | None, _names] = None


@dataclass(frozen=True)
class TileConfig:
    """How tiles are cut from images, to look like those of sliced inference.

    scale: pixels of the network's input per pixel of the image, drawn evenly by its logarithm.
    object_size: instead, the scale is drawn so that an object of the image gets a size (root of its area) in this range
    of input pixels, within `scale`. near_objects: share of tiles that hold a given object; the others lie anywhere.
    aspect: greatest ratio by which width and height are stretched differently.
    min_visible: objects of which less lies in the tile are ignored. min_size: as are those with a shorter side, in
    input pixels.
    """

    scale: Annotated[tuple[float, float], _pair(0)] = (0.5, 2.0)
    object_size: Annotated[tuple[float, float] | None, _pair(0)] = None
    near_objects: Annotated[float, _number(0, 1)] = 0.7
    aspect: Annotated[float, _number(1, 4)] = 1.15
    min_visible: Annotated[float, _number(0, 1)] = 0.35
    min_size: Annotated[float, _number(0)] = 4.0


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to an example at random.

    flip, flip_vertical, mosaic (four examples in one), blur, jpeg, noise, expand (the image in a canvas up to four
    times as wide) and crop (a part of 0.3 to 1 of each side): probabilities. rotate90: turns by quarters.
    hue: greatest turn in degrees; saturation, contrast, brightness: greatest relative change; each with probability
    0.5. expand and crop are for whole images.
    """

    flip: Annotated[float, _number(0, 1)] = 0.5
    flip_vertical: Annotated[float, _number(0, 1)] = 0.5
    rotate90: Annotated[bool, _truth] = True
    mosaic: Annotated[float, _number(0, 1)] = 0.0
    hue: Annotated[float, _number(0, 180)] = 18.0
    saturation: Annotated[float, _number(0, 1)] = 0.5
    contrast: Annotated[float, _number(0, 1)] = 0.4
    brightness: Annotated[float, _number(0, 1)] = 0.4
    blur: Annotated[float, _number(0, 1)] = 0.1
    jpeg: Annotated[float, _number(0, 1)] = 0.1
    noise: Annotated[float, _number(0, 1)] = 0.1
    expand: Annotated[float, _number(0, 1)] = 0.0
    crop: Annotated[float, _number(0, 1)] = 0.0


@dataclass(frozen=True)
class EvaluationConfig:
    """How the validation images are searched while training; see `slicedet.predict`. slice: "full" takes each image
    whole, with its own pixels; None the tile of the network's input size. Tiles of georeferenced images have the
    training's `gsd`, where that is given. threshold: lowest score counted."""

    slice: Annotated[int | str | None, _slice] = None
    overlap: Annotated[float, _number(0, 0.9)] = 0.25
    merge: Annotated[str, _choice(*METHODS)] = "agreement"
    threshold: Annotated[float, _number(0, 1)] = 0.01


@dataclass(frozen=True)
class TrainingConfig:
    """One training. Paths are relative to the current folder.

    model: catalogue name, alias or YAML of the network, its input and its suppression. output: folder of all results.
    name, gsd: of the model that comes out; gsd in metres per pixel. dataset_dir: a folder in PaddleX's layout, which
    stands for `train` and `val` where these are not given.
    categories: trained category -> names in the annotations that it gathers; None takes the annotations' own.
    ignored: names in the annotations of what is neither trained nor background: it is painted over.
    num_classes: number of categories, only to be checked.
    pretrained: .pdparams or .onnx to begin with; pretrained_classes: for a trained category, the model's categories
    whose weights it begins with. resume: checkpoint, or folder that has one, to go on from.
    tiles: None takes whole images, stretched to the input, each once an epoch. input_size: edge of the exported
    network's input in pixels; sizes: edges trained at, one drawn for each batch.
    epochs or steps: how long; an epoch is `epoch_tiles` examples (must be given for painted tiles alone), by default
    each image once, or as many tiles as cover all images. decay_epochs: where the cosine would reach 0, by default at
    the end.
    learning_rate, weight_decay (of weights, not of biases and norms), momentum, warmup_steps (linear, from
    warmup_start times the rate), clip_norm (greatest norm of all gradients), ema_decay (0: no moving average).
    amp: "off", "o1" or "o2", float16 on GPUs. frozen_norms: batch norms keep their statistics. frozen_layers: names of
    layers that do not train.
    replicas: parts of a batch that run side by side on a CPU; by default as many as cores.
    static_assigner_epoch: see slicedet.training.losses.criterion; by default a tenth of all epochs, as in PaddleX.
    eval_interval in epochs, eval_steps in steps instead; log_interval in steps; checkpoint_seconds: time between saves.
    """

    model: Annotated[str, _text]
    output: Annotated[Path, _path] = Path("output")
    name: Annotated[str | None, _text] = None
    gsd: Annotated[float | None, _number(0, above=True)] = None
    dataset_dir: Annotated[Path | None, _path] = None
    train: tuple[SourceConfig, ...] = ()
    val: tuple[SourceConfig, ...] = ()
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    categories: Annotated[Mapping[str, tuple[str, ...]] | None, _gathered] = None
    ignored: Annotated[tuple[str, ...], _list(_text)] = ()
    num_classes: Annotated[int | None, _whole(1)] = None
    pretrained: Annotated[Path | None, _path] = None
    pretrained_classes: Annotated[Mapping[str, tuple[str, ...]] | None, _members] = None
    resume: Annotated[Path | None, _path] = None
    tiles: TileConfig | None = field(default_factory=TileConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    input_size: Annotated[int | None, _edge] = None
    sizes: Annotated[tuple[int, ...], _list(_edge)] = ()
    batch_size: Annotated[int, _whole(1)] = 16
    epochs: Annotated[int | None, _whole(1)] = None
    steps: Annotated[int | None, _whole(1)] = None
    epoch_tiles: Annotated[int | None, _whole(1)] = None
    decay_epochs: Annotated[int | None, _whole(1)] = None
    optimizer: Annotated[str, _choice("adamw", "momentum")] = "adamw"
    learning_rate: Annotated[float, _number(0, above=True)] = 6e-4
    weight_decay: Annotated[float, _number(0)] = 0.02
    momentum: Annotated[float, _number(0, 1)] = 0.9
    warmup_steps: Annotated[int, _whole(0)] = 100
    warmup_start: Annotated[float, _number(0, 1)] = 0.1
    clip_norm: Annotated[float | None, _number(0, above=True)] = 10.0
    ema_decay: Annotated[float, _number(0, 1)] = 0.9998
    amp: Annotated[str, _choice("off", "o1", "o2")] = "off"
    frozen_norms: Annotated[bool, _truth] = False
    frozen_layers: Annotated[tuple[str, ...], _list(_text)] = ()
    replicas: Annotated[int | None, _whole(1)] = None
    device: Annotated[str | None, _text] = None
    static_assigner_epoch: Annotated[int | None, _whole(0)] = None
    seed: Annotated[int, _whole(0)] = 0
    workers: Annotated[int, _whole(0)] = 2
    cache_mb: Annotated[int, _whole(0)] = 2000
    eval_interval: Annotated[int, _whole(1)] = 1
    eval_steps: Annotated[int | None, _whole(1)] = None
    log_interval: Annotated[int, _whole(1)] = 10
    checkpoint_seconds: Annotated[float, _number(0)] = 120.0


_PARTS: dict[str, type] = {
    "synthetic": SyntheticConfig,
    "tiles": TileConfig,
    "augmentation": AugmentationConfig,
    "evaluation": EvaluationConfig,
}
_PADDLEX_NAMES = {
    "epochs_iters": "epochs",
    "pretrain_weight_path": "pretrained",
    "resume_path": "resume",
}
_PADDLEX_IGNORED = {
    "Global": {"mode"},
    "Train": {"dy2st", "basic_config_path", "dist_ips", "uniform_output_enabled"},
}
_PADDLEX_UNUSED = {"CheckDataset", "Evaluate", "Export", "Predict"}
"""Sections about something else than training."""
_PADDLEX_RECIPE: dict[str, Any] = {
    "tiles": None,
    "optimizer": "momentum",
    "weight_decay": 5e-4,
    "augmentation": {"rotate90": False, "flip_vertical": 0.0, "crop": 0.5, "blur": 0.0, "jpeg": 0.0, "noise": 0.0},
    "evaluation": {"slice": "full"},
}
"""What PaddleX's module configurations mean without saying so."""


def load(path: str | Path, changes: Sequence[str] = ()) -> TrainingConfig:
    """The training in a YAML file, or of a name of those that come with slicedet.

    changes: "key=value" each, with dots for keys within keys, values in YAML; they go before what the file says.
    Raises InvalidTraining, in one line that names the file and the key; InvalidSetting where it is one of the changes.
    """
    found = _located(path)
    try:
        values = _flattened(_mapping(yaml_files.read(found, InvalidTraining), "the file"))
    except ValueError as error:
        raise InvalidTraining(f"{path}: {error}") from error
    changed = {_apply(values, change): change for change in changes}
    try:
        return _checked(values)
    except _WrongValue as error:
        for key, change in changed.items():
            if re.match(rf"{re.escape(key)}(\W|$)", error.key):
                raise InvalidSetting(f"--set {change}: {error}") from error
        raise InvalidTraining(f"{path}: {error}") from error
    except ValueError as error:
        raise InvalidTraining(f"{path}: {error}") from error


class _WrongValue(ValueError):
    """The value of one key, named with dots for keys within keys, cannot be used, or the key is none."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def described(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as plain values, as `load` would read them from YAML; without those that are none by default."""
    none_by_default = {each.name for each in fields(config) if each.default is None}
    return {
        key: value for key, value in _plain(asdict(config)).items() if not (value is None and key in none_by_default)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _located(path: str | Path) -> Path:
    """The file of a path, or of a name such as aerial_vehicles."""
    shipped = files("slicedet.configs") / "training" / f"{path}.yaml"
    if not str(path).endswith((".yaml", ".yml")) and Path(path).name == str(path) and shipped.is_file():
        return Path(str(shipped))
    return Path(path)


def _flattened(content: Mapping[str, Any]) -> dict[str, Any]:
    """PaddleX's sections as slicedet's keys; slicedet's own as they are."""
    values = {_PADDLEX_NAMES.get(key, key): value for key, value in content.items()}
    if not {"Global", "Train"} & content.keys():
        return values
    # Changes reach into its sections.
    values = {**copy.deepcopy(_PADDLEX_RECIPE), **values}
    for section in ("Global", "Train"):
        for key, value in _mapping(values.pop(section, {}) or {}, section).items():
            if key not in _PADDLEX_IGNORED[section]:
                values[_PADDLEX_NAMES.get(key, key)] = value
    return {key: value for key, value in values.items() if key not in _PADDLEX_UNUSED}


def _apply(values: dict[str, Any], change: str) -> str:
    """Sets one value, unless it is one that PaddleX's configurations may have and training does not need; its key."""
    name, equals, text = change.partition("=")
    if not equals or not name:
        raise InvalidSetting(f"--set {change}: expected key=value")
    if not text.strip():
        # As a rule, a command within the command line that failed.
        raise InvalidSetting(f"--set {change}: the value is missing; {name}=null stands for none")
    *outer, last = name.split(".")
    section = outer[0] if outer else None
    if section in _PADDLEX_UNUSED or last in _PADDLEX_IGNORED.get(str(section), ()):
        return name
    if section in _PADDLEX_IGNORED:
        outer = outer[1:]
    if not outer:
        last = _PADDLEX_NAMES.get(last, last)
    place = values
    for key in outer:
        if not isinstance(place.get(key), dict):
            place[key] = {}
        place = place[key]
    try:
        place[last] = yaml_files.parsed(text)
    except ValueError:
        place[last] = text
    return ".".join([*outer, last])


def _checked(values: dict[str, Any]) -> TrainingConfig:
    given = dict(values)
    for role in ("train", "val"):
        if role in given:
            listed = given[role] if isinstance(given[role], list) else [given[role]]
            given[role] = tuple(
                _built(SourceConfig, _mapping(each, f"{role}[{place}]"), f"{role}[{place}].")
                for place, each in enumerate(listed)
            )
    for key, kind in _PARTS.items():
        if key in given and not (key == "tiles" and given[key] is None):
            given[key] = _built(kind, _mapping(given[key], key), f"{key}.")
    folder = given.get("dataset_dir")
    if folder is not None:
        for role in ("train", "val"):
            annotations = Path(str(folder)) / "annotations" / f"instance_{role}.json"
            if role not in given and (role == "train" or annotations.is_file()):
                given[role] = (SourceConfig(annotations, Path(str(folder)) / "images"),)
    config = _built(TrainingConfig, given, "")
    for place, source in enumerate(config.val):
        if source.false_alarms:
            key = f"val[{place}].false_alarms"
            raise _WrongValue(key, f"{key}: only for train; images without annotations do the same here")
    if config.epochs is not None and config.steps is not None:
        raise ValueError("epochs and steps are both given; choose one (--set epochs=null or --set steps=null)")
    if config.epochs is None and config.steps is None:
        raise ValueError("epochs is missing (or steps)")
    if not config.train and config.synthetic.share < 1:
        raise ValueError("train is missing (or dataset_dir)")
    if not config.train:
        for key, what in (("categories", "what is trained"), ("epoch_tiles", "how long an epoch is")):
            if getattr(config, key) is None:
                raise ValueError(f"{key} is missing: painted tiles alone do not say {what}")
    try:
        catalogue.find(config.model)
    except UnknownModel as error:
        raise _WrongValue("model", f"model: {error}") from error
    return config


_Kind = TypeVar("_Kind")


def _built(kind: type[_Kind], values: Mapping[str, Any], prefix: str) -> _Kind:
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    annotations = get_type_hints(kind, include_extras=True)
    arguments = {}
    for key, value in values.items():
        if key not in known:
            aliases = [] if prefix else list(_PADDLEX_NAMES)
            close = (
                get_close_matches(key[:80], [*known, *aliases], 3, 0.6) or [name for name in known if key in name][:3]
            )
            hint = f"did you mean {' or '.join(prefix + name for name in close)}?" if close else "see docs/training.md"
            raise _WrongValue(f"{prefix}{key}", f"unknown key {prefix}{key:.80}; {hint}")
        checks = getattr(annotations[key], "__metadata__", ())
        if not checks or (value is None and type(None) in get_args(get_args(annotations[key])[0])):
            arguments[key] = value
            continue
        try:
            arguments[key] = checks[0](value)
        except ValueError as error:
            raise _WrongValue(f"{prefix}{key}", f"{prefix}{key}: {error}, not {value!r:.60}") from None
    for name, each in known.items():
        if each.default is MISSING and each.default_factory is MISSING and arguments.get(name) is None:
            raise _WrongValue(f"{prefix}{name}", f"{prefix}{name} is missing")
    return kind(**arguments)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _WrongValue(what, f"{what}: expected keys and values")
    return {str(key): each for key, each in value.items()}


def _names(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("expected keys and values")
    return {_text(key): _text(name) for key, name in value.items()}


def _members(value: Any) -> dict[str, tuple[str, ...]]:
    """Categories given as a list of names, or as a mapping of a name to one or several others."""
    if isinstance(value, list):
        value = {_text(name): [name] for name in value}
    if not isinstance(value, Mapping) or not value:
        raise ValueError("expected names, or names with lists of others")
    return {
        _text(name): tuple(_text(each) for each in (members if isinstance(members, list | tuple) else [members]))
        for name, members in value.items()
    }


def _gathered(value: Any) -> dict[str, tuple[str, ...]]:
    """The same, where no other may belong to two."""
    gathered = _members(value)
    everything = [each for members in gathered.values() for each in members]
    if len(everything) > len(set(everything)):
        raise ValueError("expected each name of the annotations in one category only")
    return gathered
