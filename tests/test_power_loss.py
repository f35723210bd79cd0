"""Power cuts, replayed from what strace saw: results are never nobody's, whatever the disk has kept, and go on."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def power_loss(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program that cuts the power; tests that need it are skipped where runs cannot be traced."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # For what it starts.
    program = importlib.import_module("benchmarks.power_loss")
    if reason := program.unable():
        pytest.skip(reason)
    return program


def left(program: ModuleType, folder: Path, lines: str, fate: str) -> dict[str, bytes | None]:
    """What a disk with an old file has after a few lines of Python and a power cut."""
    place = program.Place.below(folder)
    program.lay_out({"file": program.File(b"old", 0)}, place.disk)
    disk = program.Disk(place, program.taken(place.disk))
    script = f"import os\nhere = {f'{place.disk}/'!r}\n{lines}"
    for call in program.trace([sys.executable, "-c", script], place):
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
def test_no_part_of_the_results_is_there_without_what_says_whose_it_is(power_loss, tmp_path, kind, manifest):
    power_loss.make_images(tmp_path / "images")
    recording = power_loss.record(power_loss.KINDS[kind], tmp_path)
    before, final, disk, parts = visible(recording.before), visible(recording.final), recording.disk(), 0
    for call in recording.calls:
        disk.apply(call)
        for number in range(20 * (disk.named == disk.count)):
            tree = disk.state(power_loss.random_fate(100 * disk.count + number))
            if before < visible(tree) < final:
                parts += 1
                assert f"results/{manifest}" in tree
    assert parts >= 20


def test_runs_go_on_after_power_cuts(power_loss):
    program = [sys.executable, "-m", power_loss.__name__, "--only", "batch", "--once", "--cuts", "2", "--random", "1"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| random parts | 2 | 0 | " in done.stdout
