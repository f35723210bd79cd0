"""How soon slicedet answers: from the start of a process to its help, and to the first tile that the default model saw.

    python -m benchmarks.start [--quick] [--rounds 15]

The benchmark starts processes one after the other, in rounds, and notes when their lines arrive; files are in the
operating system's cache by then. The scene is painted and the model comes with slicedet, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import machine
from slicedet.datasets.synthetic import SceneSettings, write_scene

FIRST_TILE = """
import os, sys
import slicedet
detector = slicedet.load_detector("aerial-vehicles")
print("model", flush=True)

def progress(done, total):
    if done:
        print("tile", flush=True)
        os._exit(0)

slicedet.predict(sys.argv[1], detector, progress=progress)
"""

EDGE = 2000
"""Of the scene, in pixels."""


def milestones(command: list[str]) -> dict[str, float]:
    """Seconds from the start of a process to each line it prints, by its text, and to its end, as "end"."""
    start = time.perf_counter()
    reached = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            reached[line.strip()] = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: fails")
    return {**reached, "end": time.perf_counter() - start}


def main() -> None:
    """Print a table of medians over rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    options = parser.parse_args()
    python = sys.executable
    with tempfile.TemporaryDirectory() as name:
        scene = Path(name) / "scene.tif"
        write_scene(scene, SceneSettings(EDGE, EDGE))
        commands = {
            "`python -c pass`": ([python, "-c", "pass"], "end"),
            "`import slicedet`": ([python, "-c", "import slicedet"], "end"),
            "`slicedet --help`": ([str(Path(python).with_name("slicedet")), "--help"], "end"),
            "default model loaded": ([python, "-c", FIRST_TILE, str(scene)], "model"),
            "first tile": ([python, "-c", FIRST_TILE, str(scene)], "tile"),
        }
        times: dict[str, list[float]] = {what: [] for what in commands}
        # The first round warms the operating system's cache.
        for number in range(1 + (3 if options.quick else options.rounds)):
            for what, (command, line) in commands.items():
                seconds = milestones(command)[line]
                if number:
                    times[what].append(seconds)
    nothing = statistics.median(times["`python -c pass`"])
    print(machine("openvino"), end="\n\n")
    print("| from the start of the process to | time / Python's own | median | least | most |")
    print("|---|---|---|---|---|")
    for what, each in times.items():
        middle = statistics.median(each)
        print(f"| {what} | {middle / nothing:.1f} | {middle:.2f} s | {min(each):.2f} s | {max(each):.2f} s |")


if __name__ == "__main__":
    main()
