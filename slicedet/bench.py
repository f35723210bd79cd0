"""bench: every engine and precision at hand, timed on this machine and compared with f32; the best one is chosen."""

from __future__ import annotations

import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.synthetic import Layout, paint
from slicedet.detections import Detections
from slicedet.detectors import choice
from slicedet.detectors.choice import ENGINES, EngineChoice
from slicedet.detectors.loading import circumstances_of, input_size_for, load_detector, plugins
from slicedet.detectors.network import NetworkDetector
from slicedet.errors import EmptyImage, InvalidSetting, ModelMismatch, SlicedetError
from slicedet.evaluation.matching import match
from slicedet.evaluation.results import Results, Truth
from slicedet.pipeline.search import Search
from slicedet.pipeline.settings import Settings
from slicedet.raster.scene import Scene
from slicedet.tiling import Tile, parse_slice

IOU = 0.9
"""Intersection over union from which on two boxes are the same detection."""

MATCHED, SCORE = 0.99, 0.01
"""Least share of detections matched, and largest mean difference of their scores, of what agrees with the reference."""

FEWEST = 100
"""Detections of the reference, below which a share of MATCHED says too little to choose anything but f32."""

SAME = 0.05
"""Share by which times must differ to count: of what is as fast, the first in order is chosen, f32 on OpenVINO."""

ROUNDS = 5
"""How often each way is timed, after it has run once; in turns, as other programs come and go."""

PAUSE = 0.25
"""Seconds before a measurement: threads of the engine before go on waiting for work, and take a core each."""

BUSY = 0.5
"""Load from which on times are doubtful."""

PAINTED_GSD = 0.15
"""Metres per pixel of the painted scene, for models that do not say what they were trained at."""

Progress = Callable[[int, int], None]
"""Called with the number of steps done and of all steps."""


@dataclass(frozen=True)
class Agreement:
    """How far detections agree with those of a reference.

    detections: of both. matched: share of them that have their like among the others, of the same class and IoU 0.9.
    mean_score, largest_score, largest_distance: by how much the scores of the pairs differ, and their sides in pixels.
    """

    detections: int
    matched: float
    mean_score: float
    largest_score: float
    largest_distance: float

    @classmethod
    def of(cls, found: Sequence[Detections], reference: Sequence[Detections]) -> Agreement:
        """The agreement of what was found in tiles with what the reference found there; full where that is nothing."""
        results, expected = Results.of(found), Results.of(reference)
        none = np.zeros(len(expected), bool)
        truth = Truth(expected.boxes, expected.category_ids, expected.image_indices, none, np.zeros(len(expected)))
        matches = match(truth, results, IOU)
        like = matches.object_of[matches.hit]
        scores = np.abs(results.scores[matches.hit] - expected.scores[like])
        distances = np.abs(results.boxes[matches.hit] - expected.boxes[like])
        total = len(results) + len(expected)
        return cls(
            total,
            2 * len(like) / total if total else 1.0,
            float(scores.mean()) if len(like) else 0.0,
            float(scores.max(initial=0)),
            float(distances.max(initial=0)),
        )

    @property
    def holds(self) -> bool:
        """Whether there is enough of it."""
        return self.matched >= MATCHED and self.mean_score <= SCORE


@dataclass(frozen=True)
class Timing:
    """One way to run a model. requests: how many run at once, None where the engine does not say. ratio: of its time to
    the reference's in the same round; seconds: for a tile; both are medians of all rounds."""

    way: EngineChoice
    requests: int | None
    ratio: float
    seconds: float
    agreement: Agreement


@dataclass(frozen=True)
class Bench:
    """What was measured, and what was chosen.

    circumstances: model, weights, device, machine and engines for which it holds. source: the image the tiles are of,
    or "painted scene". tile_size: width and height in pixels. threshold: lowest score that counts. detections: of the
    reference. load: programs for each core before it began. timings: of all ways, the reference first. left_out: why
    the others were not timed. chosen: by the engine asked for, "auto" for any. stored: the file that keeps it for
    `load_detector`.
    """

    circumstances: dict[str, Any]
    source: str
    tiles: int
    tile_size: tuple[int, int]
    threshold: float
    detections: int
    load: float
    timings: tuple[Timing, ...]
    left_out: dict[str, str]
    chosen: dict[str, EngineChoice]
    stored: Path


def bench(
    model: str,
    weights: str | Path | None = None,
    device: str = "cpu",
    tiles: int = 32,
    image: str | Path | None = None,
    slice: int | str | tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Times a model on every engine at hand, in every precision and with several numbers of requests, and keeps the
    choice for `load_detector(..., precision="auto")`.

    tiles: how many are cut from `image`, or else from a painted scene. slice: their size, for which weights and input
    are chosen as `slicedet predict` does; None for the model's own. progress: called with the number of steps done and
    of all steps.

    The reference is f32 on the first engine that runs the model, which is OpenVINO if it does. Chosen is the fastest
    way that agrees with it, with 99 % of the detections matched at IoU 0.9 and scores that differ by at most 0.01 in
    the mean; f32 where none does, or where less than 100 detections leave it open.

    Raises what `load_detector` does where no engine runs the model, InvalidSetting for plug-ins, EmptyImage or
    UnreadableImage, and OutputError where the choice cannot be kept.
    """
    if plugins(model):
        raise InvalidSetting(f"{model}: a plug-in runs its model itself, there is nothing to choose")
    if tiles < 1:
        raise InvalidSetting(f"tiles {tiles}: expected at least 1")
    size = None if slice is None else parse_slice(slice)
    input_size = input_size_for(model, weights, slice)
    circumstances = circumstances_of(model, weights, device, input_size)
    choice.folder()  # Before minutes of work.
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    trial = _Trial(model, weights, device, input_size, progress or (lambda done, total: None))
    runners = trial.runners(tiles, size, image)
    timings = trial.timings(runners)
    reference = runners[0]
    detections = sum(map(len, reference.found))
    chosen = {"auto": recommended(timings, detections)}
    for engine in {timing.way.engine: None for timing in timings}:
        chosen[engine] = recommended([timing for timing in timings if timing.way.engine == engine], detections)
    return Bench(
        circumstances,
        "painted scene" if image is None else str(image),
        len(trial.tiles),
        size or reference.detector.tile_size,
        reference.detector.threshold,
        detections,
        load,
        timings,
        {name: str(error) for name, error in trial.left_out.items()},
        chosen,
        choice.store(circumstances, chosen),
    )


@dataclass(frozen=True)
class _Runner:
    """A way to run the model, loaded, and what it found when it first ran."""

    way: EngineChoice
    detector: NetworkDetector
    found: list[Detections]


class _Trial:
    """All ways to run one model on one device, on the same tiles."""

    def __init__(
        self,
        model: str,
        weights: str | Path | None,
        device: str,
        input_size: tuple[int, int] | None,
        progress: Progress,
    ) -> None:
        self.tiles: list[NDArray[np.uint8]] = []
        self.left_out: dict[str, SlicedetError] = {}
        self._model, self._weights, self._device, self._input_size = model, weights, device, input_size
        self._ways = [way for engine in ENGINES for way in choice.options(engine, device)]
        self._progress = progress
        self._steps = len(self._ways) * (1 + ROUNDS)

    def runners(self, tiles: int, size: tuple[int, int] | None, image: str | Path | None) -> list[_Runner]:
        """The ways that work, each of which has run once, on tiles of a size; the reference first."""
        runners: list[_Runner] = []
        for number, way in enumerate(self._ways):
            self._progress(number, self._steps)
            if way.engine in self.left_out or _is_known(way, runners):
                continue
            try:
                detector = self._loaded(way)
            except SlicedetError as error:
                self._leave_out(way, error)
                continue
            if not self.tiles:
                self.tiles = _tiles(detector, size or detector.tile_size, tiles, image)
            try:
                runners.append(_Runner(way, detector, list(detector.stream(self.tiles))))
            except SlicedetError as error:
                self._leave_out(way, error)
        if not runners:
            raise next(iter(self.left_out.values()))
        if runners[0].way.precision != "f32":
            raise InvalidSetting(f"device {self._device}: no engine has f32 there, so there is nothing to compare with")
        return runners

    def timings(self, runners: list[_Runner]) -> tuple[Timing, ...]:
        """The time of each way, by all of them in turns."""
        seconds = np.empty((ROUNDS, len(runners)))
        for turn in range(ROUNDS):
            for number, runner in enumerate(runners):
                self._progress(len(self._ways) * (1 + turn) + number, self._steps)
                time.sleep(PAUSE)
                started = time.perf_counter()
                deque(runner.detector.stream(self.tiles), maxlen=0)
                seconds[turn, number] = time.perf_counter() - started
        ratios = np.median(seconds / seconds[:, :1], axis=0).tolist()
        each = (np.median(seconds, axis=0) / len(self.tiles)).tolist()
        agreements = [Agreement.of(runner.found, runners[0].found) for runner in runners]
        self._progress(self._steps, self._steps)
        ways = [runner.way for runner in runners]
        requests = [runner.detector.provenance.get("streams") for runner in runners]
        return tuple(Timing(*columns) for columns in zip(ways, requests, ratios, each, agreements, strict=True))

    def _loaded(self, way: EngineChoice) -> NetworkDetector:
        detector = load_detector(
            self._model,
            self._weights,
            way.engine,
            self._device,
            way.precision,
            input_size=self._input_size,
            streams=way.streams,
        )
        assert isinstance(detector, NetworkDetector)  # It is no plug-in.
        if (other := detector.provenance["engine"]) != way.engine:
            raise ModelMismatch(f"{self._model}: {other} runs it instead")
        return detector

    def _leave_out(self, way: EngineChoice, error: SlicedetError) -> None:
        """Notes why a way does not work; of an engine the first, without which none does."""
        first = way == next(each for each in self._ways if each.engine == way.engine)
        self.left_out[way.engine if first else " ".join(str(part) for part in astuple(way) if part)] = error


def _is_known(way: EngineChoice, runners: Sequence[_Runner]) -> bool:
    """Whether the engine has itself chosen this number of requests."""
    return any(
        (runner.way.engine, runner.way.precision) == (way.engine, way.precision)
        and runner.detector.provenance.get("streams") == way.streams
        for runner in runners
    )


def recommended(timings: Sequence[Timing], detections: int) -> EngineChoice:
    """The fastest way that agrees with the reference, of some as fast the first; where none agrees, the first of all.

    detections: of the reference; with less than FEWEST, only f32 counts.
    """
    agreeing = [
        timing
        for timing in timings
        if timing.agreement.holds and (timing.way.precision == "f32" or detections >= FEWEST)
    ]
    fastest = min((timing.ratio for timing in agreeing), default=0.0)
    return next((timing.way for timing in agreeing if timing.ratio <= fastest * (1 + SAME)), timings[0].way)


def _tiles(
    detector: NetworkDetector, size: tuple[int, int], count: int, image: str | Path | None
) -> list[NDArray[np.uint8]]:
    """Tiles of an image as `predict` would cut and read them, at random places but the same every time; or of a painted
    scene that has just as many."""
    width, height = size
    columns = math.ceil(math.sqrt(count))
    gsd = float(np.clip(detector.gsd or PAINTED_GSD, 0.02, 0.6))  # What can be painted.
    frame = Tile(0, 0, columns * width, math.ceil(count / columns) * height)
    source = paint(Layout(0, "city"), gsd, frame).pixels if image is None else image
    tiles: list[NDArray[np.uint8]] = []
    with Scene(source) as scene:
        search = Search(scene, detector, Settings((width, height), overlap=0))
        places, (fx, fy) = list(search.grid), search.to_native
        for place in random.Random(0).sample(places, len(places)):
            window = (place.x * fx, place.y * fy, place.width * fx, place.height * fy)
            pixels, valid = scene.read_view(window, (place.width, place.height))
            if valid is None or valid.any():
                tiles.append(pixels)
            if len(tiles) == count:
                break
    if not tiles:
        raise EmptyImage(f"{image}: every pixel is nodata, there is nothing to detect")
    return tiles
