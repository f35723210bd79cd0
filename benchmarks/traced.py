"""Traced: a process and what strace saw it do to a disk, call by call."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = [
    *("open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl", "lseek", "read", "readv", "mmap"),
    *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range", "truncate", "ftruncate"),
    *("fallocate", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link"),
    *("linkat", "symlink", "symlinkat", "utimensat", "fsync", "fdatasync", "sync", "syncfs"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "clone", "clone3", "fork", "vfork"),
]
"""What changes a disk, what tells where in a file that happens, and when it did."""


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


class Call(NamedTuple):
    """A system call. begun: how many calls had returned when it began. result: what it returned, paths spelled out."""

    begun: int
    seconds: float
    name: str
    arguments: str
    result: str


_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_RETURNED = re.compile(r"(\w+)\((.*)\) += (-?\d+.*|\?.*|0x.*)", re.DOTALL)
QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
FOLDER = re.compile(r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2})*)>")


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
    disk, log = spelled(str(place.disk)), spelled(str(place.log))

    def touching(text: str) -> bool:
        # A regular expression takes far longer to look through all that was read.
        return disk in text or log in text or text.startswith("sync(")

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
        if touching(said) or name.startswith("dup") or name == "close":
            # Threads share their files; what another process does would go unseen.
            assert pid in threads or not touching(said), f"{line}: from another process"
            returned += 1
            yield Call(start, float(seconds), name, arguments, result)


def spelled(text: str) -> str:
    """A path as strace spells it out."""
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))


def unspelled(text: str) -> bytes:
    """The bytes that strace has spelled out."""
    return bytes.fromhex(text.replace("\\x", ""))


def answer(call: Call) -> int:
    """The number that a call returned."""
    return int(re.match(r"\d+", call.result)[0])  # type: ignore[index]


def modified(text: str) -> int:
    """The last time of change in the arguments of a call, in ns."""
    match = re.search(r"st_mtime=(\d+).*?st_mtime_nsec=(\d+)", text, re.DOTALL)
    match = match or re.search(r"stx_mtime={tv_sec=[+]?(\d+), tv_nsec=(\d+)", text)
    match = match or re.search(r"\[\{[^}]*\}[^{]*\{tv_sec=(\d+)[^,]*, tv_nsec=(\d+)", text)
    assert match, text
    return int(match[1]) * 10**9 + int(match[2])
