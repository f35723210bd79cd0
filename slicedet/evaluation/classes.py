"""Class names of annotations and of a detector, brought to the names under which they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicedet.datasets.coco import shown
from slicedet.errors import InvalidDataset, InvalidSetting

OTHERS = "*"
"""The key of a mapping that stands for all names that have no entry of their own."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes that are compared.

    names: of the classes, those of the annotations after mapping.
    of_truth: int32 [categories of the annotations], of_found: int32 [categories of the detector]: the class each counts
    as, -1 where it is left out.
    not_found: names in the annotations that no category of the detector counts as: their objects can only be missed.
    not_annotated: categories of the detector that count as none of the classes.
    """

    names: tuple[str, ...]
    of_truth: NDArray[np.int32]
    of_found: NDArray[np.int32]
    not_found: tuple[str, ...]
    not_annotated: tuple[str, ...]

    @classmethod
    def align(cls, truth: Sequence[str], found: Sequence[str], mapping: Mapping[str, str] | None = None) -> Classes:
        """Classes with the same name are the same, once `mapping` has renamed them on both sides.

        mapping: new names by old name, "*" for all others; an empty new name leaves a class out on both sides.
        Raises InvalidSetting for an old name that neither side has, InvalidDataset where no name is left in common.
        """
        mapping = mapping or {}
        strangers = [name for name in mapping if name not in (OTHERS, *truth, *found)]
        if strangers:
            raise InvalidSetting(
                f"map: neither the annotations ({_list(truth)}) nor the detector ({_list(found)}) know "
                f"{_list(strangers)}"
            )
        new_truth, new_found = (
            [mapping.get(name, mapping.get(OTHERS, name)) for name in side] for side in (truth, found)
        )
        names = tuple(dict.fromkeys(name for name in new_truth if name))
        if not set(names) & set(new_found):
            raise InvalidDataset(
                f"the annotations know {_list(truth)}, the detector {_list(found)}: no class is the same; say which "
                "names mean the same with --map"
            )
        index = {name: number for number, name in enumerate(names)}
        return cls(
            names,
            np.array([index.get(name, -1) for name in new_truth], np.int32),
            np.array([index.get(name, -1) for name in new_found], np.int32),
            tuple(name for name in names if name not in new_found),
            tuple(old for old, new in zip(found, new_found, strict=True) if new not in index),
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(shown(name, 40) for name in names[:8]) + (", ..." if len(names) > 8 else "") if names else "none"
