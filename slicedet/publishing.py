"""Publishing: whole files move from where they were made to where they are looked for, and stay there, even when the
power goes: an fsync of a file keeps what is in it, only one of the folder that holds it keeps its name."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

from slicedet.errors import OutputError
from slicedet.outputs.files import flush_file, staged, write_errors


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error


def make_lasting_folder(folder: Path) -> None:
    """Makes a folder and those above it, which the disk has for sure afterwards. Raises OutputError."""
    new = [folder]
    while not new[-1].parent.exists():
        new.append(new[-1].parent)
    make_folder(folder)
    # That of a folder which is there already is no less needed: a killed run may have made it a moment ago.
    for each in new:
        flush_folder(each.parent)


def move(source: Path, target: Path) -> None:
    """Moves a file into the place of another or of none, in one step. Raises OutputError."""
    with write_errors(target, target.parent):
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with staged(target, True) as temporary:
                shutil.copy2(source, temporary)


def flush_folder(folder: Path) -> None:
    """Has the disk take the names in a folder. Raises OutputError."""
    if sys.platform == "win32":  # Folders cannot be opened there.
        return
    with write_errors(folder, folder):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:  # It may be written to, and not be read.
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems keep names safe by themselves.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Has the disk take a folder with all that is in it. Raises OutputError."""
    found = [path for path in folder.rglob("*") if not path.is_symlink()]
    files = [path for path in found if path.is_file()]
    with write_errors(folder, folder):
        if hasattr(os, "posix_fadvise"):
            # Told of all files first, the disk takes them together; waiting for one after the other is slower by half.
            for path in files:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for path in files:
            flush_file(path)
    for path in (folder, *found):
        if path.is_dir():
            flush_folder(path)
