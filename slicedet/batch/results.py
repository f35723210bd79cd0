"""What became of the images of a batch, and the files that tell of all of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from slicedet.errors import SlicedetError
from slicedet.manifest import FAILED, Entry, Manifest
from slicedet.outputs.coco import CocoWriter
from slicedet.outputs.files import staged

SUMMARY = "summary.csv"
COCO = "detections.coco.json"


@dataclass(frozen=True)
class Result:
    """What became of one image; `image` is relative to the folder, `error` one line, empty if all went well.

    seconds: of the run that found it. kept: whether that was an earlier one. failure: the error itself, when it is
    reported.
    """

    image: str
    detections: int = 0
    tiles_run: int = 0
    tiles_empty: int = 0
    tiles_flat: int = 0
    tiles_unreadable: int = 0
    seconds: float = 0.0
    error: str = ""
    kept: bool = False
    failure: SlicedetError | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, entry: Entry, kept: bool = False, failure: SlicedetError | None = None) -> Result:
        """That of an image which has a result or has failed."""
        if entry.state == FAILED or entry.run is None:
            return cls(entry.name, error=entry.error, failure=failure)
        tiles = entry.run["tiles"]
        return cls(
            entry.name,
            entry.detections,
            tiles["run"],
            tiles["empty"],
            tiles["flat"],
            len(tiles["unreadable"]),
            entry.run["seconds"],
            kept=kept,
        )

    def row(self) -> dict[str, Any]:
        """The result for a table: what is the same after every run."""
        names = [column.name for column in fields(self) if column.name not in ("seconds", "kept", "failure")]
        return {name: getattr(self, name) for name in names}


Report = Callable[[Result, int], None]
"""Called with what became of each image, and the number of all."""


def write_all(manifest: Manifest, categories: Sequence[str], folder: Path) -> None:
    """Writes summary.csv and detections.coco.json over all images of a manifest, in their order."""
    with CocoWriter(folder / COCO, categories, overwrite=True) as coco:
        for entry in manifest.entries():
            if entry.run is not None and entry.state != FAILED:
                coco.add(entry.name, entry.width, entry.height, manifest.detections(entry))
    with staged(folder / SUMMARY, True) as path, path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(Result("").row()), lineterminator="\n")
        table.writeheader()
        table.writerows(Result.of(entry).row() for entry in manifest.entries())
