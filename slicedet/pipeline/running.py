"""Running: tiles of all scenes flow through one detector, and what it finds is gathered scene by scene."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from slicedet import __version__
from slicedet.detections import Detections
from slicedet.detectors.protocol import Detector, name_of, provenance_of, require_detector
from slicedet.errors import EmptyImage, InvalidDetections, SlicedetError, UnreadableImage
from slicedet.merging.gradual import GradualMerge, Settled
from slicedet.pipeline.pile import Pile
from slicedet.pipeline.reading import Ended, Event, Job, Opened, RowKept, RowRead, Task, read_ahead
from slicedet.pipeline.record import describe, versions
from slicedet.pipeline.search import Seen, Strip, TileCount
from slicedet.pipeline.settings import Resources, Settings
from slicedet.prediction import Prediction
from slicedet.raster.scene import interleaved
from slicedet.raster.source import shown

Outcome = Prediction | SlicedetError


class Flow:
    """All tasks on one detector. Iterating gives the outcome of each, in order; other errors are raised.

    Tiles are drawn by the detector as it has room for them, so what is known of earlier ones comes later: `_waiting`
    holds what has been read and not yet answered.
    """

    def __init__(self, tasks: Iterable[Task], detector: Detector, settings: Settings, resources: Resources) -> None:
        require_detector(detector)
        self._detector = detector
        self._settings = settings
        self._batch = resources.batch
        self._events = read_ahead(tasks, detector, settings, resources.workers)
        self._waiting: deque[Event] = deque()
        self._running = 0
        self._gathering: _Gathering | None = None
        self._outcomes: deque[Outcome] = deque()

    def __iter__(self) -> Iterator[Outcome]:
        with closing(self._events), closing(_stream(self._detector, self._tiles(), self._batch)) as answers:  # type: ignore[type-var]
            for found in answers:
                if not self._running:
                    raise InvalidDetections(f"{name_of(self._detector)} returned more results than it was given tiles")
                self._answered(found)
                while self._outcomes:
                    yield self._outcomes.popleft()
        if self._running:
            raise InvalidDetections(f"{name_of(self._detector)} returned {self._running} results too few for its tiles")
        yield from self._outcomes

    def _tiles(self) -> Iterator[NDArray[np.uint8]]:
        for event in self._events:
            if isinstance(event, Job):
                self._waiting.append(event)
                self._running += 1
                yield event.pixels
            elif self._running:
                self._waiting.append(event)
            else:
                self._happened(event)

    def _answered(self, found: Detections) -> None:
        job = self._waiting.popleft()
        assert isinstance(job, Job)
        assert self._gathering is not None
        self._running -= 1
        self._gathering.found(job, found)
        while self._waiting and not isinstance(self._waiting[0], Job):
            self._happened(self._waiting.popleft())

    def _happened(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._gathering = _Gathering(event, self._detector, self._settings)
        elif isinstance(event, RowRead) and self._gathering is not None:
            self._gathering.row_read(event)
        elif isinstance(event, RowKept) and self._gathering is not None:
            self._gathering.row_kept(event)
        elif isinstance(event, Ended):
            gathering, self._gathering = self._gathering, None
            self._outcomes.append(_ended(gathering, event.error))


class _Gathering:
    """What is found in one scene, from its first tile to its prediction."""

    def __init__(self, opened: Opened, detector: Detector, settings: Settings) -> None:
        self.error: SlicedetError | None = None
        self._task = opened.task
        self._search = opened.search
        self._detector = detector
        self._settings = settings
        self._started, self._clock = datetime.now(timezone.utc), time.perf_counter()
        scene = opened.search.scene
        self._merge = GradualMerge(settings.merge, (scene.width, scene.height))
        self._count = TileCount(opened.search.total)
        self._seen: list[Seen] = []
        self._raw = 0
        self._views: list[Detections] = []
        self._kept = Pile()
        self._counts = np.zeros(len(detector.categories), np.int64)
        self._origins: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def found(self, job: Job, found: Detections) -> None:
        """Takes the answer to one tile."""
        self._seen.append(self._search.seen(job, found))
        if self._task.progress is not None:
            self._task.progress(job.number, self._count.total)

    def row_read(self, row: RowRead) -> None:
        """Takes the end of a row: all its tiles have been answered."""
        seen, self._seen = self._seen, []
        if self.error is not None:
            return
        try:
            strip = Strip(self._search.place(seen), row.count)
        except InvalidDetections as error:
            self.error = error
            return
        if self._task.journal is not None:
            self._task.journal.put(row.index, strip)
        self._add(row.index, strip)

    def row_kept(self, row: RowKept) -> None:
        """Takes a row that an earlier run has seen."""
        self._add(row.index, row.strip)
        if self._task.progress is not None:
            following = self._search.rows[row.index + 1 :][:1]
            self._task.progress(following[0].first - 1 if following else self._count.total, self._count.total)

    def prediction(self) -> Prediction:
        """The whole, once all rows have been taken. Raises EmptyImage or UnreadableImage where no tile was run."""
        scene, count = self._search.scene, self._count
        if not count.run:
            if count.unreadable:
                raise UnreadableImage(f"{scene.source}: none of its tiles can be decoded")
            if count.flat:
                raise EmptyImage(f"{scene.source}: every tile searched is of one flat colour, and those are skipped")
            raise EmptyImage(f"{scene.source}: every pixel searched is nodata, there is nothing to detect")
        if self._task.progress is not None:
            self._task.progress(count.total, count.total)  # The last tiles may have been left out.
        self._settled(self._merge.finish())
        counts, settings = self._counts, self._settings
        if self._task.sink is None:
            detections, order = self._kept.take()
        else:
            detections, order = Detections.empty(), np.arange(counts.sum())
        record = {
            "slicedet": __version__,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._clock, 3),
            "scene": describe(scene),
            "detector": provenance_of(self._detector),
            "settings": {**asdict(settings), "roi": None if settings.roi is None else shown(str(settings.roi))},
            "frame": self._search.describe(),
            "tiles": asdict(count),
            "detections": {
                "before_merging": self._raw,
                "after_merging": int(counts.sum()),
                "by_class": _by_name(self._detector.categories, counts),
            },
            "versions": versions(),
        }
        return Prediction(
            detections,
            tuple(self._detector.categories),
            scene,
            name_of(self._detector),
            record,
            Detections.concatenate(self._views),
            self._placed_origins(order),
        )

    def _add(self, index: int, strip: Strip) -> None:
        self._count.add(strip.count)
        self._raw += len(strip.detections)
        if self._settings.keep_views:
            self._views.append(strip.detections)
        settled = self._merge.add(strip.detections, self._search.later(index))
        if settled is not None:
            self._settled(settled)

    def _settled(self, settled: Settled) -> None:
        """Takes merged detections, of which some may not stay."""
        merged, search = settled.detections, self._search
        # Merging may lower the score of what no tile saw whole.
        kept = merged.scores >= search.minimum[merged.category_ids]
        if search.region is not None:
            kept &= search.region.holds(merged.boxes)
        if self._settings.keep_views:
            # The last is for what is in no box.
            place = np.append(np.where(kept, self._counts.sum() + np.cumsum(kept) - 1, -1), -1)
            self._origins.append((settled.given, place[settled.rows]))
        merged = merged[kept] if self._settings.keep_views else merged[kept].replace(tiles=None)
        self._counts += np.bincount(merged.category_ids, minlength=len(self._counts))
        if self._task.sink is None:
            self._kept.add(merged)
        elif len(merged):
            self._task.sink(merged)

    def _placed_origins(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each view the row of its detection, once these have been put in order."""
        if not self._settings.keep_views:
            return np.empty(0, np.int64)
        row = np.full(len(order) + 1, -1)
        row[order] = np.arange(len(order))
        origins = np.full(self._raw, -1)
        for given, place in self._origins:
            origins[given] = row[place]  # A place of -1 reads the last row, which is nobody's.
        return origins


def _by_name(categories: Sequence[str], counts: NDArray[np.int64]) -> dict[str, int]:
    """Counts above 0 by the name of their category."""
    named: Counter[str] = Counter()
    for name, count in zip(categories, counts.tolist(), strict=True):
        named[name] += count
    return dict(+named)


def _ended(gathering: _Gathering | None, error: BaseException | None) -> Outcome:
    """What became of a scene. Raises what is no fault of the scene."""
    if error is None and gathering is not None:
        if gathering.error is not None:
            return gathering.error
        try:
            return gathering.prediction()
        except SlicedetError as failed:
            return failed
    if isinstance(error, SlicedetError):
        return error
    assert error is not None
    raise error


def _stream(detector: Detector, tiles: Iterator[NDArray[np.uint8]], batch: int) -> Iterator[Detections]:
    """The detections of each tile in order, by the detector's own stream where it has one."""
    if hasattr(detector, "stream"):
        yield from detector.stream(tiles)
        return
    while part := list(islice(tiles, batch)):
        results = detector.detect([interleaved(tile) for tile in part])
        if len(results) != len(part):
            raise InvalidDetections(f"{name_of(detector)} returned {len(results)} results for {len(part)} tiles")
        yield from results
