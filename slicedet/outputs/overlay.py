"""Overlays: the image with its detections drawn on it, as a picture to look at or a GeoTIFF in full resolution."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slicedet.detections import Detections
from slicedet.errors import UnreadableWindow
from slicedet.merging.order import best_first
from slicedet.outputs.drawing import Canvas, Drawing

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from slicedet.outputs.layer import Layer
    from slicedet.raster.orientation import Window
    from slicedet.raster.scene import Scene

LONGEST_SIDE = 8192
"""Pixels to which JPEG and PNG overlays are fitted."""

_STRIP = 256
_WINDOW = (4096, 1024)
_BLOCK = 512
_CACHE_BYTES = 64 << 20
_SMALLEST_READ = 64


def write_jpg(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a JPEG of at most 8192 pixels a side; what is no data is white."""
    # Through memory, since Pillow does not tell when the last of a JPEG does not fit on the disk.
    encoded = io.BytesIO()
    picture(layer, _gathered(pieces), transparency=False).save(encoded, "JPEG", quality=90, subsampling=0)
    path.write_bytes(encoded.getvalue())


def write_png(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a PNG of at most 8192 pixels a side; what is no data is transparent."""
    picture(layer, _gathered(pieces), transparency=True).save(path, "PNG", compress_level=4)


def write_tif(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes a cloud-optimised GeoTIFF in the scene's own pixels, with its georeference and mask, window by window."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.shutil import copy

    draft = path.with_name(f"{path.name}.draft")
    options: dict[str, Any] = {"blocksize": _BLOCK, "compress": "deflate", "predictor": "yes", "bigtiff": "if_safer"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            _write_draft(layer, _gathered(pieces), draft)
        _check_whole(draft)
        # Making overviews fills whatever cache there is, to no gain.
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
            copy(draft, path, driver="COG", overview_resampling="average", num_threads="all_cpus", **options)
        _check_whole(path)
    draft.unlink()


def picture(layer: Layer, detections: Detections, transparency: bool) -> Picture:
    """The overlay fitted to LONGEST_SIDE, in RGB on white; in RGBA if `transparency` and any pixel is no data."""
    from PIL import Image

    scene = layer.scene
    shrink = max(1.0, max(scene.width, scene.height) / LONGEST_SIDE)
    width, height = (max(1, round(edge / shrink)) for edge in (scene.width, scene.height))
    scale_x, scale_y = scene.width / width, scene.height / height
    boxes, scale = detections.boxes, np.array([scale_x, scale_y, scale_x, scale_y])
    fitted = np.divide(boxes, scale, out=np.empty_like(boxes), casting="same_kind")
    drawing = Drawing(detections.replace(boxes=fitted), layer.categories, width, height)
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        window = (0.0, top * scale_y, float(scene.width), (bottom - top) * scale_y)
        canvas = _read(scene, window, (width, bottom - top), layer.skip_unreadable)
        canvas[canvas[..., 3] == 0, :3] = 255
        drawing.paint(canvas, 0, top)
        drawing.paint_legend(canvas, 0, top)
        if transparency and picture.mode == "RGB" and not canvas[..., 3].all():
            picture.putalpha(255)
        channels = len(picture.getbands())
        picture.paste(Image.fromarray(np.ascontiguousarray(canvas[..., :channels])), (0, top))
    return picture


def _write_draft(layer: Layer, detections: Detections, path: Path) -> None:
    """The overlay in full resolution as a tiled GeoTIFF without overviews; with a mask if any pixel is no data."""
    import rasterio
    from rasterio.windows import Window as RasterWindow

    scene, place = layer.scene, layer.scene.georeference
    drawing = Drawing(detections, layer.categories, scene.width, scene.height)
    profile: dict[str, Any] = {"driver": "GTiff", "width": scene.width, "height": scene.height, "count": 3}
    profile |= {"dtype": "uint8", "photometric": "rgb", "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}
    profile |= {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK}
    if place is not None:
        profile |= {"transform": place.transform, "crs": place.crs}
    opaque_so_far: list[RasterWindow] | None = []
    with rasterio.open(path, "w", **profile) as file:
        for x, y, width, height in _windows(scene.width, scene.height):
            canvas = _read(scene, (x, y, width, height), (width, height), layer.skip_unreadable)
            drawing.paint(canvas, x, y)
            window = RasterWindow(x, y, width, height)
            file.write(np.moveaxis(canvas[..., :3], -1, 0), window=window)
            if opaque_so_far is not None and canvas[..., 3].all():
                opaque_so_far.append(window)
                continue
            for earlier in opaque_so_far or ():
                file.write_mask(np.full((earlier.height, earlier.width), 255, np.uint8), window=earlier)
            opaque_so_far = None
            file.write_mask(canvas[..., 3], window=window)


def _windows(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    for y in range(0, height, _WINDOW[1]):
        for x in range(0, width, _WINDOW[0]):
            yield x, y, min(_WINDOW[0], width - x), min(_WINDOW[1], height - y)


def _check_whole(path: Path) -> None:
    """Raises OSError where a TIFF lacks blocks: GDAL is silent when just its end does not fit on the disk."""
    import rasterio

    end = path.stat().st_size
    with rasterio.open(path) as file:
        for (row, column), window in file.block_windows(1):
            start, size = (
                file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1) for what in ("OFFSET", "SIZE")
            )
            if start is None or int(start) + int(size) > end:
                raise OSError(f"the block at column {window.col_off}, row {window.row_off} is incomplete")
        # Its mask, which is written last of all, has no such tags.
        file.dataset_mask(window=window)


def _gathered(pieces: Iterable[Detections]) -> Detections:
    """All detections at once, best score first: the order of drawing is that of the scores, however they came."""
    found = Detections.concatenate(list(pieces))
    return found[best_first(found.scores, found.boxes, found.category_ids)]


def _read(scene: Scene, window: Window, size: tuple[int, int], skip_unreadable: bool) -> Canvas:
    """A window as red, green, blue and alpha [h, w, 4] of the size asked for, alpha 0 where there is no data.

    If `skip_unreadable`, blocks that cannot be decoded are no data; they are closed in on by quartering the window.
    """
    canvas = np.zeros((size[1], size[0], 4), np.uint8)
    try:
        canvas[..., :3], valid = scene.read_masked(window, size)
    except UnreadableWindow:
        if not skip_unreadable:
            raise
        if max(size) > _SMALLEST_READ:
            x, y, width, height = window
            for (i, n), (j, m) in product(_halves(size[0]), _halves(size[1])):
                part = (x + width * i / size[0], y + height * j / size[1], width * n / size[0], height * m / size[1])
                if n and m:
                    canvas[j : j + m, i : i + n] = _read(scene, part, (n, m), True)
        return canvas
    canvas[..., 3] = 255 if valid is None else valid * np.uint8(255)
    return canvas


def _halves(length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, length // 2), (length // 2, length - length // 2)
