"""Publishing: whole files move from where they were made to where they are looked for, and stay there."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

from slicedet.outputs.files import staged, write_errors


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
    """Has the disk take the names in a folder."""
    if sys.platform == "win32":  # Folders cannot be opened there.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # Some network file systems keep names safe by themselves.
            raise
    finally:
        os.close(descriptor)
