"""Starting weights: what fits of a file of parameters or of an exported graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import InvalidTraining, MissingWeights
from slicedet.models.config import InputConfig
from slicedet.models.pdparams import load_pdparams
from slicedet.networks import Network
from slicedet.training.pretrained.fit import LeftOut, LoadReport, fit
from slicedet.training.pretrained.folded import unfolded

__all__ = ["IMAGENET", "LeftOut", "LoadReport", "load_pretrained"]

IMAGENET = InputConfig((416, 416), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""How PicoDet wants its pixels."""


def load_pretrained(
    network: Network,
    path: str | Path,
    tiles: NDArray[np.uint8] | None = None,
    classes: Mapping[int, Sequence[int]] | None = None,
    pixels: InputConfig = IMAGENET,
) -> LoadReport:
    """Sets every parameter of the network that the file has in the same shape; all others keep their values.

    path: a .pdparams file, whose names are the network's; or an .onnx file of the same architecture whose batch norms
    are folded into the convolutions (see `unfolded`).
    tiles: uint8 RGB [n, H, W, 3], H and W divisible by 32; with .onnx, what the statistics of batch norms are measured
    on: some 64, as varied as the training set. Without any, batch norms are to be frozen (slicedet.training.frozen).
    pixels: how the network wants the tiles' values; its size does not count.
    classes: for a class of the network, the classes of the file whose weights and biases are averaged for it. Without
    it, classes are loaded where the file has as many; else they keep their values, and distances are loaded alone.
    Distances keep theirs where the file's bins are others.
    Raises MissingWeights, CorruptFile, UnsafeFile or InvalidTraining; ModelMismatch where the file is of another
    architecture. The network is then as it was.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"{path}: no such weights file")
    if path.suffix == ".pdparams":
        values = load_pdparams(path)
    elif path.suffix == ".onnx":
        values = unfolded(network, path, tiles, pixels)
    else:
        raise InvalidTraining(f"{path}: training starts from .pdparams or .onnx files")
    return fit(network, values, path, classes)
