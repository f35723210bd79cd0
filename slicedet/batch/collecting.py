"""Collecting: from the manifests and outputs of all shards to what one run over all images would have left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from slicedet.batch.listing import HIDDEN, Shard
from slicedet.batch.results import Report, Result
from slicedet.batch.space import Space, lies_in, manifest_path, remove_own
from slicedet.conditions import differences
from slicedet.errors import OutputError
from slicedet.locks import exclusive
from slicedet.manifest import DONE, FAILED, Entry, Manifest, Stamp
from slicedet.outputs.files import flush_file, write_errors
from slicedet.publishing import make_folder, move

_NAME = re.compile(r"manifest-(\d+)-of-(\d+)\.sqlite")


class _Part(NamedTuple):
    """A shard and where it lies."""

    shard: Shard
    output: Path
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.output}, shard {self.shard}"


def collect(
    shards: Sequence[Path],
    output: Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    report: Report = lambda result, total: None,
) -> list[Result]:
    """Joins the shards of a batch in `output`: copies their outputs, unless they lie there already, and writes
    summary.csv and detections.coco.json. Gives the results of all images; a run over all of them may go on from there.

    shards: folders to which `slicedet batch --shard` wrote; several shards may share one. report: hears of each image.
    Raises OutputError where a shard is missing, not done, in use or of other settings, or a file cannot be written;
    CorruptFile where a manifest is damaged.
    """
    with ExitStack() as stack:
        parts = _opened(shards, stack)
        if restart and any(part.output.resolve() == output.resolve() for part in parts):
            raise OutputError(f"{output}: has the results of the shards themselves, which --restart would remove")
        conditions = parts[0].manifest.fact("conditions")
        space = stack.enter_context(Space.held(output, Shard(), conditions, overwrite, restart))
        manifest = space.manifest
        for fact in ("folder", "list"):
            manifest.note(fact, parts[0].manifest.fact(fact))
        names = _names(parts)
        manifest.take_list(names)
        for part in parts:
            for entry in part.manifest.entries():
                _adopt(space, part, entry)
        # Whose the files are is on the disk before they come.
        manifest.sync(0)
        for part in parts:
            for entry in part.manifest.entries():
                _fetch(space, part, entry)
                report(Result.of(entry), len(names))
        space.summarise(conditions["categories"])
        return [Result.of(entry) for entry in manifest.entries()]


def _names(parts: Sequence[_Part]) -> list[tuple[int, str]]:
    return [(entry.position or 0, entry.name) for part in parts for entry in part.manifest.entries()]


def _opened(folders: Sequence[Path], stack: ExitStack) -> list[_Part]:
    """The manifests of all shards, held, if they are those of one batch that is done. Raises OutputError."""
    places: dict[Shard, Path] = {}
    for folder in folders:
        found = [(path, _NAME.fullmatch(path.name)) for path in sorted((folder / HIDDEN).glob("manifest-*.sqlite"))]
        shards = [Shard(int(match[1]), int(match[2])) for _, match in found if match]
        if not shards:
            raise OutputError(f"{folder}: no shard in it; name the folders that slicedet batch --shard wrote to")
        for shard in shards:
            other = places.setdefault(shard, folder)
            if other.resolve() != folder.resolve():
                raise OutputError(f"{folder}: has shard {shard}, and so has {other}; leave out one of them")
    counts = sorted({shard.count for shard in places})
    if len(counts) > 1:
        raise OutputError(
            f"{folders[0]}: shards of {' and of '.join(map(str, counts))} parts cannot be joined; delete the "
            f"{HIDDEN}/manifest-*.sqlite of those that are no longer wanted"
        )
    missing = [shard for index in range(counts[0]) if (shard := Shard(index + 1, counts[0])) not in places]
    if missing:
        raise OutputError(f"{folders[0]}: shard {', '.join(map(str, missing))} is missing; run it, or name its folder")
    parts = []
    for shard in sorted(places, key=lambda shard: shard.index):
        path = manifest_path(places[shard], shard)
        stack.enter_context(exclusive(path.with_suffix(".lock"), f"{places[shard]}, shard {shard}"))
        parts.append(_Part(shard, places[shard], stack.enter_context(Manifest(path))))
    _check(parts)
    return parts


def _check(parts: Sequence[_Part]) -> None:
    first = parts[0].manifest
    for part in parts:
        facts: list[Any] = [part.manifest.fact("conditions"), part.manifest.fact("list")]
        if None in facts:
            raise OutputError(f"{part}: has not begun; run it again")
        if differing := differences(first.fact("conditions"), facts[0]):
            raise OutputError(f"{part}: has other settings than shard {parts[0].shard} ({differing})")
        if facts[1] != first.fact("list"):
            raise OutputError(
                f"{part}: was run on other images than shard {parts[0].shard} ({facts[1]['images']}, there "
                f"{first.fact('list')['images']}); run both again on the same folder"
            )
        states = [entry.state for entry in part.manifest.entries()]
        left = sum(state not in (DONE, FAILED) for state in states)
        if left:
            raise OutputError(f"{part}: {left} of its {len(states)} images are not done; run it again")


def _adopt(space: Space, part: _Part, entry: Entry) -> None:
    """Takes what is known of an image over from a shard."""
    manifest = space.manifest
    if entry.stamp is not None:
        manifest.begin(entry.name, entry.stamp)
    if entry.state == FAILED or entry.run is None:
        manifest.failed(entry.name, entry.error)
        return
    result = manifest.result(entry.name)
    for detections in part.manifest.detections(entry):
        result.add(detections)
    manifest.found(result, (entry.width, entry.height), entry.run)
    known = manifest.entry(entry.name)
    own = {} if known is None else known.files
    names = list(entry.files)
    if not _shared(space, part):
        for folder in space.folders(names):
            make_folder(folder)
        space.check(names, own)
    manifest.publishing(entry.name, entry.stem, {**own, **entry.files})


def _fetch(space: Space, part: _Part, entry: Entry) -> None:
    """Copies the outputs of an image, unless they lie where they are to be."""
    if entry.state == FAILED:
        return
    for name in entry.files:
        path = part.output / name
        if not path.is_file() or path.is_symlink() or not lies_in(part.output, name):
            raise OutputError(f"{part.output / name}: is gone; run shard {part.shard} again")
    files = dict(entry.files)
    if not _shared(space, part):
        known = space.manifest.entry(entry.name)
        files = {name: _copied(part, space, name) for name in entry.files}
        for name in () if known is None else known.files:
            if name not in files:
                remove_own(space.output, name)
    space.manifest.done(entry.name, files, space.folders(list(files)))


def _shared(space: Space, part: _Part) -> bool:
    return part.output.resolve() == space.output.resolve()


def _copied(part: _Part, space: Space, name: str) -> tuple[int, int]:
    """Copies an output, unless it has been; returns its stamp."""
    source, target = part.output / name, space.output / name
    stamp = Stamp.of(source)
    if Stamp.of(target) != stamp:
        staged = space.staging / target.name
        with write_errors(target, target.parent):
            shutil.copy2(source, staged)
            flush_file(staged)
        move(staged, target)
    return Stamp.of(target)
