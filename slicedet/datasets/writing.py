"""Datasets on their way to disk: a folder that appears whole or not at all, and COCO files written entry by entry."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from slicedet.datasets.nonfinite import open_json
from slicedet.errors import InvalidSetting, OutputError
from slicedet.outputs.files import temporary_folder, write_errors
from slicedet.publishing import flush_folder, flush_tree

IMAGE_MODES = ("copy", "link")
"""How images come into a new dataset: copied, or as symbolic links to where they are."""

_RASTERS = {".tif", ".tiff", ".img", ".jp2", ".j2k", ".ntf", ".ecw", ".sid"}
_BESIDE = {".aux", ".ige", ".imd", ".prj", ".rde", ".rpb", ".rrd", ".tab", "_rpc.txt"}
"""What GDAL's drivers keep beside a raster, after its name without suffix; `companions` has what any image may have."""
_VIRTUAL = ".vrt"


@contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends; after a failure nothing of it is left.

    Raises OutputError where `target` holds anything already, or writing fails.
    """
    place = Path(os.path.abspath(target))
    if not place.parent.is_dir():
        raise OutputError(f"{target}: the folder {place.parent} does not exist; create it first")
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise OutputError(f"{target}: exists already; choose another name")
    with temporary_folder(place) as temporary, write_errors(Path(target), temporary):
        folder = temporary / place.name
        folder.mkdir()
        yield folder
        flush_tree(folder)
        if place.is_dir():
            place.rmdir()
        os.rename(folder, place)
        flush_folder(place.parent)


class CocoFile:
    """A COCO file written entry by entry, in memory that does not grow; a context manager.

    path: of the file, in a folder that exists. extras: members besides images, annotations and categories. Entries are
    numbered from 1 where they bring no id. Categories may be known last: set `categories` before the block ends.
    """

    def __init__(self, path: Path, extras: Mapping[str, Any] | None = None) -> None:
        self._path = path
        self._extras = extras or {}
        self.categories: Sequence[Mapping[str, Any]] = ()
        self.images = 0
        self.annotations = 0

    def __enter__(self) -> CocoFile:
        self._file: IO[str] = open(self._path, "w", encoding="utf-8", newline="\n")
        # A file without a name, which vanishes with the process.
        self._spool: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=self._path.parent)
        self._file.write("{")
        for key, value in self._extras.items():
            self._file.write(f"{json.dumps(key)}:{json.dumps(value)},\n")
        self._file.write('"images":[')
        return self

    def add_image(self, entry: Mapping[str, Any]) -> int:
        """Writes an image; returns its id."""
        self.images += 1
        return _append(self._file, entry, self.images)

    def add_annotation(self, entry: Mapping[str, Any]) -> int:
        """Writes an annotation; returns its id."""
        self.annotations += 1
        return _append(self._spool, entry, self.annotations)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file, self._spool:
            if kind is None:
                self._file.write('],\n"annotations":[')
                self._spool.seek(0)
                shutil.copyfileobj(self._spool, self._file)
                self._file.write(f'],\n"categories":{json.dumps([dict(entry) for entry in self.categories])}}}\n')


def _append(file: IO[str], entry: Mapping[str, Any], number: int) -> int:
    numbered = {"id": number, **entry}
    file.write((",\n" if number > 1 else "\n") + json.dumps(numbered))
    return int(numbered["id"])


def extras(path: Path) -> dict[str, Any]:
    """Info and licences of a COCO file, as they stand, whatever they are; its other members are read elsewhere."""
    import ijson

    found: dict[str, Any] = {}
    for key in ("info", "licenses"):
        with open_json(path) as file, suppress(ijson.JSONError):
            for value in ijson.items(file, key, use_float=True):
                found[key] = value
                break
    return found


def place_image(source: Path, target: Path, mode: str) -> None:
    """Copies or links an image, and the files beside a raster that say where it lies, under a new name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode == "copy" and source.suffix.lower() == _VIRTUAL:
        import rasterio.shutil

        # The files it is made of may be named relative to it. They stay where they are.
        rasterio.shutil.copy(os.path.abspath(source), target, driver="VRT")
        return
    for path in _files_of(source):
        beside = target.with_name(path.name.replace(source.stem, target.stem, 1))
        if mode == "link":
            os.symlink(os.path.abspath(path), beside)
        else:
            shutil.copyfile(path, beside)


def check_image_mode(mode: str) -> None:
    """Raises InvalidSetting for a mode that is none of IMAGE_MODES."""
    if mode not in IMAGE_MODES:
        raise InvalidSetting(f"image-mode {mode!r}: expected {' or '.join(IMAGE_MODES)}")


def _files_of(source: Path) -> list[Path]:
    """An image and its side files: world file, statistics, mask, overviews."""
    if source.suffix.lower() not in _RASTERS:
        return [source]
    from slicedet.raster.beside import companions, files_behind

    # A file that only says that it is a raster may name any file of this machine as its own.
    known = {path.name.lower() for path in companions(source)} | {source.stem.lower() + end for end in _BESIDE}
    found = {path.name: path for path in files_behind(source) if _folder(path) == _folder(source)}
    return [source, *(path for name, path in found.items() if name.lower() in known and name != source.name)]


def _folder(path: Path) -> str:
    return os.path.dirname(os.path.abspath(path))
