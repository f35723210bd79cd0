"""Source: GDAL's handles on one file, URL or array, one for each thread, with GDAL's failures told as slicedet's."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import url2pathname

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from slicedet.errors import InvalidBands, InvalidSetting, UnreadableImage, UnreadableWindow
from slicedet.raster import servers

CACHE_BYTES = 128 << 20
"""Decoded blocks GDAL may keep. Its own default, 5 % of the machine's memory, would make memory depend on the
machine."""


_Result = TypeVar("_Result")


class Source:
    """What a scene is read from: a path, a URL, a GDAL name, or an array [H, W] or [H, W, bands].

    name: for people and records, without what a URL keeps secret, see `shown`. valid: of a masked array, where it has
    data, as a band of its own; a pixel has if any of its bands is not masked.
    Where a file has ground control points, its handles are those of the view warped by them. Where a server fails,
    it is asked again through a new handle, as `servers.persist` says.
    Raises UnreadableImage, InvalidBands for an array of a type that GDAL does not have, or InvalidSetting for what is
    none of these.
    """

    def __init__(self, source: str | Path | NDArray[np.generic]) -> None:
        self._handles: dict[int, Any] = {}
        self._reading: Counter[int] = Counter()
        self._unwanted: set[int] = set()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self.is_array = isinstance(source, np.ndarray)
        self.valid: Source | None = None
        if isinstance(source, np.ndarray):
            self.name = "array"
            # Kept, since GDAL reads the array where it lies.
            self._array, self._gdal_name = _in_memory_name(source)
            if isinstance(source, np.ma.MaskedArray):
                masked = np.ma.getmaskarray(source).reshape(*source.shape[:2], -1)
                self.valid = Source(np.logical_not(masked.all(axis=2)).astype(np.uint8))
        elif isinstance(source, str | Path):
            self._gdal_name = _without_scheme(str(source))
            self.name = shown(self._gdal_name)
            _check_local(self._gdal_name)
        else:
            raise InvalidSetting(
                f"image of type {type(source).__name__}: expected a path, a URL or an array; numpy.asarray makes an "
                "array of nested lists and of Pillow's images"
            )

    @property
    def local_path(self) -> str | None:
        """Path of the file, where it is a local one."""
        return None if self.is_array or is_remote(self.name) else self.name

    @contextmanager
    def reading(self, window: Window | None = None) -> Iterator[Any]:
        """This thread's handle, for use inside the block; if the block reads a window, its `Pixels`.

        Raises UnreadableImage where the file cannot be opened, a server fails, or GDAL fails inside the block; where
        the block reads a window that cannot be decoded, UnreadableWindow, which names the broken block under it.
        """
        with self._in_use(), rasterio.Env(**self._gdal_options()):
            try:
                dataset = self._persist(self._handle, "opened")
            except RasterioIOError as error:
                raise UnreadableImage(f"{self.name}: {_open_failure(self._gdal_name, error)}") from error
            try:
                yield dataset if window is None else Pixels(self)
            except (RasterioError, CPLE_BaseError) as error:
                if window is None:
                    raise UnreadableImage(f"{self.name}: {_reason(error)}") from error
                raise UnreadableWindow(f"{self.name}: {_failed_block(self._handle(), window, error)}") from error

    def read(self, work: Callable[[Any], _Result]) -> _Result:
        """What `work` returns of this thread's handle, or of a new one where a server failed."""
        return self._persist(lambda: work(self._handle()), "read")

    def close(self) -> None:
        """Closes all handles, those that other threads read from as soon as they are done; reading again opens new
        ones."""
        if self.valid is not None:
            self.valid.close()
        with self._lock:
            self._unwanted.update(thread for thread in self._handles if self._reading[thread])
            idle = [self._handles.pop(thread) for thread in set(self._handles) - self._unwanted]
        for handle in idle:
            _close(handle)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keeps this thread's handle from being closed by others."""
        thread = threading.get_ident()
        with self._lock:
            self._reading[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[thread] -= 1
                unwanted = not self._reading[thread] and thread in self._unwanted
                if not self._reading[thread]:
                    del self._reading[thread]
                self._unwanted.discard(thread)
            if unwanted:
                self._drop()

    def _persist(self, work: Callable[[], _Result], doing: str) -> _Result:
        return work() if self.is_array else servers.persist(work, self._drop, self.name, doing, is_remote(self.name))

    def _drop(self) -> None:
        """Closes this thread's handle, if any."""
        with self._lock:
            handle = self._handles.pop(threading.get_ident(), None)
        if handle is not None:
            _close(handle)

    def _handle(self) -> Any:
        thread = threading.get_ident()
        with self._lock:
            handle = self._handles.get(thread)
        if handle is None:
            # Closing does not wait for this: a server may take its time.
            with self._opening:
                handle = self._open()
            with self._lock:
                self._handles[thread] = handle
        return handle

    def _open(self) -> Any:
        with quiet():
            dataset = open_dataset(self._gdal_name)
        _forget_broken_exif(dataset)
        points, crs = dataset.gcps
        if points and crs and dataset.count and dataset.transform == rasterio.Affine.identity():
            palette = dataset.colorinterp[0].name == "palette"
            resampling = Resampling.nearest if palette else Resampling.bilinear
            return WarpedVRT(dataset, crs=crs, resampling=resampling, add_alpha=mask_kind(dataset) in ("none", "mask"))
        return dataset

    def _gdal_options(self) -> dict[str, Any]:
        """GDAL settings; what the user set in the environment stays."""
        options: dict[str, Any] = {"GDAL_CACHEMAX": CACHE_BYTES}
        if self.is_array:
            options["GDAL_MEM_ENABLE_OPEN"] = "YES"
        else:
            # Local files too, such as VRTs, may name others that lie on a server.
            options |= servers.options()
        if not self.is_array and is_remote(self.name):
            # Listing a bucket's folder to look for side files costs more than all the tiles of an image.
            options |= {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}
        return {name: value for name, value in options.items() if name not in os.environ}


class Pixels:
    """What reads the pixels of a source and where they are data, with the arguments of rasterio's datasets."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """Pixels [bands, h, w], or [h, w] of one band."""
        return self._source.read(lambda handle: handle.read(*arguments, **options))

    def read_masks(self, *arguments: Any, **options: Any) -> NDArray[np.uint8]:
        """Where bands have data, uint8 [bands, h, w], 0 where they have none."""
        return self._source.read(lambda handle: handle.read_masks(*arguments, **options))

    def dataset_mask(self, **options: Any) -> NDArray[np.uint8]:
        """Where there is data, uint8 [h, w], 0 where there is none."""
        if self._source.valid is not None:
            with self._source.valid.reading(options["window"]) as valid:
                return np.asarray(valid.read(1, **options), np.uint8)
        return self._source.read(lambda handle: handle.dataset_mask(**options))


def open_dataset(name: str) -> Any:
    """rasterio's dataset of a GDAL name. Raises RasterioIOError.

    A local file that calls itself an image must be one: it may come from anybody, and a VRT in its place would have
    other files read, and servers called.
    """
    dataset = rasterio.open(name)
    suffix = Path(name).suffix.lower()
    if dataset.driver in _LEADING_DRIVERS and is_local(name) and suffix not in _LEADING_SUFFIXES:
        dataset.close()
        raise RasterioIOError(f"{name}: {dataset.driver}, and no {suffix}")
    return dataset


_LEADING_DRIVERS = frozenset(["DERIVED", "GTI", "VRT", "WCS", "WMS", "WMTS"])
"""Of files that name other files and servers."""

_LEADING_SUFFIXES = frozenset(["", ".gti", ".vrt", ".wms", ".xml"])
"""Which these files may have."""


def mask_kind(dataset: Any) -> str:
    """How a dataset tells where it has data: "alpha", "mask" (a band or file of its own), "nodata" (a value) or
    "none"."""
    flags = {flag for band in dataset.mask_flag_enums for flag in band} - {MaskFlags.all_valid}
    for kind, flag in (("alpha", MaskFlags.alpha), ("mask", MaskFlags.per_dataset), ("nodata", MaskFlags.nodata)):
        if flag in flags:
            return kind
    return "none"


def _without_scheme(source: str) -> str:
    """The path that a file:// URL stands for; other sources as they are."""
    return url2pathname(source.removeprefix("file://")) if source.startswith("file:///") else source


def is_remote(source: str) -> bool:
    """Whether a source is a URL or a GDAL virtual path rather than a local file."""
    return "://" in source or source.startswith("/vsi")


_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"""((?:\w://|/vsi)[^\s?'"]*)\?[^\s'"]*""")


def is_local(source: str) -> bool:
    """Whether a source can only be a local file, and no GDAL name such as NETCDF:file.nc:variable either."""
    return not is_remote(source) and (":" not in source or os.path.exists(source))


def shown(source: str) -> str:
    """A source for people and records, in plain UTF-8: a URL without its password, and with a hash in place of the
    query, which may be secret too. URLs that differ in their query stay different."""
    source = source.encode("utf-8", "backslashreplace").decode()
    if not is_remote(source):
        return source
    place, _, query = _PASSWORD.sub("", source).partition("?")
    return f"{place}?sha256={hashlib.sha256(query.encode()).hexdigest()[:12]}" if query else place


def unreadable(path: str) -> str | None:
    """Why a local file or folder cannot be read, in few words; None where nothing speaks against it."""
    try:
        path.encode()
        os.stat(path)
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except PermissionError:
        return "no permission to read it"
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    except ValueError:
        return "no file can have this name"
    return None if os.access(path, os.R_OK) else "no permission to read it"


_FILTERS = threading.Lock()


@contextmanager
def quiet(category: type[Warning] = NotGeoreferencedWarning) -> Iterator[None]:
    """Without warnings of a kind, by default of images that have no place on the ground, in all threads, since they
    share the filters."""
    ignore = ("ignore", None, category, None, 0)
    # Not catch_warnings: what other threads change meanwhile, as a server may take its time, would be undone.
    with _FILTERS:
        warnings.filters.insert(0, ignore)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _FILTERS, suppress(ValueError):
            warnings.filters.remove(ignore)  # type: ignore[attr-defined]


def _close(handle: Any) -> None:
    handle.close()
    if isinstance(handle, WarpedVRT):
        handle.src_dataset.close()


def _forget_broken_exif(dataset: Any) -> None:
    """Lets GDAL come upon broken EXIF data, which rasterio would raise from whatever is called next."""
    dataset.tags()
    with suppress(CPLE_BaseError):
        _ = dataset.colorinterp


def _check_local(source: str) -> None:
    if not is_local(source):
        return
    if reason := unreadable(source):
        raise UnreadableImage(f"{shown(source) or repr(source)}: {reason}")
    if os.path.isfile(source) and os.path.getsize(source) == 0:
        raise UnreadableImage(f"{source}: empty file (0 bytes)")


def _open_failure(source: str, error: Exception) -> str:
    if os.path.isdir(source):
        return "a folder, not an image; use slicedet batch for folders"
    if is_remote(source):
        return f"cannot be opened ({_reason(error)})"
    return "not an image that GDAL can read"


def _in_memory_name(array: NDArray[np.generic]) -> tuple[NDArray[np.generic], str]:
    """The array with positive strides, and the name under which GDAL's MEM driver reads it in place."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UnreadableImage(f"array of shape {list(array.shape)}: expected [height, width] or [height, width, bands]")
    if array.ndim == 3 and array.shape[0] in (3, 4) and min(array.shape[1:]) > _MOST_CHANNELS:
        raise UnreadableImage(
            f"array of shape {list(array.shape)}: looks like channels first; numpy.moveaxis(array, 0, -1) makes it "
            "[height, width, bands]"
        )
    if array.dtype.name not in _GDAL_TYPES:
        raise InvalidBands(f"array of type {array.dtype}: expected one of {', '.join(_GDAL_TYPES)}")
    array = array[..., None] if array.ndim == 2 else array
    # GDAL takes an offset of 0, which broadcasting makes, for its own choice.
    if min(array.strides) <= 0 or not array.dtype.isnative:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    (height, width, count), (line, pixel, band) = array.shape, array.strides
    return array, (
        f"MEM:::DATAPOINTER={array.__array_interface__['data'][0]},PIXELS={width},LINES={height},BANDS={count},"
        f"DATATYPE={_GDAL_TYPES[array.dtype.name]},PIXELOFFSET={pixel},LINEOFFSET={line},BANDOFFSET={band}"
    )


_MOST_CHANNELS = 16
"""Beside three or four rows, more than so many columns and bands are taken for those of an image after its
channels."""

_GDAL_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


def _reason(error: BaseException) -> str:
    """GDAL's own words for a failure, without the file's name and rasterio's wrapping."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    words = " ".join(str(getattr(cause, "errmsg", None) or cause).split())
    return _without_secrets(words.split(" (this error can be turned")[0])


def _without_secrets(text: str) -> str:
    """GDAL's words without passwords and queries of the URLs in them."""
    return _QUERY.sub(r"\1", _PASSWORD.sub("", text))


def _failed_block(dataset: Any, window: Window, error: BaseException) -> str:
    """Which block under a window cannot be decoded, and why."""
    height, width = dataset.block_shapes[0]
    rows = range(int(window.row_off) // height, int(np.ceil(window.row_off + window.height) - 1) // height + 1)
    columns = range(int(window.col_off) // width, int(np.ceil(window.col_off + window.width) - 1) // width + 1)
    for row in rows:
        for column in columns:
            x, y = column * width, row * height
            block = Window(x, y, min(width, dataset.width - x), min(height, dataset.height - y))
            try:
                dataset.read(window=block)
            except RasterioError:
                return (
                    f"the block at columns {x} to {x + block.width - 1}, rows {y} to {y + block.height - 1} "
                    f"cannot be decoded ({_reason(error)})"
                )
    return f"columns {int(window.col_off)}.., rows {int(window.row_off)}.. cannot be read ({_reason(error)})"
