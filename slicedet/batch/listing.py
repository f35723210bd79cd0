"""The images of a folder in order, the names of their results, and the parts that machines share out among them."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from slicedet.errors import InvalidSetting, SlicedetWarning

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
"""What counts as an image when no pattern says otherwise, unless it is an overlay, made by an earlier run."""

HIDDEN = ".slicedet"
"""Folder of manifests, locks and unfinished files in a results folder."""


_OF_ALL = frozenset(["detections", "summary"])
"""Stems of the files over all images, which lie where the results of the first folder's images do."""


@dataclass(frozen=True)
class Shard:
    """The part of a list that one machine takes: number `index` of `count`, from 1. Raises InvalidSetting."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InvalidSetting(f"shard {self.index}/{self.count}: expected I/N, such as 2/5, with I from 1 to N")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that "2/5" names. Raises InvalidSetting."""
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if not match:
            raise InvalidSetting(f"shard {text!r}: expected I/N, such as 2/5, with I from 1 to N")
        return cls(int(match[1]), int(match[2]))

    @property
    def suffix(self) -> str:
        """What its files in a results folder have in their name."""
        return "" if self.count == 1 else f"-{self.index}-of-{self.count}"

    def holds(self, position: int) -> bool:
        """Whether the image at a position of the list, from 0, belongs to it."""
        return position % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class Item(NamedTuple):
    """An image. position: in the list, from 0. name: relative to the folder, with slashes, fit for any table.
    folder: of its results, relative to the output. stem: of their names."""

    position: int
    path: Path
    name: str
    folder: Path
    stem: str


def listing(folder: Path, patterns: Sequence[str], output: Path) -> list[Item]:
    """Images below a folder in the order of their names, hidden files and folders of results left out.

    Links to folders elsewhere are followed; what lies below the folder has its own name. A file that cannot be opened,
    such as a link to nothing, is listed all the same, so that it is missed by whoever runs it; a folder that cannot be
    read gives a SlicedetWarning.
    """
    found = images_below(folder, patterns, output)
    stems = Counter((path.parent, path.stem) for path in found)
    names = {(path.parent, path.name) for path in found}
    items = []
    for position, path in enumerate(found):
        place = path.relative_to(folder)
        # Two images of one stem, such as a.jpg and a.tif, would share their results' names.
        alone = stems[path.parent, path.stem] == 1 and (path.parent, path.stem) not in names
        alone = alone and not (place.parent == Path() and path.stem.lower() in _OF_ALL)
        items.append(Item(position, path, plain(place.as_posix()), place.parent, path.stem if alone else path.name))
    return items


def images_below(folder: Path, patterns: Sequence[str] = (), output: Path | None = None) -> list[Path]:
    """The files that `listing` lists, sorted. output: a folder of results that is not looked into, besides those that
    are known as such."""
    own = None if output is None else output.resolve()
    return sorted(path for path in _files(folder, own) if _is_wanted(path, patterns))


def _files(folder: Path, own: Path | None) -> Iterator[Path]:
    """All files below a folder that are not hidden, nor among results."""

    def unreadable(error: OSError) -> None:
        warnings.warn(
            f"{error.filename}: this folder cannot be read ({error.strerror}); what is in it is left out",
            SlicedetWarning,
            stacklevel=7,
        )

    root = folder.resolve()
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        further = []
        for name in sorted(folders):
            path = Path(place, name)
            real = path.resolve()
            inward = path.is_symlink() and (real == root or root in real.parents)
            # Links elsewhere may lead round in a circle.
            if name.startswith(".") or inward or real == own or real in seen:
                continue
            if not os.path.lexists(path / HIDDEN):
                seen.add(real)
                further.append(name)
        folders[:] = further
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _is_wanted(path: Path, patterns: Sequence[str]) -> bool:
    if patterns:
        wanted = any(path.match(pattern) for pattern in patterns)
    else:
        wanted = path.suffix.lower() in IMAGE_SUFFIXES and not path.stem.lower().endswith(".overlay")
    # Opening a pipe or a device would wait for ever.
    return wanted and (os.path.isfile(path) or not os.path.exists(path))


def fingerprint(items: Sequence[Item]) -> dict[str, Any]:
    """What tells whether two lists are the same."""
    digest = sha256("\n".join(item.name for item in items).encode())
    return {"images": len(items), "sha256": digest.hexdigest()}


def plain(text: str) -> str:
    """A text in which bytes that are no UTF-8, as old file names have them, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()
