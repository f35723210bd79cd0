"""Every image of a dataset decoded once: can it be read, how large is it, is it turned, what do its pixels hash to."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from slicedet.errors import SlicedetError
from slicedet.raster.scene import Scene

_STRIP_PIXELS = 1 << 24
"""Pixels read at once: 48 MiB."""

_LOOK = 16
"""Rows and columns of the grid that a picture's look is told from."""

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Decoded:
    """What decoding an image told.

    trouble: why it cannot be read, else "". width, height: as shown. stored: width and height before EXIF turns it.
    orientation: EXIF tag 274. digest: of the pixels, row by row. look: bool [256], whether the picture becomes brighter
    to the right in each cell of a grid, for finding near copies.
    """

    trouble: str = ""
    width: int = 0
    height: int = 0
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    look: NDArray[np.bool_] | None = None


def decode(path: Path) -> Decoded:
    """Decodes an image, strip by strip."""
    try:
        with Scene(path) as scene:
            return _decoded(scene)
    except SlicedetError as error:
        return Decoded(trouble=str(error).removeprefix(f"{path}: "))


def decode_all(paths: Sequence[Path], progress: Callable[[int, int], None]) -> list[Decoded]:
    """Decodes images on all processors; the results are in the order of `paths`."""
    found: list[Decoded] = []
    # Threads that silence a warning each for itself restore each other's filters.
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for start in range(0, len(paths), _BATCH):
            for result in pool.map(decode, paths[start : start + _BATCH]):
                found.append(result)
                progress(len(found), len(paths))
    return found


def _decoded(scene: Scene) -> Decoded:
    width, height = scene.width, scene.height
    hashed = hashlib.blake2b(f"{width} x {height}".encode(), digest_size=16)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        pixels = scene.read((0, top, width, min(rows, height - top)))
        hashed.update(pixels.data)
    small = _reduced(pixels) if rows >= height else scene.read((0, 0, width, height), (_LOOK + 1, _LOOK))
    grey = small.astype(np.int32).sum(axis=2)
    turned = scene.exif_orientation in (5, 6, 7, 8)
    return Decoded(
        width=width,
        height=height,
        stored=(height, width) if turned else (width, height),
        orientation=scene.exif_orientation,
        digest=hashed.digest(),
        look=(grey[:, 1:] > grey[:, :-1]).reshape(-1),
    )


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(pixels, (_LOOK + 1, _LOOK), interpolation=cv2.INTER_AREA))
