"""Single tiles for training, made in memory."""

from __future__ import annotations

from functools import lru_cache

from slicedet.datasets.synthetic.layout import Layout
from slicedet.datasets.synthetic.paint import Painted, Truth, paint_block
from slicedet.datasets.synthetic.world import SceneSettings
from slicedet.tiling import Tile

_SIDE = 4
"""Tiles along each side of the square that consecutive seeds cut from one layout, which is costly to make."""


def synthetic_tile(seed: int, size: int, gsd: float, vehicles: float = 1.0, landscape: str = "mixed") -> Painted:
    """A tile of `size` x `size` pixels of `gsd` metres, with the boxes and kinds of the vehicles in it.

    Seeds 0..15, 16..31 and so on are neighbours in one place under one sun, so they are quickest in order, and no two
    of them should be on different sides of a split. Other arguments and errors: as for SceneSettings.
    """
    settings = SceneSettings(size, size, gsd, seed, vehicles, landscape)
    place, number = divmod(seed, _SIDE**2)
    layout = _layout(place, settings.landscape, settings.vehicles)
    row, column = divmod(number, _SIDE)
    block = paint_block(layout, gsd, Tile(column * size, row * size, size, size))
    truth = Truth()
    truth.add(block.owners, block.vehicles, 0, 0)
    return Painted(block.pixels, *truth.boxes(truth.all()))


@lru_cache(maxsize=4)
def _layout(seed: int, landscape: str, vehicles: float) -> Layout:
    return Layout(seed, landscape, vehicles)
