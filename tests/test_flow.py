"""Many scenes through one detector: order, batches, failures, journals, and threads that end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from slicedet import Detections, Scene
from slicedet.errors import EmptyImage, InvalidDetections, SlicedetError, UnreadableImage
from slicedet.pipeline import Resources, Settings, Strip, Task, run, run_all
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene as SceneClass

SETTINGS = Settings(slice=64, overlap=0.25)


class Spots:
    """Finds the brightest pixel of each tile; its class is odd or even by its column."""

    categories = ("even", "odd")
    input_size = 64
    name = "spots"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, tiles: list[np.ndarray]) -> list[Detections]:
        self.batches.append(len(tiles))
        return [self.found(tile) for tile in tiles]

    def found(self, tile: np.ndarray) -> Detections:
        assert tile.flags.c_contiguous
        y, x = np.unravel_index(tile[..., 0].argmax(), tile.shape[:2])
        return Detections([[x, y, x + 6, y + 5]], [tile[y, x, 0] / 255], [x % 2])


class Streaming(Spots):
    """The same with a stream of its own, which draws `ahead` tiles before it answers."""

    def __init__(self, ahead: int = 3) -> None:
        super().__init__()
        self.ahead = ahead
        self.drawn = 0

    def stream(self, tiles: Iterator[np.ndarray]) -> Iterator[Detections]:
        held: list[np.ndarray] = []
        for tile in tiles:
            self.drawn += 1
            held.append(np.ascontiguousarray(tile))
            if len(held) > self.ahead:
                yield self.found(held.pop(0))
        yield from map(self.found, held)


class Notes(dict[int, Strip]):
    """A journal in memory that can fail."""

    def put(self, index: int, strip: Strip) -> None:
        assert index not in self
        assert all(index > other for other in self)
        self[index] = strip


def picture(seed: int, width: int = 200, height: int = 170) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(7):
        path = tmp_path / f"{seed}.tif"
        pixels = picture(seed, 60 + 40 * seed, 70 + 11 * seed).transpose(2, 0, 1)
        with rasterio.open(path, "w", "GTiff", pixels.shape[2], pixels.shape[1], 3, dtype="uint8", nodata=255) as file:
            file.write(np.full_like(pixels, 255) if seed == 3 else pixels)
        paths.append(path)
    paths.insert(2, tmp_path / "missing.tif")
    broken = tmp_path / "z.tif"
    broken.write_bytes(paths[-1].read_bytes()[:-9000])
    return [*paths, broken]


def same(a: Detections, b: Detections) -> None:
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.category_ids, b.category_ids)


@pytest.mark.parametrize(
    "detector", [Spots(), Streaming(0), Streaming(5), Streaming(10_000)], ids=["detect", "0", "5", "10000"]
)
@pytest.mark.parametrize("resources", [Resources(1, 1), Resources(3, 5), Resources(20, 10_000)], ids=str)
def test_each_scene_comes_out_as_on_its_own_in_order(folder, detector, resources):
    outcomes = list(run_all([Task(lambda path=path: Scene(path)) for path in folder], detector, SETTINGS, resources))
    assert len(outcomes) == len(folder)
    for path, outcome in zip(folder, outcomes, strict=True):
        if isinstance(outcome, SlicedetError):
            with pytest.raises(type(outcome)) as alone, Scene(path) as scene:
                run(scene, Spots(), SETTINGS)
            assert str(alone.value) == str(outcome)
            continue
        with Scene(path) as scene:
            alone = run(scene, Spots(), SETTINGS)
        same(outcome.detections, alone.detections)
        assert outcome.scene.source == str(path)
        assert outcome.run["tiles"] == alone.run["tiles"]
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(Prediction) == 6
    assert kinds[2:5] == [UnreadableImage, Prediction, EmptyImage]
    assert issubclass(kinds[-1], SlicedetError)


def test_tiles_of_different_images_share_batches():
    detector = Spots()
    tasks = [Task(lambda seed=seed: Scene(picture(seed, 64, 100))) for seed in range(9)]
    assert len(list(run_all(tasks, detector, SETTINGS, Resources(2, 4)))) == 9
    assert detector.batches == [4, 4, 4, 4, 2]


def test_results_are_taken_while_later_scenes_are_read():
    opened: list[int] = []

    def opening(seed: int) -> Scene:
        opened.append(seed)
        return Scene(picture(seed))

    outcomes = run_all(
        [Task(lambda seed=seed: opening(seed)) for seed in range(50)], Streaming(2), SETTINGS, Resources(3)
    )
    next(outcomes)
    assert len(opened) <= 5
    assert len(list(outcomes)) == 49
    assert opened == sorted(opened)


def test_reading_runs_ahead_of_a_slow_detector_by_little_only(monkeypatch):
    read: list[float] = []
    whole = SceneClass.read_view

    def counted(self, window, size=None):
        read.append(window[1])
        return whole(self, window, size)

    monkeypatch.setattr(SceneClass, "read_view", counted)
    ahead = []

    class Slow(Spots):
        def detect(self, tiles):
            time.sleep(0.02)
            ahead.append(len(read) - sum(self.batches) / 5)
            return super().detect(tiles)

    run(Scene(picture(1, 256, 2000)), Slow(), SETTINGS, resources=Resources(batch=5))
    assert len(read) == len({*read}) > 30
    assert max(ahead) <= 5


@pytest.mark.parametrize("stop_after", [0, 1, 7, 15])
def test_rows_that_a_journal_kept_are_not_run_again(stop_after):
    class Stops(Streaming):
        def found(self, tile):
            if self.seen == stop_after:
                raise KeyboardInterrupt
            self.seen += 1
            return super().found(tile)

        seen = 0

    scene, journal, progress = Scene(picture(5)), Notes(), []
    whole = run(scene, Streaming(), SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(scene, Stops(), SETTINGS, journal=journal)
    assert len(journal) == stop_after // 4
    kept = len(journal)
    again = Streaming()
    resumed = run(scene, again, SETTINGS, lambda *numbers: progress.append(numbers), journal=journal)
    assert again.drawn == 4 * (4 - kept)
    same(resumed.detections, whole.detections)
    assert resumed.run["tiles"] == whole.run["tiles"]
    assert progress[-1] == (whole.run["tiles"]["total"],) * 2
    assert progress == sorted(progress)


@pytest.mark.parametrize(("surplus", "words"), [(1, "more results"), (-1, "1 results too few")])
def test_a_stream_must_answer_each_tile(surplus, words):
    class Wrong(Streaming):
        def stream(self, tiles):
            found = list(super().stream(tiles))
            yield from found[:-1] if surplus < 0 else [*found, *found[:surplus]]

    with pytest.raises(InvalidDetections, match=words):
        run(Scene(picture(1)), Wrong(), SETTINGS)


def test_what_is_no_scenes_fault_is_raised_as_itself():
    def fails() -> Scene:
        raise ZeroDivisionError("not of slicedet")

    outcomes = run_all([Task(lambda: Scene(picture(1))), Task(fails)], Spots(), SETTINGS)
    with pytest.raises(ZeroDivisionError):
        list(outcomes)


def readers() -> int:
    return sum(thread.name == "slicedet-reader" for thread in threading.enumerate())


@pytest.mark.parametrize("end", ["close", "raise"])
def test_no_thread_outlives_a_run_that_ends_early(end):
    class Fails(Spots):
        def detect(self, tiles):
            if end == "raise" and len(self.batches) == 3:
                raise ValueError("broken")
            return super().detect(tiles)

    outcomes = run_all(
        [Task(lambda seed=seed: Scene(picture(seed, 300, 900))) for seed in range(9)], Fails(), SETTINGS, Resources(4)
    )
    if end == "raise":
        with pytest.raises(ValueError, match="broken"):
            list(outcomes)
    else:
        next(outcomes)
        outcomes.close()
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert readers() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files by /proc")
def test_open_files_do_not_grow_with_the_number_of_images(folder):
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for _ in run_all([Task(lambda path=path: Scene(path)) for path in folder * 20], Spots(), SETTINGS, Resources(2)):
        counts.append(opened())
    assert max(counts[20:]) <= max(counts[:20]) + 2


def test_flat_tiles_are_left_out_when_asked_and_counted():
    pixels = np.full((64, 64 * 6, 3), 90, np.uint8)
    pixels[..., 1] += np.random.default_rng(0).integers(0, 8, (64, 64 * 6), dtype=np.uint8)  # What sensors add.
    pixels[30:33, 200:203] = 255
    for skip, counted in ((False, 0), (True, 5)):
        settings = Settings(slice=64, overlap=0.0, skip_flat=skip)
        prediction = run(Scene(pixels), Spots(), settings)
        assert prediction.run["tiles"]["flat"] == counted
        assert prediction.run["tiles"]["run"] == 6 - counted
        assert [200, 30, 206, 35] in prediction.detections.boxes.tolist()
    with pytest.raises(EmptyImage, match="flat"):
        run(Scene(pixels[:, :64]), Spots(), settings)


def test_resources_that_make_no_sense_are_refused():
    with pytest.raises(SlicedetError, match="workers 0"):
        Resources(workers=0)


class Twice(Spots):
    """Finds two things in each tile, one a little beside the brightest pixel, both far apart from other tiles'."""

    def found(self, tile: np.ndarray) -> Detections:
        return Detections([[20, 20, 30, 30], [22, 22, 31, 31], [40, 40, 46, 46]], [0.9, 0.8, 0.7], [0, 0, 1])


def test_what_no_later_tile_can_touch_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slicedet.merging.gradual.ENOUGH", 30)
    picture = np.full((1000, 300, 3), 90, np.uint8)
    settings = Settings(slice=64, overlap=0, keep_views=True)
    done: list[int] = []
    handed: list[tuple[int, Detections]] = []

    def progress(tiles: int, total: int) -> None:
        done.append(tiles)

    with Scene(picture) as scene:
        whole = run(scene, Twice(), settings)
        handed_on = run(scene, Twice(), settings, progress, sink=lambda found: handed.append((done[-1], found)))
    assert len(handed_on.detections) == 0
    assert handed_on.run["detections"] == whole.run["detections"]
    assert whole.run["detections"]["by_class"] == {"even": 80, "odd": 80}
    # Long before the last tile, each but the last at once, and from the top to the bottom.
    assert len(handed) > 3
    assert handed[0][0] < 20
    lowest = [found.boxes[:, 1].max() for _, found in handed]
    highest = [found.boxes[:, 1].min() for _, found in handed]
    assert all(a < b for a, b in zip(lowest[:-1], highest[1:], strict=True))
    assert all(len(found) for _, found in handed)
    found = Detections.concatenate([part for _, part in handed])
    order = np.lexsort((*found.boxes.T[::-1], -found.scores))
    for name in ("boxes", "scores", "category_ids", "tiles"):
        assert getattr(found[order], name).tobytes() == getattr(whole.detections, name).tobytes()
    # Views point at what they made in the order in which it was handed on.
    for row in (0, 50, len(found) - 1):
        views = handed_on.views[handed_on.origins == row]
        assert (np.abs(views.boxes - found.boxes[row]).max(axis=1) < 4).all()
        assert len(views) == 2 - found.category_ids[row]


def test_a_small_scene_is_handed_on_best_first() -> None:
    handed: list[Detections] = []
    with Scene(picture(5)) as scene:
        whole = run(scene, Spots(), SETTINGS)
        run(scene, Spots(), SETTINGS, sink=handed.append)
    (found,) = handed
    assert found.boxes.tobytes() == whole.detections.boxes.tobytes()
    assert found.scores.tobytes() == whole.detections.scores.tobytes()
