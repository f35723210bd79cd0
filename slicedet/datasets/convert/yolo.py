"""YOLO: one text file per image, with the class's number and the box's centre and size as parts of the image's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicedet.datasets.convert.samples import (
    Box,
    Labelled,
    Sample,
    around,
    below_images,
    images_below,
    numbers,
    read_lines,
)
from slicedet.errors import InvalidDataset, SlicedetError
from slicedet.raster.scene import Scene

_NAMES = ("classes.txt", "obj.names")
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation")}


class Reader:
    """Reads a data.yaml, a folder with one, or a folder with classes.txt.

    The labels of images/a.jpg are labels/a.txt, else a.txt beside it; an image without them shows nothing, which is how
    YOLO marks backgrounds. Polygons and oriented boxes become the boxes around them.
    """

    def __init__(self, source: Path) -> None:
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []
        config = source
        if source.is_dir():
            found = sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
            config = next((path for path in found if path.stem == "data"), found[0] if found else source)
        if config.is_dir():
            self._root, self.categories = config, _names_below(config)
            self._images = _folders_by_name(config)
        else:
            self._root, self.categories, self._images = _read_config(config)

    def samples(self) -> Iterator[Sample]:
        for split, path in self._images:
            labels = _labels_of(path)
            objects: list[Labelled] = []
            if labels.is_file() and path.is_file():
                try:
                    with Scene(path) as scene:
                        objects = list(self._objects(labels, scene.width, scene.height))
                except SlicedetError as error:
                    if isinstance(error, InvalidDataset):
                        raise
            yield Sample(split, path, below_images(path), objects, labels)

    def _objects(self, path: Path, width: int, height: int) -> Iterator[Labelled]:
        for line, text in enumerate(read_lines(path), 1):
            kind, *values = numbers(text.split(), path, line)
            if not kind.is_integer() or not 0 <= kind < len(self.categories):
                raise InvalidDataset(
                    f"{path}: line {line}: class {kind:g}, but there are {len(self.categories)} names (0 is the first)"
                )
            if len(values) == 4:
                x, y, across, down = values
                box: Box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
            elif len(values) >= 6 and len(values) % 2 == 0:
                box = around(list(zip(values[::2], values[1::2], strict=True)))
            else:
                raise InvalidDataset(
                    f"{path}: line {line}: expected a class and a box of four numbers, found {len(values)} numbers"
                )
            yield Labelled(
                self.categories[int(kind)], (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            )


def _read_config(path: Path) -> tuple[Path, list[str], list[tuple[str, Path]]]:
    """Root, names of classes, and images with their splits."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InvalidDataset(f"{path}: is no data.yaml ({str(error).splitlines()[0]})") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise InvalidDataset(f"{path}: needs names, a list or a map of classes from 0")
    root = Path(content.get("path") or ".")
    places = [path.parent / root, path.parent] if not root.is_absolute() else [root, path.parent]
    images = []
    for split, keys in _SPLITS.items():
        entry: Any = next((content[key] for key in keys if content.get(key)), None)
        for part in [entry] if isinstance(entry, str) else entry or []:
            images += [(split, image) for image in _listed(path, places, str(part))]
    if not images:
        raise InvalidDataset(f"{path}: names no images under train or val")
    return places[0], [str(name) for name in names], images


def _listed(config: Path, places: list[Path], part: str) -> list[Path]:
    """The images of a folder or of a text file that lists them."""
    # Files exported by Roboflow count from a folder below the one they are in.
    candidates = [place / name for place in places for name in (part, part.removeprefix("../"))]
    found = next((candidate for candidate in candidates if candidate.exists()), None)
    if found is None:
        raise InvalidDataset(f"{config}: names {part}, which is not there")
    if found.is_dir():
        return images_below(found)
    return [
        next((place / line for place in (found.parent, *places) if (place / line).is_file()), found.parent / line)
        for line in read_lines(found)
    ]


def _names_below(root: Path) -> list[str]:
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder or data.yaml")
    for name in _NAMES:
        for path in (root / name, root / "labels" / name):
            if path.is_file():
                return read_lines(path)
    raise InvalidDataset(f"{root}: needs data.yaml or classes.txt, which name the classes")


def _folders_by_name(root: Path) -> list[tuple[str, Path]]:
    """Images of a folder without data.yaml: those in a folder val are val, all others train."""
    images = images_below(root / "images" if (root / "images").is_dir() else root)
    found = []
    for path in images:
        folders = path.relative_to(root).parts[:-1]
        if "test" not in folders:
            found.append(("val" if any(name in folders for name in _SPLITS["val"]) else "train", path))
    return sorted(found, key=lambda item: (item[0] != "train", item[1]))


def _labels_of(image: Path) -> Path:
    """The label file of an image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        path = Path(*parts).with_suffix(".txt")
        if path.is_file():
            return path
    return image.with_suffix(".txt")
