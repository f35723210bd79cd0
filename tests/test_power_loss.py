"""Power cuts, replayed from what strace saw: results are never nobody's, whatever the disk has kept, and go on."""

from __future__ import annotations

import functools
import importlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def power_loss() -> Iterator[ModuleType]:
    """The program that cuts the power; tests that need it are skipped where runs cannot be traced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT))  # For what it starts.
        program = importlib.import_module("benchmarks.power_loss")
        if reason := program.unable():
            pytest.skip(reason)
        yield program


@pytest.fixture(scope="module")
def recorded(power_loss: ModuleType) -> Iterator[Callable[[str], Any]]:
    """Gives the recording of a command, which is made once."""
    # In memory there is no waiting for a real disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as temporary:

        @functools.cache
        def record(kind: str) -> Any:
            folder = Path(temporary) / kind
            power_loss.make_images(folder / "images")
            return power_loss.record(power_loss.KINDS[kind], folder)

        yield record


def left(program: ModuleType, folder: Path, lines: str, fate: str) -> dict[str, bytes | None]:
    """What a disk with an old file has after a few lines of Python and a power cut."""
    place = program.Place.below(folder)
    program.lay_out({"file": program.File(b"old", 0)}, place.disk)
    disk = program.Disk(place, program.taken(place.disk))
    script = f"import os\nhere = {f'{place.disk}/'!r}\n{lines}"
    for call in program.trace([sys.executable, "-I", "-S", "-c", script], place):
        disk.apply(call)
    (chosen,) = (each for each in program.FATES if each.name == fate)
    return {name: file and file.data for name, file in disk.state(chosen).items()}


WRITE = "file = open(here + 'new', 'w'); file.write('new'); file.flush()\n"
SYNC = "os.fsync(file.fileno())\n"
RENAME = "os.rename(here + 'new', here + 'file')\n"
SYNC_FOLDER = "os.fsync(os.open(here, os.O_RDONLY))\n"
AWAY = "os.mkdir(here + 'folder'); os.rename(here + 'file', here + 'folder/file')\n"


@pytest.mark.parametrize(
    ("lines", "fate", "expected"),
    [
        (WRITE + RENAME, "all", {"file": b"new"}),
        (WRITE + RENAME, "nothing", {"file": b"old"}),
        (WRITE + RENAME, "names, files empty", {"file": b""}),
        (WRITE + RENAME, "names, files of zeros", {"file": b"\0\0\0"}),
        (WRITE + SYNC, "nothing", {"file": b"old"}),
        (WRITE + SYNC_FOLDER, "nothing", {"file": b"old", "new": b""}),
        (WRITE + SYNC + RENAME, "nothing", {"file": b"old"}),
        (WRITE + SYNC + RENAME, "names, files empty", {"file": b"new"}),
        (WRITE + SYNC + RENAME + SYNC_FOLDER, "nothing", {"file": b"new"}),
        (AWAY + SYNC_FOLDER, "nothing", {"folder": None}),
        ("file = open(here + 'file', 'r+'); file.truncate(1)\n", "all", {"file": b"o"}),
        ("os.remove(here + 'file')\n", "data, no names", {"file": b"old"}),
    ],
)
def test_a_disk_keeps_what_was_synced_and_no_more(power_loss, tmp_path, lines, fate, expected):
    assert left(power_loss, tmp_path, lines, fate) == expected


def visible(tree: dict[str, object]) -> set[str]:
    """The files outside hidden folders."""
    return {name for name in tree if tree[name] and not any(part.startswith(".") for part in Path(name).parts)}


@pytest.mark.parametrize(
    ("kind", "manifest"),
    [("batch", ".slicedet/manifest.sqlite"), ("predict", ".large.geojson.slicedet-resume/journal.sqlite")],
)
def test_no_part_of_the_results_is_there_without_what_says_whose_it_is(power_loss, recorded, kind, manifest):
    recording = recorded(kind)
    before, final, disk, parts = visible(recording.before), visible(recording.final), recording.disk(), 0
    for call in recording.calls:
        disk.apply(call)
        for number in range(20 * (disk.named == disk.count)):
            tree = disk.state(power_loss.random_fate(100 * disk.count + number))
            if before < visible(tree) < final:
                parts += 1
                assert f"results/{manifest}" in tree
    assert parts >= 20


CUT = """
import pickle, sys
from argparse import Namespace
from benchmarks.power_loss import KINDS, Recording, prove
import geopandas  # Loaded before forking, it is loaded once.

options = Namespace(cuts=2, random=1, seed=0, journalled=False, failed=0)
prove(Recording(KINDS["batch"], *pickle.load(sys.stdin.buffer)), "batch", options)
sys.exit(options.failed > 0)
"""


def test_runs_go_on_after_power_cuts(recorded):
    batch = recorded("batch")
    told = pickle.dumps((batch.place, batch.before, batch.calls, batch.final, batch.total))
    # In a process of its own: where engines have run in this one, it is not to be forked.
    done = subprocess.run([sys.executable, "-c", CUT], input=told, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"| random parts | 2 | 0 | " in done.stdout
