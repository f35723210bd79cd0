"""A program that is killed: runs a batch, or one image that can be resumed, with a detector that needs no network.

    python crashing.py run batch|predict IN OUT
    python crashing.py moments batch|predict IN OUT SEED
    python crashing.py steps batch|predict IN OUT SEED NUMBER

The first is not killed. The second is killed at random moments until it gets through, and says how often it was killed,
how many tiles it took and how many an unbroken run takes. The third is killed before a step (a file opened for writing,
moved or removed, a folder made, an SQL statement), and goes on; all for NUMBER random steps. Both compare their files
with those of an unbroken run, and end with exit code 1 where they differ.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  Loaded before forking, it is loaded once.
import pyproj  # noqa: F401
from spots import Spots, tree

from slicedet import Scene
from slicedet.batch import Batch
from slicedet.errors import OutputError
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings
from slicedet.resuming import predict_resumably

FORMATS = ["geojson,csv"]


def work(kind: str, source: Path, output: Path, detector: Spots) -> None:
    """Runs what there is in `source`."""
    if kind == "batch":
        Batch(source, output, formats=FORMATS).run(detector, Settings())
        return
    output.mkdir(exist_ok=True)
    with Scene(source / "big.tif") as scene:
        try:
            predict_resumably(scene, Targets([output], formats=FORMATS), lambda: detector, Settings())
        except OutputError as error:
            if "exists already" not in str(error):  # All was done before the end came.
                raise


def killed_at(step: int) -> list[int]:
    """Has this process killed before a step, counted from 0; gives the count of steps so far."""
    count = [0]

    def stepped() -> None:
        if count[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
        count[0] += 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opening = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if opening or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            stepped()

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connected(*arguments, **options)
        connection.set_trace_callback(lambda statement: stepped())
        return connection

    connected, sqlite3.connect = sqlite3.connect, connect  # type: ignore[assignment]
    sys.addaudithook(hook)
    return count


def started(run: Callable[[], object]) -> int:
    """A process that ends with 0 once `run` has returned."""
    child = os.fork()
    if child:
        return child
    code = 101
    try:
        run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def forked(run: Callable[[], object]) -> int:
    """The exit code of `run` in a process of its own; -9 where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(started(run), 0)[1])


def difference(found: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """The names of files that differ."""
    return ", ".join(sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)))


def moments(kind: str, source: Path, output: Path, seed: int) -> int:
    """Kills runs at random moments until one gets through; gives the exit code."""
    log, unbroken = output.with_name("log"), output.with_name("unbroken")
    assert forked(lambda: work(kind, source, unbroken, Spots(log=log))) == 0
    wanted, total = tree(unbroken, records=False), log.stat().st_size
    log.write_bytes(b"")
    chance, kills, code = random.Random(seed), 0, None
    while code != 0:
        # The moment is one of progress, not of time, so that a slow machine gets through as well.
        end = log.stat().st_size + chance.randrange(total // 4)
        child = started(lambda: work(kind, source, output, Spots(0.004, log)))
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and log.stat().st_size < end:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.05)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(ended[1])
        kills += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            return 1
    differing = difference(tree(output, records=False), wanted)
    print(differing or f"{kills} {log.stat().st_size} {total}")
    return 1 if differing else 0


def steps(kind: str, source: Path, output: Path, seed: int, number: int) -> int:
    """Kills runs at `number` random steps; gives the exit code."""
    counting = output.with_name("steps")

    def unbroken() -> None:
        count = killed_at(-1)
        work(kind, source, output, Spots())
        counting.write_text(str(count[0]))

    assert forked(unbroken) == 0
    wanted, total = tree(output, records=False), int(counting.read_text())

    def broken(step: int) -> None:
        killed_at(step)
        work(kind, source, output, Spots())

    random.seed(seed)
    for step in sorted(random.sample(range(total), min(number, total))):
        shutil.rmtree(output)
        codes = forked(lambda: broken(step)), forked(lambda: work(kind, source, output, Spots()))  # noqa: B023
        differing = difference(tree(output, records=False), wanted)
        if codes != (-9, 0) or differing:
            print(f"step {step} of {total}: exit codes {codes}, differing {differing}")
            return 1
    print(f"{total} steps")
    return 0


if __name__ == "__main__":
    how, kind, source, output, *numbers = sys.argv[1:]
    if how == "run":
        work(kind, Path(source), Path(output), Spots())
    else:
        killing = {"moments": moments, "steps": steps}[how]
        sys.exit(killing(kind, Path(source), Path(output), *map(int, numbers)))
