"""GeoJSON, or any vector file, over georeferenced rasters: coordinates become pixels by the raster's georeference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import shown
from slicedet.datasets.convert.samples import Labelled, Sample, images_below
from slicedet.errors import InvalidDataset, NotGeoreferenced
from slicedet.raster.georeference import transformer
from slicedet.raster.scene import Scene
from slicedet.raster.source import quiet

SUFFIXES = (".geojson", ".json", ".gpkg", ".fgb", ".shp")
_PROPERTIES = ("class", "category")
"""Properties that name the category where nobody says which: that of predictions, and that of painted scenes."""

_POINT_TYPES = (0, 4)
"""Point and MultiPoint, by their numbers in shapely."""

_MOST_DEGREES = (540.0, 90.0)
"""Longitudes from 0 to 360, or beyond the antimeridian, are common."""


class Reader:
    """Reads one vector file over rasters, or a folder of rasters with a vector file for each, named alike.

    rasters: the raster, or folder of rasters, that a single vector file belongs to; by default the folder it is in.
    Alike are paths below their folders without suffix; where a file has none, its stem, if no other such file has it.
    class_property: the property that names the category, by default class, where there is none category.
    class_name: the category of features that have none.
    A feature is the box around it in pixels, in each raster that has its middle. Points have no size and are left out.
    """

    def __init__(
        self,
        source: Path,
        rasters: str | Path | None = None,
        class_property: str | None = None,
        class_name: str | None = None,
    ) -> None:
        self._properties = _PROPERTIES if class_property is None else (class_property,)
        self._name = class_name
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []
        self._source = source
        self._rasters_of: dict[Path, list[tuple[Path, str]]] = {}
        pairs, unmatched = _pairs(source, None if rasters is None else Path(rasters))
        for image, vectors, name in pairs:
            self._rasters_of.setdefault(vectors, []).append((image, name))
        self.left_out["vector files without a raster named alike"] += unmatched

    def samples(self) -> Iterator[Sample]:
        placed = 0
        for vectors, rasters in self._rasters_of.items():
            layers = self._read(vectors)
            for image, name in rasters:
                with Scene(image) as scene:
                    objects = [thing for layer in layers for thing in _objects(layer, scene, vectors)]
                yield Sample("train", image, name, objects, vectors)
            outside = sum(int((~layer.placed).sum()) for layer in layers)
            placed += sum(len(layer.placed) for layer in layers) - outside
            self.left_out["features outside every raster"] += outside
        if not placed:
            reasons = ", ".join(f"{count} {what}" for what, count in (+self.left_out).items()) or "it has none"
            raise InvalidDataset(f"{self._source}: no feature could be placed in a raster ({reasons})")

    def _read(self, path: Path) -> list[_Layer]:
        """The layers of a vector file with the shapes that have a size, and the category of each."""
        import pyogrio
        import shapely
        from pyogrio.errors import DataLayerError, DataSourceError

        layers = []
        try:
            # Tables without geometry, such as the layer_styles of QGIS, are no layers of features.
            for layer in [name for name, geometry in pyogrio.list_layers(path) if geometry is not None]:
                with quiet(RuntimeWarning):  # GDAL says that a ring was not closed.
                    meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer, force_2d=True)
                # Rings that are not closed are common, and closed here.
                shapes = shapely.from_wkb(geometry, on_invalid="fix")
                unread = shapely.is_missing(shapes) & np.array([each is not None for each in geometry], bool)
                self.left_out["features whose shape cannot be read"] += int(unread.sum())
                categories = self._categories(path, list(meta["fields"]), columns, len(shapes))
                sized = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
                sized &= ~np.isin(shapely.get_type_id(shapes), _POINT_TYPES)
                self.left_out["features without a size"] += int((~sized & ~unread).sum())
                _check_degrees(path, shapes[sized], meta["crs"])
                categories = [category for category, kept in zip(categories, sized, strict=True) if kept]
                layers.append(_Layer(shapes[sized], meta["crs"], categories, np.zeros(len(categories), bool)))
        except (DataSourceError, DataLayerError) as error:
            raise InvalidDataset(f"{path}: is no vector file that GDAL can read") from error
        if not layers:
            raise InvalidDataset(f"{path}: holds no features")
        return layers

    def _categories(self, path: Path, fields: list[str], columns: list[Any], count: int) -> list[str]:
        if not count:
            # A GeoJSON without features has no properties either.
            return []
        found = next((name for name in self._properties if name in fields), None)
        wanted = " or ".join(map(repr, self._properties)) if found is None else repr(found)
        if found is not None:
            values = [_named(path, found, row, value) for row, value in enumerate(columns[fields.index(found)], 1)]
        elif self._name is None:
            raise InvalidDataset(
                f"{path}: features have no property {wanted} but {', '.join(fields) or 'none'}; name one by "
                "--class-property, or one category for all by --class-name"
            )
        else:
            values = [None] * count
        missing = sum(value is None for value in values)
        if missing and self._name is None:
            raise InvalidDataset(f"{path}: {missing} features have no {wanted}; --class-name gives them one")
        return [value if value is not None else str(self._name) for value in values]


@dataclass(frozen=True, eq=False)
class _Layer:
    """Shapes with their CRS, the category of each, and whether a raster has it."""

    shapes: NDArray[Any]
    crs: str | None
    categories: list[str]
    placed: NDArray[np.bool_]


def _named(path: Path, name: str, row: int, value: Any) -> str | None:
    """The category that a property says, None where it is empty. Raises InvalidDataset where it is no single value."""
    if isinstance(value, list | dict | bytes | np.ndarray):
        raise InvalidDataset(f"{path}: feature number {row}: its {name!r} is {shown(value, 40)}, not one class")
    text = "" if value is None or value != value else str(value)
    return text if text.strip() else None


def _check_degrees(path: Path, shapes: NDArray[Any], crs: str | None) -> None:
    """Raises InvalidDataset where coordinates are no longitude and latitude, though their CRS says so: GDAL takes every
    GeoJSON without a `crs` for WGS 84, as its standard has it."""
    import shapely
    from pyproj import CRS

    points = shapely.get_coordinates(shapes)
    if not len(points) or crs is None or not CRS.from_user_input(crs).is_geographic:
        return
    wrong = points[~(np.abs(points) <= _MOST_DEGREES).all(axis=1)]
    if len(wrong):
        raise InvalidDataset(
            f"{path}: coordinates such as {wrong[0, 0]:.10g}, {wrong[0, 1]:.10g} are no longitude and latitude, which "
            "its CRS has (that of GeoJSON without a member crs is WGS 84); export it with the right CRS, or in WGS 84"
        )


def _objects(layer: _Layer, scene: Scene, path: Path) -> Iterator[Labelled]:
    """The features whose middle is in the scene, in its pixels."""
    import shapely

    place = scene.georeference
    crs = None if place is None else place.crs
    if place is None or crs is None:
        raise InvalidDataset(f"{scene.source}: has no georeference, so {path} has no place in it")
    if layer.crs is None:
        raise InvalidDataset(f"{path}: does not say its coordinate reference system")
    try:
        to_scene = transformer(layer.crs, crs)
    except NotGeoreferenced as error:
        raise InvalidDataset(f"{path}: {error}") from error
    centre = place.from_pixels(np.array([scene.width / 2, scene.height / 2]))
    to_pixels = ~place.transform

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = to_scene.transform(points[:, 0], points[:, 1])
        if crs.is_geographic:
            # Shapes beyond the antimeridian, or cut there, come to the side of the raster.
            x = x - 360 * np.round((x - centre[0]) / 360)
        return np.stack(to_pixels @ (x, y), axis=-1)

    for row, (shape, category) in enumerate(zip(layer.shapes, layer.categories, strict=True)):
        # Shapes so far away that the raster's CRS has no place for them come out infinite.
        with np.errstate(invalid="ignore", over="ignore"):
            x1, y1, x2, y2 = shapely.bounds(shapely.transform(shape, pixels)).tolist()
        if 0 <= (x1 + x2) / 2 < scene.width and 0 <= (y1 + y2) / 2 < scene.height:
            layer.placed[row] = True
            yield Labelled(category, (x1, y1, x2, y2))


def _pairs(source: Path, rasters: Path | None) -> tuple[list[tuple[Path, Path, str]], int]:
    """Raster, vector file and name of each raster, and how many vector files of a folder have none."""
    unmatched = 0
    if source.is_dir():
        place = rasters or source
        found, unmatched = _alike(source, place)
    elif not source.is_file():
        raise InvalidDataset(f"{source}: no such folder or vector file")
    else:
        place = rasters or source.parent
        if rasters is not None and not rasters.exists():
            raise InvalidDataset(f"{rasters}: no such raster or folder of rasters")
        found = [(image, source) for image in (images_below(place) if place.is_dir() else [place])]
    named = place.is_dir()
    return [
        (image, vector, image.relative_to(place).as_posix() if named else image.name) for image, vector in found
    ], unmatched


def _alike(source: Path, place: Path) -> tuple[list[tuple[Path, Path]], int]:
    """The rasters below a folder with the vector file named alike, and how many vector files have none.

    Raises InvalidDataset where two vector files would be those of one raster, or none is.
    """
    of_path: dict[Path, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            of_path.setdefault(path.relative_to(source).with_suffix(""), []).append(path)
    images = [(image.relative_to(place).with_suffix(""), image) for image in images_below(place)]
    taken = {own for own, _ in images if own in of_path}
    # Folders such as maps/ and labels/ keep apart what belongs together.
    of_stem: dict[str, list[Path]] = {}
    for own in of_path.keys() - taken:
        of_stem.setdefault(own.name, []).append(own)
    found = []
    for own, image in images:
        alone = of_stem.get(own.name, [])
        if own not in taken and len(alone) != 1:
            continue
        vectors = of_path[own if own in taken else alone[0]]
        if len(vectors) > 1:
            raise InvalidDataset(f"{vectors[0]} and {vectors[1].name}: are both named like {image}; take one away")
        found.append((image, vectors[0]))
    if not found:
        raise InvalidDataset(f"{source}: holds no raster with a vector file named alike")
    used = {vector for _, vector in found}
    return found, sum(vector not in used for vectors in of_path.values() for vector in vectors)
