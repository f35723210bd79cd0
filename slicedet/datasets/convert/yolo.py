"""YOLO: one text file per image, with the class's number and the box's centre and size as parts of the image's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicedet import yaml_files
from slicedet.datasets.coco import is_name, shown
from slicedet.datasets.convert.folders import in_order, split_of
from slicedet.datasets.convert.samples import (
    Box,
    Labelled,
    Sample,
    around,
    images_below,
    name_below,
    numbers,
    read_lines,
    read_names,
)
from slicedet.errors import InvalidDataset, SlicedetError
from slicedet.raster.scene import Scene

_NAMES = ("classes.txt", "obj.names")
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Reader:
    """Reads a data.yaml or obj.data, a folder with one, or a folder with classes.txt.

    The labels of images/a.jpg are labels/a.txt, else a.txt beside it; an image without them shows nothing, which is how
    YOLO marks backgrounds, save in test, which is often published without. Polygons and oriented boxes become the boxes
    around them; of poses (kpt_shape in data.yaml) the box is taken.
    """

    def __init__(self, source: Path) -> None:
        self.left_out: Counter[str] = Counter()
        self.unlabeled: list[Path] = []
        self._poses = False
        config = source
        if source.is_dir():
            found = sorted([*source.glob("*.yaml"), *source.glob("*.yml"), *source.glob("*.data")])
            config = next((path for path in found if path.stem == "data"), found[0] if found else source)
        if config.is_dir():
            self._root, self.categories = config, _names_below(config)
            self._images = _folders_by_name(config)
        else:
            content = _read_darknet(config) if config.suffix == ".data" else _read_yaml(config)
            self._poses = "kpt_shape" in content
            self.categories = _names(config, content)
            self._root, self._images = _listed_images(config, content)

    def samples(self) -> Iterator[Sample]:
        for split, path in self._images:
            labels = _labels_of(path)
            if split == "test" and not os.path.isfile(labels):
                self.left_out["images of test without a label file"] += 1
                continue
            objects: list[Labelled] = []
            if os.path.isfile(labels) and os.path.isfile(path):
                try:
                    with Scene(path) as scene:
                        objects = list(self._objects(labels, scene.width, scene.height))
                except SlicedetError as error:
                    if isinstance(error, InvalidDataset):
                        raise
            yield Sample(split, path, name_below(self._root, path), objects, labels)

    def _objects(self, path: Path, width: int, height: int) -> Iterator[Labelled]:
        for line, text in enumerate(read_lines(path), 1):
            kind, *values = numbers(text.split(), path, line)
            if not kind.is_integer() or not 0 <= kind < len(self.categories):
                raise InvalidDataset(
                    f"{path}: line {line}: class {kind:g}, but there are {len(self.categories)} names (0 is the first)"
                )
            if self._poses:
                values = values[:4]
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


def _read_yaml(path: Path) -> dict[str, Any]:
    """A data.yaml, with all scalars as texts, save that null is None."""
    import yaml

    class Texts(yaml.SafeLoader):
        """Without the types of YAML 1.1, in which the class `no` is False."""

        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [rule for rule in rules if rule[0].endswith(":null")]
            for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    content = yaml_files.read(path, InvalidDataset, Texts)
    return content if isinstance(content, dict) else {}


def _read_darknet(path: Path) -> dict[str, Any]:
    """Darknet's obj.data, lines of `key = value`, as a data.yaml would have it."""
    pairs = [line.partition("=") for line in read_lines(path)]
    content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
    names = _found([path.parent], content.get("names", ""))
    return content | {"names": None if names is None else read_names(names)}


def _names(path: Path, content: dict[str, Any]) -> list[str]:
    """The names of classes by their number."""
    names = content.get("names")
    if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(map(is_name, names)):
        raise InvalidDataset(f"{path}: needs names, a list or a map of classes from 0")
    return names


def _listed_images(path: Path, content: dict[str, Any]) -> tuple[Path, list[tuple[str, Path]]]:
    """The folder that paths count from, and images with their splits."""
    root = content.get("path") or "."
    if not isinstance(root, str):
        raise InvalidDataset(f"{path}: path is to be one folder, not {root!r:.40}")
    places = list(dict.fromkeys([path.parent / root, path.parent]))
    images: list[tuple[str, Path]] = []
    for split, keys in _SPLITS.items():
        key = next((key for key in keys if content.get(key)), split)
        entry = content.get(key) or []
        parts = [entry] if isinstance(entry, str) else entry
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise InvalidDataset(f"{path}: {key} is to be a folder or file, or a list of them, not {entry!r:.40}")
        for part in parts:
            found = _found(places, part)
            if found is None and split != "test":
                raise InvalidDataset(f"{path}: names {shown(part, 300)}, which is not there")
            if found is not None:
                images += [(split, image) for image in dict.fromkeys(_images_of(found, places))]
    if not images:
        raise InvalidDataset(f"{path}: names no images under train or val")
    return places[0], images


def _found(places: list[Path], name: str) -> Path | None:
    """A file or folder that a configuration names."""
    name = name.replace("\\", "/")
    # Files exported by Roboflow count from a folder below the one they are in, those by CVAT from one above it.
    names = (name, name.removeprefix("../"), name.removeprefix("data/"))
    candidates = [place / name for place in places for name in names if name]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), None)


def _images_of(found: Path, places: list[Path]) -> list[Path]:
    """The images of a folder or of a text file that lists them."""
    if found.is_dir():
        return images_below(found)
    places = [found.parent, *places]
    return [_found(places, line) or found.parent / line for line in read_lines(found)]


def _names_below(root: Path) -> list[str]:
    if not root.is_dir():
        raise InvalidDataset(f"{root}: no such folder or data.yaml")
    for name in _NAMES:
        for path in (root / name, root / "labels" / name):
            if path.is_file():
                return read_names(path)
    raise InvalidDataset(f"{root}: needs data.yaml or classes.txt, which name the classes")


def _folders_by_name(root: Path) -> list[tuple[str, Path]]:
    """Images of a folder without data.yaml: those in folders named for val or test are theirs, all others train."""
    images = images_below(root / "images" if (root / "images").is_dir() else root)
    splits = [split_of(path, path.relative_to(root).parts[:-1]) or "train" for path in images]
    return sorted(zip(splits, images, strict=True), key=lambda item: in_order(item[0]))


def _labels_of(image: Path) -> Path:
    """The label file of an image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        path = Path(*parts).with_suffix(".txt")
        if os.path.isfile(path):
            return path
    return image.with_suffix(".txt")
