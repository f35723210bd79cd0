"""Batch: one detector over all images of a folder; a bad image is reported and the rest goes on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slicedet.detectors.protocol import Detector, minimum_scores
from slicedet.errors import OutputError, SlicedetError, UnreadableImage
from slicedet.outputs.coco import CocoWriter
from slicedet.outputs.files import check_target, staged
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings, run
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

IMAGE_SUFFIXES = frozenset(
    [
        ".tif",
        ".tiff",
        ".vrt",
        ".jpg",
        ".jpeg",
        ".png",
        ".jp2",
        ".j2k",
        ".webp",
        ".img",
        ".bmp",
        ".gif",
        ".ntf",
        ".ecw",
        ".sid",
    ]
)
"""What counts as an image when no pattern says otherwise."""


@dataclass(frozen=True)
class Result:
    """What became of one image; `number` counts from 1, `image` is relative to the folder, `error` is None if all went
    well."""

    number: int
    image: str
    detections: int = 0
    tiles_run: int = 0
    tiles_empty: int = 0
    tiles_unreadable: int = 0
    seconds: float = 0.0
    error: SlicedetError | None = None

    def row(self) -> dict[str, Any]:
        """The result for a table."""
        row = asdict(self)
        del row["number"]
        row["error"] = "" if self.error is None else " ".join(str(self.error).split())
        return row


class Batch:
    """All images below a folder, and where their results go: `output` mirrors the folders, and holds summary.csv and
    detections.coco.json over all images.

    pattern: globs of file names; by default every image. formats: of each image's result, as in `Targets`.
    Nothing is written, not even a folder, before `run`.
    Raises UnreadableImage where there is no image, InvalidSetting for an unknown format, OutputError where results
    cannot be written or are there already.
    """

    def __init__(
        self,
        folder: Path,
        output: Path,
        *,
        pattern: Sequence[str] = (),
        formats: Sequence[str] = (),
        overwrite: bool = False,
    ) -> None:
        if not folder.is_dir():
            raise UnreadableImage(f"{folder}: no such folder")
        if output.resolve() == folder.resolve():
            raise OutputError(f"{output}: holds the images; results need a folder of their own")
        self.folder = folder
        self.output = output
        self.formats = formats
        self.overwrite = overwrite
        self.images = _find(folder, pattern, output)
        if not self.images:
            wanted = f" that matches {', '.join(pattern)}" if pattern else ""
            raise UnreadableImage(f"{folder}: no image{wanted} in it or in the folders below")
        self._names = Counter((image.parent, image.stem) for image in self.images)
        self.summary = output / "summary.csv"
        self.coco = output / "detections.coco.json"
        Targets(formats=formats)
        if output.exists():
            check_target(self.summary, overwrite)
            check_target(self.coco, overwrite)

    def run(
        self,
        detector: Detector,
        settings: Settings,
        open_scene: Callable[[Path], Scene] = Scene,
        report: Callable[[Result], None] = lambda result: None,
    ) -> list[Result]:
        """Runs all images in the order of their names and writes their results; `report` hears of each as it is
        done.

        Raises UnknownCategory for a class that the detector does not know, OutputError where the folder cannot be made.
        """
        minimum_scores(detector.categories, settings.threshold, settings.classes)  # Wrong for one is wrong for all.
        _make_folder(self.output)
        results = []
        with CocoWriter(self.coco, detector.categories, overwrite=self.overwrite) as coco:
            for number, image in enumerate(self.images, 1):
                name = image.relative_to(self.folder).as_posix()
                try:
                    with open_scene(image) as scene:
                        prediction = self._predicted(image, scene, detector, settings)
                except SlicedetError as error:
                    result = Result(number, name, error=error)
                else:
                    coco.add(name, scene.width, scene.height, prediction.detections)
                    result = _result(number, name, prediction)
                results.append(result)
                report(result)
        with staged(self.summary, self.overwrite) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(results[0].row()), lineterminator="\n")
            table.writeheader()
            table.writerows(result.row() for result in results)
        return results

    def _predicted(self, image: Path, scene: Scene, detector: Detector, settings: Settings) -> Prediction:
        folder = self.output / image.parent.relative_to(self.folder)
        _make_folder(folder)
        # Two images of one stem, such as a.jpg and a.tif, would share their results' names.
        stem = image.stem if self._names[image.parent, image.stem] == 1 else image.name
        targets = Targets(paths=[folder], formats=self.formats, overwrite=self.overwrite)
        paths = targets.of(scene, stem)
        prediction = run(scene, detector, settings)
        targets.save(prediction, paths)
        return prediction


def _result(number: int, name: str, prediction: Prediction) -> Result:
    tiles = prediction.run["tiles"]
    return Result(
        number,
        name,
        len(prediction.detections),
        tiles["run"],
        tiles["empty"],
        len(tiles["unreadable"]),
        prediction.run["seconds"],
    )


def _find(folder: Path, patterns: Sequence[str], output: Path) -> list[Path]:
    """Images below a folder in the order of their names, hidden files and the results' own folder left out."""
    own = output.resolve()
    found = []
    for path in sorted(folder.rglob("*")):
        wanted = any(path.match(pattern) for pattern in patterns) if patterns else path.suffix.lower() in IMAGE_SUFFIXES
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if wanted and not hidden and path.is_file() and own not in path.resolve().parents:
            found.append(path)
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
