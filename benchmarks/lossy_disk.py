"""A disk that owes nothing beyond POSIX: what calls did to it, and what of that a power cut leaves."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.traced import FOLDER, QUOTED, Call, Place, answer, modified, spelled, unspelled

PAGE = 4096


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
                    self._handles[answer(call)] = handle
                elif call.name != "fcntl":
                    self._handles.pop(answer(call), None)
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
                self._change(node_there, call, mtime=modified(text))
            case "mmap":
                assert "MAP_SHARED" not in text or "PROT_WRITE" not in text, "writes by way of memory are not seen"
            case _ if handle is None:
                if call.name == "write" and text.startswith(f"{number}<{spelled(str(self._place.log))}>"):
                    self.answered += 1
                else:
                    assert call.name in ("lseek", "read"), f"not understood: {call.name}({text[:200]}"
            case "fsync" | "fdatasync":
                self.syncs += 1
                self._sync(handle.node, call.begun)
            case "lseek":
                handle.place = answer(call)
            case "read" | "readv":
                handle.place += answer(call)
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
        found = [unspelled(each).decode() for each in QUOTED.findall(call.arguments)]
        folders = [unspelled(each).decode() for each in FOLDER.findall(call.arguments)] or [""] * len(found)
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
        number, path = int(match[1]), unspelled(match[2]).decode()
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
        node, count = handle.node, answer(call)
        placed = call.name == "pwrite64"
        offset = int(call.arguments.split(", ")[-1]) if placed else node.size if handle.appending else handle.place
        if call.name == "sendfile":
            _, source, start, _ = call.arguments.split(", ")
            begin = int(re.findall(r"\d+", start)[0])
            data = live(self._handles[int(source.partition("<")[0])].node)[begin : begin + count]
        else:
            data = b"".join(map(unspelled, QUOTED.findall(call.arguments)))[:count]
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
            node.pending[-1].mtime = modified(call.arguments)
        else:
            node.safe_mtime = modified(call.arguments)

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
