"""What a power cut costs: runs whose every change of the disk is recorded, cut short, left as a bad disk leaves it, and
gone on with.

Each run is traced by strace. Up to a cut, its calls are replayed on a model of a disk that owes nothing beyond POSIX:
an fsync of a file keeps its content and not its name, an fsync of a folder keeps the names in it, and what was not
synced is kept or lost, name by name and page by page. What is left is laid out as files, the manifest is checked, no
image that it calls done may be missing or broken, and the same command goes on. At the end all files but the records of
runs are compared with those of an unbroken run, and tiles that were kept must not be run again.

    python -m benchmarks.power_loss --cuts 100

What is kept of the unsynced: nothing; all; names but no data, once with empty files and once with zeros; data but no
names; and seeded random parts. `--journalled` takes a kinder disk, whose names come back in order, and with any fsync,
as on ext4. Needs Linux and strace.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from affine import Affine

import slicedet
from benchmarks.crash import kept, size
from benchmarks.lossy_disk import ALL, FATES, Disk, File, Tree, lay_out, random_fate, taken
from benchmarks.traced import Call, Place, trace
from slicedet.batch import Batch, Shard, collect
from slicedet.datasets.slicing import SliceSettings, slice_dataset
from slicedet.errors import OutputError
from slicedet.manifest import DONE
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings
from slicedet.resuming import predict_resumably

FORMATS = ("geojson", "gpkg", "csv", "jpg")
PAUSE = 0.12
"""Seconds for a tile while recording: the disk is waited for once a second, which is to come several times."""

EXISTS = 3
"""Exit code of a command that finds its results there: all was done, or what is there is nobody's."""


class Dots:
    """A detector that costs nothing but a pause: a box around the bright pixels of a tile. It leaves a byte in a file
    for each."""

    name, categories, input_size = "dots", ("dot",), 64

    def __init__(self, pause: float, log: Path) -> None:
        self._pause = pause
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        return [self._found(tile) for tile in tiles]

    def _found(self, tile: np.ndarray) -> slicedet.Detections:
        time.sleep(self._pause)
        os.write(self._log, b".")
        rows, columns = np.nonzero(tile[..., 0] > 200)
        if not len(rows):
            return slicedet.Detections.empty()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return slicedet.Detections([box], [0.9], [0])


@dataclass(frozen=True)
class Kind:
    """A command. run: it. before: what is there when it begins, and safe on the disk. anew: whether it begins anew
    each time. spares: whether what is kept spares it tiles."""

    name: str
    run: Callable[[Place, Dots], object]
    before: Callable[[Place, Dots], object] = lambda place, detector: None
    anew: bool = False
    spares: bool = True


def run_batch(place: Place, detector: Dots, **options: Any) -> None:
    for result in Batch(place.images, place.results, formats=FORMATS, **options).run(detector, Settings()):
        if result.error:
            print(result.error)


def run_predict(place: Place, detector: Dots) -> None:
    with slicedet.Scene(place.images / "b" / "large.tif") as scene:
        predict_resumably(scene, Targets([place.results], FORMATS), lambda: detector, Settings())


def parts(place: Place) -> list[Path]:
    return [place.disk / "part1", place.disk / "part2"]


def run_shards(place: Place, detector: Dots) -> None:
    for number, part in enumerate(parts(place), 1):
        Batch(place.images, part, formats=FORMATS, shard=Shard(number, 2)).run(detector, Settings())


def make_dataset(place: Place, detector: Dots) -> None:
    """A dataset of one image."""
    (place.disk / "annotations").mkdir()
    (place.disk / "images").mkdir()
    shutil.copy(place.images / "b" / "large.tif", place.disk / "images")
    image = {"id": 1, "file_name": "large.tif", "width": 150, "height": 400}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 20, 9, 6], "area": 54, "iscrowd": 0}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "dot"}]}
    (place.disk / "annotations" / "instance_train.json").write_text(json.dumps(coco))


def run_slice(place: Place, detector: Dots) -> None:
    slice_dataset(place.disk, place.results, SliceSettings(slice=64, empty_ratio=None))


def others_style(place: Place, detector: Dots) -> None:
    """A QGIS style that is not slicedet's, and is to stay."""
    place.results.mkdir()
    (place.results / "large.qml").write_text("<qgis/>")


KINDS = {
    kind.name: kind
    for kind in (
        Kind("batch", run_batch),
        Kind("predict", run_predict, others_style),
        Kind("collect", lambda place, detector: collect(parts(place), place.results), run_shards, spares=False),
        Kind("slice", run_slice, make_dataset, anew=True, spares=False),
        Kind(
            "restart",
            lambda place, detector: run_batch(place, detector, restart=True),
            run_batch,
            anew=True,
            spares=False,
        ),
    )
}


def work(kind: str, place: Place, pause: float) -> None:
    """What is traced, and what goes on."""
    warnings.simplefilter("ignore")
    connected = sqlite3.connect

    def connect(*arguments: Any, **named: Any) -> sqlite3.Connection:
        """Has SQLite's log taken into the database often, as it is where there are thousands of images."""
        connection = connected(*arguments, **named)
        connection.execute("PRAGMA wal_autocheckpoint = 10")
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    KINDS[kind].run(place, Dots(pause, place.log))


def make_images(folder: Path) -> None:
    """Small rasters in two folders, one of several rows of tiles, and one that is none."""
    sizes = {"a/1.tif": (100, 80), "a/2.tif": (64, 64), "b/3.tif": (64, 64), "b/large.tif": (150, 400)}
    chance = np.random.default_rng(0)
    for number, (name, (width, height)) in enumerate(sizes.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((3, height, width), 20, np.uint8)
        for y in range(0, height - 20, 40):
            for x in range(0, width - 20, 40):
                dx, dy = chance.integers(0, 10, 2)
                pixels[:, y + dy : y + dy + 6, x + dx : x + dx + 9] = 250
        transform = Affine(0.2, 0, 400000 + 100 * number, 0, -0.2, 5000000)
        profile = {"crs": "EPSG:32633", "transform": transform, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", width=width, height=height, **profile) as dataset:
            dataset.write(pixels)
    (folder / "a" / "broken.tif").write_bytes(b"no image")


def results(tree: Tree) -> dict[str, bytes | None]:
    """What is to be the same after every run: not the manifest, nor what a record says."""
    return {
        name: file and (b"" if name.endswith(".run.json") else file.data)
        for name, file in tree.items()
        if not any(part == ".slicedet" or part.startswith(".slicedet-") for part in Path(name).parts)
    }


def forked(run: Callable[[], object], log: Path) -> int:
    """The exit code of `run` in a process of its own; what it says goes to a file."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.alarm(120)
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                run()
                code = 0
            except OutputError as error:
                code = EXISTS if "exists already" in str(error) else 1
                file.write(f"{error}\n")
            except BaseException:
                traceback.print_exc(file=file)
    finally:
        os._exit(code)


def broken_promise(place: Place, left: Tree, final: Tree) -> str:
    """What is wrong with a disk before anything goes on, empty if nothing is. final: it after the recorded run."""
    for path in sorted(place.disk.rglob("*.sqlite")):
        with tempfile.TemporaryDirectory() as folder:
            for each in path.parent.glob(f"{path.name}*"):
                shutil.copy(each, folder)
            with closing(sqlite3.connect(Path(folder) / path.name)) as database:
                try:
                    ((verdict,),) = database.execute("PRAGMA integrity_check")
                    ((tables,),) = database.execute("SELECT count(*) FROM sqlite_master")
                    query = "SELECT name, files, durable FROM images WHERE state = ?"
                    rows = database.execute(query, (DONE,)).fetchall() if tables else []
                except sqlite3.DatabaseError as error:
                    return f"manifest: {error}"
        if verdict != "ok":
            return f"manifest: {verdict}"
        output = path.parent.parent.relative_to(place.disk)
        for image, files, durable in rows:
            for name, stamp in json.loads(files).items():
                file = left.get(str(output / name))
                if file is None and durable:
                    return f"{image} is done, its {name} is missing"
                trusted = file is not None and (durable or [len(file.data), file.mtime] == stamp)
                if trusted and not same(file, final[str(output / name)]):
                    return f"{image} is done, its {name} is broken"
    return ""


@dataclass
class Recording:
    """A command that was run under strace. before, final: the disk then and afterwards. total: tiles that it takes."""

    kind: Kind
    place: Place
    before: Tree
    calls: list[Call]
    final: Tree
    total: int

    def disk(self, journalled: bool = False) -> Disk:
        """The disk before the first call."""
        return Disk(self.place, self.before, journalled)


def record(kind: Kind, folder: Path, start: Tree | None = None) -> Recording:
    """Runs a command under strace in a folder that has images. start: what is on the disk when it begins, by default
    what its kind says."""
    place = Place.below(folder)
    lay_out(start or {}, place.disk)
    if start is None:
        assert forked(lambda: kind.before(place, Dots(0, place.log)), folder / "said") == 0
    before, spared = taken(place.disk), kept(place.results).tiles
    place.log.unlink(missing_ok=True)
    calls = trace([sys.executable, "-m", "benchmarks.power_loss", "--work", kind.name, str(folder)], place)
    final, answered = taken(place.disk), size(place.log)
    recording = Recording(kind, place, before, calls, final, answered + (spared if kind.spares else 0))
    disk = recording.disk()
    for call in calls:
        disk.apply(call)
    seen = disk.state(ALL)
    unseen = sorted(name for name in seen.keys() & final if not same(seen[name], final[name]))
    unseen += sorted(seen.keys() ^ final)
    assert not unseen, f"the trace does not tell all of {', '.join(unseen)}"
    return recording


def same(file: File | None, other: File | None) -> bool:
    """Whether two files have the same content, or are both folders."""
    return (file and file.data) == (other and other.data)


class Outcome(NamedTuple):
    """What became of a state. failure: empty if all went well. spared: tiles that needed not be run again."""

    failure: str
    spared: int


def resume(recording: Recording, left: Tree) -> Outcome:
    """Lays a state out, goes on with the command, and judges."""
    kind, place, total = recording.kind, recording.place, recording.total
    lay_out(left, place.disk)
    if not kind.anew and (failure := broken_promise(place, left, recording.final)):
        return Outcome(failure, 0)
    spared, said = kept(place.results).tiles, place.log.with_name("said")
    place.log.unlink(missing_ok=True)
    code = forked(lambda: work(kind.name, place, 0), said)
    errors = [re.sub(r"^\S*: ", "", line) for line in said.read_text().splitlines() if "broken.tif" not in line]
    if code not in (0, EXISTS):
        return Outcome(f"exit code {code}: {errors[-1] if errors else ''}", 0)
    found, wanted = results(taken(place.disk)), results(recording.final)
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name, 0) != wanted.get(name, 0))
    if differing:
        return Outcome("; ".join(sorted(set(errors))) or f"differing: {', '.join(differing)}", 0)
    if kind.spares and code == 0 and size(place.log) + spared != total:
        return Outcome(f"{size(place.log)} tiles run though {spared} of {total} were kept", 0)
    return Outcome("", total if code else spared)


@dataclass
class Row:
    """A row of the table. states: those that differ. failures: how often for which reason. again: tiles run twice."""

    states: set[bytes] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    again: int = 0


def digest(tree: Tree) -> bytes:
    whole = hashlib.sha256()
    for name, file in sorted(tree.items()):
        whole.update(repr((name, file and (file.mtime, hashlib.sha256(file.data).digest()))).encode())
    return whole.digest()


def prove(recording: Recording, title: str, options: argparse.Namespace) -> list[Tree]:
    """Cuts a command short and prints what becomes of it; gives the states it was cut to."""
    disk, chance = recording.disk(options.journalled), random.Random(f"{options.seed} {title}")
    naming: list[int] = []
    others: list[int] = []
    for number, call in enumerate(recording.calls, 1):
        disk.apply(call)
        if disk.changed == number:
            (naming if disk.named == number else others).append(number)
    wanted = options.cuts or 2 * len(recording.calls)
    cuts = set(chance.sample(naming, min(wanted // 2, len(naming))))
    cuts.update(chance.sample(others, min(wanted - len(cuts), len(others))))
    head = f"{len(naming) + len(others)} calls change or sync the disk, {disk.syncs} of them sync"
    print(f"\n{title}: {head}, {len(naming)} give or take a name that users see; cut after {len(cuts)} of them\n")
    disk = recording.disk(options.journalled)
    outcomes: dict[bytes, Outcome] = {}
    rows: defaultdict[str, Row] = defaultdict(Row)
    trees = []
    for call in recording.calls:
        disk.apply(call)
        if disk.count not in cuts:
            continue
        for fate in (*FATES, *(random_fate(chance.randrange(1 << 30)) for _ in range(options.random))):
            left, row = disk.state(fate), rows[fate.name]
            key = digest(left)
            if key not in outcomes:
                outcomes[key] = resume(recording, left)
                trees.append(left)
            outcome = outcomes[key]
            row.states.add(key)
            row.again = max(row.again, disk.answered - outcome.spared)
            if outcome.failure:
                row.failures[outcome.failure] += 1
    print("| kept of the unsynced | different states | failures | tiles run again, most |\n|---|---|---|---|")
    for name, row in rows.items():
        again = f"{row.again} of {recording.total}" if recording.kind.spares else "-"
        print(f"| {name} | {len(row.states)} | {row.failures.total()} | {again} |")
    reasons = sum((row.failures for row in rows.values()), Counter[str]())
    for reason, times in reasons.most_common():
        print(f"\n{times} x {reason}", end="")
    print(flush=True)
    options.failed += reasons.total()
    return trees


def unable() -> str:
    """Why runs cannot be traced here; empty if they can."""
    if not sys.platform.startswith("linux") or not shutil.which("strace"):
        return "needs Linux and strace"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync", "true"], capture_output=True, text=True
    )
    return "" if tried.returncode == 0 else f"strace cannot trace: {tried.stderr.strip().splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=2, metavar="", help=argparse.SUPPRESS)
    parser.add_argument("--cuts", type=int, help="cut points, half of them where results get names; by default all")
    parser.add_argument("--random", type=int, default=3, help="random fates at each cut")
    parser.add_argument("--quick", action="store_true", help="ten cuts, one random fate")
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--once", action="store_true", help="do not cut what goes on for a second time")
    parser.add_argument("--journalled", action="store_true", help="a disk that keeps the order of names")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.work:
        kind, folder = options.work
        work(kind, Place.below(Path(folder)), PAUSE)
        return
    if reason := unable():
        sys.exit(reason)
    if options.quick:
        options.cuts, options.random = 10, 1
    options.failed = 0
    import geopandas  # noqa: F401  Loaded before forking, it is loaded once.

    # In memory there is no waiting for a real disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:
        folder = Path(temporary)
        make_images(folder / "images")
        for kind in map(KINDS.__getitem__, options.only or KINDS):
            states = prove(record(kind, folder), kind.name, options)
            if not options.once and not kind.anew:
                start = states[len(states) * 2 // 3]
                prove(record(kind, folder, start), f"{kind.name}, cut for the second time", options)
    sys.exit(1 if options.failed else 0)


if __name__ == "__main__":
    main()
