"""Running: one detector over the images of a dataset, once for all thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from slicedet.datasets.coco import CocoDataset, shown
from slicedet.datasets.layout import listed
from slicedet.detections import Detections
from slicedet.detectors.protocol import Detector, minimum_scores
from slicedet.errors import EmptyImage, InvalidDataset, InvalidSetting
from slicedet.evaluation.results import Results
from slicedet.pipeline import Progress, Settings
from slicedet.pipeline import run as search
from slicedet.raster.scene import Scene
from slicedet.tiling import SMALLEST_SLICE

LOWEST_SCORE = 0.01
"""Score down to which detections are collected. Those below change average precision by less than 0.001."""

WAYS = ("sliced", "full")
"""How an image is shown to the detector: in tiles, or whole, as one tile."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a detector saw in all images of a dataset.

    views: of each image, before merging, scores from nearly 0. frames: width and height of each image in pixels.
    """

    categories: tuple[str, ...]
    settings: Settings
    views: Sequence[Detections]
    frames: Sequence[tuple[int, int]]

    def above(self, threshold: float | Mapping[str, float] | None) -> Results:
        """What `slicedet.predict` gives at a threshold: weaker views are dropped before merging, not after."""
        minimum = minimum_scores(self.categories, threshold, self.settings.classes)
        found = []
        for views, frame in zip(self.views, self.frames, strict=True):
            merged = self.settings.merge.apply(views[views.scores >= minimum[views.category_ids]], frame)
            found.append(merged[merged.scores >= minimum[merged.category_ids]])
        return Results.of(found)


def run(
    dataset: CocoDataset,
    images: Path,
    detector: Detector,
    settings: Settings,
    *,
    way: str = "sliced",
    open_scene: Callable[[Path], Scene] = Scene,
    progress: Progress | None = None,
) -> Run:
    """Runs `detector` over all images of a dataset.

    images: the folder they are in. detector: one that returns scores from LOWEST_SCORE on. settings: how images are
    searched; its threshold is what is collected. way: one of WAYS. progress: called with the number of images done and
    of all.

    Raises InvalidDataset, before anything is run, where images are absent, and where one has another size than its
    annotations say; InvalidSetting for a region of interest, outside of which objects would count as missed; and
    whatever `slicedet.predict` raises. An image without any valid pixel is one in which nothing was found.
    """
    check_ways([way])
    if settings.roi is not None:
        raise InvalidSetting("roi: objects outside would count as missed; evaluate on annotations of the region alone")
    views, frames = [], []
    paths = locate(dataset, images)
    for number, (record, path) in enumerate(zip(dataset.images, paths, strict=True), 1):
        with open_scene(path) as scene:
            record.check_size(path, scene.width, scene.height)
            shown = replace(settings if way == "sliced" else _whole(settings, scene), keep_views=True)
            try:
                views.append(search(scene, detector, shown).views)
            except EmptyImage:
                views.append(Detections.empty())
            frames.append((scene.width, scene.height))
        if progress is not None:
            progress(number, len(paths))
    return Run(tuple(detector.categories), settings, views, frames)


def check_ways(ways: Iterable[str]) -> None:
    """Raises InvalidSetting for what is none of WAYS."""
    for way in ways:
        if way not in WAYS:
            raise InvalidSetting(f"compare {way!r}: expected {' or '.join(WAYS)}")


def locate(dataset: CocoDataset, folder: Path) -> list[Path]:
    """The files of all images of a dataset in a folder. Raises InvalidDataset that names those which are absent."""
    if not folder.is_dir():
        raise InvalidDataset(f"{folder}: no such folder of images")
    paths = [folder / _inside(image.file_name, dataset.path) for image in dataset.images]
    absent = [path.relative_to(folder).as_posix() for path in paths if not path.is_file()]
    if absent:
        names = ", ".join(shown(name) for name in absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise InvalidDataset(
            f"{dataset.path}: {len(absent)} of its {len(paths)} images are not in {folder}: {names}; "
            "see `slicedet dataset check`"
        )
    return paths


def _inside(name: str, annotations: Path) -> PurePosixPath:
    """A file name that stays in its folder, wherever the annotations want it."""
    path = PurePosixPath(name)
    return listed(path.name if path.is_absolute() or ".." in path.parts else name, annotations)


def _whole(settings: Settings, scene: Scene) -> Settings:
    """The settings under which a scene is one tile."""
    tile = (max(scene.width, SMALLEST_SLICE), max(scene.height, SMALLEST_SLICE))
    return replace(settings, slice=tile, overlap=0.0, full_image=False, gsd="native")
