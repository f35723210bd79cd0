"""Options that commands share, each group of them gathered into one object."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from slicedet.models import DEFAULT_MODEL

from .console import AS_JSON, VERBOSE, Console

if TYPE_CHECKING:
    from slicedet.detectors import Detector
    from slicedet.pipeline import Resources, Settings
    from slicedet.raster.scene import Scene

Command = Callable[..., Any]

# As `slicedet.detectors.choice` has them, which would be slow to import for --help.
ENGINES = ("auto", "openvino", "onnxruntime", "paddle")
PRECISIONS = ("auto", "f32", "bf16", "f16")


def grouped(
    name: str, build: Callable[..., Any], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Adds `options` to a command, which receives build(**their values) as its argument `name`.

    What `build` finds wrong with the values is wrong usage: exit code 2.
    """

    def decorate(command: Command) -> Command:
        probe: Command = lambda: None  # noqa: E731
        for option in options:
            option(probe)
        names = [parameter.name for parameter in probe.__click_params__]  # type: ignore[attr-defined]

        def gathering(**values: Any) -> Any:
            from slicedet.errors import InvalidSetting

            try:
                values[name] = build(**{key: values.pop(key) for key in names})
            except InvalidSetting as error:
                raise click.UsageError(str(error)) from error
            return command(**values)

        wrapped: Command = functools.update_wrapper(gathering, command)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def refuse_all_but(names: Collection[str], why: str) -> None:
    """Raises UsageError for the first option given that is not among these parameters: it would be without effect."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in names:
            raise click.UsageError(f"{parameter.opts[-1]} {why}")


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector to load, and the scores and classes to keep; `thresholds` are those given."""

    model: str
    weights: str | None
    engine: str
    device: str
    precision: str
    streams: int | None
    thresholds: dict[str, float]

    @property
    def threshold(self) -> dict[str, float]:
        """The lowest score of each class, "*" for the others: what was given, else the model's own."""
        from slicedet.detectors.loading import default_threshold

        if "*" in self.thresholds:
            return self.thresholds
        return {"*": default_threshold(self.model, self.weights), **self.thresholds}

    def load(self, slice: str | None = None) -> Detector:
        """The detector, returning every score that any class needs; for tiles of this size, where it can be."""
        from slicedet.detectors import load_detector
        from slicedet.detectors.loading import input_size_for

        lowest = min(self.threshold.values())
        size = input_size_for(self.model, self.weights, slice)
        return load_detector(
            self.model, self.weights, self.engine, self.device, self.precision, lowest, size, self.streams
        )

    def applied_to(self, settings: Settings) -> Settings:
        """The settings with these thresholds."""
        return replace(settings, threshold=self.threshold)


@dataclass(frozen=True)
class SceneChoice:
    """How images are to be shown to the detector."""

    bands: tuple[int, ...] | None
    stretch: str | None

    def open(self, source: str | Path) -> Scene:
        """The image as a scene."""
        from slicedet.raster.scene import Scene

        return Scene(source, bands=self.bands, stretch=self.stretch)


def _console(quiet: bool, verbose: bool, as_json: bool) -> Console:
    click.get_current_context().find_root().meta.update({VERBOSE: verbose, AS_JSON: as_json})
    return Console(quiet, verbose, as_json)


def _scene_choice(bands: str | None, stretch: str | None) -> SceneChoice:
    from slicedet.errors import InvalidSetting

    if bands is not None and not all(part.strip().isdigit() for part in bands.split(",")):
        raise InvalidSetting(f"bands {bands!r}: expected numbers from 1, such as 4,3,2")
    if stretch is not None:
        from slicedet.raster.stretch import parse

        stretch = parse(stretch)
    return SceneChoice(None if bands is None else tuple(int(part) for part in bands.split(",")), stretch)


def _detector_choice(threshold: Sequence[str], **values: Any) -> DetectorChoice:
    return DetectorChoice(**values, thresholds=_thresholds(threshold))


def _thresholds(values: Sequence[str]) -> dict[str, float]:
    """{"*": for all, category: for it alone} from "0.25" and "car=0.4", as far as they are given."""
    from slicedet.errors import InvalidSetting

    numbers = {}
    for value in values:
        name, by_class, number = value.rpartition("=")
        if by_class and not name.strip():
            raise InvalidSetting(f"threshold {value!r}: names no class; write CLASS=0.4, or 0.4 for all classes")
        try:
            numbers[name.strip() or "*"] = float(number)
        except ValueError:
            raise InvalidSetting(f"threshold {value!r}: expected a number such as 0.25, or CLASS=0.4") from None
        if not 0 <= numbers[name.strip() or "*"] <= 1:
            raise InvalidSetting(f"threshold {value}: expected a number between 0 and 1")
    return numbers


def _settings(
    match_metric: str,
    match_threshold: float,
    class_agnostic: bool,
    growth: str,
    merge: str,
    classes: str | None,
    gsd: str,
    **rest: Any,
) -> Settings:
    from slicedet.errors import InvalidSetting
    from slicedet.merging import MergeRule
    from slicedet.pipeline import Settings

    if gsd not in ("auto", "native"):
        try:
            rest["gsd"] = float(gsd)
        except ValueError:
            raise InvalidSetting(f"gsd {gsd!r}: expected auto, native or metres per pixel") from None
    return Settings(
        merge=MergeRule(merge, match_metric, match_threshold, class_agnostic, growth),
        classes=None if classes is None else tuple(name.strip() for name in classes.split(",")),
        **{"gsd": gsd, **rest},
    )


def _resources(**values: int | None) -> Resources:
    from slicedet.pipeline import Resources

    return Resources(**{name: value for name, value in values.items() if value is not None})


console_options = grouped(
    "console",
    _console,
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Show tracebacks of errors."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."),
)

scene_options = grouped(
    "scenes",
    _scene_choice,
    click.option(
        "--bands", metavar="R,G,B", help="Bands to show, such as 4,3,2, or one for grey.  [default: RGB, else 1,2,3]"
    ),
    click.option(
        "--stretch",
        metavar="RULE",
        help="percentile:2,98, minmax, LO,HI or none.  [default: none for 8 bit, else percentile:2,98]",
    ),
)

detector_options = grouped(
    "choice",
    _detector_choice,
    click.option(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="MODEL",
        help="Name (see slicedet models), YAML file, folder of a Paddle model or of an export, or PLUGIN:ARGUMENT.",
    ),
    click.option(
        "--weights",
        metavar="PATH",
        help="Weights (.onnx, .xml, .pdparams, a folder of Paddle's), where the model does not bring its own.",
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        metavar="NAME",
        help="openvino, onnxruntime, paddle or auto.",
    ),
    click.option("--device", default="cpu", show_default=True, help="Device as the engine names it."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="f32",
        show_default=True,
        metavar="NAME",
        help="f32, bf16, f16, or auto: what slicedet bench chose (with --engine auto the engine, too).",
    ),
    click.option(
        "--streams",
        type=click.IntRange(1),
        metavar="N",
        help="Requests that OpenVINO or ONNX Runtime run at once.  [default: the engine's choice]",
    ),
    click.option(
        "--threshold",
        multiple=True,
        metavar="[CLASS=]SCORE",
        help="Lowest score kept, of all classes or of one; may be repeated.  [default: the model's, mostly 0.25]",
    ),
)

search_options = grouped(
    "settings",
    _settings,
    click.option(
        "--slice",
        metavar="PX",
        help="Tile size, 640 or 640x512 (width x height).  [default: the model's own, mostly its input size]",
    ),
    click.option("--overlap", default="0.25", show_default=True, help="Overlap of tiles, a ratio or 160px."),
    click.option("--full-image", is_flag=True, help="Also look at the whole image at once, reduced to a tile's size."),
    click.option(
        "--gsd",
        default="auto",
        show_default=True,
        metavar="METRES",
        help="Pixel size to search at: auto, native or metres.",
    ),
    click.option("--roi", metavar="FILE", help="Vector file: only what lies in its polygons is searched."),
    click.option("--classes", metavar="A,B", help="Classes to keep.  [default: all]"),
    click.option(
        "--merge",
        default="agreement",
        show_default=True,
        help="How boxes of overlapping tiles become one: agreement, nms, nmm, greedy-nmm.",
    ),
    click.option(
        "--match-metric",
        default="ios",
        show_default=True,
        help="iou, or ios (over the smaller box); agreement always takes iou.",
    ),
    click.option(
        "--match-threshold", default=0.5, show_default=True, help="Overlap from which two boxes are the same object."
    ),
    click.option(
        "--growth",
        default="cut",
        show_default=True,
        help="When boxes of nmm and greedy-nmm grow: cut, where tiles cut them, or always, as in SAHI.",
    ),
    click.option("--class-agnostic", is_flag=True, help="Merge boxes of different classes too."),
    click.option("--skip-unreadable", is_flag=True, help="Leave out tiles that cannot be decoded, rather than fail."),
    click.option("--skip-flat", is_flag=True, help="Leave out tiles of one flat colour, such as open water or snow."),
)

resource_options = grouped(
    "resources",
    _resources,
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Images read at the same time.  [default: cores, up to 4]",
    ),
    click.option(
        "--batch",
        type=click.IntRange(1),
        metavar="N",
        help="Tiles handed together to detectors without a stream of their own.  [default: 8]",
    ),
)
