"""Which bands of a raster are shown as red, green and blue, and palettes as colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from slicedet.errors import InvalidBands

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


@dataclass(frozen=True, eq=False)
class Bands:
    """Band numbers from 1: three for red, green, blue, or one for grey; with a palette uint8 [256, 4] RGBA or None."""

    numbers: tuple[int, ...]
    palette: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def choose(dataset: DatasetReader, asked: Sequence[int] | None, name: str) -> Bands:
    """The bands to show: those asked for, else RGB by colour interpretation, else 1-2-3; a single band becomes grey.

    Raises InvalidBands where the raster has none, has not those asked for, holds complex numbers, or
    those shown are of several types.
    """
    if not dataset.count:
        inside = f"; open one of its subdatasets, such as {dataset.subdatasets[0]}" if dataset.subdatasets else ""
        raise InvalidBands(f"{name}: no bands{inside}")
    meaning = list(dataset.colorinterp)
    if asked is not None:
        numbers = tuple(asked)
        if len(numbers) not in (1, 3):
            raise InvalidBands(f"{name}: {len(numbers)} bands asked for; name one (grey) or three (red, green, blue)")
        missing = [number for number in numbers if not 1 <= number <= dataset.count]
        if missing:
            raise InvalidBands(f"{name}: no band {missing[0]}; its bands are 1 to {dataset.count}")
    elif all(colour in meaning for colour in _RGB):
        numbers = tuple(meaning.index(colour) + 1 for colour in _RGB)
    else:
        colours = [number for number, what in enumerate(meaning, 1) if what != ColorInterp.alpha]
        numbers = tuple(colours[:3] if len(colours) >= 3 else (colours or [1])[:1])
    if any(dataset.dtypes[number - 1].startswith("complex") for number in numbers):
        raise InvalidBands(f"{name}: complex pixels; convert them to amplitude first")
    types = dict.fromkeys(dataset.dtypes[number - 1] for number in numbers)
    if len(types) > 1:
        shown = ", ".join(map(str, numbers))
        raise InvalidBands(f"{name}: bands {shown} are of several types ({', '.join(types)}); name bands of one type")
    if (
        len(numbers) == 1
        and meaning[numbers[0] - 1] == ColorInterp.palette
        and dataset.dtypes[numbers[0] - 1] == "uint8"
    ):
        palette = np.zeros((256, 4), np.uint8)
        for value, colour in dataset.colormap(numbers[0]).items():
            if value < len(palette):  # No pixel has a higher one, though a VRT may list it.
                palette[value] = colour
        return Bands(numbers, palette)
    return Bands(numbers)


_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
