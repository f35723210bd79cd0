"""Scenes as files: a GeoTIFF, and the truth about its vehicles as COCO and as GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic.layout import Layout
from slicedet.datasets.synthetic.paint import BLOCK, Truth, paint_block
from slicedet.datasets.synthetic.vehicles import KINDS
from slicedet.datasets.synthetic.world import SceneSettings
from slicedet.errors import OutputError
from slicedet.outputs.files import check_target, publish, temporary_folder, write_errors
from slicedet.outputs.geojson import DECIMALS
from slicedet.outputs.table import counter_clockwise
from slicedet.raster.georeference import Georeference
from slicedet.tiling import Tile

if TYPE_CHECKING:
    from affine import Affine

CRS = "EPSG:32632"
"""UTM zone 32 north."""

ORIGIN = (691_000.0, 5_336_000.0)
"""Easting and northing of the upper left corner of every scene."""


@dataclass(frozen=True)
class SceneRecord:
    """What was written: the files, the settings, and the number of vehicles of each kind."""

    image: Path
    coco: Path
    geojson: Path
    settings: SceneSettings
    vehicles: dict[str, int]


def transform(settings: SceneSettings) -> Affine:
    """From pixel edges (column, row) to easting and northing."""
    from affine import Affine

    return Affine(settings.gsd, 0, ORIGIN[0], 0, -settings.gsd, ORIGIN[1])


def write_scene(
    path: str | Path,
    settings: SceneSettings,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SceneRecord:
    """Paints a scene into NAME.tif, and the truth about its vehicles into NAME.truth.coco.json and NAME.truth.geojson
    beside it, where they are not in the way of predictions.

    path: ends in .tif or .tiff. progress: called with the number of blocks painted and of all blocks.

    Boxes hold the visible pixels of a vehicle, without its shadow; vehicles of which less than half is seen are left
    out. Memory does not grow with the size of the scene, save for the boxes. All three files appear or none.

    Raises OutputError where the files cannot be written, or exist and `overwrite` is not set.
    """
    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"{path}: scenes are written as GeoTIFF; give a name that ends in .tif")
    coco, geojson = path.with_suffix(".truth.coco.json"), path.with_suffix(".truth.geojson")
    for target in (path, coco, geojson):
        check_target(target, overwrite)
    counts = np.zeros(len(KINDS), np.int64)
    with temporary_folder(path) as folder, write_errors(path, folder):
        with _TruthFiles(folder / coco.name, folder / geojson.name, path.name, settings) as truth:
            for boxes, kinds in _paint(folder / path.name, settings, progress):
                truth.add(boxes, kinds)
                counts += np.bincount(kinds, minlength=len(KINDS))
        publish(folder, path, overwrite)
    return SceneRecord(path, coco, geojson, settings, dict(zip(KINDS, counts.tolist(), strict=True)))


def _paint(
    path: Path, settings: SceneSettings, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Writes the image block by block; yields boxes and kinds of vehicles as they are complete."""
    import rasterio
    from rasterio.windows import Window

    layout = Layout(settings.seed, settings.landscape, settings.vehicles)
    truth = Truth()
    columns, rows = (range(0, edge, BLOCK) for edge in (settings.width, settings.height))
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": settings.width, "height": settings.height, "count": 3, "dtype": "uint8",
        "crs": CRS, "transform": transform(settings), "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "compress": "deflate", "predictor": 2, "zlevel": 4, "interleave": "pixel", "photometric": "rgb",
        "BIGTIFF": "IF_SAFER", "num_threads": "all_cpus",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        for y in rows:
            height = min(BLOCK, settings.height - y)
            for x in columns:
                if progress is not None:
                    progress(y // BLOCK * len(columns) + x // BLOCK, len(rows) * len(columns))
                width = min(BLOCK, settings.width - x)
                block = paint_block(layout, settings.gsd, Tile(x, y, BLOCK, BLOCK))
                pixels = block.pixels[:height, :width]
                dataset.write(np.moveaxis(pixels, -1, 0), window=Window(x, y, width, height))
                truth.add(block.owners[:height, :width], block.vehicles, x, y)
            yield truth.boxes(truth.above((y + height) * settings.gsd))
    if progress is not None:
        progress(len(rows) * len(columns), len(rows) * len(columns))
    yield truth.boxes(truth.all())


class _TruthFiles:
    """The truth as COCO and GeoJSON, written as it comes."""

    def __init__(self, coco: Path, geojson: Path, image: str, settings: SceneSettings) -> None:
        from rasterio.crs import CRS as RasterCRS

        self._paths, self._image, self._settings = (coco, geojson), image, settings
        self._georeference = Georeference(transform(settings), RasterCRS.from_string(CRS))
        self._count = 0

    def __enter__(self) -> _TruthFiles:
        with ExitStack() as stack:
            self._coco, self._geojson = (
                stack.enter_context(open(path, "w", encoding="utf-8", newline="\n")) for path in self._paths
            )
            self._stack = stack.pop_all()
        settings = self._settings
        head = {
            "info": {"description": "painted scene, exact truth", "settings": asdict(settings)},
            "images": [{"id": 1, "file_name": self._image, "width": settings.width, "height": settings.height}],
            "categories": [{"id": number, "name": name} for number, name in enumerate(KINDS, 1)],
        }
        self._coco.write(json.dumps(head)[:-1] + ',\n"annotations":[')
        self._geojson.write('{"type":"FeatureCollection","features":[')
        return self

    def add(self, boxes: NDArray[np.float32], kinds: NDArray[np.int32]) -> None:
        """Adds vehicles: boxes [N, 4] in pixels of the scene, kinds [N]."""
        corners = self._georeference.corners(boxes)
        rings = (
            counter_clockwise(np.round(self._georeference.to_lonlat(corners), DECIMALS)).tolist() if len(boxes) else []
        )
        for (x1, y1, x2, y2), kind, ring in zip(boxes.astype(int).tolist(), kinds.tolist(), rings, strict=True):
            self._count += 1
            width, height = x2 - x1, y2 - y1
            annotation = {
                "id": self._count, "image_id": 1, "category_id": kind + 1, "bbox": [x1, y1, width, height],
                "area": width * height, "iscrowd": 0,
            }  # fmt: skip
            feature = {
                "type": "Feature", "id": self._count, "properties": {"category": KINDS[kind]},
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            }  # fmt: skip
            for file, entry in ((self._coco, annotation), (self._geojson, feature)):
                file.write((",\n" if self._count > 1 else "\n") + json.dumps(entry, separators=(",", ":")))

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for file in (self._coco, self._geojson):
                file.write("]}\n")
