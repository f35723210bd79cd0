"""Where slicedet keeps what it downloads and converts."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def folder() -> Path:
    """SLICEDET_HOME, else the platform's folder for caches."""
    if stated := os.environ.get("SLICEDET_HOME"):
        return Path(stated).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "slicedet" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "slicedet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slicedet"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
