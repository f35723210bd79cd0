"""The pipeline: scene -> tiles -> detector -> merge. Reading runs ahead of the detector; memory is set by the batch."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from slicedet import __version__
from slicedet import boxes as box
from slicedet.detections import Detections
from slicedet.detectors.protocol import Detector, minimum_scores, name_of, provenance_of
from slicedet.errors import (
    EmptyImage,
    InvalidDetections,
    InvalidSetting,
    SceneWarning,
    UnreadableImage,
    UnreadableWindow,
)
from slicedet.merging import MergeRule
from slicedet.prediction import Prediction
from slicedet.raster.orientation import Window
from slicedet.raster.region import Region
from slicedet.raster.scene import Scene
from slicedet.tiling import TileGrid, parse_overlap

BATCH = 8
"""Tiles handed to the detector at a time."""

SAME_GSD = 0.05
"""Relative difference up to which ground sampling distances count as equal: resampling would only cost sharpness."""

ENLARGED = 4.0
"""How much "auto" enlarges pixels at most: objects that coarser ones cannot show do not appear by enlarging."""

MOSTLY = 0.5
"""Share of a box that must lie on data."""

Progress = Callable[[int, int], None]
"""Called with the number of tiles done and of all tiles."""


@dataclass(frozen=True)
class Settings:
    """How a scene is searched; see `predict` for what each setting means. Raises InvalidSetting."""

    slice: int | str | tuple[int, int] | None = None
    overlap: float | str = 0.25
    merge: MergeRule = field(default_factory=MergeRule)
    threshold: float | Mapping[str, float] | None = None
    classes: Sequence[str] | None = None
    gsd: float | str = "auto"
    roi: str | Path | None = None
    full_image: bool = False
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        if self.slice is None:
            parse_overlap(self.overlap)
        else:
            TileGrid.cover(1, 1, self.slice, self.overlap)
        if self.gsd not in ("auto", "native") and not (isinstance(self.gsd, int | float) and 0 < self.gsd < np.inf):
            raise InvalidSetting(f"gsd {self.gsd!r}: expected auto, native or metres per pixel")


def predict(
    source: str | Path | NDArray[np.generic] | Scene,
    detector: Detector,
    *,
    slice: int | str | tuple[int, int] | None = None,
    overlap: float | str = 0.25,
    merge: str | MergeRule = "agreement",
    threshold: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
    gsd: float | str = "auto",
    roi: str | Path | None = None,
    full_image: bool = False,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Finds objects in an image of any size, tile by tile.

    source: path or URL of a raster or photo, an array [H, W] or [H, W, bands], or an open Scene (which may choose bands
        and stretch, and stays open).
    slice: tile size in pixels, 640, "640x512" or (640, 512) as width x height; by default the detector's input size.
    overlap: of neighbouring tiles, as a ratio of the tile (0.25) or in pixels ("160px").
    merge: method by which overlapping detections become one, or a MergeRule with metric and threshold.
    threshold: lowest score kept, one number or by class, {"*": 0.25, "car": 0.4}; None keeps all that the detector
    returns.
    classes: names of the categories kept; None keeps all.
    gsd: ground sampling distance at which the detector sees the scene: "auto", the one it was trained at if known,
        unless pixels would have to be enlarged more than four times; "native", that of the scene; or metres per pixel.
        Boxes come back in native pixels all the same.
    roi: vector file with polygons: tiles outside are not run, boxes whose centre is outside are dropped.
    full_image: also look at the whole scene at once, reduced to the size of a tile, for objects larger than tiles.
    skip_unreadable: leave out tiles that cannot be decoded, and count them, rather than fail.
    progress: called with the number of tiles done and of all tiles.

    Raises a SlicedetError that says in one line what is wrong: EmptyImage where all is nodata, UnreadableImage,
    UnknownCategory, InvalidRegion, InvalidSetting and others.
    """
    rule = merge if isinstance(merge, MergeRule) else MergeRule(merge)
    settings = Settings(slice, overlap, rule, threshold, classes, gsd, roi, full_image, skip_unreadable)
    if isinstance(source, Scene):
        return run(source, detector, settings, progress)
    with Scene(source) as scene:
        return run(scene, detector, settings, progress)


def run(scene: Scene, detector: Detector, settings: Settings, progress: Progress | None = None) -> Prediction:
    """`predict` on an open scene, with settings made once for many scenes."""
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    search = Search(scene, detector, settings)
    tiles: list[Detections] = []
    for jobs in _ahead(_batches(search.jobs(), BATCH)):
        results = detector.detect([job.pixels for job in jobs])
        if len(results) != len(jobs):
            raise InvalidDetections(f"{name_of(detector)} returned {len(results)} results for {len(jobs)} tiles")
        tiles += [search.placed(job, result) for job, result in zip(jobs, results, strict=True)]
        if progress is not None:
            progress(jobs[-1].number, search.count.total)
    search.require_some_tile()
    if progress is not None:
        progress(search.count.total, search.count.total)  # The last tiles may have been left out.
    raw = Detections.concatenate(tiles)
    merged, origins = settings.merge.trace(raw, (scene.width, scene.height))
    # Merging may lower the score of what no tile saw whole.
    kept = merged.scores >= search.minimum[merged.category_ids]
    if search.region is not None:
        kept &= search.region.holds(merged.boxes)
    place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # The last is for what is in no box.
    merged, origins = merged[kept], place[origins]
    record = {
        "slicedet": __version__,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "scene": describe(scene),
        "detector": provenance_of(detector),
        "settings": {**asdict(settings), "roi": None if settings.roi is None else str(settings.roi)},
        "frame": search.describe(),
        "tiles": asdict(search.count),
        "detections": {"before_merging": len(raw), "after_merging": len(merged)},
        "versions": _versions(),
    }
    return Prediction(merged, tuple(detector.categories), scene, name_of(detector), record, raw, origins)


def describe(scene: Scene) -> dict[str, Any]:
    """What slicedet sees of a scene: size, bands, stretch and place on the ground, ready for JSON."""
    place = scene.georeference
    try:
        stretch, empty = scene.stretch, False
    except EmptyImage:
        stretch, empty = None, True
    return {
        "source": scene.source,
        "driver": scene.driver,
        "width": scene.width,
        "height": scene.height,
        "dtype": scene.dtype,
        "band_count": scene.band_count,
        "bands": list(scene.band_numbers),
        "palette": scene.has_palette,
        "mask": scene.mask,
        "all_nodata": empty,
        "stretch": None if stretch is None else {"rule": stretch.rule, "low": stretch.low, "high": stretch.high},
        "exif_orientation": scene.exif_orientation,
        "crs": None if place is None or place.crs is None else place.crs.to_string(),
        "transform": None if place is None else list(place.transform[:6]),
        "warped_from_gcps": scene.from_gcps,
        "pixel_size_m": scene.pixel_size_m,
    }


class Job(NamedTuple):
    """One tile to run: its number from 1, its rectangle in native pixels, its pixels, and where they are data (None:
    everywhere)."""

    number: int
    window: Window
    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None


@dataclass
class TileCount:
    """What became of the tiles. `unreadable` lists what was skipped, in GDAL's words."""

    total: int
    run: int = 0
    empty: int = 0
    outside_roi: int = 0
    unreadable: list[str] = field(default_factory=list)


class Search:
    """One scene cut into tiles for one detector: what is read, and how boxes get back into the scene.

    The frame that is cut has the ground sampling distance asked for; windows and boxes are in native pixels.
    """

    def __init__(self, scene: Scene, detector: Detector, settings: Settings) -> None:
        self.scene = scene
        self.settings = settings
        self.minimum = minimum_scores(detector.categories, settings.threshold, settings.classes)
        self.region = None if settings.roi is None else Region(settings.roi, scene)
        slice = settings.slice if settings.slice is not None else detector.input_size
        if slice is None:
            raise InvalidSetting("slice: the detector does not say which size it prefers; name one")
        scale = _scale(scene, getattr(detector, "gsd", None), settings.gsd)
        size = [max(1, round(edge * factor)) for edge, factor in zip((scene.width, scene.height), scale, strict=True)]
        self.grid = TileGrid.cover(size[0], size[1], slice, settings.overlap)
        self.to_native = (scene.width / size[0], scene.height / size[1])
        whole = settings.full_image and len(self.grid) > 1
        self.count = TileCount(len(self.grid) + whole)
        self._whole = whole

    def describe(self) -> dict[str, Any]:
        """The frame that was cut and its tiles, ready for JSON."""
        return {
            **asdict(self.grid),
            "native_pixels_per_pixel": self.to_native,
            "gsd_m": self.scene.pixel_size_m
            and [a * b for a, b in zip(self.scene.pixel_size_m, self.to_native, strict=True)],
        }

    def jobs(self) -> Iterator[Job]:
        """The tiles worth running, read one after the other; those left out are counted."""
        for number, (window, size) in enumerate(self._windows(), 1):
            if self.region is not None and not self.region.touches(window):
                self.count.outside_roi += 1
            elif (job := self._read(number, window, size)) is not None:
                yield job

    def placed(self, job: Job, found: Detections) -> Detections:
        """A tile's detections in native pixels of the scene, less those below their threshold, off the tile or off the
        data."""
        if len(found) and found.category_ids.max() >= len(self.minimum):
            raise InvalidDetections(f"category id {found.category_ids.max()}: there are {len(self.minimum)} categories")
        found = found[found.scores >= self.minimum[found.category_ids]]
        height, width = job.pixels.shape[:2]
        found = found.replace(boxes=box.clip(found.boxes, width, height))
        found = found[box.area(found.boxes) > 0]
        if job.valid is not None:
            found = found[_share(job.valid, found.boxes) >= MOSTLY]
        x, y, native_width, native_height = job.window
        scale = np.array([native_width / width, native_height / height] * 2)
        placed = found.boxes * scale + np.array([x, y, x, y])
        tile = np.array([x, y, x + native_width, y + native_height], np.float32)
        return found.replace(boxes=placed, tiles=np.broadcast_to(tile, (len(found), 4)))

    def require_some_tile(self) -> None:
        """Raises where no tile at all was run."""
        if self.count.run:
            return
        if self.count.unreadable:
            raise UnreadableImage(f"{self.scene.source}: none of its tiles can be decoded")
        raise EmptyImage(f"{self.scene.source}: every pixel searched is nodata, there is nothing to detect")

    def _windows(self) -> Iterator[tuple[Window, tuple[int, int]]]:
        fx, fy = self.to_native
        for tile in self.grid:
            yield (tile.x * fx, tile.y * fy, tile.width * fx, tile.height * fy), (tile.width, tile.height)
        if self._whole:
            width, height = self.grid.width, self.grid.height
            shrink = min(self.grid.tile_width / width, self.grid.tile_height / height, 1.0)
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            yield (0, 0, self.scene.width, self.scene.height), size

    def _read(self, number: int, window: Window, size: tuple[int, int]) -> Job | None:
        try:
            pixels, valid = self.scene.read_masked(window, size)
        except UnreadableWindow as error:
            if not self.settings.skip_unreadable:
                raise
            self.count.unreadable.append(str(error))
            return None
        if valid is not None and not valid.any():
            self.count.empty += 1
            return None
        self.count.run += 1
        return Job(number, window, pixels, valid)


def _scale(scene: Scene, trained: float | None, asked: float | str) -> tuple[float, float]:
    """Pixels of the searched frame per native pixel, along x and y."""
    target = trained if asked == "auto" else asked
    if target is None or target == "native":
        return 1.0, 1.0
    if scene.pixel_size_m is None:
        if asked == "auto":
            return 1.0, 1.0
        raise InvalidSetting(f"{scene.source}: its pixel size in metres is not known, so gsd {asked} cannot be met")
    ratios = scene.pixel_size_m[0] / float(target), scene.pixel_size_m[1] / float(target)
    if asked == "auto" and max(ratios) > ENLARGED:
        warnings.warn(
            f"{scene.source}: pixels of {max(scene.pixel_size_m):.3g} m are too coarse for a detector trained at "
            f"{float(target):g} m; they are searched as they are (--gsd METRES has them enlarged)",
            SceneWarning,
            stacklevel=2,
        )
        return 1.0, 1.0
    if asked == "auto" and max(abs(ratio - 1) for ratio in ratios) <= SAME_GSD:
        return 1.0, 1.0
    return ratios


def _share(valid: NDArray[np.bool_], boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of each box's pixels [N] that are data, from a summed-area table."""
    table = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1))
    table[1:, 1:] = valid.cumsum(axis=0).cumsum(axis=1)
    x1, y1 = np.floor(boxes[:, 0]).astype(int), np.floor(boxes[:, 1]).astype(int)
    x2, y2 = np.ceil(boxes[:, 2]).astype(int), np.ceil(boxes[:, 3]).astype(int)
    return (table[y2, x2] - table[y1, x2] - table[y2, x1] + table[y1, x1]) / ((x2 - x1) * (y2 - y1))


_Item = TypeVar("_Item")


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The items, each made in another thread while the one before is in use. Errors surface where they would."""
    end: Any = object()
    with ThreadPoolExecutor(1, "slicedet-reader") as reader:
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item


def _versions() -> dict[str, str]:
    import rasterio

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "gdal": rasterio.__gdal_version__,
    }
