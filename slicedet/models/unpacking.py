"""Unpacks tar and zip archives from elsewhere: plain files and folders below one folder, and nothing else."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from slicedet.errors import CorruptFile, UnsafeFile

MAX_FILES = 1000
MAX_BYTES = 4 << 30
"""No model comes near these; an archive that does is made to fill the disk."""

MAX_LITTER = 16 << 20
"""Bytes of what is skipped, which take time even so."""

MAX_HEADER = 1 << 16
"""Bytes of a name or of other words about a member of a tar archive, which are read as a whole."""

MAX_PADDING = 1 << 20
"""Bytes after the end of a tar archive, which fills its last record with zeros."""


_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
"""What a damaged archive makes of the packages that read it, besides OSErrors without a number."""


_CLASHES = (FileExistsError, NotADirectoryError)


class _Entry:
    """A member of an archive: its path as written, its size unpacked, and its data (None for a folder)."""

    def __init__(self, path: str, size: int, data: IO[bytes] | None) -> None:
        self.path = path
        self.size = size
        self.data = data


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive as `folder`, which must not exist yet; it appears whole or not at all.

    The one folder that an archive holds on its top level, if so, becomes `folder` itself.
    Raises UnsafeFile for entries that are no plain files within, are too many or too large, CorruptFile for damaged
    archives; OSError where the disk is full or not writable.
    """
    staging = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))
    try:
        content = staging / "content"
        content.mkdir()
        try:
            _extract(archive, content)
        except _Unsafe as error:
            raise UnsafeFile(f"{archive}: refused: {error}") from error
        except (*_DAMAGE, OSError) as error:
            # The disk's, not the archive's: decompressors give no number. One path below another is the archive's.
            if isinstance(error, OSError) and error.errno and not isinstance(error, _CLASHES):
                raise
            raise CorruptFile(f"{archive}: not a whole archive ({' '.join(str(error).split())})") from error
        top = list(content.iterdir())
        (top[0] if len(top) == 1 and top[0].is_dir() else content).rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _Unsafe(Exception):
    """An entry is not to be unpacked."""


def _extract(archive: Path, folder: Path) -> None:
    files = size = litter = 0
    seen: set[str] = set()
    with _opened(archive) as entries:
        for entry in entries:
            parts = _parts(entry.path)
            skipped = not parts or _is_litter(parts)  # Without parts: "./", the top folder itself.
            files += 1
            size += entry.size
            litter += entry.size if skipped else 0
            if files > MAX_FILES:
                raise _Unsafe(f"it holds more than {MAX_FILES} files")
            if size > MAX_BYTES:
                raise _Unsafe(f"it unpacks to more than {MAX_BYTES / 1e9:.1f} GB")
            if litter > MAX_LITTER:
                raise _Unsafe(f"it holds more than {MAX_LITTER / 1e6:.0f} MB that are no content")
            if skipped:
                continue
            target = folder.joinpath(*parts)
            if entry.data is None:
                target.mkdir(parents=True, exist_ok=True)
                continue
            # Windows and macOS do not tell upper from lower case.
            name = "/".join(parts).casefold()
            if name in seen or target.exists():
                raise _Unsafe(f"it holds {_shown(entry.path)} twice")
            seen.add(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(entry.data, file, 1 << 20)
                if file.tell() != entry.size:
                    raise ValueError("unexpected end of data")
    if not seen:
        raise ValueError("there is no file in it")


def _parts(path: str) -> list[str]:
    """The folders and the name in a member's path, checked for all systems alike."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    forbidden = any(character in path for character in "\\:\0") or any(ord(character) < 32 for character in path)
    if path.startswith("/") or ".." in parts or forbidden or any(part.rstrip(". ") != part for part in parts):
        raise _Unsafe(f"{_shown(path)} in it is not a path within")
    return parts


def _is_litter(parts: list[str]) -> bool:
    """What macOS adds to archives: it is no content, and would hide that there is one top folder."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Entry]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            yield _zip_entries(content)
    else:
        with tarfile.open(archive, "r:*", tarinfo=_Header) as content:
            yield _tar_entries(content)


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for member in archive.infolist():
        kind = member.external_attr >> 28  # The file type of Unix modes; 0 where other systems made the archive.
        if kind not in (0, 0o04, 0o10):
            raise _Unsafe(f"{_shown(member.filename)} in it is a link or device")
        if member.is_dir():
            yield _Entry(member.filename, 0, None)
        else:
            with archive.open(member) as data:
                yield _Entry(member.filename, member.file_size, data)


class _Header(tarfile.TarInfo):
    """A member's header, refused before what follows it is read at any length, as names and maps of sparse files
    are."""

    @classmethod
    def frombuf(cls, *arguments: Any, **keywords: Any) -> _Header:
        header = super().frombuf(*arguments, **keywords)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _Unsafe(f"{_shown(header.name)} in it is a link, device or sparse file")
        if not (header.isreg() or header.isdir()) and header.size > MAX_HEADER:
            raise _Unsafe(f"{_shown(header.name)} in it has {header.size:,} bytes where a name is expected")
        return header

    def _proc_gnusparse_10(self, *arguments: Any) -> None:
        raise _Unsafe(f"{_shown(self.name)} in it is a link, device or sparse file")


def _tar_entries(archive: tarfile.TarFile) -> Iterator[_Entry]:
    for member in archive:
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise _Unsafe(f"{_shown(member.name)} in it is a link, device or sparse file")
        yield _Entry(member.name, member.size, archive.extractfile(member) if member.isreg() else None)
    # tarfile takes a damaged header, or none, for the end; what ends an archive is a block of zeros.
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise ValueError("unexpected end of data")
    # The checksum of what is compressed comes after all of it.
    for _ in range(MAX_PADDING // tarfile.RECORDSIZE):
        if not stream.read(tarfile.RECORDSIZE):
            return
    raise _Unsafe("it goes on after its end")


def _shown(path: str) -> str:
    return ascii(path if len(path) <= 80 else f"{path[:80]}...")
