"""Files that appear whole or not at all: written in a temporary folder beside their place, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from slicedet.errors import OutputError

if TYPE_CHECKING:
    from slicedet.raster.scene import Scene

_WRITERS = {"pyarrow", "pyogrio", "rasterio"}
"""Packages whose exceptions mean that a file could not be written. GDAL's come from pyogrio and rasterio."""


def check_apart(target: Path, scene: Scene, roi: str | Path | None = None) -> None:
    """Raises OutputError where `target` is the image, or a file that it is read from, or the region of interest: these
    are never overwritten."""
    if not os.path.lexists(target):
        return
    kept = dict.fromkeys(scene.files, "the image itself")
    if roi is not None:
        kept[Path(roi)] = "the region of interest itself"
    for path, what in kept.items():
        with suppress(OSError):
            if os.path.samefile(target, path):
                raise OutputError(f"{target}: is {what}; choose another name")


def check_target(target: Path, overwrite: bool) -> None:
    """Raises OutputError where `target` cannot be written, or exists already."""
    folder = target.parent
    with write_errors(target, folder):  # The name may be too long, a folder above be closed.
        if not folder.exists():
            raise OutputError(f"{target}: the folder {folder} does not exist; create it first")
        if not folder.is_dir():
            raise OutputError(f"{target}: {folder} is not a folder")
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; give the name of a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {folder} is not writable")
    if os.path.lexists(target) and not overwrite:
        raise OutputError(f"{target}: exists already; choose another name, or allow overwriting (--overwrite)")


@contextmanager
def staged(target: Path, overwrite: bool) -> Iterator[Path]:
    """A path named like `target` in a temporary folder; what is written there moves into place when the block ends.

    Other files left beside it move along. After any failure or interruption nothing is left of them, and files that
    stood there before are untouched. Raises OutputError where writing fails.
    """
    with temporary_folder(target) as folder, write_errors(target, folder):
        yield folder / target.name
        publish(folder, target, overwrite)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same file system, that is removed with all it holds when the block ends."""
    with write_errors(target, target.parent):
        folder = Path(tempfile.mkdtemp(prefix=".slicedet-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def write_errors(target: Path, folder: Path) -> Iterator[None]:
    """Turns failures to write into OutputError, which names `target` and the reason in one line."""
    try:
        yield
    except Exception as error:
        # SystemError is what rasterio raises where GDAL fails without a word.
        writing = isinstance(error, OSError | SystemError) or type(error).__module__.partition(".")[0] in _WRITERS
        if not writing:
            raise
        raise OutputError(f"{target}: cannot be written: {_reason(error, folder)}") from error


def publish(folder: Path, target: Path, overwrite: bool) -> None:
    """Moves the files in `folder` beside `target`, the one named like it last."""
    written = sorted(folder.iterdir(), key=lambda path: path.name == target.name)
    for path in written:
        flush_file(path)
    # Another process may have made the file in the meantime.
    check_target(target, overwrite)
    for path in written:
        os.replace(path, target.with_name(path.name))


def flush_file(path: Path) -> None:
    """Has the disk take what is in a file. Network file systems and quotas tell of a full disk here at the latest."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _reason(error: Exception, folder: Path) -> str:
    """Why writing failed, in one line: in the system's words, or else the library's and the free space."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    free = shutil.disk_usage(folder).free
    if free < 1 << 16:
        return "No space left on device"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    words = " ".join(str(getattr(cause, "errmsg", cause)).split()) or type(error).__name__
    return f"{words} ({free / 1e6:,.1f} MB free)"
