"""The pipeline: scenes -> tiles -> detector -> merge. Reading, the network and merging overlap; memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicedet.detectors.protocol import Detector
from slicedet.errors import SlicedetError
from slicedet.merging import MergeRule
from slicedet.pipeline.reading import Journal, Progress, Sink, Task
from slicedet.pipeline.record import describe
from slicedet.pipeline.running import Flow
from slicedet.pipeline.search import Strip, TileCount, cut
from slicedet.pipeline.settings import Resources, Settings
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

__all__ = [
    "Journal",
    "Progress",
    "Resources",
    "Settings",
    "Sink",
    "Strip",
    "Task",
    "TileCount",
    "cut",
    "describe",
    "predict",
    "run",
    "run_all",
]


def predict(
    source: str | Path | NDArray[np.generic] | Scene,
    detector: Detector,
    *,
    slice: int | str | tuple[int, int] | None = None,
    overlap: float | str = 0.25,
    merge: str | MergeRule = "agreement",
    threshold: float | Mapping[str, float] | None = None,
    classes: Sequence[str] | None = None,
    gsd: float | str = "auto",
    roi: str | Path | None = None,
    full_image: bool = False,
    skip_unreadable: bool = False,
    skip_flat: bool = False,
    keep_views: bool = True,
    progress: Progress | None = None,
    resources: Resources | None = None,
) -> Prediction:
    """Finds objects in an image of any size, tile by tile.

    source: path or URL of a raster or photo, an array [H, W] or [H, W, bands], or an open Scene (which may choose bands
        and stretch, and stays open).
    slice: tile size in pixels, 640, "640x512" or (640, 512) as width x height; by default the detector's input size.
    overlap: of neighbouring tiles, as a ratio of the tile (0.25) or in pixels ("160px").
    merge: method by which overlapping detections become one, or a MergeRule with metric and threshold.
    threshold: lowest score kept, one number or by class, {"*": 0.25, "car": 0.4}; by default the detector's own, if it
        has one.
    classes: names of the categories kept; None keeps all.
    gsd: ground sampling distance at which the detector sees the scene: "auto", the one it was trained at if known,
        unless pixels would have to be enlarged more than four times; "native", that of the scene; or metres per pixel.
        Boxes come back in native pixels all the same.
    roi: vector file with polygons: tiles outside are not run, boxes whose centre is outside are dropped.
    full_image: also look at the whole scene at once, reduced to the size of a tile, for objects larger than tiles.
    skip_unreadable: leave out tiles that cannot be decoded, and count them, rather than fail.
    skip_flat: leave out tiles of one flat colour, such as open water, and count them.
    keep_views: keep what the tiles saw before merging, for `Prediction.views_of`; 48 bytes for each.
    progress: called with the number of tiles done and of all tiles.
    resources: threads and batch, which do not change the result.

    Raises a SlicedetError that says in one line what is wrong: EmptyImage where all is nodata, UnreadableImage,
    UnknownCategory, InvalidRegion, InvalidSetting and others.
    """
    rule = merge if isinstance(merge, MergeRule) else MergeRule(merge)
    settings = Settings(
        slice=slice,
        overlap=overlap,
        merge=rule,
        threshold=threshold,
        classes=classes,
        gsd=gsd,
        roi=roi,
        full_image=full_image,
        skip_unreadable=skip_unreadable,
        skip_flat=skip_flat,
        keep_views=keep_views,
    )
    if isinstance(source, Scene):
        return run(source, detector, settings, progress, resources)
    with Scene(source) as scene:
        return run(scene, detector, settings, progress, resources)


def run(
    scene: Scene,
    detector: Detector,
    settings: Settings,
    progress: Progress | None = None,
    resources: Resources | None = None,
    journal: Journal | None = None,
    sink: Sink | None = None,
) -> Prediction:
    """`predict` on an open scene, with settings made once for many scenes.

    journal: keeps finished rows of tiles, so that a run broken off goes on from there. sink: as in `Task`.
    """
    (outcome,) = Flow([Task(lambda: scene, journal, progress, sink)], detector, settings, resources or Resources())
    if isinstance(outcome, SlicedetError):
        raise outcome
    return outcome


def run_all(
    tasks: Iterable[Task], detector: Detector, settings: Settings, resources: Resources | None = None
) -> Iterator[Prediction | SlicedetError]:
    """`run` on many scenes, in order, whose tiles share the detector's batches; for a scene that fails, its error.

    The scene of a prediction is closed when the next is asked for. Errors that are no scene's own are raised.
    """
    for outcome in Flow(tasks, detector, settings, resources or Resources()):
        yield outcome
        if isinstance(outcome, Prediction):
            outcome.scene.close()
