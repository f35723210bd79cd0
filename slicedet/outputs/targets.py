"""Targets: from what a user names (files, folders, formats) to the files of each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slicedet.errors import InvalidSetting
from slicedet.outputs import check, default_format, default_name, format_of

if TYPE_CHECKING:
    from slicedet.raster.scene import Scene


class Targets:
    """Where results go.

    paths: files, whose suffix is the format, and at most one folder, which receives `<stem>.<format>` in the `formats`
    named; by default the current folder, and GeoJSON, or COCO JSON where there is no longitude and latitude.
    images: how many images there are; files can be named for one only. roi: the region of interest, never overwritten.
    Raises InvalidSetting for an unknown format or suffix, and for names that do not fit together.
    """

    def __init__(
        self,
        paths: Sequence[str | Path] = (),
        formats: Sequence[str] = (),
        overwrite: bool = False,
        images: int = 1,
        roi: str | Path | None = None,
    ) -> None:
        folders = [path for path in paths if Path(path).is_dir() or str(path).endswith(("/", os.sep))]
        if len(folders) > 1:
            raise InvalidSetting(f"{len(folders)} folders named for results; one is enough")
        self.files = [Path(path) for path in paths if path not in folders]
        self.folder = Path(folders[0]) if folders else None if self.files and not formats else Path()
        self.formats = [name for names in formats for name in names.split(",")]
        self.overwrite = overwrite
        self._roi = roi
        for file in self.files:
            format_of(file)
        for name in self.formats:
            default_name("image", name)
        if images > 1 and self.files:
            raise InvalidSetting(
                f"{self.files[0]}: a file can hold one image's results; name a folder for {images} images"
            )
        self._taken: dict[Path, str] = {}

    def of(self, scene: Scene, stem: str | None = None) -> list[Path]:
        """The files for a scene, checked before anything is computed; raises what `slicedet.outputs.check` raises.

        stem: of their names; by default that of the scene.
        """
        paths = list(self.files)
        if self.folder is not None:
            names = self.formats or [default_format(scene)]
            paths += [self.folder / default_name(stem or scene.stem, name) for name in names]
        paths = list({path.absolute(): path for path in reversed(paths)}.values())[::-1]
        for path in paths:
            before = self._taken.setdefault(path.absolute(), scene.source)
            if before != scene.source:
                raise InvalidSetting(f"{path}: the results of {before} and {scene.source} would share this name")
            check(scene, path, self.overwrite, self._roi)
        return paths


def record_path(path: Path, overwrite: bool) -> Path:
    """Where the record of a run goes whose first output is `path`: `big.run.json` for `big.geojson`; `big.run-2.json`
    where another run, with other outputs, has taken that name."""
    stem = path.name.removesuffix(".coco.json") if path.name.endswith(".coco.json") else path.stem
    stem = stem.removesuffix(".overlay")
    record, number = path.with_name(f"{stem}.run.json"), 2
    while record.exists() and not overwrite:
        record, number = path.with_name(f"{stem}.run-{number}.json"), number + 1
    return record
