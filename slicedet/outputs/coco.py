"""COCO JSON: images, categories, and detections as annotations with scores."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from slicedet.detections import Detections
from slicedet.outputs.files import check_target, publish, temporary_folder, write_errors
from slicedet.outputs.pieces import regrouped

if TYPE_CHECKING:
    from slicedet.outputs.layer import Layer


class CocoWriter:
    """Writes one COCO file for any number of images, in memory that does not grow with them.

    A context manager: the file appears, whole, when the block ends without an exception. Images, categories and
    annotations are numbered from 1, so `category_id` is a class id + 1; boxes are x, y, width, height in pixels.

        with CocoWriter("all.coco.json", prediction.categories) as coco:
            coco.add("north/1.tif", 4000, 3000, prediction.detections)

    Raises OutputError where the file cannot be written, or exists and `overwrite` is not set.
    """

    def __init__(
        self, path: str | Path, categories: Sequence[str], info: dict[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        self._target = Path(path)
        self._overwrite = overwrite
        self._categories = categories
        self._info = info or {}

    def __enter__(self) -> CocoWriter:
        check_target(self._target, self._overwrite)
        with ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder(self._target))
            with write_errors(self._target, self._folder):
                self._spools = stack.enter_context(_Spools(self._folder))
            self._stack = stack.pop_all()
        return self

    def add(self, file_name: str, width: int, height: int, detections: Detections | Iterable[Detections]) -> int:
        """Adds an image, `width` x `height` pixels, with its detections, or parts of them; returns the image's id."""
        parts = [detections] if isinstance(detections, Detections) else detections
        with write_errors(self._target, self._folder):
            return self._spools.add(file_name, width, height, regrouped(parts))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                with write_errors(self._target, self._folder):
                    self._spools.assemble(self._folder / self._target.name, self._categories, self._info)
                    publish(self._folder, self._target, self._overwrite)


def write(layer: Layer, pieces: Iterable[Detections], path: Path) -> None:
    """Writes the detections of one image."""
    scene = layer.scene
    with _Spools(path.parent) as spools:
        spools.add(scene.name, scene.width, scene.height, pieces)
        spools.assemble(path, layer.categories, {"description": f"slicedet, model {layer.model}"})


class _Spools:
    """Images and annotations on their way into a COCO file, kept in two temporary files without names."""

    def __init__(self, folder: Path) -> None:
        self._counts = [0, 0]
        self._files: list[IO[str]] = [
            tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=folder)  # noqa: SIM115
            for _ in self._counts
        ]

    def __enter__(self) -> _Spools:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            # What cannot be written now could not be written before, which has been reported.
            with suppress(OSError):
                file.close()

    def add(self, file_name: str, width: int, height: int, pieces: Iterable[Detections]) -> int:
        image_id = self._append(0, {"file_name": file_name, "width": width, "height": height})
        for detections in pieces:
            self._annotate(image_id, detections)
        return image_id

    def _annotate(self, image_id: int, detections: Detections) -> None:
        corners = np.round(detections.boxes.astype(np.float64), 3) + 0.0
        boxes = np.round(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1), 3).tolist()
        scores = np.round(detections.scores.astype(np.float64), 6).tolist()
        category_ids = (detections.category_ids + 1).tolist()
        for box, score, category_id in zip(boxes, scores, category_ids, strict=True):
            annotation = {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "score": score,
            }
            self._append(1, annotation)

    def assemble(self, path: Path, categories: Sequence[str], info: dict[str, Any]) -> None:
        images, annotations = self._files
        numbered = [{"id": i, "name": name} for i, name in enumerate(categories, 1)]
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(f'{{"info":{json.dumps(info)},\n"images":[')
            images.seek(0)
            shutil.copyfileobj(images, file)
            file.write(f'],\n"categories":{json.dumps(numbered)},\n"annotations":[')
            annotations.seek(0)
            shutil.copyfileobj(annotations, file)
            file.write("]}\n")

    def _append(self, which: int, entry: dict[str, Any]) -> int:
        self._counts[which] += 1
        number = self._counts[which]
        self._files[which].write((",\n" if number > 1 else "\n") + json.dumps({"id": number, **entry}))
        return number
