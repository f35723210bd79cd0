"""Formats of one text file per image: the folders of both, of one split or of train and val."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from slicedet.datasets.convert.samples import images_below
from slicedet.errors import InvalidDataset


def labelled_images(root: Path, labels: Sequence[str]) -> Iterator[tuple[str, Path, Path, str]]:
    """Split, image, label file and name below the folder of images; those of train first.

    `root` holds images/ and one of the folders `labels`, or folders that do, whose names say train or val.
    """
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder")
    parts = [("train", root)] if (root / "images").is_dir() else []
    for split in ("train", "val") if not parts else ():
        parts += [(split, path) for path in sorted(root.iterdir()) if split in path.name.lower() and path.is_dir()]
    parts = [(split, path) for split, path in parts if (path / "images").is_dir()]
    if not parts:
        raise InvalidDataset(f"{root}: needs images/ and {labels[0]}/, or folders with them named for train and val")
    for split, part in parts:
        folder = next((part / name for name in labels if (part / name).is_dir()), None)
        if folder is None:
            raise InvalidDataset(f"{part}: needs a folder {' or '.join(labels)} beside images")
        for image in images_below(part / "images"):
            name = image.relative_to(part / "images")
            yield split, image, folder / name.with_suffix(".txt"), name.as_posix()
