"""PaddleX's lists of annotation files (train_anno_list.txt, val_anno_list.txt, unlabeled.txt), else whole folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from slicedet.datasets.convert.samples import read_lines
from slicedet.datasets.layout import SPLITS
from slicedet.errors import InvalidDataset

UNLABELED = "unlabeled.txt"


def annotation_files(root: Path, folder: str, suffix: str) -> Iterator[tuple[str, Path]]:
    """Split and path of each annotation file, those of train first.

    By the lists in `root`, one path a line, of which the last word counts, as in PaddleX; without them, all files with
    the suffix in the folder, or in `root` itself, belong to train.
    """
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder")
    lists = [(split, root / f"{split}_anno_list.txt") for split in SPLITS]
    lists = [(split, path) for split, path in lists if path.is_file()]
    for split, path in lists:
        for line in read_lines(path):
            # A path may hold blanks itself, as long as it is alone on its line.
            candidates = [root / line, root / line.split()[-1]]
            found = next((candidate for candidate in candidates if candidate.is_file()), None)
            if found is None:
                raise InvalidDataset(f"{path}: lists {line.split()[-1]}, which is not in {root}")
            yield split, found
    if not lists:
        place = root / folder if (root / folder).is_dir() else root
        files = sorted(path for path in place.rglob(f"*{suffix}") if path.is_file())
        if not files:
            raise InvalidDataset(f"{place}: holds no {suffix} files of annotations")
        for path in files:
            yield "train", path


def unlabeled_images(root: Path) -> list[Path]:
    """The images that unlabeled.txt lists. Raises InvalidDataset where it, or one of them, is missing."""
    path = root / UNLABELED
    if not path.is_file():
        raise InvalidDataset(f"{path}: is missing; the forms with unlabeled images need it")
    found = []
    for line in read_lines(path):
        name = line.split()[-1]
        candidates = [root / line, root / name, root / "images" / line, root / "images" / name]
        image = next((candidate for candidate in candidates if candidate.is_file()), None)
        if image is None:
            raise InvalidDataset(f"{path}: lists {name}, which is not in {root} or its folder images")
        found.append(image)
    return found
