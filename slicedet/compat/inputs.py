"""What predict is given, as scenes: arrays, files, pages of TIFFs, folders, URLs, and lists of these."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from slicedet.batch import IMAGE_SUFFIXES
from slicedet.errors import InvalidSetting, UnreadableImage
from slicedet.models.download import download
from slicedet.raster.scene import Scene
from slicedet.raster.source import quiet, shown, unreadable

TIFF = (".tif", ".tiff")

FOLDER_SUFFIXES = frozenset(
    [".bmp", ".dib", ".jpeg", ".jpg", ".png", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".sr", ".ras", *TIFF]
)
"""What PaddleX takes for an image in a folder. Named by themselves, files may have any suffix that slicedet reads."""

WHOLE_PIXELS = 178_956_970
"""Most pixels of an image that is held in memory as a whole: half a GiB, and where Pillow begins to warn."""

_NAMED_SUFFIXES = FOLDER_SUFFIXES | IMAGE_SUFFIXES


@dataclass(frozen=True)
class Image:
    """One image: its scene, and the input_path and page_index of its result."""

    scene: Scene
    input_path: str | None = None
    page_index: int | None = None


def images(source: Any, stream: bool = False) -> Iterator[Image]:
    """The images of an input, each opened when it is its turn.

    source: an array uint8 BGR [H, W, 3], a path, an http(s) URL, a folder (searched with those below it, in the order
    of the paths), or a list of these. A TIFF gives each of its pages.
    stream: whether TIFFs behind a URL are read in place, by windows; all else is downloaded, and deleted once no scene
    needs it.
    Raises InvalidSetting or UnreadableImage for what is none of these, DownloadError where a URL gives nothing.
    """
    for each in source if isinstance(source, list | tuple) else [source]:
        if isinstance(each, np.ndarray):
            yield Image(_scene_of_array(each))
        elif not isinstance(each, str | Path):
            raise InvalidSetting(
                f"input of type {type(each).__name__}: expected an array, a path, a URL, a folder or a list of these"
            )
        elif "://" in str(each):
            yield from _of_url(str(each), stream)
        elif os.path.isdir(each):
            for path in _files(str(each)):
                yield from _of_file(path)
        else:
            if reason := unreadable(str(each)):
                raise UnreadableImage(f"{shown(str(each)) or repr(each)}: {reason}")
            _check_suffix(str(each), Path(each).suffix)
            yield from _of_file(str(each))


def file_name(input_path: str) -> str:
    """The name of the file that an input_path leads to."""
    return PurePosixPath(unquote(urlsplit(input_path).path)).name if "://" in input_path else Path(input_path).name


def read_whole(scene: Scene) -> NDArray[np.uint8]:
    """All pixels of a scene, uint8 RGB [H, W, 3]. Raises InvalidSetting where they are too many."""
    if scene.width * scene.height > WHOLE_PIXELS:
        raise InvalidSetting(
            f"{scene.source}: {scene.width} x {scene.height} pixels are too many to be held at once; "
            "slice=640 searches them by tiles, save_to_img draws them"
        )
    return scene.read((0, 0, scene.width, scene.height))


def _scene_of_array(array: NDArray[Any]) -> Scene:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise InvalidSetting(
            f"array {array.dtype} of shape {list(array.shape)}: expected uint8 [height, width, 3], blue, green, red"
        )
    return Scene(array, bands=(3, 2, 1))


def _of_file(path: str) -> Iterator[Image]:
    if not path.lower().endswith(TIFF):
        yield Image(Scene(path), path)
        return
    for index, page in enumerate(_pages(path)):
        yield Image(Scene(page), path, index)


def _of_url(url: str, stream: bool) -> Iterator[Image]:
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidSetting(f"{shown(url)}: expected a URL that begins with https:// or http://")
    suffix = PurePosixPath(file_name(url)).suffix.lower()
    _check_suffix(shown(url), suffix)
    scenes: list[Scene] = []
    if stream and suffix in TIFF:
        with suppress(UnreadableImage):  # A server may refuse parts of files and yet give the whole.
            scenes = [Scene(page) for page in _pages(url)]
    if scenes:
        yield from (Image(scene, url, index) for index, scene in enumerate(scenes))
        return
    copy = _Download(url, suffix)
    for image in _of_file(str(copy.path)):
        _downloads[image.scene] = copy
        yield Image(image.scene, url, image.page_index)


class _Download:
    """A file from the web, deleted with this object."""

    def __init__(self, url: str, suffix: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="slicedet-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = folder / f"image{suffix}"  # Its own name is the server's to choose.
        download(url, self.path)


_downloads: weakref.WeakKeyDictionary[Scene, _Download] = weakref.WeakKeyDictionary()
"""Keeps what was downloaded while a scene reads from it."""


def _files(folder: str) -> list[str]:
    found = sorted(
        os.path.join(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in FOLDER_SUFFIXES
    )
    if not found:
        raise UnreadableImage(f"{folder}: no image in it or in the folders below")
    return found


def _pages(path: str) -> list[str]:
    """GDAL's names of a TIFF's pages. Overviews and masks are none."""
    with (
        suppress(RasterioError),  # Scene says what is wrong.
        quiet(),
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(path) as file,
    ):
        return [name for name in file.subdatasets if name.startswith("GTIFF_DIR:")] or [path]
    return [path]


def _check_suffix(name: str, suffix: str) -> None:
    if suffix.lower() in _NAMED_SUFFIXES:
        return
    if suffix.lower() == ".pdf":
        raise UnreadableImage(f"{name}: pages of PDFs are not read; save them as images first")
    raise UnreadableImage(f"{name}: expected the suffix of an image, one of {', '.join(sorted(_NAMED_SUFFIXES))}")
