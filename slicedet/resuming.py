"""Resuming: one image whose finished rows of tiles are kept beside its first output until all is written."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slicedet.conditions import conditions, differences
from slicedet.detectors.protocol import Detector
from slicedet.errors import OutputError
from slicedet.locks import exclusive
from slicedet.manifest import Manifest, Stamp
from slicedet.outputs.files import check_target
from slicedet.outputs.provenance import save_provenance
from slicedet.outputs.targets import Targets, record_path
from slicedet.pipeline import Progress, Resources, Settings
from slicedet.predicting import Outcome, run_into
from slicedet.publishing import flush_folder, make_folder, make_lasting_folder, move
from slicedet.raster.scene import Scene


def predict_resumably(
    scene: Scene,
    targets: Targets,
    load: Callable[[], Detector],
    settings: Settings,
    scene_options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    resources: Resources | None = None,
) -> Outcome:
    """`predict_into`, which goes on where it was broken off.

    However it ends, the next call goes on from the last finished row of tiles. These are kept in a hidden folder,
    `.<first output>.slicedet-resume`, which is removed once all is written; an image that has changed begins anew.
    load: gives the detector, once the outputs are known to be possible. scene_options: those the scene was opened with.
    Raises the errors of `Targets.of` and `run`; OutputError where another run is at it, or an earlier one had other
    settings; CorruptFile where what was kept is damaged.
    """
    # The names only: files of the run that was broken off may be there.
    permissive = copy.copy(targets)
    permissive.overwrite = True
    paths = permissive.of(scene)
    with _journal(paths[0].with_name(f".{paths[0].name}.slicedet-resume"), paths[0]) as manifest:
        if not targets.overwrite:
            _forget_published(manifest, paths)
        targets.of(scene)
        detector = load()
        _require(manifest, conditions(detector, settings, scene_options or {}), paths[0])
        manifest.take_list([(0, scene.source)])
        manifest.begin(scene.source, Stamp.of_image(scene.source))

        def progressed(done: int, total: int) -> None:
            # What a row of tiles has kept may not wait for the next row, which can take long.
            manifest.sync()
            if progress is not None:
                progress(done, total)

        # In the journal's folder, which a killed run leaves to the next.
        staging = manifest.path.with_name("writing")
        shutil.rmtree(staging, ignore_errors=True)
        places = {path: staging / str(number) / path.name for number, path in enumerate(paths)}
        for place in places.values():
            make_folder(place.parent)
        journal = manifest.journal(scene.source)
        try:
            record, _ = run_into(scene, list(places.values()), detector, settings, progressed, resources, journal)
        except OutputError as error:
            message = str(error)
            for path, place in places.items():
                message = message.replace(str(place.parent), str(path.parent))
            raise OutputError(message) from error
        return record, _publish(record, targets, places, manifest)


def _forget_published(manifest: Manifest, paths: Sequence[Path]) -> None:
    """Removes what a run that was broken off had put into place already."""
    record = re.escape(record_path(paths[0], overwrite=True).name.removesuffix(".json")) + r"(-\d+)?\.json"
    outputs = {each.absolute() for path in paths for each in (path, path.with_suffix(".qml"))}
    noted = manifest.fact("published")
    for name, stamp in noted.items() if isinstance(noted, dict) else ():
        path = Path(name)
        ours = path in outputs or (path.parent == paths[0].parent.absolute() and re.fullmatch(record, path.name))
        # Of another size or date, it is somebody's own by now.
        if ours and list(Stamp.of(path)) == stamp:
            path.unlink(missing_ok=True)


def _publish(record: dict[str, Any], targets: Targets, places: dict[Path, Path], manifest: Manifest) -> list[Path]:
    """Puts files into place, of which all are known that lie beside them, with the record of the run."""
    moves: dict[Path, Path] = {}
    for path, place in places.items():
        for written in sorted(place.parent.iterdir()):
            target = path.with_name(written.name)
            if target in places or targets.overwrite or not target.exists():  # A style that is there stays.
                moves[target] = written
    first, place = next(iter(places.items()))
    target = record_path(first, targets.overwrite)
    moves[target] = save_provenance(record, place.parent.with_name(target.name))
    for path in places:
        check_target(path, targets.overwrite)
    manifest.note("published", {str(target.absolute()): Stamp.of(written) for target, written in moves.items()})
    manifest.sync(0)
    for target, written in moves.items():
        move(written, target)
    for folder in {target.parent for target in moves}:
        flush_folder(folder)
    return list(moves)


@contextmanager
def _journal(folder: Path, output: Path) -> Iterator[Manifest]:
    """The manifest in a folder that is removed if the block ends well, or leaves nothing worth keeping."""
    remedy = f"delete the folder {folder}"
    # Were it lost in a power cut, outputs that are kept would be nobody's.
    make_lasting_folder(folder)
    with exclusive(folder / "lock", str(output)):
        worthless = False
        try:
            with Manifest(folder / "journal.sqlite", remedy) as manifest:
                try:
                    yield manifest
                    worthless = True
                finally:
                    worthless = worthless or not (manifest.strips() or manifest.fact("published"))
        finally:
            if worthless:
                shutil.rmtree(folder, ignore_errors=True)
                # If it came back, what it calls its own would be removed, though others may have changed it by then.
                flush_folder(folder.parent)


def _require(manifest: Manifest, wanted: dict[str, Any], output: Path) -> None:
    before = manifest.fact("conditions")
    if before is None or not manifest.strips():
        manifest.note("conditions", wanted)
    elif differing := differences(before, wanted):
        raise OutputError(
            f"{output}: was begun with other settings ({differing}); give the same ones, or delete the folder "
            f"{manifest.path.parent}"
        )
