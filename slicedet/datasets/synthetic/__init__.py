"""Aerial scenes painted from a seed: pixels, georeference and the exact place of every vehicle."""

from slicedet.datasets.synthetic.layout import Layout
from slicedet.datasets.synthetic.paint import Painted, paint
from slicedet.datasets.synthetic.tile import synthetic_tile
from slicedet.datasets.synthetic.vehicles import KINDS
from slicedet.datasets.synthetic.world import LANDSCAPES, SceneSettings
from slicedet.datasets.synthetic.write import SceneRecord, write_scene

__all__ = [
    "KINDS",
    "LANDSCAPES",
    "Layout",
    "Painted",
    "SceneRecord",
    "SceneSettings",
    "paint",
    "synthetic_tile",
    "write_scene",
]
