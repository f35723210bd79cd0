"""Results as files: which formats there are, whether they can be written for a scene, and writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from slicedet.errors import InvalidSetting, NotGeoreferenced, UntransformableCRS
from slicedet.outputs.files import check_apart, check_target, staged

if TYPE_CHECKING:
    from slicedet.detections import Detections
    from slicedet.outputs.layer import Layer
    from slicedet.raster.scene import Scene

__all__ = [
    "FORMATS",
    "Format",
    "check",
    "default_format",
    "default_name",
    "format_of",
    "save",
]


@dataclass(frozen=True)
class Format:
    """A kind of output file.

    name: the format's name. suffixes: of its files, the usual one first. writer: module and function that write it.
    coordinates: "lonlat" or "map" where the format has no sense without them, else "".
    styled: whether a QGIS style goes beside it. inset: what stands in the default name before the suffix.
    drawn: whether it is a picture, which is made of all detections at once.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: str
    coordinates: str = ""
    styled: bool = False
    inset: str = ""
    drawn: bool = False

    def write(self, layer: Layer, parts: Iterable[Detections], path: Path) -> None:
        """Writes detections, which come in parts, to `path`, with the style beside it; a failure may leave either
        broken."""
        from slicedet.outputs.pieces import regrouped

        module, _, function = self.writer.partition(":")
        write: Callable[[Layer, Iterable[Detections], Path], None] = getattr(
            import_module(f"slicedet.outputs.{module}"), function
        )
        found: set[int] = set()

        def pieces() -> Iterator[Detections]:
            for piece in regrouped(parts):
                found.update(piece.category_ids.tolist())
                yield piece

        write(layer, pieces(), path)
        if self.styled:
            from slicedet.outputs.style import qml

            path.with_suffix(".qml").write_text(qml(layer.categories, found), encoding="utf-8")


FORMATS = {
    format.name: format
    for format in (
        Format("geojson", (".geojson",), "geojson:write", coordinates="lonlat", styled=True),
        Format("gpkg", (".gpkg",), "vector:write_gpkg", coordinates="map", styled=True),
        Format("fgb", (".fgb",), "vector:write_fgb", coordinates="map", styled=True),
        Format("parquet", (".parquet",), "vector:write_parquet", coordinates="map", styled=True),
        Format("csv", (".csv",), "table:write_csv"),
        Format("coco", (".coco.json",), "coco:write"),
        Format("jpg", (".jpg", ".jpeg"), "overlay:write_jpg", inset=".overlay", drawn=True),
        Format("png", (".png",), "overlay:write_png", inset=".overlay", drawn=True),
        Format("tif", (".tif", ".tiff"), "overlay:write_tif", inset=".overlay", drawn=True),
    )
}
"""All formats by name."""


def format_of(path: str | Path) -> str:
    """Name of the format that the suffix of `path` stands for. Raises InvalidSetting where there is none."""
    name = Path(path).name.lower()
    for format in FORMATS.values():
        if any(name.endswith(suffix) and name != suffix for suffix in format.suffixes):
            return format.name
    if name.endswith(".json"):
        raise InvalidSetting(f"{path}: write .geojson or .coco.json, so that the kind of JSON is clear")
    known = ", ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    raise InvalidSetting(f"{path}: no format has this suffix; there are {known}")


def default_name(stem: str, format: str) -> str:
    """File name for an image's output, such as big.geojson or big.overlay.jpg.

    Overlays are named so that they are never taken for the image, nor overwrite it.
    Raises InvalidSetting for an unknown format.
    """
    if format not in FORMATS:
        raise InvalidSetting(f"format {format!r}: there is none of this name; there are {', '.join(FORMATS)}")
    return f"{stem}{FORMATS[format].inset}{FORMATS[format].suffixes[0]}"


def default_format(scene: Scene) -> str:
    """ "geojson", or "coco" where the scene has no longitude and latitude."""
    try:
        _check_lonlat(scene)
    except NotGeoreferenced:
        return "coco"
    return "geojson"


def check(scene: Scene, path: str | Path, overwrite: bool = False, roi: str | Path | None = None) -> None:
    """Whether the detections of `scene` can be written to `path`, to be asked before they are made.

    roi: the region of interest that was searched.
    Raises InvalidSetting for an unknown suffix; OutputError where the folder does not exist or is not writable, or the
    file exists and `overwrite` is not set, or is the image or the region of interest itself; NotGeoreferenced or
    UntransformableCRS where the format needs coordinates that the scene does not have.
    """
    format = FORMATS[format_of(path)]
    check_apart(Path(path), scene, roi)
    check_target(Path(path), overwrite)
    if format.coordinates == "lonlat":
        _check_lonlat(scene)
    elif format.coordinates and scene.georeference is None:
        raise NotGeoreferenced(
            f"{scene.source}: has no georeference, which {format.suffixes[0]} needs; write .coco.json or .csv instead"
        )


def save(
    layer: Layer,
    parts: Iterable[Detections],
    path: str | Path,
    overwrite: bool = False,
    roi: str | Path | None = None,
) -> list[Path]:
    """Writes detections, which come in parts, to `path` in the format of its suffix, whole or not at all; returns the
    files written.

    Beside vector files, a QGIS style `NAME.qml` is written unless there is one already and `overwrite` is not set.
    Raises the errors of `check`, and OutputError where writing fails.
    """
    target = Path(path)
    check(layer.scene, target, overwrite, roi)
    with staged(target, overwrite) as temporary:
        FORMATS[format_of(target)].write(layer, parts, temporary)
        return written_to(temporary, target, overwrite)


def written_to(temporary: Path, target: Path, overwrite: bool) -> list[Path]:
    """What is to go from the folder of a temporary file to that of its target: the file and its style, which is dropped
    where there is one that may not be overwritten."""
    own, style = temporary.with_suffix(".qml"), target.with_suffix(".qml")
    if own.exists() and style.exists() and not overwrite:
        own.unlink()
    return [target, style] if own.exists() else [target]


def _check_lonlat(scene: Scene) -> None:
    """Raises NotGeoreferenced or UntransformableCRS where the scene's centre has no longitude and latitude."""
    import numpy as np

    georeference = scene.georeference
    if georeference is None:
        raise NotGeoreferenced(
            f"{scene.source}: has no georeference, which .geojson needs; write .coco.json or .csv instead"
        )
    if georeference.crs is None:
        raise NotGeoreferenced(
            f"{scene.source}: has map coordinates but no coordinate reference system, which .geojson needs; "
            "write .gpkg or .coco.json instead"
        )
    try:
        middle = georeference.from_pixels(np.array([scene.width / 2, scene.height / 2]))
        if not np.isfinite(georeference.to_lonlat(middle)).all():
            raise UntransformableCRS("its centre has no longitude and latitude")
    except UntransformableCRS as error:
        raise UntransformableCRS(
            f"{scene.source}: {error}, which .geojson needs; write .gpkg, .fgb, .parquet or .coco.json instead"
        ) from error
