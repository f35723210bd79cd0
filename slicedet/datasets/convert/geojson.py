"""GeoJSON, or any vector file, over georeferenced rasters: coordinates become pixels by the raster's georeference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.convert.samples import Labelled, Sample, images_below
from slicedet.errors import InvalidDataset, NotGeoreferenced
from slicedet.raster.georeference import transformer
from slicedet.raster.scene import Scene

SUFFIXES = (".geojson", ".json", ".gpkg", ".fgb", ".shp")
_POINT_TYPES = ("Point", "MultiPoint")


class Reader:
    """Reads one vector file over rasters, or a folder of rasters with a vector file for each, named alike.

    rasters: the raster, or folder of rasters, that a single vector file belongs to; by default the folder it is in.
    class_property: the property that names the category. class_name: the category of features that have none.
    A feature is the box around it in pixels, in each raster that has its middle. Points have no size and are left out.
    """

    def __init__(
        self,
        source: Path,
        rasters: str | Path | None = None,
        class_property: str = "class",
        class_name: str | None = None,
    ) -> None:
        self._property, self._name = class_property, class_name
        self.categories: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []
        self._pairs = list(_pairs(source, None if rasters is None else Path(rasters)))

    def samples(self) -> Iterator[Sample]:
        layers: tuple[Path, list[_Layer]] | None = None
        for image, vectors, name in self._pairs:
            if layers is None or layers[0] != vectors:
                layers = (vectors, self._read(vectors))
            with Scene(image) as scene:
                objects = [thing for layer in layers[1] for thing in self._objects(layer, scene, vectors)]
            yield Sample("train", image, name, objects, vectors)

    def _read(self, path: Path) -> list[_Layer]:
        """The layers of a vector file, with the category of each feature."""
        import pyogrio
        import shapely
        from pyogrio.errors import DataLayerError, DataSourceError

        layers = []
        try:
            for layer in pyogrio.list_layers(path)[:, 0]:
                meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer, force_2d=True)
                shapes = shapely.from_wkb(geometry if geometry is not None else [])
                fields = list(meta["fields"])
                layers.append(_Layer(shapes, meta["crs"], self._categories(path, fields, columns, len(shapes))))
        except (DataSourceError, DataLayerError) as error:
            raise InvalidDataset(f"{path}: is no vector file that GDAL can read") from error
        if not layers:
            raise InvalidDataset(f"{path}: holds no features")
        return layers

    def _categories(self, path: Path, fields: list[str], columns: list[Any], count: int) -> list[str]:
        if self._property in fields:
            values = [
                None if value is None or value != value else str(value)
                for value in columns[fields.index(self._property)]
            ]
        elif self._name is None:
            raise InvalidDataset(
                f"{path}: features have no property {self._property!r} but {', '.join(fields) or 'none'}; name one by "
                "--class-property, or one category for all by --class-name"
            )
        else:
            values = [None] * count
        missing = sum(value is None for value in values)
        if missing and self._name is None:
            raise InvalidDataset(f"{path}: {missing} features have no {self._property!r}; --class-name gives them one")
        return [value if value is not None else str(self._name) for value in values]

    def _objects(self, layer: _Layer, scene: Scene, path: Path) -> Iterator[Labelled]:
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

        for shape, category in zip(layer.shapes, layer.categories, strict=True):
            if shape is None or shape.is_empty or shape.geom_type in _POINT_TYPES:
                self.left_out["features without a size"] += 1
                continue
            x1, y1, x2, y2 = shapely.bounds(shapely.transform(shape, pixels)).tolist()
            inside = 0 <= (x1 + x2) / 2 < scene.width and 0 <= (y1 + y2) / 2 < scene.height
            if inside:
                yield Labelled(category, (x1, y1, x2, y2))


@dataclass(frozen=True, eq=False)
class _Layer:
    """Shapes with their CRS and the category of each."""

    shapes: NDArray[Any]
    crs: str | None
    categories: list[str]


def _pairs(source: Path, rasters: Path | None) -> Iterator[tuple[Path, Path, str]]:
    """Raster, vector file and name of the raster."""
    if source.is_dir():
        place = rasters or source
        vectors = {path.stem: path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES}
        found = [(image, vectors[image.stem]) for image in images_below(place) if image.stem in vectors]
        if not found:
            raise InvalidDataset(f"{source}: holds no raster with a vector file named alike")
    elif not source.is_file():
        raise InvalidDataset(f"{source}: no such folder or vector file")
    else:
        place = rasters or source.parent
        if rasters is not None and not rasters.exists():
            raise InvalidDataset(f"{rasters}: no such raster or folder of rasters")
        found = [(image, source) for image in (images_below(place) if place.is_dir() else [place])]
    for image, vector in found:
        yield image, vector, image.relative_to(place).as_posix() if place.is_dir() else image.name
