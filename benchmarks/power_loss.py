"""What a power cut costs: runs whose every change of the disk is recorded, cut short, left as a bad disk leaves it, and
gone on with.

Each run is traced by strace. Up to a cut, its calls are replayed on a model of a disk that owes nothing beyond POSIX:
an fsync of a file keeps its content and not its name, an fsync of a folder keeps the names in it, and what was not
synced is kept or lost, name by name and page by page. What is left is laid out as files, the manifest is checked, no
image that it calls done may be missing or broken, and the same command goes on. At the end all files but the records of
runs are compared with those of an unbroken run, and tiles that were kept must not be run again.

    python benchmarks/power_loss.py --cuts 100

What is kept of the unsynced: nothing; all; names but no data, once with empty files and once with zeros; data but no
names; and seeded random parts. `--journalled` takes a kinder disk, whose names come back in order, and with any fsync,
as on ext4. Needs Linux and strace.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine
from crash import kept, size

import slicedet
from slicedet.batch import Batch, Shard, collect
from slicedet.datasets.slicing import SliceSettings, slice_dataset
from slicedet.errors import OutputError
from slicedet.manifest import DONE
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings
from slicedet.resuming import predict_resumably

FORMATS = ("geojson", "gpkg", "csv", "jpg")
PAUSE = 0.12
"""Seconds for a tile while recording: the disk is waited for once a second, which is to come several times."""

PAGE = 4096

EXISTS = 3
"""Exit code of a command that finds its results there: all was done, or what is there is nobody's."""

CALLS = [
    *("open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl", "lseek", "read", "readv", "mmap"),
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range", "truncate", "ftruncate"),
    *("fallocate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link"),
    *("linkat", "symlink", "symlinkat", "utimensat", "fsync", "fdatasync", "sync", "syncfs"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "clone", "clone3", "fork", "vfork"),
]
"""What changes a disk, what tells where in a file that happens, and when it did."""


class Dots:
    """A detector that costs nothing but a pause: a box around the bright pixels of a tile. It leaves a byte in a file
    for each."""

    name, categories, input_size = "dots", ("dot",), 64

    def __init__(self, pause: float, log: Path) -> None:
        self._pause = pause
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        return [self._found(tile) for tile in tiles]

    def _found(self, tile: np.ndarray) -> slicedet.Detections:
        time.sleep(self._pause)
        os.write(self._log, b".")
        rows, columns = np.nonzero(tile[..., 0] > 200)
        if not len(rows):
            return slicedet.Detections.empty()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return slicedet.Detections([box], [0.9], [0])


class Place(NamedTuple):
    """Folders of a run: images to read, the disk that loses its power, and what tells of the run."""

    images: Path
    disk: Path
    log: Path

    @classmethod
    def below(cls, folder: Path) -> Place:
        return cls(folder / "images", folder / "disk", folder / "answered")

    @property
    def results(self) -> Path:
        return self.disk / "results"


@dataclass(frozen=True)
class Kind:
    """A command. run: it. before: what is there when it begins, and safe on the disk. anew: whether it begins anew
    each time. spares: whether what is kept spares it tiles."""

    name: str
    run: Callable[[Place, Dots], object]
    before: Callable[[Place, Dots], object] = lambda place, detector: None
    anew: bool = False
    spares: bool = True


def run_batch(place: Place, detector: Dots, **options: Any) -> None:
    for result in Batch(place.images, place.results, formats=FORMATS, **options).run(detector, Settings()):
        if result.error:
            print(result.error)


def run_predict(place: Place, detector: Dots) -> None:
    with slicedet.Scene(place.images / "b" / "large.tif") as scene:
        predict_resumably(scene, Targets([place.results], FORMATS), lambda: detector, Settings())


def parts(place: Place) -> list[Path]:
    return [place.disk / "part1", place.disk / "part2"]


def run_shards(place: Place, detector: Dots) -> None:
    for number, part in enumerate(parts(place), 1):
        Batch(place.images, part, formats=FORMATS, shard=Shard(number, 2)).run(detector, Settings())


def make_dataset(place: Place, detector: Dots) -> None:
    """A dataset of one image."""
    (place.disk / "annotations").mkdir()
    (place.disk / "images").mkdir()
    shutil.copy(place.images / "b" / "large.tif", place.disk / "images")
    image = {"id": 1, "file_name": "large.tif", "width": 150, "height": 400}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 9, 6], "area": 54, "iscrowd": 0}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "dot"}]}
    (place.disk / "annotations" / "instance_train.json").write_text(json.dumps(coco))


def run_slice(place: Place, detector: Dots) -> None:
    slice_dataset(place.disk, place.results, SliceSettings(slice=64, empty_ratio=None))


def others_style(place: Place, detector: Dots) -> None:
    """A QGIS style that is not slicedet's, and is to stay."""
    place.results.mkdir()
    (place.results / "large.qml").write_text("<qgis/>")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("batch", run_batch),
        Kind("predict", run_predict, others_style),
        Kind("collect", lambda place, detector: collect(parts(place), place.results), run_shards, spares=False),
        Kind("slice", run_slice, make_dataset, anew=True, spares=False),
        Kind(
            "restart",
            lambda place, detector: run_batch(place, detector, restart=True),
            run_batch,
            anew=True,
            spares=False,
        ),
    )
}


def work(kind: str, place: Place, pause: float) -> None:
    """What is traced, and what goes on."""
    warnings.simplefilter("ignore")
    connected = sqlite3.connect

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        """Has SQLite's log taken into the database often, as it is where there are thousands of images."""
        connection = connected(*arguments, **named)
        connection.execute("PRAGMA wal_autocheckpoint = 10")
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    KINDS[kind].run(place, Dots(pause, place.log))


def make_images(folder: Path) -> None:
    """Small rasters in two folders, one of several rows of tiles, and one that is none."""
    sizes = {"a/1.tif": (100, 80), "a/2.tif": (64, 64), "b/3.tif": (64, 64), "b/large.tif": (150, 400)}
    chance = np.random.default_rng(0)
    for number, (name, (width, height)) in enumerate(sizes.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((3, height, width), 20, np.uint8)
        for y in range(0, height - 20, 40):
            for x in range(0, width - 20, 40):
                dx, dy = chance.integers(0, 10, 2)
                pixels[:, y + dy : y + dy + 6, x + dx : x + dx + 9] = 250
        transform = Affine(0.2, 0, 400000 + 100 * number, 0, -0.2, 5000000)
        profile = {"crs": "EPSG:32633", "transform": transform, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", width=width, height=height, **profile) as dataset:
            dataset.write(pixels)
    (folder / "a" / "broken.tif").write_bytes(b"no image")


class Call(NamedTuple):
    """A system call. begun: how many calls had returned when it began. result: what it returned, paths spelled out."""

    begun: int
    seconds: float
    name: str
    arguments: str
    result: str


_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_RETURNED = re.compile(r"(\w+)\((.*)\) += (-?\d+.*|\?.*|0x.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FOLDER = re.compile(r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>")


def trace(command: Sequence[str], place: Place) -> list[Call]:
    """Runs a command under strace; gives the calls of the process and its threads in the order they returned."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace"
        tracing = ["strace", "-f", "-y", "-v", "-xx", "-ttt", "-s", str(1 << 24), "--seccomp-bpf", "-o", str(log)]
        tracing += ["-e", f"trace={','.join(f'?{name}' for name in CALLS)}", "-e", "signal=none"]
        done = subprocess.run([*tracing, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(parsed(log.read_text(), place))


def parsed(text: str, place: Place) -> Iterator[Call]:
    """The calls that a trace tells of, as far as they concern the disk."""
    begun: dict[str, tuple[int, str]] = {}
    threads: set[str] = set()
    touching = re.compile(rf"{re.escape(_spelled(str(place.disk)))}|{re.escape(_spelled(str(place.log)))}|^sync\(")
    returned = 0
    for line in text.splitlines():
        match = _LINE.match(line)
        assert match, line
        pid, seconds, said = match.groups()
        threads = threads or {pid}
        if said.startswith(("+++", "---")):
            continue
        start = returned
        if said.endswith("<unfinished ...>"):
            begun[pid] = returned, said.removesuffix("<unfinished ...>")
            if said.startswith("close("):  # Its number may be given away before it returns.
                returned += 1
                yield Call(start, float(seconds), "close", said[6:], "0")
            continue
        if said.startswith("<..."):
            start, head = begun.pop(pid)
            said = head + said.partition(" resumed>")[2]
            if head.startswith("close("):
                continue
        match = _RETURNED.match(said)
        assert match, line
        name, arguments, result = match.groups()
        if "CLONE_FILES" in arguments:
            threads.add(result.split()[0])
        if result.startswith(("-1", "?")):
            continue
        if touching.search(said) or name.startswith("dup") or name == "close":
            # Threads share their files; what another process does would go unseen.
            assert pid in threads or not touching.search(said), f"{line}: from another process"
            returned += 1
            yield Call(start, float(seconds), name, arguments, result)


def _spelled(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def _bytes(spelled: str) -> bytes:
    return bytes.fromhex(spelled.replace("\\x", ""))


class File(NamedTuple):
    """A file as it lies on a disk; mtime in ns."""

    data: bytes
    mtime: int


Tree = Mapping[str, File | None]
"""Files and folders (None) by path."""


@dataclass
class Change:
    """What was done to a file, as the call of number `index`: data written, a size set, or only a time."""

    index: int
    mtime: int
    offset: int = 0
    data: bytes = b""
    size: int | None = None


@dataclass(eq=False)
class Node:
    """A file or a folder. names, size: as the running system sees them. safe...: what the disk has for sure. pending:
    changes since then; of a folder: (number of the call, name, node or None)."""

    names: dict[str, Node] | None = None
    size: int = 0
    safe: Any = b""
    safe_mtime: int = 0
    pending: list[Any] = field(default_factory=list)


@dataclass
class Handle:
    """An open file."""

    node: Node
    place: int = 0
    appending: bool = False


@dataclass(frozen=True)
class Fate:
    """What becomes of the unsynced: how likely a name, a page of data, or a size without its data is kept."""

    name: str
    names: float
    data: float
    sizes: float = 0
    seed: int = 0


ALL = Fate("all", 1, 1)
FATES = (
    Fate("nothing", 0, 0),
    ALL,
    Fate("names, files empty", 1, 0),
    Fate("names, files of zeros", 1, 0, 1),
    Fate("data, no names", 0, 1),
)


def random_fate(seed: int) -> Fate:
    chance = random.Random(seed)
    names, data, sizes = (chance.choice((0.1, 0.5, 0.9)) for _ in range(3))
    return Fate("random parts", names, data, sizes, seed)


class Disk:
    """A disk that calls are made to, and that knows what of them would outlast a power cut.

    tree: what is on it, for sure. journalled: whether any fsync keeps all names so far, and the last are lost first.
    answered, syncs: tiles answered, and calls that wait for the disk, so far. changed, named: the number of the last
    call that changed anything, and of the last that changed a name outside hidden folders. count: of calls.
    """

    def __init__(self, place: Place, tree: Tree, journalled: bool = False) -> None:
        self._place = place
        self._journalled = journalled
        self._top = Node({}, safe={})
        self._handles: dict[int, Handle] = {}
        self._folders = [self._top]
        self.count = self.changed = self.named = 0
        self.answered = 0
        self.syncs = 0
        for name, file in sorted(tree.items()):
            folder, last = self._parent(str(place.disk / name))
            node = Node({}, safe={}) if file is None else Node(None, len(file.data), file.data, file.mtime)
            inside(folder)[last] = folder.safe[last] = node
            if file is None:
                self._folders.append(node)

    def state(self, fate: Fate) -> Tree:
        """What a power cut leaves now."""
        chance = random.Random(fate.seed)
        tree: dict[str, File | None] = {}
        pending = sorted({index for folder in self._folders for index, *_ in folder.pending})
        in_order = set(pending[: round(fate.names * len(pending))])

        def visit(folder: Node, path: str) -> None:
            # What one call does to a folder goes together, as rename promises.
            drawn = {index: chance.random() < fate.names for index, *_ in folder.pending}
            lasting = in_order if self._journalled else {index for index in drawn if drawn[index]}
            names = dict(folder.safe)
            rename(names, [each for each in folder.pending if each[0] in lasting])
            for name, node in sorted(names.items()):
                tree[path + name] = content(node, fate, chance) if node.names is None else None
                if node.names is not None:
                    visit(node, f"{path}{name}/")

        visit(self._top, "")
        return tree

    def apply(self, call: Call) -> None:
        """Takes a call."""
        self.count += 1
        text = call.arguments
        number = int(match[0]) if (match := re.match(r"\d+", text)) else -1
        handle = self._handles.get(number)
        match call.name:
            case "open" | "openat" | "creat":
                self._open(call)
            case "close":
                self._handles.pop(number, None)
            case "dup" | "dup2" | "dup3" | "fcntl":
                if handle and (call.name != "fcntl" or "F_DUPFD" in text):
                    self._handles[_number(call)] = handle
                elif call.name != "fcntl":
                    self._handles.pop(_number(call), None)
            case "sync" | "syncfs":
                self.syncs += 1
                for folder in self._folders:
                    for node in (folder, *inside(folder).values()):
                        self._sync(node, call.begun)
            case "stat" | "fstat" | "lstat" | "newfstatat" | "statx":
                self._see(call, handle)
            case "rename" | "renameat" | "renameat2" | "link" | "linkat":
                source, target = self._paths(call)
                folder, last = self._parent(source)
                node = inside(folder)[last]
                if call.name.startswith("rename"):
                    self._name(source, None)
                self._name(target, node)
            case "unlink" | "unlinkat" | "rmdir":
                self._name(self._paths(call)[0], None)
            case "mkdir" | "mkdirat":
                self._folders.append(Node({}, safe={}))
                self._name(self._paths(call)[0], self._folders[-1])
            case "utimensat" if handle is None:
                node_there = self._node(self._paths(call)[0])
                assert node_there, call
                self._change(node_there, call, mtime=_time(text))
            case "mmap":
                assert "MAP_SHARED" not in text or "PROT_WRITE" not in text, "writes by way of memory are not seen"
            case _ if handle is None:
                if call.name == "write" and text.startswith(f"{number}<{_spelled(str(self._place.log))}>"):
                    self.answered += 1
                else:
                    assert call.name in ("lseek", "read"), f"not understood: {call.name}({text[:200]}"
            case "fsync" | "fdatasync":
                self.syncs += 1
                self._sync(handle.node, call.begun)
            case "lseek":
                handle.place = _number(call)
            case "read" | "readv":
                handle.place += _number(call)
            case "write" | "pwrite64" | "writev" | "sendfile":
                self._write(call, handle)
            case "ftruncate":
                self._change(handle.node, call, size=int(text.split(", ")[-1]))
            case "fallocate":
                _, mode, offset, length = text.split(", ")
                assert mode == "0", call
                self._change(handle.node, call, size=max(handle.node.size, int(offset) + int(length)))
            case _:
                raise AssertionError(f"not understood: {call.name}({text[:200]}")

    def _paths(self, call: Call) -> list[str]:
        """The paths that a call names."""
        found = [_bytes(each).decode() for each in _QUOTED.findall(call.arguments)]
        folders = [_bytes(each).decode() for each in _FOLDER.findall(call.arguments)] or [""] * len(found)
        return [os.path.join(folder, path) for folder, path in zip(folders, found, strict=False)]

    def _parent(self, path: str) -> tuple[Node, str]:
        """The folder that holds a path, and the name there."""
        *above, last = Path(path).relative_to(self._place.disk).parts
        folder = self._top
        for name in above:
            folder = inside(folder)[name]
        return folder, last

    def _node(self, path: str) -> Node | None:
        """What is at a path, None where there is nothing on this disk."""
        if Path(path) == self._place.disk:
            return self._top
        try:
            folder, last = self._parent(path)
        except (KeyError, ValueError):
            return None
        return inside(folder).get(last)

    def _name(self, path: str, node: Node | None) -> None:
        """Gives a name to a node, or takes it away."""
        folder, last = self._parent(path)
        folder.pending.append((self.count, last, node))
        rename(inside(folder), folder.pending[-1:])
        self.changed = self.count
        if not any(part.startswith(".") for part in Path(path).relative_to(self._place.disk).parts):
            self.named = self.count

    def _change(
        self, node: Node, call: Call, offset: int = 0, data: bytes = b"", size: int | None = None, mtime: int = 0
    ) -> None:
        node.pending.append(Change(self.count, mtime or int(call.seconds * 1e9), offset, data, size))
        node.size = max(node.size, offset + len(data)) if size is None else size
        self.changed = self.count

    def _open(self, call: Call) -> None:
        match = re.match(r"(\d+)<((?:\\x[0-9a-f]{2})*)>", call.result)
        assert match, call
        number, path = int(match[1]), _bytes(match[2]).decode()
        self._handles.pop(number, None)
        if not Path(path).is_relative_to(self._place.disk):
            return
        node = Node() if "O_TMPFILE" in call.arguments else self._node(path)
        if node is None:
            assert "O_CREAT" in call.arguments, call
            node = Node(safe_mtime=int(call.seconds * 1e9))
            self._name(path, node)
        elif "O_TRUNC" in call.arguments and node.size:
            self._change(node, call, size=0)
        self._handles[number] = Handle(node, appending="O_APPEND" in call.arguments)

    def _write(self, call: Call, handle: Handle) -> None:
        node, count = handle.node, _number(call)
        placed = call.name == "pwrite64"
        offset = int(call.arguments.split(", ")[-1]) if placed else node.size if handle.appending else handle.place
        if call.name == "sendfile":
            _, source, start, _ = call.arguments.split(", ")
            begin = int(re.findall(r"\d+", start)[0])
            data = live(self._handles[int(source.partition("<")[0])].node)[begin : begin + count]
        else:
            data = b"".join(map(_bytes, _QUOTED.findall(call.arguments)))[:count]
        assert len(data) == count, call
        self._change(node, call, offset, data)
        if not placed:
            handle.place = offset + count

    def _see(self, call: Call, handle: Handle | None) -> None:
        """Learns the exact time of a file's last change where the process asked for it."""
        node = handle.node if handle else self._node((self._paths(call) or [""])[0])
        if node is None or node.names is not None or "mtime=" not in call.arguments:
            return
        if node.pending:
            node.pending[-1].mtime = _time(call.arguments)
        else:
            node.safe_mtime = _time(call.arguments)

    def _sync(self, node: Node, begun: int) -> None:
        """Keeps what was done to a file or folder before the call began."""
        self.changed = self.count
        if node.names is None:
            done = [change for change in node.pending if change.index <= begun]
            node.safe = applied(node.safe, done)
            node.safe_mtime = done[-1].mtime if done else node.safe_mtime
            node.pending = node.pending[len(done) :]
        for folder in self._folders if self._journalled else [node] if node.names is not None else []:
            rename(folder.safe, [each for each in folder.pending if each[0] <= begun])
            folder.pending = [each for each in folder.pending if each[0] > begun]


def inside(folder: Node) -> dict[str, Node]:
    """The names in a folder, as the running system sees them."""
    assert folder.names is not None
    return folder.names


def rename(names: dict[str, Node], changes: Sequence[tuple[int, str, Node | None]]) -> None:
    """Takes changes of a folder into its names."""
    for _, name, node in changes:
        names.pop(name, None)
        if node is not None:
            names[name] = node


def live(node: Node) -> bytes:
    """A file as the running system sees it."""
    return applied(node.safe, node.pending)


def applied(before: bytes, changes: Sequence[Change]) -> bytes:
    """The content of a file after changes."""
    data = bytearray(before)
    for change in changes:
        _put(data, change.offset, change.data)
        if change.size is not None:
            del data[change.size :]
            _put(data, change.size, b"")
    return bytes(data)


def content(node: Node, fate: Fate, chance: random.Random) -> File:
    """What is left of a file: each page that was written is there or not, by itself."""
    data, mtime = node.safe, node.safe_mtime
    for change in node.pending:
        begin, end = change.offset, change.offset + len(change.data)
        parts = [change]
        if change.data:
            edges = [begin, *range(begin // PAGE * PAGE + PAGE, end, PAGE), end]
            parts = [
                replace(change, offset=first, data=change.data[first - begin : last - begin])
                for first, last in pairwise(edges)
            ]
            if chance.random() < fate.sizes:
                data, mtime = applied(data, [replace(change, data=b"", size=max(len(data), end))]), change.mtime
        lasting = [part for part in parts if chance.random() < fate.data]
        if lasting:
            data, mtime = applied(data, lasting), change.mtime
    return File(data, mtime)


def _put(data: bytearray, offset: int, part: bytes) -> None:
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(part)] = part


def _number(call: Call) -> int:
    return int(re.match(r"\d+", call.result)[0])  # type: ignore[index]


def _time(text: str) -> int:
    """The last time of change in the arguments of a call, in ns."""
    match = re.search(r"st_mtime=(\d+).*?st_mtime_nsec=(\d+)", text, re.DOTALL)
    match = match or re.search(r"stx_mtime={tv_sec=[+]?(\d+), tv_nsec=(\d+)", text)
    match = match or re.search(r"\[\{[^}]*\}[^{]*\{tv_sec=(\d+)[^,]*, tv_nsec=(\d+)", text)
    assert match, text
    return int(match[1]) * 10**9 + int(match[2])


def lay_out(tree: Tree, folder: Path) -> None:
    """Makes a folder hold these files and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, file in sorted(tree.items()):
        path = folder / name
        if file is None:
            path.mkdir()
        else:
            path.write_bytes(file.data)
            os.utime(path, ns=(file.mtime, file.mtime))


def taken(folder: Path) -> dict[str, File | None]:
    """The files and folders that a folder holds."""
    return {
        path.relative_to(folder).as_posix(): File(path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def results(tree: Tree) -> dict[str, bytes | None]:
    """What is to be the same after every run: not the manifest, nor what a record says."""
    return {
        name: file and (b"" if name.endswith(".run.json") else file.data)
        for name, file in tree.items()
        if not any(part == ".slicedet" or part.startswith(".slicedet-") for part in Path(name).parts)
    }


def forked(run: Callable[[], object], log: Path) -> int:
    """The exit code of `run` in a process of its own; what it says goes to a file."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.alarm(120)
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                run()
                code = 0
            except OutputError as error:
                code = EXISTS if "exists already" in str(error) else 1
                file.write(f"{error}\n")
            except BaseException:
                traceback.print_exc(file=file)
    finally:
        os._exit(code)


def broken_promise(place: Place, left: Tree, final: Tree) -> str:
    """What is wrong with a disk before anything goes on, empty if nothing is. final: it after the recorded run."""
    for path in sorted(place.disk.rglob("*.sqlite")):
        with tempfile.TemporaryDirectory() as folder:
            for each in path.parent.glob(f"{path.name}*"):
                shutil.copy(each, folder)
            with closing(sqlite3.connect(Path(folder) / path.name)) as database:
                try:
                    ((verdict,),) = database.execute("PRAGMA integrity_check")
                    ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
                    query = "SELECT name, files, durable FROM images WHERE state = ?"
                    rows = database.execute(query, (DONE,)).fetchall() if tables else []
                except sqlite3.DatabaseError as error:
                    return f"manifest: {error}"
        if verdict != "ok":
            return f"manifest: {verdict}"
        output = path.parent.parent.relative_to(place.disk)
        for image, files, durable in rows:
            for name, stamp in json.loads(files).items():
                file = left.get(str(output / name))
                if file is None and durable:
                    return f"{image} is done, its {name} is missing"
                trusted = file is not None and (durable or [len(file.data), file.mtime] == stamp)
                if trusted and not same(file, final[str(output / name)]):
                    return f"{image} is done, its {name} is broken"
    return ""


@dataclass
class Recording:
    """A command that was run under strace. before, final: the disk then and afterwards. total: tiles that it takes."""

    kind: Kind
    place: Place
    before: Tree
    calls: list[Call]
    final: Tree
    total: int

    def disk(self, journalled: bool = False) -> Disk:
        """The disk before the first call."""
        return Disk(self.place, self.before, journalled)


def record(kind: Kind, folder: Path, start: Tree | None = None) -> Recording:
    """Runs a command under strace in a folder that has images. start: what is on the disk when it begins, by default
    what its kind says."""
    place = Place.below(folder)
    lay_out(start or {}, place.disk)
    if start is None:
        assert forked(lambda: kind.before(place, Dots(0, place.log)), folder / "said") == 0
    before, spared = taken(place.disk), kept(place.results).tiles
    place.log.unlink(missing_ok=True)
    calls = trace([sys.executable, __file__, "--work", kind.name, str(folder)], place)
    final, answered = taken(place.disk), size(place.log)
    recording = Recording(kind, place, before, calls, final, answered + (spared if kind.spares else 0))
    disk = recording.disk()
    for call in calls:
        disk.apply(call)
    seen = disk.state(ALL)
    unseen = sorted(name for name in seen.keys() & final if not same(seen[name], final[name]))
    unseen += sorted(seen.keys() ^ final)
    assert not unseen, f"the trace does not tell all of {', '.join(unseen)}"
    return recording


def same(file: File | None, other: File | None) -> bool:
    """Whether two files have the same content, or are both folders."""
    return (file and file.data) == (other and other.data)


class Outcome(NamedTuple):
    """What became of a state. failure: empty if all went well. spared: tiles that needed not be run again."""

    failure: str
    spared: int


def resume(recording: Recording, left: Tree) -> Outcome:
    """Lays a state out, goes on with the command, and judges."""
    kind, place, total = recording.kind, recording.place, recording.total
    lay_out(left, place.disk)
    if not kind.anew and (failure := broken_promise(place, left, recording.final)):
        return Outcome(failure, 0)
    spared, said = kept(place.results).tiles, place.log.with_name("said")
    place.log.unlink(missing_ok=True)
    code = forked(lambda: work(kind.name, place, 0), said)
    errors = [re.sub(r"^\S*: ", "", line) for line in said.read_text().splitlines() if "broken.tif" not in line]
    if code not in (0, EXISTS):
        return Outcome(f"exit code {code}: {errors[-1] if errors else ''}", 0)
    found, wanted = results(taken(place.disk)), results(recording.final)
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name, 0) != wanted.get(name, 0))
    if differing:
        return Outcome("; ".join(sorted(set(errors))) or f"differing: {', '.join(differing)}", 0)
    if kind.spares and code == 0 and size(place.log) + spared != total:
        return Outcome(f"{size(place.log)} tiles run though {spared} of {total} were kept", 0)
    return Outcome("", total if code else spared)


@dataclass
class Row:
    """A row of the table. states: those that differ. failures: how often for which reason. again: tiles run twice."""

    states: set[bytes] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    again: int = 0


def digest(tree: Tree) -> bytes:
    whole = hashlib.sha256()
    for name, file in sorted(tree.items()):
        whole.update(repr((name, file and (file.mtime, hashlib.sha256(file.data).digest()))).encode())
    return whole.digest()


def prove(recording: Recording, title: str, options: argparse.Namespace) -> list[Tree]:
    """Cuts a command short and prints what becomes of it; gives the states it was cut to."""
    disk, chance = recording.disk(options.journalled), random.Random(f"{options.seed} {title}")
    naming: list[int] = []
    others: list[int] = []
    for number, call in enumerate(recording.calls, 1):
        disk.apply(call)
        if disk.changed == number:
            (naming if disk.named == number else others).append(number)
    wanted = options.cuts or 2 * len(recording.calls)
    cuts = set(chance.sample(naming, min(wanted // 2, len(naming))))
    cuts.update(chance.sample(others, min(wanted - len(cuts), len(others))))
    head = f"{len(naming) + len(others)} calls change or sync the disk, {disk.syncs} of them sync"
    print(f"\n{title}: {head}, {len(naming)} give or take a name that users see; cut after {len(cuts)} of them\n")
    disk = recording.disk(options.journalled)
    outcomes: dict[bytes, Outcome] = {}
    rows: defaultdict[str, Row] = defaultdict(Row)
    trees = []
    for call in recording.calls:
        disk.apply(call)
        if disk.count not in cuts:
            continue
        for fate in (*FATES, *(random_fate(chance.randrange(1 << 30)) for _ in range(options.random))):
            left, row = disk.state(fate), rows[fate.name]
            key = digest(left)
            if key not in outcomes:
                outcomes[key] = resume(recording, left)
                trees.append(left)
            outcome = outcomes[key]
            row.states.add(key)
            row.again = max(row.again, disk.answered - outcome.spared)
            if outcome.failure:
                row.failures[outcome.failure] += 1
    print("| kept of the unsynced | different states | failures | tiles run again, most |\n|---|---|---|---|")
    for name, row in rows.items():
        again = f"{row.again} of {recording.total}" if recording.kind.spares else "-"
        print(f"| {name} | {len(row.states)} | {row.failures.total()} | {again} |")
    reasons = sum((row.failures for row in rows.values()), Counter[str]())
    for reason, times in reasons.most_common():
        print(f"\n{times} x {reason}", end="")
    print(flush=True)
    options.failed += reasons.total()
    return trees


def unable() -> str:
    """Why runs cannot be traced here; empty if they can."""
    if not sys.platform.startswith("linux") or not shutil.which("strace"):
        return "needs Linux and strace"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync", "true"], capture_output=True, text=True
    )
    return "" if tried.returncode == 0 else f"strace cannot trace: {tried.stderr.strip().splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=2, metavar="", help=argparse.SUPPRESS)
    parser.add_argument("--cuts", type=int, help="cut points, half of them where results get names; by default all")
    parser.add_argument("--random", type=int, default=3, help="random fates at each cut")
    parser.add_argument("--quick", action="store_true", help="ten cuts, one random fate")
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--once", action="store_true", help="do not cut what goes on for a second time")
    parser.add_argument("--journalled", action="store_true", help="a disk that keeps the order of names")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.work:
        kind, folder = options.work
        work(kind, Place.below(Path(folder)), PAUSE)
        return
    if reason := unable():
        sys.exit(reason)
    if options.quick:
        options.cuts, options.random = 10, 1
    options.failed = 0
    import geopandas  # noqa: F401  Loaded before forking, it is loaded once.

    # In memory there is no waiting for a real disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:
        folder = Path(temporary)
        make_images(folder / "images")
        for kind in map(KINDS.__getitem__, options.only or KINDS):
            states = prove(record(kind, folder), kind.name, options)
            if not options.once and not kind.anew:
                start = states[len(states) * 2 // 3]
                prove(record(kind, folder, start), f"{kind.name}, cut for the second time", options)
    sys.exit(1 if options.failed else 0)


if __name__ == "__main__":
    main()
