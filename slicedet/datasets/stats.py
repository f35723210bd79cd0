"""Numbers of a dataset: classes, sizes, shapes and places of its boxes, boxes per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets import layout as layouts
from slicedet.datasets.coco import CocoDataset, read

PERCENTS = (1, 5, 25, 50, 75, 95, 99)

SMALL, LARGE = 32.0, 96.0
"""Sizes in pixels where COCO's evaluation divides small from medium and medium from large objects."""

_CELLS = 32
"""Cells along each side of the map of positions."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a split holds. Regions of many objects (iscrowd) are counted apart, and are in no other number.

    classes: boxes of each category. sizes: float64 [N], square roots of the boxes' areas, in pixels. sides: float64
    [N, 2], widths and heights. shares: float64 [N, 2], widths and heights as parts of the image's. mean_shares: float64
    [M, 2], the mean of these in each image that has boxes. per_image: int64 [images], boxes of each. image_sizes: int64
    [images, 2], widths and heights. positions: int64 [32, 32], boxes whose centre lies in each part of the image, rows
    from the top.
    """

    classes: Mapping[str, int]
    crowd: int
    sizes: NDArray[np.float64]
    sides: NDArray[np.float64]
    shares: NDArray[np.float64]
    mean_shares: NDArray[np.float64]
    per_image: NDArray[np.int64]
    image_sizes: NDArray[np.int64]
    positions: NDArray[np.int64]

    def summary(self) -> dict[str, Any]:
        """The numbers as JSON has them; percentiles under their percent."""
        sizes = self.sizes
        return {
            "images": len(self.per_image),
            "images_without_boxes": int((self.per_image == 0).sum()),
            "boxes": len(sizes),
            "crowd": self.crowd,
            "classes": dict(self.classes),
            "box_size_px": _percentiles(sizes),
            "box_width_px": _percentiles(self.sides[:, 0]),
            "box_height_px": _percentiles(self.sides[:, 1]),
            "box_share_of_image": _percentiles(self.shares.mean(axis=1)),
            "small": int((sizes < SMALL).sum()),
            "medium": int(((sizes >= SMALL) & (sizes < LARGE)).sum()),
            "large": int((sizes >= LARGE).sum()),
            "boxes_per_image": _percentiles(self.per_image.astype(np.float64)),
            "image_width_px": _percentiles(self.image_sizes[:, 0].astype(np.float64)),
            "image_height_px": _percentiles(self.image_sizes[:, 1].astype(np.float64)),
        }

    def lines(self, name: str) -> list[str]:
        """The numbers for people."""
        found = self.summary()
        images, boxes = found["images"], found["boxes"]
        lines = [
            f"{name}: {images:,} images ({found['images_without_boxes']:,} without boxes), {boxes:,} boxes, "
            f"{found['crowd']:,} crowd regions",
            f"  small {found['small']:,}, medium {found['medium']:,}, large {found['large']:,} "
            f"(COCO's {SMALL:.0f} and {LARGE:.0f} px)",
            "  " + f"{'percentile':24}" + "".join(f"{percent:>10}" for percent in (*PERCENTS, "mean")),
        ]
        for key in ("box_size_px", "box_width_px", "box_height_px", "box_share_of_image", "boxes_per_image"):
            values = found[key]
            if values:
                lines.append("  " + f"{key:24}" + "".join(f"{value:>10.4g}" for value in values.values()))
        width = max(map(len, self.classes), default=0)
        lines += [f"  {category:{width}}  {count:>9,}" for category, count in self.classes.items()]
        return lines


def measure_all(source: str | Path) -> dict[str, Statistics]:
    """The statistics of each split of a dataset; source: as for `layout.find`.

    Raises InvalidDataset where there is none, or an annotation file is of no use.
    """
    return {split.name: measure(read(split.annotations)) for split in layouts.find(source).splits}


def measure(dataset: CocoDataset) -> Statistics:
    """The statistics of a split."""
    image_sizes = np.array([(image.width, image.height) for image in dataset.images], np.int64).reshape(-1, 2)
    single = ~dataset.crowd
    boxes, owners = dataset.boxes[single], dataset.image_indices[single]
    sides = boxes[:, 2:] - boxes[:, :2]
    frames = image_sizes[owners].astype(np.float64)
    shares = sides / frames
    per_image = np.bincount(owners, minlength=len(image_sizes)).astype(np.int64)
    sums = np.stack([np.bincount(owners, shares[:, axis], len(image_sizes)) for axis in (0, 1)], axis=1)
    occupied = per_image > 0
    cells = np.clip(((boxes[:, :2] + boxes[:, 2:]) / 2 / frames * _CELLS).astype(np.int64), 0, _CELLS - 1)
    positions = np.bincount(cells[:, 1] * _CELLS + cells[:, 0], minlength=_CELLS**2)
    counts = np.bincount(dataset.category_ids[single], minlength=len(dataset.categories)).tolist()
    return Statistics(
        classes=dict(zip(dataset.categories, counts, strict=True)),
        crowd=int(dataset.crowd.sum()),
        sizes=np.sqrt(sides.prod(axis=1)),
        sides=sides,
        shares=shares,
        mean_shares=sums[occupied] / per_image[occupied, None],
        per_image=per_image,
        image_sizes=image_sizes,
        positions=positions.reshape(_CELLS, _CELLS),
    )


def joined(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of several splits as if they were one."""
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    return Statistics(
        classes={name: sum(part.classes.get(name, 0) for part in parts) for name in names},
        crowd=sum(part.crowd for part in parts),
        sizes=np.concatenate([part.sizes for part in parts]),
        sides=np.concatenate([part.sides for part in parts]),
        shares=np.concatenate([part.shares for part in parts]),
        mean_shares=np.concatenate([part.mean_shares for part in parts]),
        per_image=np.concatenate([part.per_image for part in parts]),
        image_sizes=np.concatenate([part.image_sizes for part in parts]),
        positions=np.sum([part.positions for part in parts], axis=0),
    )


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Percentiles under their percent, with the mean; empty where there are no values."""
    if not len(values):
        return {}
    found = {str(percent): round(float(np.percentile(values, percent)), 4) for percent in PERCENTS}
    return found | {"mean": round(float(values.mean()), 4)}
