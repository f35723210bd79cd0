"""A program that is killed: runs a batch, or one image that can be resumed, with a detector that needs no network.

    python crashing.py batch|predict IN OUT LOG PAUSE   runs, with a pause for each tile, which leaves a byte in LOG
    python crashing.py steps batch|predict IN OUT SEED NUMBER

The second is killed before a step (a file opened for writing, moved or removed, a folder made, an SQL statement), goes
on, and compares its files with those of an unbroken run; all for NUMBER random steps. Exit code 1 where they differ.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def forked(run: Callable[[], int]) -> int:
    """What `run` returns (0 to 100) in a process of its own; -9 where it was killed."""
    child = os.fork()
    if not child:
        code = 101
        try:
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps(kind: str, source: Path, output: Path, seed: int, number: int) -> int:
    """Kills runs at `number` random steps; gives the exit code."""
    counting = output.with_name("steps")

    def unbroken() -> int:
        count = killed_at(-1)
        work(kind, source, output, Spots())
        counting.write_text(str(count[0]))
        return 0

    assert forked(unbroken) == 0
    wanted, total = tree(output, records=False), int(counting.read_text())

    def broken(step: int) -> int:
        killed_at(step)
        work(kind, source, output, Spots())
        return 0

    def repaired() -> int:
        work(kind, source, output, Spots())
        return 0

    random.seed(seed)
    for step in sorted(random.sample(range(total), min(number, total))):
        shutil.rmtree(output)
        codes = forked(lambda: broken(step)), forked(repaired)  # noqa: B023
        found = tree(output, records=False)
        if codes != (-9, 0) or found != wanted:
            differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            print(f"step {step} of {total}: exit codes {codes}, differing {differing}")
            return 1
    print(f"{total} steps")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        sys.exit(steps(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])))
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Spots(float(sys.argv[5]), Path(sys.argv[4])))
