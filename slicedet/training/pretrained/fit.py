"""Which arrays of a file fit the parameters of a network, also where its classes are others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import CorruptFile, InvalidTraining, ModelMismatch
from slicedet.networks import Network
from slicedet.networks.heads.pico import PicoHead

Shape = tuple[int, ...]
Array = NDArray[Any]

_BINS = ("head.distribution_project.project", "yolo_head.proj_conv.weight")
"""The distances that a head's bins stand for: set by the configuration, never by a file."""

_PREDICTION = re.compile(r"(head|yolo_head)\.(head|pred)_(cls|reg)(_list)?\.?\d+(\.weight|\.bias)?")
"""Names of the layers, or their parameters, that give the logits of classes and distances."""

_UNUSED = ".scale_reg"
"""How the names of parameters end that official state dicts have, and no network uses."""


class LeftOut(NamedTuple):
    """An array of the file that was not taken; in_network is None where the network has nothing of its name."""

    name: str
    in_file: Shape
    in_network: Shape | None


@dataclass(frozen=True)
class LoadReport:
    """What a network took of a file.

    loaded: number of arrays taken whole. in_part: names of those of which only some classes, or only classes or
    distances, were taken. left_out: what was not taken. missing: names that only the network has.
    """

    path: Path
    loaded: int
    in_part: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    missing: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for the user."""
        parts = [f"{self.loaded} arrays loaded"]
        if self.in_part:
            parts.append(f"{len(self.in_part)} in part ({_listed(self.in_part)})")
        if self.left_out:
            parts.append(f"{len(self.left_out)} left out ({_listed([each.name for each in self.left_out])})")
        if self.missing:
            parts.append(f"{len(self.missing)} not in the file ({_listed(self.missing)})")
        return f"{self.path.name}: {', '.join(parts)}"


def gives_classes(name: str) -> bool:
    """Whether a layer, or a parameter, of this name has channels that stand for classes."""
    found = _PREDICTION.fullmatch(name)
    return found is not None and found[3] == "cls"


def fit(
    network: Network, values: Mapping[str, Array], path: Path, classes: Mapping[int, Sequence[int]] | None = None
) -> LoadReport:
    """Sets what fits of the arrays, by name and shape; see load_pretrained.

    Raises ModelMismatch where less than half of the backbone fits, CorruptFile for an array that is not finite,
    InvalidTraining for classes that the file or the network has not.
    """
    state = network.state_dict()
    given = {name: _floats(value, f"{path}: {name}") for name, value in values.items()}
    head = _Predictions(network, given, classes, path)
    whole: dict[str, Array] = {}
    in_part: dict[str, Array] = {}
    left_out = []
    for name, value in given.items():
        shape = tuple(state[name].shape) if name in state else None
        if name in _BINS:
            continue
        if shape is not None and _PREDICTION.fullmatch(name):
            taken, complete = head.taken(name, state[name].numpy(), value)
        else:
            taken, complete = (value if shape == value.shape else None), True
        if taken is None:
            left_out.append(LeftOut(name, value.shape, shape))
        else:
            (whole if complete else in_part)[name] = taken
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    _check_backbone(shapes, {name: value.shape for name, value in given.items()}, path)
    for name, value in (whole | in_part).items():
        state[name].set_value(value)
    # Some networks list a parameter under two names.
    in_file = {id(state[name]) for name in given if name in state}
    missing = [
        name
        for name, value in state.items()
        if id(value) not in in_file and name not in _BINS and not name.endswith(_UNUSED)
    ]
    return LoadReport(path, len(whole), tuple(in_part), tuple(left_out), tuple(missing))


class _Predictions:
    """The last layers of a head: how the output channels of the file's become those of the network's."""

    def __init__(
        self, network: Network, given: Mapping[str, Array], classes: Mapping[int, Sequence[int]] | None, path: Path
    ) -> None:
        head = network.detection_head()
        bins = head.bins().numpy().ravel()
        bins_in_file = next((given[name].ravel() for name in _BINS if name in given), bins)
        self._combined = isinstance(head, PicoHead)
        self._distances, self._distances_in_file = 4 * len(bins), 4 * len(bins_in_file)
        # Averaged weights may have averaged the bins as well, with rounding.
        self._same_bins = bins.shape == bins_in_file.shape and np.allclose(bins, bins_in_file, atol=1e-3)
        self._classes = classes
        self._path = path

    def taken(self, name: str, start: Array, value: Array) -> tuple[Array | None, bool]:
        """The network's array with what fits of the file's, None if nothing does, and whether it is the file's."""
        if start.shape[1:] != value.shape[1:]:
            return None, False
        if not gives_classes(name):
            fits = self._same_bins and start.shape == value.shape
            return (value if fits else None), fits
        end = len(start) - self._distances * self._combined
        end_in_file = len(value) - self._distances_in_file * self._combined
        if end_in_file <= 0:
            return None, False
        result = start.copy()
        if self._classes:
            for target, sources in self._classes.items():
                self._check_classes(target, end, sources, end_in_file)
                result[target] = value[list(sources)].mean(axis=0)
        elif end == end_in_file:
            result[:end] = value[:end]
        if self._combined and self._same_bins:
            result[end:] = value[end_in_file:]
        elif not self._classes and end != end_in_file:
            return None, False
        return result, np.array_equal(result, value)

    def _check_classes(self, target: int, count: int, sources: Sequence[int], count_in_file: int) -> None:
        if not 0 <= target < count:
            raise InvalidTraining(f"classes: {target} is none of the network's, which are 0 to {count - 1}")
        if not sources or not all(0 <= source < count_in_file for source in sources):
            raise InvalidTraining(
                f"classes: class {target} starts from {list(sources)}, but those of {self._path} are 0 to "
                f"{count_in_file - 1}"
            )


def _floats(value: Array, what: str) -> Array:
    # bfloat16, which NumPy does not know, comes as the upper halves of float32.
    wide = (value.astype(np.uint32) << 16).view(np.float32) if value.dtype == np.uint16 else value.astype(np.float32)
    if not np.isfinite(wide).all():
        raise CorruptFile(f"{what} holds values that are not finite")
    return wide


def _check_backbone(wanted: Mapping[str, Shape], given: Mapping[str, Shape], path: Path) -> None:
    """Raises ModelMismatch where most of the backbone would stay as it is."""
    names = [name for name in wanted if name.startswith("backbone.")]
    different = [name for name in names if wanted[name] != given.get(name)]
    if 2 * len(different) > len(names):
        shown = ", ".join(f"{name} {_shown(given.get(name))} for {_shown(wanted[name])}" for name in different[:3])
        raise ModelMismatch(
            f"{path}: belongs to another network: {len(different)} of {len(names)} parameters of the backbone differ: "
            f"{shown}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _shown(shape: Shape | None) -> str:
    return "nothing" if shape is None else str(list(shape))
