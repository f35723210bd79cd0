"""Findings: what is wrong with a dataset, counted in full and kept up to a limit."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from slicedet.datasets.coco import shown

KEPT = 10_000
"""Findings of one kind that are kept one by one; more are only counted."""

SHOWN = 3
"""Findings of one kind that people are shown."""

_LONGEST = 1000
"""Characters that are kept of a name or message: what a file holds may be of any length."""

_LONGEST_LINE = 240

ERROR, WARNING, NOTE = "error", "warning", "note"

KINDS: dict[str, tuple[str, str]] = {
    "annotations-missing": (ERROR, "an annotation file is missing"),
    "annotations-unreadable": (ERROR, "annotation files that are no COCO files"),
    "no-images": (ERROR, "annotation files without images"),
    "no-boxes": (ERROR, "splits without a single box"),
    "category-invalid": (ERROR, "categories without a usable id and name"),
    "category-duplicate": (ERROR, "categories with the id or name of another"),
    "category-differs": (ERROR, "categories that differ between the splits"),
    "category-unknown": (ERROR, "boxes of categories that are not in the file"),
    "image-invalid": (ERROR, "images without id, file_name, width or height"),
    "image-duplicate-id": (ERROR, "images with the id of another"),
    "image-duplicate-name": (ERROR, "images that are listed twice"),
    "image-outside": (ERROR, "file names that lead out of the folder of images, or that no file can have"),
    "image-missing": (ERROR, "images that are not there"),
    "image-unreadable": (ERROR, "images that cannot be decoded"),
    "image-size": (ERROR, "images of another size than stated"),
    "image-turned": (ERROR, "images annotated as if their EXIF orientation were not there"),
    "image-unknown": (ERROR, "boxes of images that are not in the file"),
    "id-type": (ERROR, "ids that are not whole numbers"),
    "annotation-duplicate-id": (ERROR, "annotations with the id of another"),
    "annotation-invalid": (ERROR, "annotations without a usable id, or a box of four numbers"),
    "box-nan": (ERROR, "boxes with NaN, infinite or missing numbers"),
    "box-inverted": (ERROR, "boxes with negative width or height"),
    "box-empty": (ERROR, "boxes without width or height"),
    "box-outside": (ERROR, "boxes that reach out of their image by over a pixel"),
    "box-duplicate": (ERROR, "boxes that are there twice"),
    "leak-file": (ERROR, "images that are in more than one split"),
    "leak-content": (ERROR, "images with the pixels of another in another split"),
    "leak-similar": (WARNING, "images that look nearly like one in another split"),
    "image-exif": (WARNING, "images that EXIF turns; readers that do not heed it see them otherwise"),
    "image-copy": (WARNING, "images with the pixels of another in the same split"),
    "annotation-incomplete": (WARNING, "annotations without a number as area or iscrowd, which pycocotools needs"),
    "category-unused": (WARNING, "categories without a box in a split"),
    "image-without-boxes": (NOTE, "images without boxes"),
    "image-unlisted": (NOTE, "files in the folder of images that no split lists"),
}
"""What each kind means, and how bad it is: errors make results wrong or programs fail, warnings are probably not
meant, notes are good to know."""


@dataclass(frozen=True)
class Finding:
    """Something found: where (split, file, id of the image or annotation) and what, in words."""

    severity: str
    kind: str
    split: str
    file: str
    id: int | None
    message: str


class Findings:
    """Findings in the order of KINDS, and within a kind in the order of the dataset."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, split: str, file: str, message: str, number: int | None = None) -> None:
        """Notes a finding."""
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            file, message = shown(file, _LONGEST), shown(message, _LONGEST)
            self._kept[kind].append(Finding(KINDS[kind][0], kind, split, file, number, message))

    def of(self, kind: str) -> list[Finding]:
        """The findings of a kind, up to KEPT."""
        return self._kept[kind]

    def total(self, severity: str) -> int:
        """How many there are of a severity."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind][0] == severity)

    def summary(self) -> dict[str, Any]:
        """As JSON has it: counts of all, and the findings kept."""
        return {
            "errors": self.total(ERROR),
            "warnings": self.total(WARNING),
            "notes": self.total(NOTE),
            "counts": {kind: self.counts[kind] for kind in KINDS if self.counts[kind]},
            "findings": [asdict(finding) for kept in self._kept.values() for finding in kept],
        }

    def lines(self) -> list[str]:
        """For people: kinds with their counts, the worst first, and the first findings of each."""
        lines = []
        for kind, (severity, meaning) in KINDS.items():
            count = self.counts[kind]
            if not count:
                continue
            lines.append(f"{severity:8}{kind:24}{count:>7,}  {meaning}")
            for finding in self._kept[kind][:SHOWN]:
                where = finding.file + ("" if finding.id is None else f" #{finding.id}")
                told = f"{finding.split + ' ' if finding.split else ''}{where}: {finding.message}"
                lines.append(f"{'':8}{shown(told, _LONGEST_LINE)}")
            if count > SHOWN:
                lines.append(f"{'':8}... and {count - SHOWN:,} more")
        return lines
