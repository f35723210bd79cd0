"""Running a batch: what is done is kept, what was broken off goes on, the rest is run."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from slicedet.batch.listing import Item, Shard, fingerprint, listing, plain
from slicedet.batch.results import Report, Result
from slicedet.batch.space import Space, check_summaries, manifest_path
from slicedet.conditions import conditions
from slicedet.detectors.protocol import Detector, minimum_scores, name_of
from slicedet.errors import CorruptFile, InvalidSetting, OutputError, SlicedetError, SlicedetWarning, UnreadableImage
from slicedet.manifest import DONE, Entry, Files, ImageResult, Stamp
from slicedet.outputs import save
from slicedet.outputs.files import check_apart
from slicedet.outputs.layer import Layer
from slicedet.outputs.provenance import save_provenance
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Resources, Settings, Task, run_all
from slicedet.prediction import Prediction
from slicedet.publishing import make_folder
from slicedet.raster.scene import Scene

GROUP_SECONDS = 1.0
"""How long outputs may wait for others: published together, they wait for the disk only once."""


class Batch:
    """All images below a folder, and where their results go: `output` mirrors the folders, and holds summary.csv and
    detections.coco.json over all images.

    What is done is noted in a manifest below `output`; a run there goes on where the last one ended.
    pattern: globs of file names; by default every image. formats: of each image's result, as in `Targets`.
    overwrite: replace files that no run of this batch has written. restart: forget and remove what earlier runs wrote.
    shard: the part of the images to run; a part leaves the files over all images to `collect`.
    Nothing is written, not even a folder, before `run`.
    Raises UnreadableImage where there is no image, InvalidSetting for an unknown format or an empty pattern,
    OutputError where results cannot be written or are there already, without a manifest.
    """

    def __init__(
        self,
        folder: Path,
        output: Path,
        *,
        pattern: Sequence[str] = (),
        formats: Sequence[str] = (),
        overwrite: bool = False,
        restart: bool = False,
        shard: Shard | None = None,
    ) -> None:
        if "" in pattern:
            raise InvalidSetting("pattern '': expected a glob of file names, such as '*.tif'")
        if not folder.is_dir():
            raise UnreadableImage(f"{folder}: no such folder")
        if output.resolve() == folder.resolve():
            raise OutputError(f"{output}: holds the images; results need a folder of their own")
        self.folder = folder
        self.output = output
        self.formats = Targets(formats=formats).formats
        self.overwrite = overwrite
        self.restart = restart
        self.shard = shard or Shard()
        everything = listing(folder, pattern, output)
        if not everything:
            wanted = f" that matches {', '.join(pattern)}" if pattern else ""
            raise UnreadableImage(f"{folder}: no image{wanted} in it or in the folders below")
        self.items = [item for item in everything if self.shard.holds(item.position)]
        self.list = fingerprint(everything)
        if output.exists() and self.shard.count == 1 and not manifest_path(output, self.shard).exists():
            check_summaries(output, overwrite)

    def run(
        self,
        detector: Detector,
        settings: Settings,
        scene_options: Mapping[str, Any] | None = None,
        resources: Resources | None = None,
        report: Report = lambda result, total: None,
    ) -> list[Result]:
        """Runs all images that are not done and writes their results; gives those of all, in the order of their names.

        scene_options: bands and stretch, as `Scene` takes them. report: hears of each image as it is done, of those
        kept from earlier runs first.
        Raises UnknownCategory for a class that the detector does not know, OutputError where the folder cannot be made,
        is held by another run or has results of other settings, CorruptFile where the manifest is damaged.
        """
        minimum_scores(detector.categories, settings.threshold, settings.classes)  # Wrong for one is wrong for all.
        options = dict(scene_options or {})
        wanted = conditions(detector, settings, options, self.formats)
        with Space.held(self.output, self.shard, wanted, self.overwrite, self.restart) as space:
            return _Run(self, space, detector, settings, options, report).results(resources)


class _Run:
    """One run of a batch."""

    def __init__(
        self,
        batch: Batch,
        space: Space,
        detector: Detector,
        settings: Settings,
        scene_options: dict[str, Any],
        report: Report,
    ) -> None:
        self._batch = batch
        self._space = space
        self._manifest = space.manifest
        self._detector = detector
        self._settings = settings
        self._scene_options = scene_options
        self._report = report
        self._pending: deque[tuple[Item, ImageResult]] = deque()
        self._kept: set[str] = set()
        self._written: list[tuple[Item, Path]] = []
        self._published = time.monotonic()

    def results(self, resources: Resources | None) -> list[Result]:
        """Does what is left to do."""
        self._take_list()
        todo = [item for item in self._batch.items if not self._settled(item)]
        tasks = (self._task(item) for item in todo)
        with closing(run_all(tasks, self._detector, self._settings, resources)) as outcomes:  # type: ignore[type-var]
            for outcome in outcomes:
                self._take(*self._pending.popleft(), outcome)
        self._publish(0)
        if self._batch.shard.count == 1:
            self._space.summarise(self._detector.categories)
        return [Result.of(entry, entry.name in self._kept) for entry in self._manifest.entries()]

    def _take_list(self) -> None:
        """Notes which images there are. Raises OutputError where the folder has results of others only."""
        batch, manifest = self._batch, self._manifest
        folder = str(batch.folder.resolve())
        before = manifest.fact("folder")
        if before not in (None, folder) and manifest.has_results() and not any(map(self._unchanged, batch.items)):
            raise OutputError(
                f"{batch.output}: has results of other images, those in {before}; choose another folder, or begin anew "
                "with --restart"
            )
        manifest.note("folder", folder)
        manifest.note("list", batch.list)
        unlisted = manifest.take_list((item.position, item.name) for item in batch.items)
        gone = sum(not (batch.folder / name).exists() for name in unlisted)
        if gone:
            images = "1 image with results is" if gone == 1 else f"{gone} images with results are"
            warnings.warn(
                f"{batch.folder}: {images} no longer there, and left out of what is said of all images",
                SlicedetWarning,
                stacklevel=4,
            )

    def _unchanged(self, item: Item) -> Entry | None:
        """What is known of an image that has a result and is still the same."""
        entry = self._manifest.entry(item.name)
        return entry if entry and entry.run is not None and entry.stamp == Stamp.of_image(item.path) else None

    def _settled(self, item: Item) -> bool:
        """Whether nothing is to be run for an image. Outputs that are missing are written."""
        entry = self._unchanged(item)
        if entry is None:
            return False
        if entry.state == DONE and entry.stem == item.stem and self._in_place(entry):
            self._kept.add(item.name)
            self._done(item, entry.files)
            return True
        try:
            with self._open(item) as scene:
                self._kept.add(item.name)
                self._write(item, scene)
        except CorruptFile:
            self._kept.discard(item.name)
            return False
        except SlicedetError as error:
            self._failed(item, error)
        return True

    def _in_place(self, entry: Entry) -> bool:
        """Whether all outputs of an image are there. After a power cut, older ones may be in the place of the last."""
        paths = ((self._space.output / name, stamp) for name, stamp in entry.files.items())
        return all(path.exists() if entry.durable else Stamp.of(path) == stamp for path, stamp in paths)

    def _task(self, item: Item) -> Task:
        journal, result = self._manifest.journal(item.name), self._manifest.result(item.name)
        self._pending.append((item, result))
        return Task(lambda: self._open(item), journal, lambda done, total: self._publish(GROUP_SECONDS), result.add)

    def _open(self, item: Item) -> Scene:
        """The scene, whose outputs can be written as far as can be told."""
        if str(item.path) != plain(str(item.path)):
            raise UnreadableImage(f"{plain(str(item.path))}: its name is not UTF-8; rename it")
        stamp = Stamp.of_image(item.path)
        try:
            scene = Scene(item.path, **self._scene_options)
        except SlicedetError:
            raise
        except Exception as error:  # Whatever is odd about one image, the others are to run.
            raise UnreadableImage(f"{item.path}: cannot be opened ({type(error).__name__}: {error})") from error
        try:
            make_folder(self._space.output / item.folder)
            names = [(item.folder / path.name).as_posix() for path in self._paths(item, scene, self._space.staging)]
            for name in names:
                check_apart(self._space.output / name, scene, self._settings.roi)
            self._space.check(names, self._entry(item).files)
            self._manifest.begin(item.name, stamp)
        except BaseException:
            scene.close()
            raise
        return scene

    def _paths(self, item: Item, scene: Scene, folder: Path) -> list[Path]:
        """An image's outputs in a folder; the record of the run comes last."""
        targets = Targets(paths=[folder], formats=self._batch.formats, overwrite=True)
        return [*targets.of(scene, item.stem), folder / f"{item.stem}.run.json"]

    def _take(self, item: Item, result: ImageResult, outcome: Prediction | SlicedetError) -> None:
        if isinstance(outcome, SlicedetError):
            self._failed(item, outcome)
            return
        scene = outcome.scene
        self._manifest.found(result, (scene.width, scene.height), outcome.run)
        try:
            self._write(item, scene)
        except SlicedetError as error:
            self._failed(item, error)

    def _write(self, item: Item, scene: Scene) -> None:
        """Writes the outputs of an image whose result is in the manifest, to be published with others."""
        entry, folder = self._entry(item), self._space.slot(len(self._written))
        assert entry.run is not None
        layer = Layer(scene, tuple(self._detector.categories), name_of(self._detector), self._settings.skip_unreadable)
        *paths, record = self._paths(item, scene, folder)
        try:
            for path in paths:
                save(layer, self._manifest.detections(entry), path, overwrite=True)
            save_provenance(entry.run, record, overwrite=True)
        except OutputError as error:
            raise OutputError(str(error).replace(str(folder), str(self._space.output / item.folder))) from error
        self._written.append((item, folder))
        self._publish(GROUP_SECONDS)

    def _publish(self, seconds: float) -> None:
        """Puts what has been written in place, if the last time was longer ago than this.

        Were it not on the disk beforehand whose these files are, a power cut could leave files that are nobody's.
        """
        if not self._written:
            self._manifest.sync()  # What a row of tiles has kept may not wait for the next row, which can take long.
            return
        if time.monotonic() - self._published < seconds:
            return
        written, self._written, ready = self._written, [], []
        for item, folder in written:
            own = self._entry(item).files
            try:
                names = self._space.claimable(folder, item.folder, own)
            except SlicedetError as error:
                self._failed(item, error)
                continue
            self._manifest.publishing(item.name, item.stem, {**own, **dict.fromkeys(names)})
            ready.append((item, folder, names, own))
        self._manifest.sync(0)
        for item, folder, names, own in ready:
            try:
                files = self._space.publish(folder, names, own)
            except SlicedetError as error:
                self._failed(item, error)
            else:
                self._done(item, files)
        self._published = time.monotonic()

    def _done(self, item: Item, files: Files) -> None:
        entry = self._entry(item)
        if entry.state != DONE or not entry.durable:
            self._manifest.done(item.name, files, self._space.folders(list(files)))
        self._tell(Result.of(self._entry(item), item.name in self._kept))

    def _failed(self, item: Item, error: SlicedetError) -> None:
        self._manifest.failed(item.name, plain(" ".join(str(error).split())))
        self._tell(Result.of(self._entry(item), failure=error))

    def _tell(self, result: Result) -> None:
        self._report(result, len(self._batch.items))

    def _entry(self, item: Item) -> Entry:
        entry = self._manifest.entry(item.name)
        assert entry is not None
        return entry
