"""Source: GDAL's handles on one file, URL or array, one for each thread, with GDAL's failures told as slicedet's."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from slicedet.errors import InvalidBands, UnreadableImage, UnreadableWindow

CACHE_BYTES = 256 << 20
"""Decoded blocks GDAL may keep. Its own default, 5 % of the machine's memory, would make memory depend on the
machine."""


class Source:
    """What a scene is read from: a path, a URL, a GDAL name, or an array [H, W] or [H, W, bands].

    Where a file has ground control points, its handles are those of the view warped by them.
    Raises UnreadableImage, or InvalidBands for an array of a type that GDAL does not have.
    """

    def __init__(self, source: str | Path | NDArray[np.generic]) -> None:
        self._handles: dict[int, Any] = {}
        self._lock = threading.Lock()
        self.is_array = isinstance(source, np.ndarray)
        if isinstance(source, np.ndarray):
            self.name = "array"
            # Kept, since GDAL reads the array where it lies.
            self._array, self._gdal_name = _in_memory_name(source)
        else:
            self.name = self._gdal_name = str(source)
            _check_local(self.name)

    @property
    def local_path(self) -> str | None:
        """Path of the file, where it is a local one."""
        return None if self.is_array or is_remote(self.name) else self.name

    @contextmanager
    def reading(self, window: Window | None = None) -> Iterator[Any]:
        """This thread's handle, for use inside the block.

        Raises UnreadableImage where the file cannot be opened, and where GDAL fails inside the block; or, if the block
        reads a window, UnreadableWindow, which names the broken block under it.
        """
        with rasterio.Env(**self._gdal_options()):
            dataset = self._handle()
            try:
                yield dataset
            except (RasterioError, CPLE_BaseError) as error:
                if window is None:
                    raise UnreadableImage(f"{self.name}: {_reason(error)}") from error
                raise UnreadableWindow(f"{self.name}: {_failed_block(dataset, window, error)}") from error

    def close(self) -> None:
        """Closes all handles; reading again opens new ones."""
        with self._lock:
            for handle in self._handles.values():
                handle.close()
                if isinstance(handle, WarpedVRT):
                    handle.src_dataset.close()
            self._handles.clear()

    def _handle(self) -> Any:
        thread = threading.get_ident()
        with self._lock:
            if thread not in self._handles:
                self._handles[thread] = self._open()
            return self._handles[thread]

    def _open(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                dataset = rasterio.open(self._gdal_name)
            except RasterioIOError as error:
                raise UnreadableImage(f"{self.name}: {_open_failure(self.name, error)}") from error
            _forget_broken_exif(dataset)
            points, crs = dataset.gcps
            if points and crs and dataset.count and dataset.transform == rasterio.Affine.identity():
                palette = dataset.colorinterp[0].name == "palette"
                resampling = Resampling.nearest if palette else Resampling.bilinear
                return WarpedVRT(dataset, crs=crs, resampling=resampling, add_alpha=mask_kind(dataset) == "none")
            return dataset

    def _gdal_options(self) -> dict[str, Any]:
        """GDAL settings; what the user set in the environment stays."""
        options: dict[str, Any] = {"GDAL_CACHEMAX": CACHE_BYTES}
        if self.is_array:
            options["GDAL_MEM_ENABLE_OPEN"] = "YES"
        elif is_remote(self.name):
            # Listing a bucket's folder to look for side files costs more than all the tiles of an image.
            options |= {
                "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
                "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
                "GDAL_HTTP_MAX_RETRY": "3",
                "GDAL_HTTP_RETRY_DELAY": "1",
                "GDAL_HTTP_CONNECTTIMEOUT": "20",
                "VSI_CACHE": "TRUE",
            }
        return {name: value for name, value in options.items() if name not in os.environ}


def mask_kind(dataset: Any) -> str:
    """How a dataset tells where it has data: "alpha", "mask" (a band or file of its own), "nodata" (a value) or
    "none"."""
    flags = {flag for band in dataset.mask_flag_enums for flag in band} - {MaskFlags.all_valid}
    for kind, flag in (("alpha", MaskFlags.alpha), ("mask", MaskFlags.per_dataset), ("nodata", MaskFlags.nodata)):
        if flag in flags:
            return kind
    return "none"


def is_remote(source: str) -> bool:
    """Whether a source is a URL or a GDAL virtual path rather than a local file."""
    return "://" in source or source.startswith("/vsi")


def _forget_broken_exif(dataset: Any) -> None:
    """Lets GDAL come upon broken EXIF data, which rasterio would raise from whatever is called next."""
    dataset.tags()
    with suppress(CPLE_BaseError):
        _ = dataset.colorinterp


def _check_local(source: str) -> None:
    path = Path(source)
    if is_remote(source) or (":" in source and not path.exists()):
        return  # GDAL names such as NETCDF:file.nc:variable are for GDAL to judge.
    if not path.exists():
        raise UnreadableImage(f"{source}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableImage(f"{source}: empty file (0 bytes)")
    if not os.access(path, os.R_OK):
        raise UnreadableImage(f"{source}: no permission to read it")


def _open_failure(source: str, error: Exception) -> str:
    if Path(source).is_dir():
        return "a folder, not an image; use slicedet batch for folders"
    if is_remote(source):
        return f"cannot be opened ({_reason(error)})"
    return "not an image that GDAL can read"


def _in_memory_name(array: NDArray[np.generic]) -> tuple[NDArray[np.generic], str]:
    """The array with positive strides, and the name under which GDAL's MEM driver reads it in place."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UnreadableImage(f"array of shape {list(array.shape)}: expected [height, width] or [height, width, bands]")
    if array.dtype.name not in _GDAL_TYPES:
        raise InvalidBands(f"array of type {array.dtype}: expected one of {', '.join(_GDAL_TYPES)}")
    array = array[..., None] if array.ndim == 2 else array
    if min(array.strides) < 0 or not array.dtype.isnative:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    (height, width, count), (line, pixel, band) = array.shape, array.strides
    return array, (
        f"MEM:::DATAPOINTER={array.__array_interface__['data'][0]},PIXELS={width},LINES={height},BANDS={count},"
        f"DATATYPE={_GDAL_TYPES[array.dtype.name]},PIXELOFFSET={pixel},LINEOFFSET={line},BANDOFFSET={band}"
    )


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
    return words.split(" (this error can be turned")[0]


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
