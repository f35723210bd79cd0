"""Reading ahead: threads open scenes and read their tiles while the detector works on earlier ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import Full, Queue
from typing import Protocol

from slicedet.detections import Detections
from slicedet.detectors.protocol import Detector
from slicedet.pipeline.search import Job, Search, Strip, TileCount
from slicedet.pipeline.settings import Settings
from slicedet.raster.scene import Scene

AHEAD = 2
"""Stretches of tiles of one scene that wait for the detector."""

_PATIENCE = 0.1
"""Seconds after which a reader that waits looks whether it is still wanted."""

Progress = Callable[[int, int], None]
"""Called with the number of tiles done and of all tiles."""

Sink = Callable[[Detections], None]
"""Takes some of the detections of a scene."""


class Journal(Protocol):
    """Keeps finished rows of tiles of one scene, so that a run that was broken off need not look at them again.

    get: the row of this index, where it was kept; called from a reading thread. put: keeps a row; called in the order
    of rows by the thread that runs, and not for rows that `get` gave.
    """

    def get(self, index: int) -> Strip | None: ...

    def put(self, index: int, strip: Strip) -> None: ...


@dataclass(frozen=True)
class Task:
    """One scene to search. open: gives it; called in a reading thread, some scenes ahead of the results.

    sink: takes detections as soon as no later tile can touch them, from the top of the scene to its bottom, in the
    thread that runs; the prediction then has none.
    """

    open: Callable[[], Scene]
    journal: Journal | None = None
    progress: Progress | None = None
    sink: Sink | None = None


@dataclass(frozen=True)
class Opened:
    """A scene is open; what follows belongs to it."""

    task: Task
    search: Search


@dataclass(frozen=True)
class RowRead:
    """All tiles of a row have been given."""

    index: int
    count: TileCount


@dataclass(frozen=True)
class RowKept:
    """A row that the journal has."""

    index: int
    strip: Strip


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a scene: all was read, or it failed."""

    error: BaseException | None


Event = Opened | Job | RowRead | RowKept | Ended


def read_ahead(tasks: Iterable[Task], detector: Detector, settings: Settings, workers: int) -> Iterator[Event]:
    """What becomes of the scenes, one after the other: Opened, then tiles and rows, then Ended.

    Up to `workers` scenes are read at the same time. Closing the iterator ends the threads.
    """
    unwanted = threading.Event()
    remaining, ahead = iter(tasks), deque[Queue[list[Event]]]()

    def start(task: Task) -> Queue[list[Event]]:
        channel: Queue[list[Event]] = Queue(AHEAD)
        # As daemons, since one that waits for a server must not hold up the end of the program.
        threading.Thread(
            target=_read, args=(task, detector, settings, channel, unwanted), name="slicedet-reader", daemon=True
        ).start()
        return channel

    try:
        while True:
            ahead.extend(start(task) for task in islice(remaining, workers - len(ahead)))
            if not ahead:
                return
            channel, ended = ahead.popleft(), False
            while not ended:
                for event in channel.get():
                    yield event
                    ended = isinstance(event, Ended)
    finally:
        unwanted.set()


def _read(
    task: Task, detector: Detector, settings: Settings, channel: Queue[list[Event]], unwanted: threading.Event
) -> None:
    error: BaseException | None = None
    try:
        for events in _events(task, detector, settings):
            if not _put(channel, events, unwanted):
                return
    except BaseException as caught:  # It is raised where the results are taken.
        error = caught
    _put(channel, [Ended(error)], unwanted)


def _events(task: Task, detector: Detector, settings: Settings) -> Iterator[list[Event]]:
    scene = task.open()
    try:
        search = Search(scene, detector, settings)
        yield [Opened(task, search)]
        for index, row in enumerate(search.rows):
            kept = None if task.journal is None else task.journal.get(index)
            if kept is not None:
                yield [RowKept(index, kept)]
                continue
            count = TileCount(search.total)
            for jobs in search.jobs(row, count):
                yield list(jobs)
            yield [RowRead(index, count)]
    finally:
        scene.close()  # With this thread's handle go the blocks that GDAL keeps.


def _put(channel: Queue[list[Event]], events: list[Event], unwanted: threading.Event) -> bool:
    while not unwanted.is_set():
        try:
            channel.put(events, timeout=_PATIENCE)
        except Full:
            continue
        return True
    return False
