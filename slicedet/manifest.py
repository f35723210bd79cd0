"""Manifest: what has been done and found, and with which settings, in one SQLite file that survives any end.

Every change is a transaction. A killed process loses nothing that was written; a power cut loses at most what came
after the last `sync`, and never the order of things.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.detections import Detections
from slicedet.errors import CorruptFile, OutputError
from slicedet.pipeline import Strip, TileCount
from slicedet.publishing import flush_folder
from slicedet.raster.beside import companions

APPLICATION = 0x736C6463
"""SQLite's application id of manifests."""

VERSION = 1
"""Of the tables; a manifest of another one is refused."""

PART = 1 << 16
"""Most detections in one blob: 1.5 MB."""

MAX_RECORD = 1 << 24
"""Bytes of the record of one run, beyond which it is none."""

SYNC_SECONDS = 1.0
"""How long what is written may wait until the disk has it for sure."""

WAITING, FOUND, DONE, FAILED = "waiting", "found", "done", "failed"

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    position INTEGER,
    state TEXT NOT NULL DEFAULT 'waiting',
    size INTEGER,
    mtime_ns INTEGER,
    stem TEXT NOT NULL DEFAULT '',
    width INTEGER NOT NULL DEFAULT 0,
    height INTEGER NOT NULL DEFAULT 0,
    detections INTEGER NOT NULL DEFAULT 0,
    run BLOB,
    error TEXT NOT NULL DEFAULT '',
    files TEXT NOT NULL DEFAULT '{}',
    durable INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX images_by_position ON images (position);
CREATE TABLE detections (
    image INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (image, part)
);
CREATE TABLE strips (
    image INTEGER NOT NULL, row INTEGER NOT NULL, tiles TEXT NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (image, row)
);
"""

_COLUMNS = "id, name, position, state, size, mtime_ns, stem, width, height, detections, run, error, files, durable"

Files = Mapping[str, tuple[int, int] | None]
"""Files by name, relative to the results, with size in bytes and mtime in ns; None while they may not be there yet."""


class Stamp(NamedTuple):
    """What tells whether an image has changed: bytes and nanoseconds."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | Path) -> Stamp:
        """That of a file; zeros where there is none, as for a URL."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return cls(0, 0)
        return cls(found.st_size, found.st_mtime_ns)

    @classmethod
    def of_image(cls, path: str | Path) -> Stamp:
        """That of an image and all that is read along with it: bytes in all, and the last change of any."""
        stamps = [cls.of(each) for each in (path, *companions(path))]
        return cls(sum(each.size for each in stamps), max(each.mtime_ns for each in stamps))


@dataclass(frozen=True)
class Entry:
    """One image. position: in the list of all, from 0; None where it is no longer listed. run: the record of the run,
    None as long as no result is known. files: its outputs. durable: whether these are on the disk for sure."""

    id: int
    name: str
    position: int | None
    state: str
    stamp: Stamp | None
    stem: str
    width: int
    height: int
    detections: int
    run: dict[str, Any] | None
    error: str
    files: Files
    durable: bool


class Manifest:
    """A manifest, made where there is none. One process at a time may have it open, any of its threads may use it.

    remedy: what the user can do where it is damaged.

    Raises CorruptFile where the file is damaged, is something else, or comes from another version of slicedet.
    """

    def __init__(self, path: Path, remedy: str = "begin anew with --restart --overwrite") -> None:
        self.path = path
        self._remedy = remedy
        self._lock = threading.RLock()
        self._fresh: list[int] = []
        self._folders: set[Path] = set()
        self._dirty = False
        self._synced = time.monotonic()
        with self._telling():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        # Alone on the file, SQLite needs no shared memory, which network file systems do not have.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        ((application,),) = self._db.execute("PRAGMA application_id")
        ((version,),) = self._db.execute("PRAGMA user_version")
        ((tables,),) = self._db.execute("SELECT count(*) FROM sqlite_master")
        is_new = not tables
        ((active,),) = self._db.execute("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')")
        if active or (not is_new and (application, version) != (APPLICATION, VERSION)):
            raise self._damaged("comes from another program, or another version of slicedet")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if is_new:
            identity = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
            self._db.executescript(f"BEGIN; {_TABLES} {identity} COMMIT;")
        ((verdict,),) = self._db.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise self._damaged(" ".join(str(verdict).split()))

    def close(self) -> None:
        """Writes all to the disk and lets go of the file."""
        with self._lock, self._telling(), closing(self._db):
            self.sync(0)

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sync(self, seconds: float = SYNC_SECONDS) -> None:
        """Has the disk take all that was written, if the last time was longer ago than this.

        The folders of outputs come first, so that nothing is called durable whose place could still be lost.
        """
        with self._lock, self._telling():
            if not self._dirty or time.monotonic() - self._synced < seconds:
                return
            for folder in self._folders:
                flush_folder(folder)
            self._db.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction():
                    self._db.executemany("UPDATE images SET durable = 1 WHERE id = ?", ((id,) for id in self._fresh))
                    self._put("synced", time.time())
            finally:
                self._db.execute("PRAGMA synchronous = NORMAL")
            self._fresh, self._dirty, self._synced = [], False, time.monotonic()
            self._folders.clear()

    def fact(self, name: str) -> Any:
        """What has been noted under this name, None if nothing."""
        with self._lock, self._telling():
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        try:
            return None if row is None else json.loads(row[0])
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged(f"{name}: {error}") from error

    def note(self, name: str, value: Any) -> None:
        """Notes a value that JSON can hold."""
        with self._writing():
            self._put(name, value)

    def take_list(self, images: Iterable[tuple[int, str]]) -> Sequence[str]:
        """Takes the images, positions and names, as the present list; gives the names that have a result and are not in
        it."""
        with self._writing():
            self._db.execute("UPDATE images SET position = NULL")
            self._db.executemany(
                "INSERT INTO images (position, name) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                images,
            )
            rows = self._db.execute("SELECT name FROM images WHERE position IS NULL AND run IS NOT NULL").fetchall()
        return [name for (name,) in rows]

    def entry(self, name: str) -> Entry | None:
        """The image of this name."""
        with self._lock, self._telling():
            row = self._db.execute(f"SELECT {_COLUMNS} FROM images WHERE name = ?", (name,)).fetchone()
            return None if row is None else self._entry(row)

    def entries(self) -> Iterator[Entry]:
        """All listed images in order."""
        position = -1
        while True:
            with self._lock, self._telling():
                rows = self._db.execute(
                    f"SELECT {_COLUMNS} FROM images WHERE position > ? ORDER BY position LIMIT 100", (position,)
                ).fetchall()
                entries = [self._entry(row) for row in rows]
            if not entries:
                return
            yield from entries
            position = rows[-1][2]

    def files(self) -> Iterator[str]:
        """Names of all outputs, those of images no longer listed too."""
        with self._lock, self._telling():
            rows = self._db.execute("SELECT files FROM images").fetchall()
        for (files,) in rows:
            yield from self._files(files)

    def has_results(self) -> bool:
        """Whether anything was found out about any image."""
        with self._lock, self._telling():
            return self._db.execute("SELECT 1 FROM images WHERE run IS NOT NULL LIMIT 1").fetchone() is not None

    def strips(self) -> int:
        """How many strips of unfinished images are kept."""
        with self._lock, self._telling():
            ((count,),) = self._db.execute("SELECT count(*) FROM strips")
        return int(count)

    def begin(self, name: str, stamp: Stamp) -> None:
        """Forgets what is known of an image that has this stamp now and had another."""
        with self._writing():
            row = self._db.execute("SELECT id, size, mtime_ns FROM images WHERE name = ?", (name,)).fetchone()
            if row[1:] != stamp:
                self._drop(row[0])
                self._db.execute(
                    "UPDATE images SET state = ?, size = ?, mtime_ns = ?, run = NULL, detections = 0 WHERE id = ?",
                    (WAITING, *stamp, row[0]),
                )

    def found(self, result: ImageResult, size: tuple[int, int], run: dict[str, Any]) -> None:
        """Keeps the result of an image, width x height, in place of an earlier one, and lets go of its strips."""
        with self._writing():
            id = result.image
            result.write()
            self._db.execute("DELETE FROM strips WHERE image = ?", (id,))
            # What a killed run has left unfinished may be more than was found now.
            self._db.execute(
                "DELETE FROM detections WHERE image = ? AND part NOT BETWEEN ? AND -1", (id, -result.parts)
            )
            self._db.execute("UPDATE detections SET part = -1 - part WHERE image = ?", (id,))
            self._db.execute(
                "UPDATE images SET state = ?, width = ?, height = ?, detections = ?, run = ?, error = '' WHERE id = ?",
                (FOUND, *size, result.count, zlib.compress(json.dumps(run).encode()), id),
            )

    def result(self, name: str) -> ImageResult:
        """What is found in an image, to be added to and then handed to `found`."""
        with self._lock, self._telling():
            return ImageResult(self, self._id(name))

    def publishing(self, name: str, stem: str, files: Files) -> None:
        """Notes that outputs of an image, named after `stem`, are about to be put in place.

        files: all that are its own from now on, there or not.
        """
        with self._writing():
            self._db.execute(
                "UPDATE images SET state = ?, stem = ?, files = ?, durable = 0 WHERE id = ?",
                (FOUND, stem, json.dumps(files), self._id(name)),
            )

    def done(self, name: str, files: Files, folders: Iterable[Path]) -> None:
        """Marks an image as done, now that its outputs are in place, in these folders."""
        with self._writing():
            id = self._id(name)
            self._db.execute(
                "UPDATE images SET state = ?, error = '', files = ? WHERE id = ?", (DONE, json.dumps(files), id)
            )
            self._fresh.append(id)
            self._folders.update(folders)
        self.sync()

    def failed(self, name: str, error: str) -> None:
        """Marks an image as failed. Strips, and a result that could not be written, are kept."""
        with self._writing():
            self._db.execute("UPDATE images SET state = ?, error = ? WHERE name = ?", (FAILED, error, name))
        self.sync()

    def detections(self, entry: Entry) -> Iterator[Detections]:
        """What was found in an image, in parts. Raises CorruptFile where it cannot be read."""
        left = entry.detections
        for part in itertools.count():
            with self._lock, self._telling():
                row = self._db.execute(
                    "SELECT data, crc FROM detections WHERE image = ? AND part = ?", (entry.id, part)
                ).fetchone()
            if row is None:
                break
            if zlib.crc32(row[0]) != row[1]:
                raise self._damaged(f"detections of {entry.name} are not what was written")
            found = decode(row[0])
            left -= len(found)
            yield found
        if left:
            raise self._damaged(f"detections of {entry.name} are missing")

    def journal(self, name: str) -> ImageJournal:
        """The strips of an image."""
        with self._lock, self._telling():
            return ImageJournal(self, self._id(name))

    def strip(self, image: int, row: int) -> Strip | None:
        """A row of tiles of the image with this id; None where it is not there or not what was written."""
        with self._lock, self._telling():
            kept = self._db.execute(
                "SELECT tiles, data, crc FROM strips WHERE image = ? AND row = ?", (image, row)
            ).fetchone()
        if kept is None or zlib.crc32(kept[1], zlib.crc32(kept[0].encode())) != kept[2]:
            return None
        return Strip(decode(kept[1]), TileCount(**json.loads(kept[0])))

    def keep_part(self, image: int, part: int, detections: Detections) -> None:
        """Keeps a part, counted from 0, of what is being found in the image with this id."""
        data = encode(detections.replace(tiles=None))
        with self._writing():
            # Beside the parts of an earlier result, which stays until this one is whole.
            row = (image, -1 - part, data, zlib.crc32(data))
            self._db.execute("INSERT OR REPLACE INTO detections VALUES (?, ?, ?, ?)", row)

    def keep_strip(self, image: int, row: int, strip: Strip) -> None:
        """Keeps a row of tiles of the image with this id."""
        tiles, data = json.dumps(asdict(strip.count)), encode(strip.detections)
        with self._writing():
            self._db.execute(
                "INSERT OR REPLACE INTO strips VALUES (?, ?, ?, ?, ?)",
                (image, row, tiles, data, zlib.crc32(data, zlib.crc32(tiles.encode()))),
            )
        self.sync()

    def _id(self, name: str) -> int:
        ((id,),) = self._db.execute("SELECT id FROM images WHERE name = ?", (name,))
        return int(id)

    def _drop(self, id: int) -> None:
        for table in ("strips", "detections"):
            self._db.execute(f"DELETE FROM {table} WHERE image = ?", (id,))

    def _put(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value, sort_keys=True)))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, self._telling(), self._transaction():
            yield
            self._dirty = True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._db.in_transaction:  # It is part of a larger one.
            yield
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns SQLite's exceptions into errors that name the file."""
        try:
            yield
        except sqlite3.ProgrammingError:  # A fault in the code, not in the file.
            raise
        except sqlite3.OperationalError as error:
            if "malformed" in str(error):
                raise self._damaged(str(error)) from error
            raise OutputError(f"{self.path}: cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> CorruptFile:
        return CorruptFile(f"{self.path}: is damaged, or not slicedet's ({why}); {self._remedy}")

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        id, name, position, state, size, mtime_ns, stem, width, height, detections, run, error, files, durable = row
        return Entry(
            id,
            name,
            position,
            state,
            None if size is None else Stamp(size, mtime_ns),
            stem,
            width,
            height,
            detections,
            None if run is None else self._run(run),
            error,
            self._files(files),
            bool(durable),
        )

    def _run(self, data: bytes) -> dict[str, Any]:
        inflate = zlib.decompressobj()
        try:
            text = inflate.decompress(data, MAX_RECORD)
            if inflate.unconsumed_tail or not isinstance(run := json.loads(text), dict):
                raise ValueError("too large, or no record")
        except (zlib.error, TypeError, ValueError, RecursionError) as error:
            raise self._damaged(f"the record of a run: {error}") from error
        return run

    def _files(self, text: str) -> Files:
        try:
            files = {
                name: None if size is None else (int(size[0]), int(size[1])) for name, size in json.loads(text).items()
            }
        except (TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
            raise self._damaged(f"the list of an image's outputs: {error}") from error
        for name in files:
            # They are removed, replaced and copied by these names.
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise self._damaged(f"{name} is not a name for an output")
        return files


class ImageResult:
    """What is found in one image, on its way into a manifest.

    count: detections so far. parts: of PART detections, or fewer in the last, that are in the manifest.
    """

    def __init__(self, manifest: Manifest, image: int) -> None:
        self.image = image
        self.count = 0
        self.parts = 0
        self._manifest = manifest
        self._waiting: list[Detections] = []

    def add(self, detections: Detections) -> None:
        """Takes what comes after all that was added before."""
        self._waiting.append(detections)
        self.count += len(detections)
        if self.count >= (self.parts + 1) * PART:
            self._write(PART)

    def write(self) -> None:
        """Puts what still waits into the manifest."""
        self._write(1)

    def _write(self, least: int) -> None:
        """Puts parts into the manifest, until fewer than `least` detections wait."""
        waiting = Detections.concatenate(self._waiting)
        while len(waiting) >= least:
            self._manifest.keep_part(self.image, self.parts, waiting[:PART])
            waiting = waiting[PART:]
            self.parts += 1
        self._waiting = [waiting]


class ImageJournal:
    """The strips of one image in a manifest; see `slicedet.pipeline.Journal`."""

    def __init__(self, manifest: Manifest, image: int) -> None:
        self._manifest = manifest
        self._image = image

    def get(self, index: int) -> Strip | None:
        """A row of tiles, where it is kept."""
        return self._manifest.strip(self._image, index)

    def put(self, index: int, strip: Strip) -> None:
        """Keeps a row of tiles, save one that is all the image has: its result follows at once."""
        count = strip.count
        if count.run + count.empty + count.outside_roi + count.flat + len(count.unreadable) < count.total:
            self._manifest.keep_strip(self._image, index, strip)


def encode(detections: Detections) -> bytes:
    """Detections as bytes: their number and whether they have tiles, uint32, then the arrays one after the other; all
    little-endian."""
    columns = [(detections.boxes, "<f4"), (detections.scores, "<f4"), (detections.category_ids, "<i4")]
    if detections.tiles is not None:
        columns.append((detections.tiles, "<f4"))
    head = struct.pack("<II", len(detections), detections.tiles is not None)
    return head + b"".join(np.ascontiguousarray(values, dtype).tobytes() for values, dtype in columns)


def decode(data: bytes) -> Detections:
    """Detections from the bytes of `encode`."""
    count, tiled = struct.unpack_from("<II", data)
    place = struct.calcsize("<II")

    def taken(dtype: str, width: int) -> NDArray[Any]:
        nonlocal place
        values = np.frombuffer(data, dtype, count * width, place)
        place += values.nbytes
        return values.astype(values.dtype.newbyteorder("="))

    boxes, scores, category_ids = taken("<f4", 4).reshape(-1, 4), taken("<f4", 1), taken("<i4", 1)
    return Detections(boxes, scores, category_ids, taken("<f4", 4).reshape(-1, 4) if tiled else None)
