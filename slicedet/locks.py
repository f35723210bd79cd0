"""Locks between processes, held on files: to wait for one's turn, or to be told at once who is at work."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from slicedet.errors import OutputError

_PAUSE = 0.05


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process or thread holds `path`, and holds it for the block.

    The file is made and stays; the system lets go of it however the process ends. Raises OSError where it cannot be
    written, or its file system has no locks.
    """
    with _opened(path) as file:
        while not _taken(file):
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            _release(file)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Holds `path` for the block, without waiting: raises OutputError, which says who holds it and calls it `what`.

    As with `locked`, the file stays and the hold ends with the process. What is written in it is for others to read.
    """
    with _held(path, what) as file:
        try:
            yield
        finally:
            _release(file)


def _held(path: Path, what: str) -> IO[bytes]:
    """The file, locked, with a word on who has locked it."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(path))
            taken = _taken(file)
            if taken:
                file.truncate(0)
                file.write(json.dumps(own).encode())
                file.flush()
        except OSError as error:
            raise OutputError(f"{what}: cannot be locked: {error.strerror}") from error
        if not taken:
            raise OutputError(f"{what}: is in use by {_holder(path)}; wait until it has ended")
        stack.pop_all()
        return file


def _opened(path: Path) -> IO[bytes]:
    """The file to lock, made where it is not there. Raises OSError for a link: it leads to a file of somebody else."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "ab")


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    _BYTE = 1 << 30
    """Windows locks bytes, and lets nobody read them: one that no file here reaches."""

    def _taken(file: IO[bytes]) -> bool:
        file.seek(_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _release(file: IO[bytes]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _taken(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _release(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
