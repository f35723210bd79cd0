"""Search: one scene cut into tiles for one detector, and the way of boxes from the tiles back into the scene."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet import boxes as box
from slicedet.detections import Detections
from slicedet.detectors.protocol import Detector, minimum_scores, threshold_of, tile_size_of
from slicedet.errors import InvalidDetections, InvalidSetting, SceneWarning, SlicedetWarning, UnreadableWindow
from slicedet.pipeline.settings import Settings
from slicedet.raster.orientation import Window
from slicedet.raster.region import Region
from slicedet.raster.scene import Scene
from slicedet.tiling import Tile, TileGrid

SAME_GSD = 0.05
"""Relative difference up to which ground sampling distances count as equal: resampling would only cost sharpness."""

ENLARGED = 4.0
"""How much "auto" enlarges pixels at most: objects that coarser ones cannot show do not appear by enlarging."""

MOST_ENLARGED = 64.0
"""How much a gsd asked for may enlarge: then a tile shows some ten pixels of the scene, and never anything more."""

MOST_TILES = 10**9
"""Of one scene: a year's work. More are in no image, but a file of a few bytes may claim them."""

MOSTLY = 0.5
"""Share of a box that must lie on data."""

FLAT = 8
"""Levels of 255 between the darkest and the brightest pixel of each channel of a tile in which nothing can be seen."""

SEGMENT = 1 << 23
"""Pixels times channels read at once: tiles beside each other share what is read, up to this."""


class Job(NamedTuple):
    """One tile to run: its number from 1, its rectangle in native pixels, its pixels uint8 RGB [H, W, 3], a view of
    what was read for several tiles, and where they are data (None: everywhere)."""

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
    flat: int = 0
    unreadable: list[str] = field(default_factory=list)

    def add(self, other: TileCount) -> None:
        """Counts what became of other tiles of the same scene, whose total is known already."""
        self.run += other.run
        self.empty += other.empty
        self.outside_roi += other.outside_roi
        self.flat += other.flat
        self.unreadable += other.unreadable


@dataclass(frozen=True)
class Strip:
    """What one row of tiles gave: detections as found, in pixels of the scene, with their tiles; and the tiles."""

    detections: Detections
    count: TileCount


class Row(NamedTuple):
    """Tiles beside each other. y: where they begin in the frame that is cut, None for the whole scene as one tile.
    first: the number of the first tile, from 1."""

    y: int | None
    first: int


class Seen(NamedTuple):
    """What a detector says of one tile: its rectangle in native pixels, its width and height as the detector saw it,
    and the detections in these pixels."""

    window: Window
    size: tuple[int, int]
    detections: Detections


class Search:
    """One scene cut into tiles for one detector: what is read, and how boxes get back into the scene.

    The frame that is cut has the ground sampling distance asked for; windows and boxes are in native pixels.
    """

    def __init__(self, scene: Scene, detector: Detector, settings: Settings) -> None:
        self.scene = scene
        self.settings = settings
        threshold = threshold_of(detector) if settings.threshold is None else settings.threshold
        self.minimum = minimum_scores(detector.categories, threshold, settings.classes)
        _warn_of_scores_never_seen(detector, float(self.minimum.min(initial=np.inf)))
        self.region = None if settings.roi is None else Region(settings.roi, scene)
        slice = settings.slice or tile_size_of(detector)
        if slice is None:
            raise InvalidSetting("slice: the detector does not say which size it prefers; name one")
        self.grid = cut(scene, slice, settings, getattr(detector, "gsd", None))
        self.to_native = (scene.width / self.grid.width, scene.height / self.grid.height)
        columns, tops = self.grid.columns, self.grid.rows
        # The whole scene comes first: what it shows may belong to any tile.
        whole = settings.full_image and len(self.grid) > 1
        self.rows = [Row(None, 1)] if whole else []
        self.rows += [Row(y, whole + 1 + index * len(columns)) for index, y in enumerate(tops)]
        self.total = whole + len(self.grid)
        self._columns = columns

    def describe(self) -> dict[str, Any]:
        """The frame that was cut and its tiles, ready for JSON."""
        return {
            **asdict(self.grid),
            "native_pixels_per_pixel": self.to_native,
            "gsd_m": self.scene.pixel_size_m
            and [a * b for a, b in zip(self.scene.pixel_size_m, self.to_native, strict=True)],
        }

    def later(self, index: int) -> float:
        """The y in native pixels at which the tiles after the row of this index begin; infinity after the last."""
        y = self.rows[index + 1].y if index + 1 < len(self.rows) else None
        return np.inf if y is None else y * self.to_native[1]

    def jobs(self, row: Row, count: TileCount) -> Iterator[list[Job]]:
        """The tiles of a row that are worth running, as many at a time as are read together; all are counted."""
        wanted = []
        for number, place in enumerate(self._places(row), row.first):
            if self.region is not None and not self.region.touches(self._native(place)):
                count.outside_roi += 1
            else:
                wanted.append((number, place))
        for begin, end in _together([place for _, place in wanted]):
            yield self._read(wanted[begin:end], row, count)

    def seen(self, job: Job, found: Detections) -> Seen:
        """What was found in a tile, less what lies off the data, without the tile's pixels."""
        size = (job.pixels.shape[1], job.pixels.shape[0])
        if job.valid is not None and len(found):
            found = found[box.area(box.clip(found.boxes, *size)) > 0]
            found = found[_share(job.valid, box.clip(found.boxes, *size)) >= MOSTLY]
        return Seen(job.window, size, found)

    def place(self, tiles: list[Seen]) -> Detections:
        """The detections of tiles in native pixels of the scene, less those below their threshold or off their tile.

        Raises InvalidDetections for a category that the detector does not name.
        """
        tiles = [seen for seen in tiles if len(seen.detections)]
        if not tiles:
            return Detections.empty()
        found = Detections.concatenate([seen.detections for seen in tiles])
        if found.category_ids.max() >= len(self.minimum):
            raise InvalidDetections(f"category id {found.category_ids.max()}: there are {len(self.minimum)} categories")
        tile = np.repeat(np.arange(len(tiles)), [len(seen.detections) for seen in tiles])
        sizes = np.array([seen.size for seen in tiles], np.float32)
        windows = np.array([seen.window for seen in tiles], np.float64)
        corners, extents = windows[:, :2], windows[:, 2:]
        inside = np.clip(found.boxes, np.float32(0), np.tile(sizes, 2)[tile])
        kept = (found.scores >= self.minimum[found.category_ids]) & (box.area(inside) > 0)
        boxes = inside * np.tile(extents / sizes, 2)[tile] + np.tile(corners, 2)[tile]
        return found.replace(boxes=boxes, tiles=np.concatenate([corners, corners + extents], 1)[tile])[kept]

    def _places(self, row: Row) -> list[Tile]:
        grid = self.grid
        if row.y is None:
            return [Tile(0, 0, grid.width, grid.height)]
        width, height = min(grid.tile_width, grid.width), min(grid.tile_height, grid.height)
        return [Tile(x, row.y, width, height) for x in self._columns]

    def _native(self, place: Tile) -> Window:
        fx, fy = self.to_native
        return (place.x * fx, place.y * fy, place.width * fx, place.height * fy)

    def _read(self, wanted: list[tuple[int, Tile]], row: Row, count: TileCount) -> list[Job]:
        """The tiles worth running of some that are read together, or one by one where that fails."""
        first, last = wanted[0][1], wanted[-1][1]
        segment = Tile(first.x, first.y, last.x + last.width - first.x, first.height)
        size = (segment.width, segment.height)
        if row.y is None:
            shrink = min(self.grid.tile_width / size[0], self.grid.tile_height / size[1], 1.0)
            size = (max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink)))
        try:
            pixels, valid = self.scene.read_view(self._native(segment), size)
        except UnreadableWindow as error:
            if not self.settings.skip_unreadable:
                raise
            if len(wanted) > 1:
                return [job for one in wanted for job in self._read([one], row, count)]
            count.unreadable.append(str(error))
            return []
        jobs = []
        for number, place in wanted:
            columns = slice(None) if row.y is None else slice(place.x - first.x, place.x - first.x + place.width)
            shown, data = pixels[:, columns], None if valid is None else valid[:, columns]
            if data is not None and data.all():
                data = None
            if data is not None and not data.any():
                count.empty += 1
            elif self.settings.skip_flat and _is_flat(shown, data):
                count.flat += 1
            else:
                count.run += 1
                jobs.append(Job(number, self._native(place), shown, data))
        return jobs


def cut(scene: Scene, slice: int | str | tuple[int, int], settings: Settings, trained: float | None) -> TileGrid:
    """Tiles of this size over a scene as it is searched, by the settings' overlap and gsd.

    trained: the ground sampling distance in metres that "auto" stands for; None where it is not known.
    """
    scale = _scale(scene, trained, settings.gsd)
    width, height = max(1, round(scene.width * scale[0])), max(1, round(scene.height * scale[1]))
    grid = TileGrid.cover(width, height, slice, settings.overlap)
    if len(grid) > MOST_TILES:
        raise InvalidSetting(
            f"{scene.source}: {len(grid):,} tiles of {grid.tile_width} x {grid.tile_height} pixels are more than can "
            "be searched; larger ones (--slice) or a coarser --gsd are fewer"
        )
    return grid


def _warn_of_scores_never_seen(detector: Detector, lowest: float) -> None:
    own = threshold_of(detector)
    if own is not None and lowest < np.float32(own):
        warnings.warn(
            f"threshold {lowest:.4g}: the detector returns scores from {own:g} on; load it with the lower threshold",
            SlicedetWarning,
            stacklevel=4,
        )


def _together(places: list[Tile]) -> Iterator[tuple[int, int]]:
    """Stretches of tiles to read at once: without gaps between them, and not too many pixels."""
    begin = 0
    for end in range(1, len(places) + 1):
        first, last = places[begin], places[end - 1]
        if end < len(places):
            following = places[end]
            pixels = first.height * (following.x + following.width - first.x)
            if following.x <= last.x + last.width and 3 * pixels <= SEGMENT:
                continue
        yield begin, end
        begin = end


def _is_flat(pixels: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> bool:
    """Whether the data of a tile [H, W, 3] are of one colour, give or take a little."""
    # Most tiles show in a few pixels that they are not.
    for part in (pixels[::16, ::16], pixels) if valid is None else (pixels[valid],):
        values = part.reshape(-1, 3)
        if (values.max(0).astype(int) - values.min(0) > FLAT).any():
            return False
    return True


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
    if asked != "auto" and max(ratios) > MOST_ENLARGED:
        raise InvalidSetting(
            f"{scene.source}: gsd {asked:g} m would enlarge its pixels of {max(scene.pixel_size_m):.3g} m "
            f"{max(ratios):,.0f} times; {MOST_ENLARGED:g} times is the most"
        )
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
