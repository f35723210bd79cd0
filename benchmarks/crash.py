"""What SIGKILL costs: a batch of photos and one huge image, killed at random moments until they are done, and a folder
of very many small images.

The first two run the model that comes along. Every run is a process group of its own, killed a random time after its
start or after its first tile; then the same command goes on. At the end all files but the records of runs are compared
with those of an unbroken run. What was run twice is counted in tiles: those answered by the network, less those in rows
that were kept. The last part tells the memory and the open files of the process while it works.

    python -m benchmarks.crash --kills 20 --photos 8 --edge 4000 --small 10000

Needs Linux, and the shared folder of photos beside the project, or SLICEDET_SHARED.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import slicedet
from slicedet.batch import Batch
from slicedet.detectors import load_detector
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings
from slicedet.resuming import predict_resumably

SHARED = Path(os.environ.get("SLICEDET_SHARED", Path(__file__).parents[2] / "shared"))
PHOTOS = SHARED / "data" / "aerial_vehicles" / "images"
FORMATS = ("coco", "csv", "jpg")
MODEL = "aerial-vehicles"


class Counted:
    """A detector that writes a byte to a file for each tile answered."""

    def __init__(self, detector: Any, log: Path) -> None:
        self._detector = detector
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.name, self.categories, self.input_size = detector.name, detector.categories, detector.input_size
        self.gsd, self.provenance = detector.gsd, detector.provenance

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        return list(self.stream(tiles))

    def stream(self, tiles: Iterable[np.ndarray]) -> Iterator[slicedet.Detections]:
        for found in self._detector.stream(tiles):
            os.write(self._log, b".")
            yield found


class Bright:
    """A detector that costs nothing: a box around the bright pixels of a tile."""

    name, categories, input_size = "bright", ("spot",), 64

    def detect(self, tiles: list[np.ndarray]) -> list[slicedet.Detections]:
        return [self._found(tile) for tile in tiles]

    def _found(self, tile: np.ndarray) -> slicedet.Detections:
        rows, columns = np.nonzero(tile[..., 0] > 200)
        if not len(rows):
            return slicedet.Detections.empty()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return slicedet.Detections([box], [0.9], [0])


def work(kind: str, source: Path, output: Path, log: Path) -> None:
    """What is killed."""
    if kind == "small":
        Batch(source, output, formats=["coco"]).run(Bright(), Settings(), report=reporting(log))
        return
    detector = Counted(load_detector(MODEL), log)
    if kind == "batch":
        Batch(source, output, formats=FORMATS).run(detector, Settings())
        return
    output.mkdir(exist_ok=True)
    (image,) = source.iterdir()
    with slicedet.Scene(image) as scene:
        predict_resumably(scene, Targets([output], FORMATS), lambda: detector, Settings())


def reporting(log: Path) -> Any:
    """Notes images done, seconds, memory and open files, a hundred times."""
    done, started = 0, time.perf_counter()

    def report(result: Any, total: int) -> None:
        nonlocal done
        done += 1
        if done % (total // 100) == 0:
            status = Path("/proc/self/status").read_text()
            memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            row = [done, time.perf_counter() - started, memory, len(os.listdir("/proc/self/fd"))]
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")

    return report


class Kept(NamedTuple):
    """Tiles that need not be run again."""

    tiles: int
    rows: int


def kept(output: Path) -> Kept:
    """What a killed run has left, read from a copy of its manifest or journal."""
    places = [*output.glob(".slicedet/manifest.sqlite"), *output.glob(".*.slicedet-resume/journal.sqlite")]
    if not places:
        return Kept(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        for path in places[0].parent.glob(f"{places[0].name}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        database = sqlite3.connect(Path(folder) / places[0].name)
        try:
            strips = [json.loads(tiles)["run"] for (tiles,) in database.execute("SELECT tiles FROM strips")]
            runs = database.execute("SELECT run FROM images WHERE run IS NOT NULL").fetchall()
        except sqlite3.OperationalError:  # Killed before there were tables.
            return Kept(0, 0)
        finally:
            database.close()
    tiles = sum(json.loads(zlib.decompress(run))["tiles"]["run"] for (run,) in runs)
    return Kept(tiles + sum(strips), len(strips))


def start(kind: str, source: Path, output: Path, log: Path) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = [sys.executable, "-m", "benchmarks.crash", "--work", kind, str(source), str(output), str(log)]
    return subprocess.Popen(command, start_new_session=True)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def content(folder: Path) -> dict[str, bytes]:
    """All files but manifests and records of runs, hidden ones too, so that nothing may be left over."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != ".slicedet"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if not path.name.endswith(".run.json")}


def killed(kind: str, source: Path, folder: Path, kills: int, seed: int) -> None:
    """Runs once unbroken and once killed, and prints what that took."""
    wanted, output, log = folder / f"{kind}-unbroken", folder / f"{kind}-killed", folder / f"{kind}.log"
    clock = time.perf_counter()
    running = start(kind, source, wanted, folder / f"{kind}-unbroken.log")
    while running.poll() is None and not size(folder / f"{kind}-unbroken.log"):
        time.sleep(0.01)
    beginning = time.perf_counter() - clock
    assert running.wait() == 0
    seconds = time.perf_counter() - clock
    total = size(folder / f"{kind}-unbroken.log")
    rows = [record["frame"] for record in (json.loads(p.read_text()) for p in wanted.rglob("*.run.json"))]
    widest = max(row_length(frame) for frame in rows)
    times = f"unbroken {seconds:.1f} s, of which {beginning:.1f} s to start"
    print(f"\n{kind}: {total} tiles, up to {widest} in a row; {times}")
    print("| kill | s after | tiles answered | of which kept | run twice |\n|---|---|---|---|---|")
    chance, before, worst, repeated = random.Random(seed), 0, 0, 0
    for kill in range(1, kills + 1):
        earlier, had = time.perf_counter(), size(log)
        running = start(kind, source, output, log)
        starting = chance.random() < 0.15
        while not starting and running.poll() is None and size(log) == had:
            time.sleep(0.005)
        time.sleep(chance.random() * (beginning if starting else 1.6 * (seconds - beginning) / kills))
        if running.poll() is not None:
            print(f"| {kill} | done before | | | |")
            break
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        after, answered = kept(output).tiles, size(log) - had
        lost = answered - (after - before)
        print(f"| {kill} | {time.perf_counter() - earlier:.2f} | {answered} | {after - before} | {lost} |", flush=True)
        before, worst, repeated = after, max(worst, lost), repeated + lost
    assert start(kind, source, output, log).wait() == 0
    same = content(output) == content(wanted)
    twice = f"for a kill at most {worst} tiles run twice, {repeated / kills:.1f} on average"
    print(f"{kind}: {size(log)} tiles answered in all, {size(log) - total} more than unbroken; {twice}")
    print(f"{kind}: {len(content(wanted))} files {'byte-identical' if same else 'DIFFER'}", flush=True)
    assert same
    assert size(log) - total == repeated


def row_length(frame: dict[str, Any]) -> int:
    return len(slicedet.TileGrid(*(frame[key] for key in slicedet.TileGrid.__dataclass_fields__)).columns)


def small(folder: Path, count: int) -> None:
    """Runs a folder of small images and prints the memory and the open files on the way."""
    source, log = folder / "small", folder / "small.log"
    source.mkdir()
    chance = np.random.default_rng(0)
    for number in range(count):
        pixels = np.full((64, 64, 3), 20, np.uint8)
        x, y = chance.integers(0, 50, 2)
        pixels[y : y + 6, x : x + 10] = 250
        Image.fromarray(pixels).save(source / f"{number:06}.png")
    clock = time.perf_counter()
    assert start("small", source, folder / "small-out", log).wait() == 0
    seconds = time.perf_counter() - clock
    print(f"\nsmall: {count} images of 64 x 64 in {seconds:.0f} s, {count / seconds:.0f} a second")
    print("| images done | s | RSS, MB | open files |\n|---|---|---|---|")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for done, passed, memory, files in [rows[0], rows[4], *rows[9::10]]:
        print(f"| {done} | {passed:.0f} | {memory:.1f} | {files} |")
    clock = time.perf_counter()
    assert start("small", source, folder / "small-out", log).wait() == 0
    print(f"small: run again, with nothing to do, {time.perf_counter() - clock:.1f} s")


def mosaic(path: Path, edge: int, seed: int) -> None:
    """A square picture of real photos, one beside the other."""
    names = sorted(PHOTOS.iterdir())
    random.Random(seed).shuffle(names)
    canvas, x, y, height = Image.new("RGB", (edge, edge)), 0, 0, 0
    while y < edge:
        with Image.open(names[0]) as photo:
            canvas.paste(photo, (x, y))
            x, height = x + photo.width, max(height, photo.height)
        names.append(names.pop(0))
        if x >= edge:
            x, y, height = 0, y + height, 0
    canvas.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs=4, metavar="", help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=20, help="in each of the first two parts")
    parser.add_argument("--photos", type=int, default=8, help="photos in the batch")
    parser.add_argument("--edge", type=int, default=4000, help="of the huge image, in pixels")
    parser.add_argument("--small", type=int, default=10_000, help="number of small images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("batch", "predict", "small"))
    options = parser.parse_args()
    if options.work:
        kind, *paths = options.work
        work(kind, *map(Path, paths))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.only in (None, "batch"):
            (folder / "photos").mkdir()
            for path in random.Random(options.seed).sample(sorted(PHOTOS.iterdir()), options.photos):
                shutil.copy(path, folder / "photos")
            killed("batch", folder / "photos", folder, options.kills, options.seed)
        if options.only in (None, "predict"):
            (folder / "huge").mkdir()
            mosaic(folder / "huge" / "huge.tif", options.edge, options.seed)
            killed("predict", folder / "huge", folder, options.kills, options.seed + 1)
        if options.only in (None, "small"):
            small(folder, options.small)


if __name__ == "__main__":
    main()
