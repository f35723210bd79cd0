"""Parameters that Paddle pickled (.pdparams), read without running what else a pickle may ask for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from slicedet.errors import ModelMismatch


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


# What arrays are pickled with, by whichever NumPy; pickles of protocol 2 hold bytes as text.
_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("builtins", "tuple"): tuple,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:200]) from None


def load_pdparams(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict, by name.

    Raises ModelMismatch for a file that holds anything besides arrays and names, or is cut short.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except Exception as error:  # A hostile pickle may raise anything.
        raise ModelMismatch(f"{path}: not parameters of Paddle's ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(content, dict):
        raise ModelMismatch(f"{path}: not parameters of Paddle's (no names)")
    # Paddle keeps its own names of the parameters beside them, and may pair each array with one.
    content.pop("StructuredToParameterName@@", None)
    arrays = {name: value[1] if _is_pair(value) else value for name, value in content.items()}
    for name, value in arrays.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise ModelMismatch(f"{path}: not parameters of Paddle's ({str(name)[:60]!r} is no array)")
    return arrays


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2
