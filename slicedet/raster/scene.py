"""Scene: opens any raster, photo or array, reads windows of it as uint8 RGB, and knows where they lie."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from slicedet.errors import EmptyImage, UnreadableWindow, UntransformableCRS
from slicedet.raster import bands as band_choice
from slicedet.raster import stretch as stretching
from slicedet.raster.beside import files_behind
from slicedet.raster.georeference import Georeference
from slicedet.raster.orientation import Orientation, Window, exif_value
from slicedet.raster.source import Source, is_remote, mask_kind
from slicedet.tiling import TileGrid

SAMPLE_EDGE = 1024
"""Longer side in pixels of the decimated read from which a stretch is measured."""

SAMPLE_ENOUGH = 4096
"""Number of valid pixels in that read from which a stretch is trusted."""

PIECE_EDGE = 256
"""Edge in pixels of the pieces read where one decimated read does not do."""


class Scene:
    """An image that need not fit into memory, as uint8 RGB windows in one pixel frame.

    source: path, URL or GDAL name (str or Path), or an array [H, W] or [H, W, bands] of any real type; a masked one has
    no data where all its bands are masked.
    bands: band numbers from 1, three (red, green, blue) or one (grey); by default RGB by colour interpretation, else
    1-2-3.
    stretch: "percentile:2,98", "minmax", "LO,HI" or "none"; by default none for uint8, what its bits can hold where
    these are fewer, such as "0,1", and percentile:2,98 for other types.

    The frame has EXIF orientation applied, and is that of the warped view where the file has ground control points.
    Each thread reads through a handle of its own; leaving the `with` block closes them all, reading again reopens.

    Raises UnreadableImage, InvalidBands or InvalidSetting when it is made, UnreadableWindow when a block cannot be
    decoded.
    """

    def __init__(
        self,
        source: str | Path | NDArray[np.generic],
        *,
        bands: Sequence[int] | None = None,
        stretch: str | None = None,
    ) -> None:
        self._rule = None if stretch is None else stretching.parse(stretch)
        self._measuring = threading.Lock()
        self._source = Source(source)
        self.source = self._source.name
        with self._source.reading() as dataset:
            self.driver: str = "array" if self._source.is_array else dataset.driver
            self._bands = band_choice.choose(dataset, bands, self.source)
            self.band_count: int = dataset.count
            self.dtype: str = dataset.dtypes[self._bands.numbers[0] - 1]
            self._bits = dataset.tags(self._bands.numbers[0], ns="IMAGE_STRUCTURE").get("NBITS", "")
            warped = isinstance(dataset, WarpedVRT)
            self.exif_orientation = 1 if warped else exif_value(dataset, self._source.local_path)
            self._orientation = Orientation.from_exif(self.exif_orientation)
            self._stored_size = (dataset.width, dataset.height)
            self.width, self.height = self._orientation.shown_size(dataset.width, dataset.height)
            self.mask = mask_kind(dataset) if self._source.valid is None else "mask"
            self.georeference = None
            # GDAL's MEM driver makes up a transform for arrays.
            if not self._source.is_array and dataset.transform != rasterio.Affine.identity():
                to_stored = self._orientation.to_stored(self.width, self.height)
                self.georeference = Georeference(dataset.transform @ to_stored, dataset.crs)
            self.from_gcps = warped

    @property
    def name(self) -> str:
        """File name, for people and tables."""
        path = self.source.partition("?")[0] if is_remote(self.source) else self.source
        return path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """File name without its suffix, from which the names of outputs are made."""
        return Path(self.name).stem

    @cached_property
    def files(self) -> list[Path]:
        """The local files that it is read from; none of an array, or of what lies on a server."""
        return [] if self._source.is_array else files_behind(self.source)

    @property
    def band_numbers(self) -> tuple[int, ...]:
        """Bands shown, from 1: three for red, green, blue, or one for grey."""
        return self._bands.numbers

    @property
    def has_palette(self) -> bool:
        """Whether pixel values are indices into a palette, which is expanded on reading."""
        return self._bands.palette is not None

    @cached_property
    def pixel_size_m(self) -> tuple[float, float] | None:
        """Width and height in metres on the ground of the pixel in the middle; None where the CRS does not tell."""
        if self.georeference is None or self.georeference.crs is None:
            return None
        try:
            size = self.georeference.pixel_size_m(self.width / 2, self.height / 2)
        except UntransformableCRS:
            return None
        return size if np.isfinite(size).all() and min(size) > 0 else None

    @property
    def stretch(self) -> stretching.Stretch | None:
        """What turns pixels into uint8, measured on first use; None where they are taken as they are.

        Raises EmptyImage where there is no valid pixel to measure.
        """
        with self._measuring:
            return self._measured_stretch

    @cached_property
    def _measured_stretch(self) -> stretching.Stretch | None:
        rule = self._rule or stretching.default(self.dtype, self._bits)
        if self.has_palette or (rule == "none" and self.dtype == "uint8"):
            return None
        return stretching.given(rule, len(self._bands)) or stretching.measure(rule, self._sample())

    def _sample(self) -> NDArray[np.generic]:
        """Valid pixels [channels, n > 0] from all over the image. Raises EmptyImage where there are none."""
        width, height = self._stored_size
        shrink = max(1.0, max(width, height) / SAMPLE_EDGE)
        pieces = TileGrid(width, height, PIECE_EDGE, PIECE_EDGE, 0, 0)
        found: NDArray[np.generic] | None = None
        trouble: UnreadableWindow | None = None
        # One decimated read does, save where it meets a broken block, or steps over nearly all that is valid.
        for windows, step in (([(0, 0, width, height)], shrink), (pieces, shrink), (pieces, 1.0)):
            parts: list[NDArray[np.generic]] = []
            count = 0
            for window in windows:
                size = tuple(max(1, round(edge / step)) for edge in window[2:])
                try:
                    pixels, valid = self._read_stored(window, size, Resampling.nearest)
                except UnreadableWindow as error:
                    trouble = error
                    continue
                parts.append(pixels.reshape(len(pixels), -1) if valid is None else pixels[:, valid])
                count += parts[-1].shape[1]
                if count >= SAMPLE_EDGE**2:
                    break
            found = np.concatenate(parts, axis=1) if parts else found
            if found is not None and found.shape[1] >= SAMPLE_ENOUGH:
                break
        if found is not None and found.size:
            return found
        raise trouble or EmptyImage(f"{self.source}: every pixel is nodata, there is nothing to detect")

    def read(self, window: Window, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Pixels of a window as uint8 RGB [h, w, 3]. As `read_masked`, without the mask."""
        return self.read_masked(window, size)[0]

    def read_masked(
        self, window: Window, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Pixels uint8 RGB [h, w, 3], and where they are data, bool [h, w] (None: everywhere).

        window: column, row, width and height in pixels of the frame, inside it.
        size: width and height of the result; by default those of the window, which then must be whole numbers.
        Raises UnreadableWindow where a block cannot be decoded.
        """
        pixels, valid = self.read_view(window, size)
        return interleaved(pixels), None if valid is None else np.ascontiguousarray(valid)

    def read_view(
        self, window: Window, size: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """As `read_masked`, but the arrays lie in memory as the file's bands came: one after the other, turned or
        flipped; for readers who only look at parts of them."""
        stretch = self.stretch
        out = (round(window[2]), round(window[3])) if size is None else size
        shrink = max(window[2] / out[0], window[3] / out[1])
        resampling = Resampling.average if shrink > 2 else Resampling.cubic
        if self.has_palette or (out == (window[2], window[3])):
            resampling = Resampling.nearest
        pixels, valid = self._read_stored(
            self._orientation.stored_window(window, self.width, self.height),
            self._orientation.shown_size(*out),
            resampling,
        )
        rgb = pixels if stretch is None else stretch.apply(pixels)
        rgb = np.broadcast_to(rgb, (3, *rgb.shape[1:])) if len(rgb) == 1 else rgb
        shown = np.moveaxis(self._orientation.apply(rgb), 0, -1).astype(np.uint8, copy=False)
        return shown, None if valid is None else self._orientation.apply(valid).astype(bool, copy=False)

    def _read_stored(
        self, window: Window, size: tuple[int, ...], resampling: Resampling
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Pixels [channels, h, w] of a window of the stored image, palettes expanded, and where they are data."""
        place = RasterWindow(*window)
        shape = (size[1], size[0])
        with self._source.reading(place) as dataset:
            bands, every = list(self._bands.numbers), (len(self._bands), *shape)
            pixels = dataset.read(bands, window=place, out_shape=every, resampling=resampling)
            valid = None
            if self.mask == "nodata":  # The mask of the dataset would have every band read, also those not shown.
                masks = dataset.read_masks(bands, window=place, out_shape=every, resampling=Resampling.nearest)
                valid = masks.any(axis=0)
            elif self.mask != "none":
                valid = dataset.dataset_mask(window=place, out_shape=shape, resampling=Resampling.nearest) > 0
        if self._bands.palette is not None:
            rgba = self._bands.palette[pixels[0]]
            pixels = np.moveaxis(rgba[..., :3], -1, 0)
            opaque = rgba[..., 3] > 0
            valid = opaque if valid is None else valid & opaque
        elif pixels.dtype.kind == "f":
            finite = np.isfinite(pixels).all(axis=0)
            valid = finite if valid is None else valid & finite
        return pixels, None if valid is None or valid.all() else valid

    def close(self) -> None:
        """Closes all handles; reading again opens new ones."""
        self._source.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Scene({self.source!r}, {self.width} x {self.height})"


def interleaved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels [h, w, 3] with the channels of each beside each other in memory, copied where they are not."""
    if pixels.flags.c_contiguous:
        return pixels
    import cv2

    # NumPy takes twenty times as long.
    return np.asarray(cv2.merge(list(pixels.transpose(2, 0, 1))), np.uint8)
