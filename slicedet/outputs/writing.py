"""Writing: files that are made while detections are still being found, each by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING

from slicedet.outputs import FORMATS, format_of, written_to
from slicedet.outputs.files import publish, temporary_folder, write_errors

if TYPE_CHECKING:
    from slicedet.detections import Detections
    from slicedet.outputs.layer import Layer

AHEAD = 2
"""Parts that may wait for a file."""

_PATIENCE = 0.1
"""Seconds after which it is asked whether a file can still be written."""


class Writing:
    """Files of one layer, to which detections are added as they are found.

    A context manager: the files appear, whole, with `finish`; without it nothing is left of them.

        with Writing(layer, [Path("big.geojson"), Path("big.gpkg")]) as writing:
            for part in parts:
                writing.add(part)
            written = writing.finish()

    Pictures are drawn at the end, for which all detections are kept. Raises OutputError where a file cannot be written,
    or exists and `overwrite` is not set, and the errors of its format.
    """

    def __init__(self, layer: Layer, paths: Sequence[Path], overwrite: bool = False) -> None:
        self._layer = layer
        self._paths = paths
        self._overwrite = overwrite
        self._kept: list[Detections] = []

    def __enter__(self) -> Writing:
        with ExitStack() as stack:
            folders = [stack.enter_context(temporary_folder(path)) for path in self._paths]
            self._files = [_File(self._layer, *place) for place in zip(self._paths, folders, strict=True)]
            self._drawn = [file for file in self._files if file.format.drawn]
            self._streamed = [file for file in self._files if not file.format.drawn]
            for file in self._streamed:
                stack.callback(file.abandon)
                file.thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, detections: Detections) -> None:
        """Adds detections, which come after those added before. Waits where files take longer than finding."""
        for file in self._streamed:
            file.put(detections)
        if self._drawn:
            self._kept.append(detections)

    def finish(self) -> list[Path]:
        """Puts all files in place; returns them, with the styles beside them."""
        for file in self._streamed:
            file.put(None)
        for file in self._drawn:
            file.write(self._kept)
        for file in self._streamed:
            file.join()
        written = []
        for file in self._files:
            with write_errors(file.target, file.folder):
                written += written_to(file.temporary, file.target, self._overwrite)
                publish(file.folder, file.target, self._overwrite)
        return list(dict.fromkeys(written))


class _Abandoned(Exception):
    """The file is no longer wanted."""


class _File:
    """One file on its way, in a temporary folder."""

    def __init__(self, layer: Layer, target: Path, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.temporary = folder / target.name
        self.format = FORMATS[format_of(target)]
        self._layer = layer
        self._parts: Queue[Detections | None] = Queue(AHEAD)
        self._unwanted = threading.Event()
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="slicedet-writer", daemon=True)

    def write(self, parts: Iterable[Detections]) -> None:
        """Writes the file."""
        with write_errors(self.target, self.folder):
            self.format.write(self._layer, parts, self.temporary)

    def put(self, part: Detections | None) -> None:
        """Hands a part over to the thread; None says that there are no more. Raises what has stopped it."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._parts.put(part, timeout=_PATIENCE)
            except Full:
                continue
            return

    def join(self) -> None:
        """Waits until the thread has ended. Raises what has stopped it."""
        self.thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Has the thread end, if it has not."""
        self._unwanted.set()
        while self.thread.is_alive():
            try:
                self._parts.put(None, timeout=_PATIENCE)
            except Full:
                continue
            self.thread.join()

    def _work(self) -> None:
        try:
            self.write(self._received())
        except BaseException as error:  # It is raised where parts are added.
            self._error = error

    def _received(self) -> Iterator[Detections]:
        while (part := self._parts.get()) is not None:
            if self._unwanted.is_set():
                break
            yield part
        if self._unwanted.is_set():
            raise _Abandoned
