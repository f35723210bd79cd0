"""Which annotation files there are: by PaddleX's lists, by those of VOC, else whole folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from slicedet.datasets.coco import shown
from slicedet.datasets.convert.folders import in_order, split_of
from slicedet.datasets.convert.samples import read_lines
from slicedet.datasets.layout import SPLITS
from slicedet.errors import InvalidDataset

UNLABELED = "unlabeled.txt"


def annotation_files(root: Path, folder: str, suffix: str) -> Iterator[tuple[str, Path]]:
    """Split and path of each annotation file, those of train first.

    By the lists train_anno_list.txt and val_anno_list.txt in `root`, one path a line, of which the last word counts, as
    in PaddleX; else by ImageSets/Main/train.txt, val.txt and test.txt (trainval.txt where there are neither of the
    first two), one name without suffix a line, as in VOC; without lists, all files with the suffix in the folder, or in
    `root` itself: in folders whose names say val or test they belong to it, all others to train.
    """
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder")
    place = root / folder if (root / folder).is_dir() else root
    lists = _there({split: root / f"{split}_anno_list.txt" for split in SPLITS})
    main = root / "ImageSets" / "Main"
    sets = _there({split: main / f"{split}.txt" for split in SPLITS}) or _there({"train": main / "trainval.txt"})
    sets |= _there({"test": main / "test.txt"})
    if lists:
        for split, path in lists.items():
            for line in read_lines(path):
                # A path may hold blanks itself, as long as it is alone on its line.
                yield split, _first_there(path, [root / line, root / line.split()[-1]])
    elif sets:
        for split, path in sets.items():
            for line in read_lines(path):
                yield split, _first_there(path, [place / f"{line}{suffix}", place / f"{line.split()[0]}{suffix}"])
    else:
        files = sorted(path for path in place.rglob(f"*{suffix}") if path.is_file())
        if not files:
            raise InvalidDataset(f"{place}: holds no {suffix} files of annotations")
        splits = [split_of(path, path.relative_to(place).parts[:-1]) or "train" for path in files]
        yield from sorted(zip(splits, files, strict=True), key=lambda item: in_order(item[0]))


def _there(lists: dict[str, Path]) -> dict[str, Path]:
    return {split: path for split, path in lists.items() if path.is_file()}


def _first_there(lister: Path, candidates: list[Path]) -> Path:
    """The first candidate that is a file. Raises InvalidDataset, which names the list, where none is."""
    # False also for names that no file can have.
    found = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if found is None:
        raise InvalidDataset(f"{lister}: lists {shown(candidates[-1], 300)}, which is not there")
    return found


def unlabeled_images(root: Path) -> list[Path]:
    """The images that unlabeled.txt lists. Raises InvalidDataset where it, or one of them, is missing."""
    path = root / UNLABELED
    if not path.is_file():
        raise InvalidDataset(f"{path}: is missing; the forms with unlabeled images need it")
    found = []
    for line in read_lines(path):
        name = line.split()[-1]
        found.append(_first_there(path, [root / line, root / "images" / line, root / "images" / name, root / name]))
    return found
