"""PaddleX, in an environment and a process of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.speed.networks import Network
from benchmarks.speed.scenes import Pixels

PADDLEX = """
import os, sys, time
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # Paddle and PaddleX talk on stdout.
os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
import numpy as np, yaml
from paddlex import create_model

folder, tiles, threshold, threads = sys.argv[1:]
sets = [[np.ascontiguousarray(tile[..., ::-1]) for tile in np.load(os.path.join(tiles, f"{index}.npz")).values()]
        for index in range(len(os.listdir(tiles)))]

def run(model, images):
    start = time.perf_counter()
    boxes = sum(len(result["boxes"]) for result in model.predict(images, batch_size=1, threshold=float(threshold)))
    return time.perf_counter() - start, boxes

with open(os.path.join(folder, "inference.yml"), encoding="utf-8") as file:
    name = yaml.safe_load(file)["Global"]["model_name"]
ways = {}
for mode in ("mkldnn", "paddle"):
    settings = {"run_mode": mode, "cpu_threads": int(threads)}
    try:
        model = create_model(name, folder, device="cpu", engine="paddle_static", engine_config=settings)
        run(model, sets[0][:1])
        ways[min(run(model, sets[0][:4])[0] for _ in range(2))] = mode, model
    except Exception as error:
        print(f"PaddleX, run_mode {mode}: {error}"[:300], file=sys.stderr)
mode, model = ways[min(ways)]
print(mode, file=answers)
for line in sys.stdin:
    print(*run(model, sets[int(line)]), file=answers)
"""
"""Keeps sets of tiles in memory; says its mode, then seconds and boxes of each set whose number it reads."""


class PaddleX:
    """PaddleX in an environment of its own, with the faster of its CPU modes that run at all."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.mode = self._answer()

    def run(self, index: int) -> tuple[float, int]:
        """Seconds and boxes of a set of tiles."""
        assert self._process.stdin is not None
        print(index, file=self._process.stdin, flush=True)
        seconds, boxes = self._answer().split()
        return float(seconds), int(boxes)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("PaddleX fails; see above")
        return line.strip()


@contextmanager
def paddlex(python: str, network: Network, tiles: list[list[Pixels]], threshold: float) -> Iterator[PaddleX]:
    """PaddleX with these sets of tiles."""
    with tempfile.TemporaryDirectory() as folder:
        for index, each in enumerate(tiles):
            np.savez(Path(folder) / f"{index}.npz", *each)
        arguments = [str(network.paddle), folder, str(threshold), str(os.cpu_count() or 1)]
        command = [python, "-c", PADDLEX, *arguments]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield PaddleX(process)
