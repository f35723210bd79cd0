"""The floor: what cannot be left out, the network alone and one bare read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import rasterio

from benchmarks.speed.networks import Engine, Network, compiled, onnx_session, openvino_model
from benchmarks.speed.scenes import Files, Pixels
from benchmarks.speed.times import timed

TRIED = 32
"""Tiles on which settings are tried."""

Alone = Callable[[Sequence[Pixels]], int]
"""Runs a network on tiles of its input's size, and forgets what it says; finds 0 boxes."""


def bare_read(files: Files) -> int:
    """All pixels of all files, as rasterio gives them."""
    for path in files.paths:
        with rasterio.open(path) as dataset:
            dataset.read()
    return 0


def network_alone(network: Network, engine: Engine, tiles: Sequence[Pixels]) -> Alone:
    """The fastest way of running a network on an engine, found by trying some on a few tiles."""
    cores = os.cpu_count() or 1
    if engine.name == "openvino":
        model = openvino_model(network, uint8=True)
        hints: list[dict[str, Any]] = [
            {"PERFORMANCE_HINT": "LATENCY"},
            {"PERFORMANCE_HINT": "THROUGHPUT"},
            {"NUM_STREAMS": cores},
        ]
        ways = [_queued(compiled(model, engine.precision, **hint)) for hint in hints]
    else:
        # All cores for one tile, or one core each for several.
        ways = [_pooled(onnx_session(network, True), 1), _pooled(onnx_session(network, True, 1), cores)]
    some = tiles[:: max(1, len(tiles) // TRIED)]
    return min(ways, key=lambda way: min(timed(lambda: way(some))[0] for _ in range(3)))


def _queued(graph: Any) -> Alone:
    import openvino

    queue = openvino.AsyncInferQueue(graph)

    def run(tiles: Sequence[Pixels]) -> int:
        for tile in tiles:
            queue.start_async({0: tile[None]}, share_inputs=True)
        queue.wait_all()
        return 0

    return run


def _pooled(session: Any, threads: int) -> Alone:
    def run(tiles: Sequence[Pixels]) -> int:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda tile: session.run(None, {"pixels": tile[None]}), tiles):
                pass
        return 0

    return run
