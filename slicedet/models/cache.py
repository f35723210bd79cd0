"""The cache of official weights: pulled once, known by their SHA-256 ever after.

SLICEDET_HOME is its folder, the platform's cache folder otherwise. SLICEDET_MODEL_MIRROR, a URL or a folder, is asked
for files of the same names instead of their official hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from slicedet.errors import CorruptFile, DownloadError, InvalidSetting, MissingWeights, OutputError
from slicedet.locks import locked
from slicedet.models.config import Download, ModelConfig
from slicedet.models.download import Patience, Progress, download, shown
from slicedet.models.pdparams import load_pdparams
from slicedet.models.unpacking import unpack

_AGAIN = "delete it and pull it again, or slicedet models pull --force"


def home() -> Path:
    """The folder of all that slicedet keeps between runs."""
    chosen = os.environ.get("SLICEDET_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "slicedet"


def pull(
    config: ModelConfig,
    kind: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
    patience: Patience | None = None,
) -> Path:
    """The official file of a kind ("onnx", "paddle", "pdparams"; the first by default), downloaded unless it is here.

    The path of the file, or the folder of an unpacked archive; where none is official, the weights that the model
    brings. force: download even so. Several processes may pull the same. Raises MissingWeights where there is none,
    DownloadError, CorruptFile or UnsafeFile.
    """
    if config.weights is not None and not config.downloads:
        return config.weights
    item = _Item(config, kind)
    with _writing(item.folder):
        item.folder.mkdir(parents=True, exist_ok=True)
        with locked(item.folder / ".lock"):
            if force or not item.is_here():
                item.obtain(progress, patience, force)
            item.verify()
    return item.result


def find(config: ModelConfig, kind: str | None = None) -> Path | None:
    """The same file or folder, by default of the first kind that is here; None where it is not. Nothing is downloaded.

    An official file that a user has put in its place counts as downloaded.
    Raises MissingWeights where there is none, CorruptFile where it changed since it came.
    """
    if config.weights is not None and not config.downloads:
        return config.weights
    if kind is None and config.downloads:
        found = (find(config, each) for each in config.downloads)
        return next((path for path in found if path is not None), None)
    item = _Item(config, kind)
    with _writing(item.folder):
        if not item.is_here():
            if not item.was_put_by_hand():
                return None
            with locked(item.folder / ".lock"):
                if not item.is_here():
                    item.admit()
        item.verify()
    return item.result


@dataclass(frozen=True)
class _Record:
    """What was downloaded from where; files: SHA-256 by the path below the unpacked folder, of an archive."""

    url: str
    size: int
    sha256: str
    files: dict[str, str] = field(default_factory=dict)


class _Item:
    """One official file in its place in the cache."""

    def __init__(self, config: ModelConfig, kind: str | None) -> None:
        self.name = config.name
        self.kind, self.download = _chosen(config, kind)
        self.folder = home() / "models" / config.name
        self.path = self.folder / self.download.filename
        self._record_path = self.folder / f"{self.path.name}.json"

    @property
    def result(self) -> Path:
        """What the file is used as: itself, or the folder it unpacks to."""
        return self.folder / _stem(self.path.name) if self.kind == "paddle" else self.path

    def is_here(self) -> bool:
        return self._record() is not None and not self._is_foreign() and self.result.exists()

    def was_put_by_hand(self) -> bool:
        return self.path.is_file() and not self._is_foreign()

    def obtain(self, progress: Progress | None, patience: Patience | None, force: bool) -> None:
        """Brings the file in, unless a user did, from the mirror or its official host, and admits it."""
        by_hand = not force and self.was_put_by_hand()
        if not by_hand:
            try:
                _fetch(self.download, self.path, progress, patience)
            except DownloadError as error:
                what = "that file" if str(error).startswith(official := shown(self.download.url)) else official
                raise DownloadError(f"{self.name}: {error}; without network, put {what} at {self.path}") from error
            # Only now, so that what was there survives a download that fails.
            if force or self._is_foreign():
                self._record_path.unlink(missing_ok=True)
        try:
            self.admit()
        except Exception:
            if not by_hand:
                self.path.unlink()
            raise

    def admit(self) -> None:
        """Records the file as downloaded, if it is what it should be, and unpacks an archive."""
        size, sha256 = self.path.stat().st_size, digest(self.path)
        before = self._record()
        expected = self.download.sha256 or (before.sha256 if before else sha256)
        if size != (self.download.size or size) or sha256 != expected:
            raise CorruptFile(
                f"{self.path}: not the file it was (SHA-256 {sha256[:16]}..., {size:,} bytes); if it was published "
                "anew, slicedet models pull --force"
            )
        files = {}
        if self.kind == "paddle":
            self._unpack()
            files = {path: digest(self.result / path) for path in _files(self.result)}
        elif self.kind == "pdparams":
            load_pdparams(self.path)
        elif not _is_onnx(self.path):
            raise CorruptFile(f"{self.path}: not an ONNX file")
        record = _Record(self.download.url, size, sha256, files)
        staging = self._record_path.with_name(f"{self._record_path.name}.part")
        staging.write_text(json.dumps(asdict(record), indent=2), encoding="utf-8")
        staging.replace(self._record_path)
        if files:
            self.path.unlink()  # Its content is there.

    def verify(self) -> None:
        """Raises CorruptFile if anything is not what was downloaded."""
        record = self._record()
        if record is None:
            raise CorruptFile(f"{self.result}: is being replaced by another process; try again")
        if record.files and _files(self.result) != sorted(record.files):
            raise CorruptFile(f"{self.result}: other files than were unpacked there; {_AGAIN}")
        expected = {self.result / path: sha256 for path, sha256 in record.files.items()} or {self.path: record.sha256}
        for path, sha256 in expected.items():
            if digest(path) != sha256:
                raise CorruptFile(f"{path}: changed since it was downloaded; {_AGAIN}")

    def _unpack(self) -> None:
        for remains in (self.result, *self.folder.glob(".unpacking-*")):  # Of a process that was killed.
            shutil.rmtree(remains, ignore_errors=True)
        unpack(self.path, self.result)
        suffixes = {path.suffix for path in self.result.iterdir()}
        if ".pdiparams" not in suffixes or not suffixes & {".json", ".pdmodel"}:
            shutil.rmtree(self.result)
            raise CorruptFile(f"{self.path}: no Paddle model is in it")

    def _record(self) -> _Record | None:
        """What is known of the file, or of another that had its place before."""
        try:
            return _Record(**json.loads(self._record_path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CorruptFile(f"{self._record_path}: unreadable; {_AGAIN}") from error

    def _is_foreign(self) -> bool:
        """Whether what is here came from another URL than is stated now."""
        record = self._record()
        return record is not None and record.url != self.download.url


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns failures to write what slicedet keeps for itself into OutputError, in one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be written: {reason}; SLICEDET_HOME names another folder") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()


def _chosen(config: ModelConfig, kind: str | None) -> tuple[str, Download]:
    if not config.downloads:
        raise MissingWeights(f"{config.name}: no official weights are known; name a file with --weights")
    if kind is None:
        kind = next(iter(config.downloads))
    if kind not in config.downloads:
        raise MissingWeights(f"{config.name}: no official {kind}; there is {', '.join(config.downloads)}")
    return kind, config.downloads[kind]


def _fetch(source: Download, target: Path, progress: Progress | None, patience: Patience | None) -> None:
    mirror = os.environ.get("SLICEDET_MODEL_MIRROR")
    if not mirror:
        download(source.url, target, source.size, progress, patience)
    elif mirror.startswith(("http://", "https://")):
        download(f"{mirror.rstrip('/')}/{quote(source.filename)}", target, source.size, progress, patience)
    elif "://" in mirror:
        raise InvalidSetting(f"SLICEDET_MODEL_MIRROR {shown(mirror)}: expected an http(s) URL or a folder")
    else:
        original = Path(mirror).expanduser() / source.filename
        if not original.is_file():
            raise DownloadError(f"{original}: no such file in the mirror")
        staging = target.with_name(f"{target.name}.copy")  # Not .part, which a download would build upon.
        shutil.copyfile(original, staging)
        staging.replace(target)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Failures to write in the cache, in one line."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise DownloadError(f"{where}: {error.strerror or error}; SLICEDET_HOME names another folder") from error


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _stem(filename: str) -> str:
    return filename.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz").removesuffix(".zip")


def _is_onnx(path: Path) -> bool:
    """Whether a file begins as ONNX's protobuf does, with the version of its format."""
    with path.open("rb") as file:
        return file.read(1) == b"\x08"
