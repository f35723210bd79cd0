"""Networks as files that others run: folders of Paddle's, ONNX and OpenVINO's IR, each run before it counts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidConfig, InvalidSetting, MissingDependency, MissingWeights, ModelMismatch, OutputError
from slicedet.models import cache, catalogue, conversion, network_folder, paddle_folder, paddle_yaml
from slicedet.models.catalogue import IN_FOLDER
from slicedet.models.config import DIVISOR, InputConfig, ModelConfig, OutputConfig, stated, used_as
from slicedet.tiling import parse_slice

if TYPE_CHECKING:
    from slicedet.networks import Network

Outputs = list[NDArray[Any]]

FORMATS = ("paddle", "onnx", "openvino")
DYNAMIC = "dynamic"
_PIXELS = 1 << 21
"""Most pixels in the batch an export is tried with, a single image aside."""

_FILES = {
    "paddle": tuple(
        name for stem, yaml_name in paddle_folder.LAYOUTS for name in (f"{stem}.json", f"{stem}.pdiparams", yaml_name)
    ),
    "onnx": ("model.onnx", IN_FOLDER),
    "openvino": ("model.xml", "model.bin", IN_FOLDER),
}


@dataclass(frozen=True)
class ExportSettings:
    """What is written. Raises InvalidSetting.

    format: "paddle", a folder that PaddleX and PaddleDetection read; "onnx" or "openvino", with a configuration beside
    it that slicedet reads. input_size: edge, or width and height, in pixels, multiples of 32; "dynamic" for a graph
    that takes any such size; None for the model's own. nms: whether suppression is inside the graph, which only
    "paddle" can have; None for whether the format can.
    """

    format: str = "paddle"
    input_size: int | str | tuple[int, int] | None = None
    nms: bool | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidSetting(f"format {self.format!r}: expected one of {', '.join(FORMATS)}")
        if self.nms and self.format != "paddle":
            raise InvalidSetting(f"format {self.format}: has no suppression like Paddle's; export it with --no-nms")
        self.size((DIVISOR, DIVISOR))

    @property
    def dynamic(self) -> bool:
        """Whether the graph takes any size."""
        return self.input_size == DYNAMIC

    @property
    def suppressing(self) -> bool:
        """Whether suppression is inside the graph."""
        return self.format == "paddle" if self.nms is None else self.nms

    def size(self, own: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the input, for a model whose own are `own`."""
        if self.input_size is None or self.dynamic:
            return own
        try:
            size = parse_slice(self.input_size)
        except InvalidSetting:
            size = (1, 1)
        if any(edge % DIVISOR for edge in size):
            raise InvalidSetting(
                f"input size {self.input_size}: expected dynamic, or multiples of {DIVISOR} such as 640 or 960x640"
            )
        return size


@dataclass(frozen=True)
class Export:
    """What was written where, and how it compares with the network in memory on a probe.

    config: as slicedet loads it. files: sorted by name. pixels, score: largest differences of box sides and of scores.
    """

    folder: Path
    config: ModelConfig
    files: tuple[Path, ...]
    pixels: float
    score: float


def export(
    model: str,
    folder: str | Path,
    settings: ExportSettings | None = None,
    *,
    weights: str | Path | None = None,
    overwrite: bool = False,
) -> Export:
    """Writes a model as a folder, which appears whole and once it has been run, or not at all.

    model: a catalogue name, a YAML file with a `network` section or a folder with such a model.yaml, or, for "onnx" and
    "openvino", a folder of Paddle's, or what names one, as "aerial-vehicles" does. weights: .pdparams or a folder of
    Paddle's, by default the configuration's or the official .pdparams, once pulled.
    Raises UnknownModel, InvalidConfig, MissingWeights, ModelMismatch (the parameters are not the network's, or what was
    written computes something else), InvalidSetting, MissingDependency or OutputError.
    """
    settings = settings or ExportSettings()
    target = Path(folder)
    _check_target(target, overwrite)
    if Path(model).is_dir() and not catalogue.knows(model):
        if weights is not None:
            raise InvalidSetting(f"{model}: a folder brings its own weights, {weights} cannot be used with it")
        if not (Path(model) / IN_FOLDER).is_file():
            return _export_folder(Path(model), None, target, settings, overwrite)
    config = catalogue.find(model)
    path = Path(weights) if weights is not None else config.weights or _pulled(config)
    if path is None:
        raise MissingWeights(
            f"{config.name}: its parameters do not come with slicedet; name the .pdparams file with --weights"
            + (f"; slicedet models pull --kind pdparams {model} gets the official ones" if config.downloads else "")
        )
    path = paddle_folder.around(path)
    if path.is_dir():
        return _export_folder(path, config if weights is None else None, target, settings, overwrite)
    if not path.is_file():
        raise MissingWeights(f"{path}: no such weights file")
    if path.suffix != ".pdparams":
        raise InvalidSetting(
            f"{path}: a network is built from .pdparams; this file is what an export gives (a Paddle folder gives the "
            "other formats, too: slicedet export FOLDER --format onnx)"
        )
    _require_converter(settings)
    network = network_folder.built(network_folder.exported(config), path)
    return export_network(network, config, target, settings, overwrite=overwrite)


def export_network(
    network: Network,
    config: ModelConfig,
    folder: str | Path,
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Export:
    """The same for a network in memory, which stays as it is.

    config: its name, categories, input and nms; the layout of its output is the network's, whatever the configuration
    says.
    """
    settings = settings or ExportSettings()
    target = Path(folder)
    _check_target(target, overwrite)
    _require_converter(settings)
    if config.nms is None:
        raise InvalidConfig(f"{config.name}: its configuration states no nms, which its network needs")
    size = settings.size(config.input.size)
    config = replace(
        config,
        input=replace(config.input, size=size, dynamic=settings.dynamic),
        output=OutputConfig("boxes-and-scores"),
    )
    write = _write_paddle if settings.format == "paddle" else _write_converted
    with _staged(target, overwrite) as staging:
        written, pixels, score = write(network, config, staging, settings)
    return _export(target, written, pixels, score)


def _export_folder(
    source: Path, asked: ModelConfig | None, target: Path, settings: ExportSettings, overwrite: bool
) -> Export:
    """The same for a folder of Paddle's; `asked`, where its configuration names it, says how it is used."""
    from slicedet.detectors.openvino import OpenVinoEngine
    from slicedet.detectors.paddle import PaddleEngine

    if settings.format == "paddle":
        raise InvalidSetting(f"{source}: is a Paddle model already; a folder is exported as onnx or openvino")
    _require_converter(settings)
    model = paddle_folder.read(source)
    own = model.config.input
    if not own.dynamic and (settings.size(own.size) != own.size or settings.dynamic):
        raise InvalidSetting(
            f"{source}: its graph takes images of {own.size[0]} x {own.size[1]} only; other sizes are exported from "
            ".pdparams"
        )
    if model.cut is None or model.cut.output.layout == "rows":
        raise ModelMismatch(f"{model.program_path}: only programs in the .json format are converted")
    config = model.cut if asked is None else used_as(model.cut, asked)
    narrowed = own.dynamic and settings.input_size is not None and not settings.dynamic
    config = replace(config, input=replace(own, size=settings.size(own.size), dynamic=own.dynamic and not narrowed))

    def check(made: Path) -> OpenVinoEngine:
        if narrowed:
            _narrow(made, config.input.size)
        return OpenVinoEngine(made, config, "cpu", "f32")

    with _staged(target, overwrite) as staging:
        made = staging / "model.onnx"
        pixels, score = conversion.convert(model, config, made, lambda part: PaddleEngine(part, "cpu", "f32"), check)
        written = _finish_converted(made, config, staging, settings)
    return _export(target, written, pixels, score)


def _narrow(path: Path, size: tuple[int, int]) -> None:
    """Makes an ONNX file for images of any size one for images of this width and height."""
    import onnx

    graph = onnx.load(path)
    # Others of its inputs are factors.
    shape = max((port.type.tensor_type.shape.dim for port in graph.graph.input), key=len)
    shape[2].dim_value, shape[3].dim_value = size[1], size[0]
    onnx.save(graph, path)


def _export(target: Path, config: ModelConfig, pixels: float, score: float) -> Export:
    if config.weights is not None:
        config = replace(config, weights=target / config.weights.name)  # No longer where it was written.
    return Export(target, config, tuple(sorted(target.iterdir())), pixels, score)


def _write_paddle(
    network: Network, config: ModelConfig, folder: Path, settings: ExportSettings
) -> tuple[ModelConfig, float, float]:
    from slicedet.detectors.paddle import run_program
    from slicedet.models import deployment

    fused = paddle_yaml.fuses(network, config.input)
    layer: Any = deployment.reparameterised(network)
    if fused:
        layer = deployment.Normalised(layer, config.input)
    if settings.suppressing:
        assert config.nms is not None  # Said by export_network.
        layer = deployment.Suppressing(layer, config.nms)
    network_folder.save_layer(layer, config.input, folder / "inference", scale_factor=settings.suppressing)
    content = paddle_yaml.written(network, config, fused)
    for stem, yaml_name in paddle_folder.LAYOUTS:
        (folder / yaml_name).write_text(content, encoding="utf-8")
        for suffix in (".json", ".pdiparams"):
            _link(folder / f"inference{suffix}", folder / f"{stem}{suffix}")
    model = paddle_folder.read(folder)
    assert model.program is not None  # It has just been written as .json.
    inside = model.program.nms if settings.suppressing else model.config.nms
    if inside is None or config.nms is None or not np.allclose(astuple(inside), astuple(config.nms), atol=1e-6):
        raise ModelMismatch(f"{config.name}: its suppression came out as {inside}, not as {config.nms}")
    differences = []
    for images, expected in _probes(network, config):
        scales = np.tile(np.array([[0.5, 0.8]], np.float32), (len(images), 1)) if settings.suppressing else None
        values = {"image": _batch(images, model.config.input)}
        if scales is not None:
            values["scale_factor"] = scales
            expected = [expected[0] / np.tile(scales[:, None, ::-1], (1, 1, 2)), expected[1]]
            with tempfile.TemporaryDirectory() as name:
                cut = conversion.cut(model, model.program, config, Path(name))
                candidates = run_program(cut.program_path, cut.params_path, values)
            rows, counts = run_program(model.program_path, model.params_path, values)
            _check_rows(config, rows, counts, expected)
        else:
            candidates = run_program(model.program_path, model.params_path, values)
        differences.append(conversion.compare(config, expected, candidates, config.name))
    pixels, score = map(max, zip(*differences, strict=True))
    return model.config, pixels, score


def _write_converted(
    network: Network, config: ModelConfig, folder: Path, settings: ExportSettings
) -> tuple[ModelConfig, float, float]:
    made = folder / "model.onnx"
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        model = network_folder.save(network, config, Path(name))
        assert model.program is not None  # It has just been written as .json.
        conversion.to_onnx(model.program, model.params_path, made)
    written = _finish_converted(made, config, folder, settings)
    assert written.weights is not None  # Stated in the file just written.
    differences = []
    for images, expected in _probes(network, config):
        given = _run_openvino(written.weights, _batch(images, config.input))
        differences.append(conversion.compare(config, expected, given, config.name))
    pixels, score = map(max, zip(*differences, strict=True))
    return written, pixels, score


def _finish_converted(made: Path, config: ModelConfig, folder: Path, settings: ExportSettings) -> ModelConfig:
    """The IR in place of the ONNX file where that is wanted, and the configuration, as slicedet reads it."""
    if settings.format == "openvino":
        import openvino

        openvino.save_model(openvino.Core().read_model(made), folder / "model.xml", compress_to_fp16=False)
        made.unlink()
    import yaml

    name = _FILES[settings.format][0]
    (folder / IN_FOLDER).write_text(
        yaml.safe_dump(stated(config, name), sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    return catalogue.find(str(folder / IN_FOLDER))


def _probes(network: Network, config: ModelConfig) -> Iterator[tuple[list[NDArray[np.uint8]], Outputs]]:
    """Images [H, W, 3] and what the network in memory gives for them: in a batch, and of two sizes if dynamic."""
    import paddle

    width, height = config.input.size
    sizes = [(width, height)]
    if config.input.dynamic:
        sizes.append((max(1, width // 64) * DIVISOR, (max(1, height // 64) + 1) * DIVISOR))
    for size in sizes:
        count = 2 if 2 * size[0] * size[1] <= _PIXELS else 1
        images = [conversion.probe(size, seed) for seed in range(count)]
        was_training = network.training
        network.eval()
        with paddle.no_grad():
            given = network(paddle.to_tensor(_batch(images, config.input)))
        if was_training:
            network.train()
        yield images, [value.numpy() for value in given]


def _check_rows(config: ModelConfig, rows: NDArray[Any], counts: NDArray[Any], expected: Outputs) -> None:
    """Raises ModelMismatch for a row of suppressed boxes that is none of the network's, or if there are none where the
    network has some."""
    if counts.sum() != len(rows):
        raise ModelMismatch(f"{config.name}: its export counts {counts.sum()} boxes and gives {len(rows)}")
    assert config.nms is not None
    starts = np.concatenate([[0], np.cumsum(counts)])
    for image, (boxes, scores) in enumerate(zip(*expected, strict=True)):
        found = rows[starts[image] : starts[image + 1]]
        if len(found) == 0 and scores.max() > config.nms.score_threshold + conversion.SCORE:
            raise ModelMismatch(f"{config.name}: its export finds nothing on a probe image, the network does")
        for category, score, *box in found:
            apart = np.maximum(
                np.abs(boxes - box).max(axis=1) / conversion.PIXELS,
                np.abs(scores[int(category)] - score) / conversion.SCORE,
            )
            if not apart.min() <= 1:
                raise ModelMismatch(f"{config.name}: its export finds a box on a probe image that the network does not")


def _run_openvino(path: Path, images: NDArray[np.float32]) -> Outputs:
    """The outputs of a graph for a batch of normalised images."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    given = compiled([images])
    return [given[index].copy() for index in range(len(model.outputs))]


def _batch(images: list[NDArray[np.uint8]], source: InputConfig) -> NDArray[np.float32]:
    from slicedet.detectors.network import normalised

    return np.stack([normalised(image, source) for image in images])


def _link(existing: Path, path: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    if existing == path:
        return
    try:
        os.link(existing, path)
    except OSError:
        shutil.copyfile(existing, path)


def _pulled(config: ModelConfig) -> Path | None:
    return cache.find(config, "pdparams") if "pdparams" in config.downloads else None


def _require_converter(settings: ExportSettings) -> None:
    if settings.format != "paddle" and not conversion.available():
        raise MissingDependency(f"format {settings.format}: needs paddle2onnx, which Python has up to 3.12")


def _check_target(target: Path, overwrite: bool) -> None:
    """Raises OutputError where a folder cannot be made, or would take the place of something that is no export."""
    if not target.resolve().parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it first")
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise OutputError(f"{target}: is a file; choose another name")
    names = {path.name for path in target.iterdir()}
    if names and not overwrite:
        raise OutputError(f"{target}: exists already; choose another name, or allow overwriting (--overwrite)")
    if strange := sorted(names.difference(*_FILES.values())):
        raise OutputError(
            f"{target}: holds {strange[0]}, which no export writes, and is not replaced; choose another name"
        )


@contextmanager
def _staged(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends, and of which nothing is left if it fails."""
    try:
        parent = Path(tempfile.mkdtemp(prefix=".slicedet-", dir=target.resolve().parent))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    try:
        staging = parent / "new"
        staging.mkdir()
        yield staging
        _check_target(target, overwrite)  # Another process may have made it in the meantime.
        if target.is_dir():
            os.replace(target, parent / "old")
        os.replace(staging, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(parent, ignore_errors=True)
