"""Cuts a dataset into tiles with their boxes; rasters keep their place on the ground."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets import layout as layouts
from slicedet.datasets.coco import CocoDataset, read
from slicedet.datasets.layout import Layout, annotations_name, listed, relative
from slicedet.datasets.writing import CocoFile, extras, new_folder
from slicedet.errors import InvalidDataset, InvalidSetting
from slicedet.pipeline import Progress
from slicedet.raster.scene import Scene
from slicedet.tiling import Tile, TileGrid

_DECIMALS = 3
"""Digits of pixels that are written."""

_MANY_TILES, MOST_TILES = 1000, 1_000_000
"""Tiles of an image whose stated size is not believed before it is compared, and of one that is not cut at all."""


@dataclass(frozen=True)
class SliceSettings:
    """How to cut images into tiles.

    slice, overlap: as for `TileGrid.cover`. min_visible: part of a box's area that must lie in a tile for the tile to
    have it, in 0..1; regions of many objects (iscrowd) are kept however little is visible. empty_ratio: tiles without
    boxes kept for each tile with boxes; None keeps all. seed: for the choice of these.
    """

    slice: int | str = 640
    overlap: float | str = 0.25
    min_visible: float = 0.3
    empty_ratio: float | None = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        TileGrid.cover(1, 1, self.slice, self.overlap)
        if not 0 < self.min_visible <= 1:
            raise InvalidSetting(f"min-visible {self.min_visible}: expected a number above 0, at most 1")
        if self.empty_ratio is not None and not 0 <= self.empty_ratio < float("inf"):
            raise InvalidSetting(f"empty-ratio {self.empty_ratio}: expected a number from 0")


@dataclass(frozen=True)
class SliceSummary:
    """What slicing a split came to.

    cut: pieces of boxes left out since less than `min_visible` of the box is in the tile, or they are thinner than the
    digits that are written. lost: boxes that no tile has.
    nodata: tiles without boxes left out since they show no data.
    """

    images: int
    tiles: int
    empty_tiles: int
    empty_left_out: int
    nodata: int
    boxes: int
    tile_boxes: int
    cut: int
    lost: int


def slice_dataset(
    source: str | Path,
    output: str | Path,
    settings: SliceSettings | None = None,
    images: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, SliceSummary]:
    """Writes the tiles of all images of a dataset as a dataset of their own; returns what each split came to.

    source, images: as for `layout.find`. output: a folder that does not exist or is empty. Tiles of rasters with a
    georeference are GeoTIFFs with theirs, all others are PNG, since a second JPEG compression would cost small objects
    most; pixels are the 8-bit RGB of `Scene`, stretched once per scene. An entry of a tile names its image (`source`)
    and place (`tile`: x, y, width, height), an annotation the one it comes from (`source_id`).
    Raises InvalidDataset where annotations are of no use, an image is not of the size they state, or a split would come
    to no tile, which no command could read.
    """
    settings = settings or SliceSettings()
    layout = layouts.find(source, images)
    datasets = {part.name: read(part.annotations) for part in layout.splits}
    names = _tile_names(list(datasets.values()))
    total = sum(len(dataset.images) for dataset in datasets.values())
    summaries: dict[str, SliceSummary] = {}
    done = 0
    with new_folder(output) as folder:
        (folder / "images").mkdir()
        (folder / "annotations").mkdir()
        # Cutting takes hours, so that all splits are looked at before.
        plans = {name: _planned(layout, dataset, settings) for name, dataset in datasets.items()}
        for part in layout.splits:
            dataset, plan = datasets[part.name], plans.pop(part.name)
            counts: Counter[str] = Counter()
            with ExitStack() as stack:
                path = folder / "annotations" / annotations_name(part.name)
                file = stack.enter_context(CocoFile(path, extras(part.annotations)))
                file.categories = [
                    {"id": number, "name": name}
                    for number, name in zip(dataset.category_numbers, dataset.categories, strict=True)
                ]
                for index in range(len(dataset.images)):
                    _write_tiles(layout, dataset, index, plan, names, folder / "images", file, counts)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            if not file.images:
                raise InvalidDataset(f"{part.annotations}: its images show no data, so no tile of them is kept")
            summaries[part.name] = SliceSummary(
                images=len(dataset.images),
                tiles=file.images,
                empty_tiles=counts["empty"],
                empty_left_out=plan.empty_left_out,
                nodata=counts["nodata"],
                boxes=len(dataset.boxes),
                tile_boxes=file.annotations,
                cut=plan.cut,
                lost=plan.lost,
            )
    return summaries


@dataclass(frozen=True, eq=False)
class TileBoxes:
    """The boxes of a tile: rows of the image's boxes, their pieces [N, 4] in the tile's pixels, and the part of each
    box's area that is visible [N]."""

    rows: NDArray[np.intp]
    boxes: NDArray[np.float64]
    visible: NDArray[np.float64]


def boxes_in_tile(boxes: NDArray[np.float64], tile: Tile, min_visible: float) -> TileBoxes:
    """The pieces of boxes x1 y1 x2 y2 [N, 4] of which a tile shows at least the part `min_visible`."""
    low = np.array([tile.x, tile.y], np.float64)
    high = low + np.array([tile.width, tile.height])
    inside = np.concatenate([np.maximum(boxes[:, :2], low), np.minimum(boxes[:, 2:], high)], axis=1)
    sides = np.maximum(inside[:, 2:] - inside[:, :2], 0)
    visible = sides.prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    rows = np.flatnonzero(visible >= min_visible)
    return TileBoxes(rows, inside[rows] - np.tile(low, 2), np.minimum(visible[rows], 1.0))


def _planned(layout: Layout, dataset: CocoDataset, settings: SliceSettings) -> _Plan:
    """The tiles of a split. Raises InvalidDataset where there would be none, and what `_check_sizes` raises."""
    _check_sizes(layout, dataset, settings)
    plan = _Plan(dataset, settings)
    if not any(plan.tiles):
        raise InvalidDataset(
            f"{dataset.path}: no tile of its images has a box, so none would be kept; --empty-ratio all keeps tiles "
            "without boxes"
        )
    return plan


def _check_sizes(layout: Layout, dataset: CocoDataset, settings: SliceSettings) -> None:
    """Raises InvalidDataset for file names that lead elsewhere, and for images of more tiles than memory is to hold, be
    it that their annotations are wrong."""
    for image in dataset.images:
        listed(image.file_name, dataset.path)
        tiles = len(TileGrid.cover(image.width, image.height, settings.slice, settings.overlap))
        if tiles <= _MANY_TILES:
            continue
        with Scene(layout.image(image.file_name)) as scene:
            image.check_size(scene.source, scene.width, scene.height)
        if tiles > MOST_TILES:
            raise InvalidDataset(
                f"{scene.source}: would be {tiles:,} tiles, at most {MOST_TILES:,} can be; choose a larger --slice, "
                "or cut the image in parts"
            )


class _Plan:
    """Which tiles of a split are written, decided before any pixel is read."""

    def __init__(self, dataset: CocoDataset, settings: SliceSettings) -> None:
        self._settings = settings
        self.tiles: list[list[tuple[Tile, TileBoxes]]] = []
        self.cut = self.lost = 0
        occupied, empty = 0, []
        for index, image in enumerate(dataset.images):
            rows = dataset.of_image(index)
            boxes, crowd = dataset.boxes[rows], dataset.crowd[rows]
            found = np.zeros(len(boxes), bool)
            tiles: list[tuple[Tile, TileBoxes]] = []
            # A row of tiles looks only at the boxes at its height.
            top, level = -1, np.zeros(0, np.intp)
            for tile in TileGrid.cover(image.width, image.height, settings.slice, settings.overlap):
                if tile.y != top:
                    top = tile.y
                    level = np.flatnonzero((boxes[:, 1] < top + tile.height) & (boxes[:, 3] > top))
                touching = boxes_in_tile(boxes[level], tile, np.nextafter(0, 1))
                kept = (touching.visible >= settings.min_visible) | crowd[level][touching.rows]
                sides = touching.boxes[:, 2:] - touching.boxes[:, :2]
                kept &= (np.round(sides, _DECIMALS) > 0).all(axis=1)
                part = TileBoxes(level[touching.rows[kept]], touching.boxes[kept], touching.visible[kept])
                self.cut += int((~kept).sum())
                found[part.rows] = True
                if (~crowd[part.rows]).any():
                    occupied += 1
                else:
                    empty.append((_lot(settings.seed, image.file_name, tile), index, len(tiles)))
                tiles.append((tile, part))
            self.lost += int((~found).sum())
            self.tiles.append(tiles)
        wanted = len(empty)
        if settings.empty_ratio is not None:
            wanted = min(wanted, round(settings.empty_ratio * occupied))
        self.empty_left_out = len(empty) - wanted
        left_out = {(index, place) for _, index, place in sorted(empty)[wanted:]}
        self.tiles = [
            [tile for place, tile in enumerate(tiles) if (index, place) not in left_out]
            for index, tiles in enumerate(self.tiles)
        ]


def _lot(seed: int, file_name: str, tile: Tile) -> bytes:
    """A random order of tiles that depends on neither the machine nor the other images."""
    return hashlib.blake2b(f"{seed}:{file_name}:{tile.x}:{tile.y}".encode(), digest_size=8).digest()


def _tile_names(datasets: list[CocoDataset]) -> dict[str, str]:
    """For each image, what the names of its tiles begin with: its own without suffix, unless another has that too."""
    names = sorted({image.file_name for dataset in datasets for image in dataset.images})
    stems = Counter(str(PurePosixPath(name).with_suffix("")) for name in names)
    return {
        name: name if stems[str(PurePosixPath(name).with_suffix(""))] > 1 else str(PurePosixPath(name).with_suffix(""))
        for name in names
    }


def _write_tiles(
    layout: Layout,
    dataset: CocoDataset,
    index: int,
    plan: _Plan,
    names: dict[str, str],
    folder: Path,
    file: CocoFile,
    counts: Counter[str],
) -> None:
    image = dataset.images[index]
    if not plan.tiles[index]:
        return
    start = dataset.of_image(index).start
    with Scene(layout.image(image.file_name)) as scene:
        image.check_size(scene.source, scene.width, scene.height)
        for tile, part in plan.tiles[index]:
            pixels, valid = scene.read_masked(tile)
            if not len(part.rows) and valid is not None and not valid.any():
                counts["nodata"] += 1
                continue
            counts["empty"] += bool(dataset.crowd[start + part.rows].all())
            suffix = ".png" if scene.georeference is None else ".tif"
            name = f"{names[image.file_name]}_{tile.x}_{tile.y}{suffix}"
            target = folder / relative(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if scene.georeference is None:
                _write_png(target, pixels)
            else:
                _write_geotiff(target, pixels, valid, scene, tile)
            number = file.add_image(
                {
                    "file_name": name,
                    "width": tile.width,
                    "height": tile.height,
                    "source": image.file_name,
                    "tile": list(tile),
                }
            )
            for row, box, visible in zip(part.rows + start, part.boxes.tolist(), part.visible.tolist(), strict=True):
                file.add_annotation(_annotation(dataset, int(row), number, box, visible))


def _annotation(dataset: CocoDataset, row: int, image: int, box: list[float], visible: float) -> dict[str, Any]:
    x, y, width, height = (round(value, _DECIMALS) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
    return {
        "image_id": image,
        "category_id": dataset.category_numbers[dataset.category_ids[row]],
        "bbox": [x, y, width, height],
        "area": round(float(dataset.areas[row]) * visible, _DECIMALS),
        "iscrowd": int(dataset.crowd[row]),
        "source_id": int(dataset.ids[row]),
        "visible": round(visible, 4),
    }


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    import cv2

    # Level 1 costs a tenth of the bytes more than the default and a fifth of its time.
    _, encoded = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(encoded.tobytes())


def _write_geotiff(
    path: Path, pixels: NDArray[np.uint8], valid: NDArray[np.bool_] | None, scene: Scene, tile: Tile
) -> None:
    import rasterio
    from affine import Affine

    assert scene.georeference is not None
    profile = {
        "driver": "GTiff",
        "width": tile.width,
        "height": tile.height,
        "count": 3,
        "dtype": "uint8",
        "crs": scene.georeference.crs,
        "transform": scene.georeference.transform @ Affine.translation(tile.x, tile.y),
        "compress": "deflate",
        "predictor": 2,
        "photometric": "rgb",
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.moveaxis(pixels, -1, 0))
        if valid is not None:
            dataset.write_mask(valid)
