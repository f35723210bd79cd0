"""What is measured on: a painted scene in three encodings, and a folder of photos."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray

from slicedet.datasets.synthetic import SceneSettings, write_scene
from slicedet.tiling import TileGrid

SHARED = Path(os.environ.get("SLICEDET_SHARED", Path(__file__).parents[3] / "shared"))
OVERLAP = 0.25
PHOTO = (1920, 1080)
"""Width and height of photos cut from the scene where there are none."""

KINDS = ("deflate", "jpeg", "lzw", "photos")
"""What there is to measure on."""

Pixels = NDArray[np.uint8]


class Files(NamedTuple):
    """kind: one of KINDS. name: for the table. folder: that holds nothing else. paths: what is in it."""

    kind: str
    name: str
    folder: Path
    paths: tuple[Path, ...]


def scenes(folder: Path, edge: int, photos: int, kinds: Sequence[str] = KINDS) -> list[Files]:
    """The scene and the photos, as far as they are asked for; what is there already is taken as it is."""
    painted = _kept(folder / f"deflate_{edge}", partial(_paint, edge)) / "scene.tif"
    jpeg = {"compress": "jpeg", "photometric": "ycbcr", "jpeg_quality": 85, "predictor": 1}
    lzw = {"compress": "lzw", "tiled": False, "blockysize": 1}
    made: dict[str, tuple[str, Callable[[], Path]]] = {
        "deflate": ("deflate tiles", lambda: painted.parent),
        "jpeg": ("JPEG tiles", lambda: _kept(folder / f"jpeg_{edge}", partial(_recode, painted, jpeg))),
        "lzw": ("LZW strips", lambda: _kept(folder / f"lzw_{edge}", partial(_recode, painted, lzw))),
        "photos": (
            f"{photos} photos",
            lambda: _kept(folder / f"photos_{edge}_{photos}", partial(_photos, painted, photos)),
        ),
    }
    album = []
    for kind, (name, make) in made.items():
        if kind in kinds:
            place = make()
            album.append(Files(kind, name, place, tuple(sorted(place.iterdir()))))
    return album


def _kept(place: Path, make: Callable[[Path], None]) -> Path:
    """A folder, made whole unless it is there."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as name:
            new = Path(name) / "new"
            new.mkdir()
            make(new)
            new.rename(place)
    return place


def _paint(edge: int, folder: Path) -> None:
    write_scene(folder / "scene.tif", SceneSettings(edge, edge, seed=7))
    for truth in folder.glob("*.truth.*"):
        truth.unlink()


def _recode(source: Path, options: dict[str, Any], folder: Path) -> None:
    with rasterio.open(source) as dataset:
        profile = {**dataset.profile, **options}
        if not profile["tiled"]:
            del profile["blockxsize"]
        with rasterio.open(folder / "scene.tif", "w", **profile) as copy:
            copy.write(dataset.read())


def _photos(painted: Path, count: int, folder: Path) -> None:
    """Real ones, evenly chosen, or pieces of the scene."""
    real = sorted((SHARED / "data" / "aerial_vehicles" / "images").glob("*"))
    if len(real) >= count:
        for index in np.linspace(0, len(real) - 1, count).astype(int):
            (folder / real[index].name).write_bytes(real[index].read_bytes())
        return
    from PIL import Image

    with rasterio.open(painted) as dataset:
        pixels = np.moveaxis(dataset.read(), 0, -1)
    random = np.random.default_rng(0)
    for number in range(count):
        x, y = (int(random.integers(0, pixels.shape[1 - axis] - PHOTO[axis])) for axis in (0, 1))
        piece = pixels[y : y + PHOTO[1], x : x + PHOTO[0]]
        Image.fromarray(piece).save(folder / f"{number:02}.jpg", quality=92)


def tiles_of(files: Files, size: int) -> list[Pixels]:
    """All tiles of all files, RGB."""
    tiles = []
    for path in files.paths:
        with rasterio.open(path) as dataset:
            pixels = np.moveaxis(dataset.read((1, 2, 3)), 0, -1)
        for x, y, width, height in TileGrid.cover(pixels.shape[1], pixels.shape[0], size, OVERLAP):
            tiles.append(np.ascontiguousarray(pixels[y : y + height, x : x + width]))
    return tiles
