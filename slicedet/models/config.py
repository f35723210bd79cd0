"""ModelConfig: how a network wants its pixels and what it gives back. Read from YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from slicedet import yaml_files
from slicedet.errors import InvalidConfig, ModelMismatch

LAYOUTS = ("picodet-heads", "boxes-and-scores", "rows")
DOWNLOADS = {"onnx": (".onnx",), "paddle": (".tar", ".tar.gz", ".tgz", ".zip"), "pdparams": (".pdparams",)}
"""Kinds of official files, and how their names end."""
INTERPOLATIONS = ("nearest", "linear", "cubic", "area", "lanczos4")
DEFAULT_THRESHOLD = 0.25
_LARGEST = 10**12
"""No number of a configuration comes near it; it is finite, too."""
DIVISOR = 32
"""Width and height of a network's input are multiples of it, where they are not fixed."""


@dataclass(frozen=True)
class InputConfig:
    """The image input of a network: [1, 3, height, width], a tile stretched to size, value = (pixel / divide - mean) /
    std.

    size: width and height in pixels. channels: "rgb" or "bgr". interpolation: one of INTERPOLATIONS, on uint8 as in
    OpenCV. dynamic: whether the weights file takes other multiples of DIVISOR too.
    """

    size: tuple[int, int]
    channels: str = "rgb"
    interpolation: str = "cubic"
    divide: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    dynamic: bool = False


@dataclass(frozen=True)
class OutputConfig:
    """What a network gives back for one image.

    layout: "picodet-heads": for each stride class scores [1, n, classes], then for each stride distance logits
    [1, n, 4 * (reg_max + 1)]; "boxes-and-scores": x1 y1 x2 y2 in input pixels [1, n, 4] and scores [1, classes, n];
    "rows": class, score, x1, y1, x2, y2 [n, 6] in input pixels, with suppression inside the graph.
    strides (finest first, as the outputs) and reg_max describe "picodet-heads" alone.
    """

    layout: str
    strides: tuple[int, ...] = ()
    reg_max: int = 0


@dataclass(frozen=True)
class NmsConfig:
    """Suppression on each tile, per class: scores above `score_threshold`, the best `top_k` of each class, overlaps
    above `iou` removed, the best `keep` of all classes kept; as Paddle's multiclass_nms3 does it."""

    score_threshold: float
    iou: float
    top_k: int
    keep: int


@dataclass(frozen=True)
class Download:
    """An official file: its http(s) URL, and where they are published its size in bytes and its SHA-256."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def filename(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


@dataclass(frozen=True)
class ModelConfig:
    """One model: its name, categories, input, outputs, suppression, and its weights.

    nms: None where only the graph knows it; not used with the layout "rows".

    gsd: ground sampling distance in metres per pixel it was trained at; None where it is not known.
    slice: edge in pixels of the tiles it is best shown, enlarged or reduced to its input; None for the input's own.
    threshold: lowest score that is worth keeping, unless the user says another.
    weights: path of the weights file; None where the user must name it.
    downloads: official files by kind, one of DOWNLOADS, the preferred first. aliases: other names it is known by.
    network: how slicedet.networks.assemble builds it; None where only the weights file knows.
    box_voting: IoU with a kept box from which what suppression removes has a say in its place; None for no say.
    half_turn: whether the network also sees each tile turned by 180 degrees: suppression and voting have the boxes of
    both, and scores are the means of both (test-time augmentation). Neither is used with the layout "rows".
    """

    name: str
    title: str
    categories: tuple[str, ...]
    input: InputConfig
    output: OutputConfig
    nms: NmsConfig | None = None
    gsd: float | None = None
    slice: int | None = None
    threshold: float = DEFAULT_THRESHOLD
    box_voting: float | None = None
    half_turn: bool = False
    weights: Path | None = None
    downloads: Mapping[str, Download] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    license: str = ""
    source: str = ""
    network: Mapping[str, Any] | None = None


def used_as(network: ModelConfig, other: ModelConfig) -> ModelConfig:
    """A network under the name of another configuration, and used as that one says: not what it is, but what is made
    of it. Raises ModelMismatch where it has another number of classes."""
    if len(network.categories) != len(other.categories):
        raise ModelMismatch(
            f"{network.name}: has {len(network.categories)} classes, the configuration {other.name} names "
            f"{len(other.categories)}"
        )
    inside = network.output.layout == "rows"
    return replace(
        network,
        name=other.name,
        title=other.title,
        categories=other.categories,
        nms=network.nms if inside or other.nms is None else other.nms,
        gsd=other.gsd,
        slice=other.slice,
        threshold=other.threshold,
        box_voting=other.box_voting,
        half_turn=other.half_turn,
    )


def at_size(config: ModelConfig, size: tuple[int, int] | None) -> ModelConfig:
    """The model with an input of another width and height, if they are multiples of DIVISOR; else as it is."""
    if size is None or any(edge % DIVISOR for edge in size):
        return config
    return replace(config, input=replace(config.input, size=size))


def load(path: Path, categories_folder: Path) -> ModelConfig:
    """The configuration in a YAML file; `categories` may name a list in `categories_folder`, NAME.txt, one class a
    line.

    Raises InvalidConfig, naming the file and the key, for anything incomplete, unknown or contradictory.
    """
    content = yaml_files.read(path, InvalidConfig)
    try:
        config = _build(ModelConfig, _prepared(content, path, categories_folder), "")
        check(config)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    return config


def stated(config: ModelConfig, weights: str) -> dict[str, Any]:
    """A configuration as `load` reads it, ready for YAML, in a folder where the weights are called `weights`. Where the
    model may be downloaded, and what else it is called, does not hold for a copy."""
    content: dict[str, Any] = {
        "name": config.name,
        "title": config.title,
        "source": config.source,
        "license": config.license,
        "categories": list(config.categories),
        "weights": weights,
        "gsd": config.gsd,
        "slice": config.slice,
        "threshold": config.threshold,
        "box_voting": config.box_voting,
        "half_turn": config.half_turn or None,
        "input": {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config.input).items()
        },
        "output": {"layout": config.output.layout},
        "nms": asdict(config.nms) if config.nms else None,
        "network": config.network,
    }
    if config.output.strides:
        content["output"] = {**asdict(config.output), "strides": list(config.output.strides)}
    return {key: value for key, value in content.items() if value not in (None, "")}


def _prepared(content: Any, path: Path, categories_folder: Path) -> dict[str, Any]:
    """The YAML's mapping with its parts built and its names resolved."""
    values = {key: value for key, value in _mapping(content, "the file").items() if value is not None}
    values.setdefault("name", path.stem)
    values.setdefault("title", values["name"])
    for key, kind in (("input", InputConfig), ("output", OutputConfig), ("nms", NmsConfig)):
        if key in values:
            values[key] = _build(kind, _mapping(values[key], key), f"{key}.")
    if "downloads" in values:
        listed = _mapping(values["downloads"], "downloads")
        values["downloads"] = {
            kind: _build(Download, _mapping(value, f"downloads.{kind}"), f"downloads.{kind}.")
            for kind, value in ((str(kind)[:80], value) for kind, value in listed.items())
        }
    names = values.get("categories")
    if isinstance(names, str):
        listing = categories_folder / f"{names}.txt"
        if not names.isidentifier() or len(names) > 80 or not listing.is_file():
            raise ValueError(f"categories: there is no list {names[:80]!r}")
        values["categories"] = listing.read_text(encoding="utf-8").splitlines()
    if "weights" in values:
        if not isinstance(values["weights"], str) or len(values["weights"]) > 1000:
            raise ValueError("weights: expected the path of a file")
        values["weights"] = path.parent / values["weights"]
    return values


_Kind = TypeVar("_Kind")


def _build(kind: type[_Kind], values: Mapping[str, Any], prefix: str) -> _Kind:
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"unknown key {prefix}{str(key)[:80]}")
    for name, each in known.items():
        if each.default is MISSING and each.default_factory is MISSING and name not in values:
            raise ValueError(f"{prefix}{name} is missing")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected keys and values")
    return value


def check(config: ModelConfig) -> None:
    """Raises ValueError for the first value that makes no sense."""
    source, output, nms = config.input, config.output, config.nms
    rules = {
        "name: expected a text": isinstance(config.name, str) and config.name,
        "title, license and source: expected texts": all(
            isinstance(text, str) for text in (config.title, config.license, config.source)
        ),
        "categories: expected a list of distinct names": _texts(config.categories),
        "input.size: expected width and height in pixels": _numbers(source.size, 2, whole=True)
        and min(source.size) > 0,
        "input.channels: expected rgb or bgr": source.channels in ("rgb", "bgr"),
        f"input.interpolation: expected one of {', '.join(INTERPOLATIONS)}": source.interpolation in INTERPOLATIONS,
        "input.divide: expected a number above 0": _numbers((source.divide,), 1) and source.divide > 0,
        "input.mean: expected three numbers": _numbers(source.mean, 3),
        "input.std: expected three numbers above 0": _numbers(source.std, 3) and min(source.std) > 0,
        "input.dynamic: expected true or false": isinstance(source.dynamic, bool),
        f"output.layout: expected one of {', '.join(LAYOUTS)}": output.layout in LAYOUTS,
        "output: picodet-heads needs strides and reg_max": output.layout != "picodet-heads"
        or (
            output.strides
            and _numbers(output.strides, len(output.strides), whole=True)
            and min(output.strides) > 0
            and output.reg_max > 0
        ),
        "nms: needed for this layout": nms is not None or output.layout == "rows",
        "nms: expected score_threshold and iou in 0..1, top_k and keep whole numbers above 0": nms is None
        or (
            _numbers((nms.score_threshold, nms.iou), 2)
            and _numbers((nms.top_k, nms.keep), 2, whole=True)
            and 0 <= nms.score_threshold < 1
            and 0 < nms.iou <= 1
            and min(nms.top_k, nms.keep) > 0
        ),
        "aliases: expected a list of distinct names": config.aliases == () or _texts(config.aliases),
        "network: expected keys and values": config.network is None or isinstance(config.network, Mapping),
        "slice: expected pixels": config.slice is None
        or (_numbers((config.slice,), 1, whole=True) and config.slice > 0),
        "threshold: expected a number between 0 and 1": _numbers((config.threshold,), 1) and 0 <= config.threshold <= 1,
        "box_voting: expected an IoU above 0, at most 1": config.box_voting is None
        or (_numbers((config.box_voting,), 1) and 0 < config.box_voting <= 1),
        "half_turn: expected true or false": isinstance(config.half_turn, bool),
        "gsd: expected metres per pixel": config.gsd is None or (_numbers((config.gsd,), 1) and config.gsd > 0),
    }
    for message, holds in rules.items():
        if not holds:
            raise ValueError(message)
    for kind, download in config.downloads.items():
        _check_download(kind, download)
    # The name of a model is the name of its folder in the cache.
    if config.downloads and not re.fullmatch(r"\w[\w.+ -]*", config.name):
        raise ValueError("name: expected letters, digits, '_', '-' and '.' for a model with downloads")


def _check_download(kind: str, download: Download) -> None:
    """Raises ValueError for the first value that makes no sense."""
    if kind not in DOWNLOADS:
        raise ValueError(f"downloads.{kind}: expected one of {', '.join(DOWNLOADS)}")
    if not isinstance(download.url, str) or urlsplit(download.url).scheme not in ("http", "https"):
        raise ValueError(f"downloads.{kind}.url: expected a URL that begins with https:// or http://")
    if not re.fullmatch(r"\w[\w.+-]*", download.filename) or not download.filename.endswith(DOWNLOADS[kind]):
        raise ValueError(
            f"downloads.{kind}.url: expected the name of a file that ends in {' or '.join(DOWNLOADS[kind])}"
        )
    if download.size is not None and not (_numbers((download.size,), 1, whole=True) and download.size > 0):
        raise ValueError(f"downloads.{kind}.size: expected bytes")
    if download.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", str(download.sha256)):
        raise ValueError(f"downloads.{kind}.sha256: expected 64 hexadecimal digits, lower case")


def _texts(values: Any) -> bool:
    texts = isinstance(values, tuple) and all(isinstance(value, str) and value for value in values)
    return texts and len(values) == len(set(values)) > 0


def _numbers(values: Any, count: int, whole: bool = False) -> bool:
    kinds = int if whole else int | float
    return (
        isinstance(values, tuple)
        and len(values) == count
        and all(isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= _LARGEST for value in values)
    )
