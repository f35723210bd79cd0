"""The results folder of a batch: held by one run at a time, its manifest, and files that move into place when whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicedet.batch.listing import HIDDEN, Shard
from slicedet.batch.results import COCO, SUMMARY, write_all
from slicedet.conditions import differences
from slicedet.errors import CorruptFile, OutputError
from slicedet.locks import exclusive
from slicedet.manifest import Files, Manifest, Stamp
from slicedet.outputs.files import check_target
from slicedet.publishing import flush_folder, make_folder, make_lasting_folder, move


def manifest_path(output: Path, shard: Shard) -> Path:
    """Where a results folder keeps the manifest of a shard, or of a batch that is not divided."""
    return output / HIDDEN / f"manifest{shard.suffix}.sqlite"


@dataclass(frozen=True)
class Space:
    """A results folder that this process holds.

    staging: folder for unfinished files, on the same file system, cleared of what a killed run has left there.
    overwrite: whether files that are nobody's own may be replaced.
    """

    output: Path
    overwrite: bool
    manifest: Manifest
    staging: Path

    @classmethod
    @contextmanager
    def held(
        cls, output: Path, shard: Shard, wanted: Mapping[str, Any], overwrite: bool = False, restart: bool = False
    ) -> Iterator[Space]:
        """Holds the folder, which is made where it is not there, for one shard and its conditions.

        restart: first removes what an earlier run has left, its own files only.
        Raises OutputError where another run holds it, or results of other conditions are in it.
        """
        hidden = output / HIDDEN
        # Were the way to the manifest lost in a power cut, outputs that are kept would be nobody's.
        make_lasting_folder(output)
        make_lasting_folder(hidden)
        what = str(output) if shard.count == 1 else f"{output}, shard {shard}"
        with exclusive(hidden / f"manifest{shard.suffix}.lock", what):
            path = manifest_path(output, shard)
            if restart:
                _forget(output, path, shard)
            staging = hidden / f"writing{shard.suffix}"
            if staging.is_symlink():  # What it leads to is not the batch's own.
                remove(staging)
            shutil.rmtree(staging, ignore_errors=True)
            make_folder(staging)
            try:
                with Manifest(path) as manifest:
                    _require(manifest, output, shard, wanted, overwrite)
                    yield cls(output, overwrite, manifest, staging)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def check(self, names: Sequence[str], own: Files) -> None:
        """Raises OutputError where one of these files, relative to the folder, cannot be written."""
        for name in names:
            check_target(self.output / name, self.overwrite or name in own)

    def slot(self, number: int) -> Path:
        """An empty folder below `staging`, the same for the same number: making and removing them takes time."""
        folder = self.staging / str(number)
        make_folder(folder)
        for path in folder.iterdir():
            remove(path)
        return folder

    def claimable(self, staging: Path, folder: Path, own: Files) -> list[str]:
        """The files in a folder below `staging`, by the names they are to have in `folder`.

        A QGIS style that is there already, and is not the image's own, stays. Raises OutputError for any other file.
        """
        names = [(folder / path.name).as_posix() for path in sorted(staging.iterdir())]
        kept = [
            name
            for name in names
            if name.endswith(".qml") and not self.overwrite and name not in own and (self.output / name).exists()
        ]
        names = [name for name in names if name not in kept]
        self.check(names, own)
        return names

    def publish(self, staging: Path, names: Sequence[str], own: Files) -> Files:
        """Moves files from a folder below `staging` into place, and removes those in `own` that are not among them."""
        files: dict[str, tuple[int, int] | None] = {}
        for name in names:
            target = self.output / name
            move(staging / target.name, target)
            files[name] = Stamp.of(target)
        for name in own:
            if name not in files:
                remove_own(self.output, name)
        return files

    def folders(self, names: Sequence[str]) -> set[Path]:
        """The folders that hold these files, up to the results folder."""
        found = {self.output}
        for name in names:
            found.update(self.output / folder for folder in Path(name).parents)
        return found

    def summarise(self, categories: Sequence[str]) -> None:
        """Writes the files over all images."""
        write_all(self.manifest, categories, self.staging)
        self.manifest.sync(0)
        for name in (COCO, SUMMARY):
            move(self.staging / name, self.output / name)
        flush_folder(self.output)


def remove(path: Path) -> None:
    """Removes a file that may be gone already. Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror}") from error


def remove_own(output: Path, name: str) -> None:
    """Removes an output that may be gone already, unless its name leads out of the folder. Raises OutputError."""
    if lies_in(output, name):
        remove(output / name)


def lies_in(output: Path, name: str) -> bool:
    """Whether an output of this name is in the folder itself, and not where a link leads."""
    return (output / name).parent.resolve().is_relative_to(output.resolve())


def check_summaries(output: Path, overwrite: bool) -> None:
    """Raises OutputError where the files over all images are there already."""
    for name in (SUMMARY, COCO):
        check_target(output / name, overwrite)


def _require(manifest: Manifest, output: Path, shard: Shard, wanted: Mapping[str, Any], overwrite: bool) -> None:
    """Raises OutputError where a manifest belongs to other conditions; a new one takes these."""
    before = manifest.fact("conditions")
    if before is None:
        if shard.count == 1:
            check_summaries(output, overwrite)
        manifest.note("conditions", wanted)
    elif not (differing := differences(before, wanted)):
        return
    elif not (manifest.has_results() or manifest.strips()):
        manifest.note("conditions", wanted)  # Nothing has come of the others.
    else:
        raise OutputError(
            f"{output}: has results of other settings ({differing}); give the same ones, or begin anew with --restart"
        )


def _forget(output: Path, path: Path, shard: Shard) -> None:
    """Removes a manifest, and the files it calls its own."""
    if path.exists():
        try:
            with Manifest(path) as manifest:
                if shard.count == 1 and manifest.fact("conditions") is not None:
                    remove(output / SUMMARY)
                    remove(output / COCO)
                names = list(manifest.files())
                for name in names:
                    remove_own(output, name)
                # Without a manifest nobody could tell that they were its own, should they come back.
                for folder in {output, *((output / name).parent for name in names)}:
                    if folder.is_dir():
                        flush_folder(folder)
        except CorruptFile:
            pass  # Nobody knows what its own were: replacing them takes --overwrite.
    for suffix in ("-wal", "-shm", ""):
        remove(path.with_name(path.name + suffix))
