"""How well the engines agree on exported folders, and how long they take for a tile.

    python -m benchmarks.engines [--tiles 4] [--rounds 3] [--input-size 640] [MODEL ...]

Each model gets weights made by a rule, the same on every machine, and is exported as a folder of Paddle's. Every engine
runs it as `slicedet predict -m FOLDER` does: one tile at a time, and all at once. Boxes of one class and IoU 0.9 are
paired; what is shown is the largest difference of any pair to Paddle's, and the share that is paired. Times are those
of `detect` at a threshold from which a tile has ten boxes, of Paddle with the suppression outside its program.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from slicedet import load_detector
from slicedet.bench import Agreement
from slicedet.export import ExportSettings, export_network
from slicedet.models import catalogue

MODELS = (
    "picodet_s_320_coco",
    "picodet_s_320_coco_lcnet",
    "ppyoloe_plus_sod_crn_s_80e_visdrone",
    "ppyoloe_plus_sod_crn_l_80e_visdrone",
    "ppyoloe_plus_sod_crn_l_largesize_80e_visdrone",
)
BOXES = 10
"""That a tile has on average where time is taken: more than photos have would be a benchmark of suppression."""

ENGINES = ("paddle", "openvino", "onnxruntime")


def filled(name: str) -> Any:
    """A network with weights made of their names and shapes alone, whose scores spread."""
    from slicedet import networks

    network = networks.build(name)
    state = network.state_dict()
    values: dict[str, Any] = {}
    for key, value in state.items():
        if "proj" in key and "head" in key:  # The bins.
            continue
        noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(value.shape)
        if value.ndim == 4:
            last = key.startswith(("head.head_", "yolo_head.pred_"))
            noise *= np.sqrt((60 if last else 1.5) / np.prod(value.shape[1:]))
        elif value.ndim == 2:
            noise /= np.sqrt(value.shape[0])
        elif key.endswith(("weight", "_variance", "alpha")):
            noise = 1 + 0.1 * np.abs(noise)
        else:
            noise *= 0.05
        values[key] = noise.astype("float32")
    network.set_state_dict({**state, **values})
    return network


def tiles_of(size: int, count: int) -> list[np.ndarray]:
    """Smooth random images."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (12, 12, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)) for image in coarse]


def seconds_per_tile(detector: Any, tiles: list[np.ndarray], rounds: int) -> float:
    """Median over rounds, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        detector.detect(tiles)
        times.append((time.perf_counter() - start) / len(tiles))
    return statistics.median(times[1:])


def measure(name: str, input_size: int | None, count: int, rounds: int, folder: Path) -> None:
    network, config = filled(name), catalogue.find(name)
    made = export_network(network, config, folder / "whole", ExportSettings(input_size=input_size))
    export_network(network, config, folder / "cut", ExportSettings(input_size=input_size, nms=False))
    size = made.config.input.size[0]
    tiles = tiles_of(size, count)
    results: dict[str, Any] = {}
    for engine in ENGINES:
        start = time.perf_counter()
        detector = load_detector(str(folder / "whole"), engine=engine, threshold=0.5)
        loaded = time.perf_counter() - start
        if detector.provenance["engine"] != engine:  # type: ignore[attr-defined]
            raise SystemExit(f"{name}: {engine} does not run it")
        together, alone = detector.detect(tiles), [detector.detect([tile])[0] for tile in tiles]
        scores = np.sort(np.concatenate([found.scores for found in together]))
        # These weights leave Paddle's program far more to suppress than trained ones do.
        lean = load_detector(str(folder / "cut"), engine=engine) if engine == "paddle" else detector
        lean.threshold = float(scores[-BOXES * count])  # type: ignore[attr-defined]
        results[engine] = together, alone, seconds_per_tile(lean, tiles, rounds), loaded
    reference, slowest = results["paddle"][1], results["paddle"][2]
    for engine, (together, alone, seconds, loaded) in results.items():
        agreement = Agreement.of([*together, *alone], [*reference, *reference])
        print(
            f"| `{name}` {size} | {engine} | {seconds / slowest:.2f} | {agreement.largest_distance:.1e} | "
            f"{agreement.largest_score:.1e} | {agreement.matched:.2%} of {agreement.detections // 2} | "
            f"{1000 * seconds:.0f} ms | {loaded:.1f} s |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--tiles", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input-size", type=int, help="instead of each model's own")
    arguments = parser.parse_args()
    print("| model | engine | time / Paddle's | px | score | paired | time per tile | first start |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, arguments.input_size, arguments.tiles, arguments.rounds, Path(folder))


if __name__ == "__main__":
    main()
