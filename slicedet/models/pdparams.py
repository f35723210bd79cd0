"""Reads `.pdparams`, Paddle's state dicts, without Paddle and without running what a pickle may hold.

A pickle names functions for its reader to call. Here every name that is admitted stands for a builder of this module,
which checks what it is given and makes arrays of plain numbers; NumPy's own functions are not admitted, since a forged
dtype makes them read memory that is not theirs.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from slicedet.errors import CorruptFile, UnsafeFile

_NAME_TABLE = "StructuredToParameterName@@"
"""Key under which Paddle keeps the internal names of parameters beside the parameters."""


def load_pdparams(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by their names, in the file's order. bfloat16 comes as the uint16 that Paddle writes.

    Raises UnsafeFile for a pickle that wants more than arrays, CorruptFile for anything else that is no state dict.
    """
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, os.fstat(file.fileno()).st_size).load()
        return _arrays(content)
    except _Refused as error:
        raise UnsafeFile(f"{path}: refused: {error}, which no weights need") from error
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Any exception can come out of a damaged pickle.
        reason = str(error) if isinstance(error, _Malformed) else "damaged, or no pickle"
        raise CorruptFile(f"{path}: not a .pdparams file of Paddle ({reason})") from error


class _Refused(Exception):
    """The pickle asks for something that is not admitted."""


class _Malformed(Exception):
    """The pickle is harmless, but no state dict."""


def _arrays(content: Any) -> dict[str, np.ndarray]:
    """The arrays in a state dict; tensors are saved as arrays, or as pairs of internal name and array."""
    if type(content) is not dict:
        raise _Malformed("it holds no dict of parameters")
    arrays = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise _Malformed("a name in it is no text")
        if name == _NAME_TABLE:
            continue
        if type(value) is tuple and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if not isinstance(value, _Array) or value.values is None:
            raise _Malformed(f"{_short(name)} is no array")
        arrays[name] = value.values
    if not arrays:
        raise _Malformed("it holds no parameters")
    return arrays


class _Dtype:
    """A dtype of plain numbers, described as NumPy pickles it."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[?bhilqBHILQefd]|b1|[iu][1248]|f[248]", code):
            raise _Refused("it holds an array of something else than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order, *rest = state[1:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest):
            raise _Refused("it forges the type of an array")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array, described as NumPy pickles it: empty at first, its shape, type and bytes following as a state."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise _Refused("it forges the type of an array")
        self.values = _filled(raw, dtype, shape, "F" if fortran else "C")


def _filled(raw: Any, dtype: _Dtype, shape: Any, order: Any) -> np.ndarray:
    # Pickles of Python 2 have bytes as text.
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    whole = isinstance(data, bytes | bytearray) and type(shape) is tuple and all(type(side) is int for side in shape)
    if not whole or min(shape, default=0) < 0 or math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise _Malformed("an array has not as many bytes as its shape says")
    values = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return values.astype(dtype.dtype.newbyteorder("="))


class _Builder:
    """What an admitted name stands for. It cannot be changed by the pickle that asks for it."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("it changes a function")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _Refused("it forges the type of an array")
    return _Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: Any, raw: Any) -> Any:
    if not isinstance(dtype, _Dtype):
        raise _Refused("it forges the type of a number")
    return _filled(raw, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise _Refused("it encodes text")
    return text.encode("latin1")


_NDARRAY = _Builder(_Array)
_CONTAINERS = {"dict": dict, "tuple": tuple, "list": list}
_NUMPY = {"_reconstruct": _Builder(_reconstruct), "scalar": _Builder(_scalar)}
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Builder(_Dtype),
    ("_codecs", "encode"): _Builder(_encode),
    **{(module, name): kind for module in ("builtins", "__builtin__") for name, kind in _CONTAINERS.items()},
    # Of bytes() only the empty one: given a number, it would fill the memory.
    **{(module, "bytes"): _Builder(lambda: b"") for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", name): builder for core in ("core", "_core") for name, builder in _NUMPY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Builder(_from_buffer) for core in ("core", "_core")},
}


def _counted(operation: Callable[[Any], None]) -> Callable[[Any], None]:
    """An operation of pickle's that makes or fills something, whose size counts."""

    def counted(unpickler: Any) -> None:
        operation(unpickler)
        made = unpickler.stack[-1]
        if isinstance(made, _Array):
            unpickler.left -= 0 if made.values is None else made.values.nbytes
        else:
            unpickler.left -= sys.getsizeof(made)
        if unpickler.left < 0:
            raise _Refused("it makes much more of itself than its size")

    return counted


# The unpickler in Python rather than the one in C, which a few bytes can make fill the memory with its table of
# references.
class _Unpickler(pickle._Unpickler):
    """Admits arrays, containers and numbers only, and no more of them than a file of `size` bytes can hold, for what it
    holds once can be copied many times."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = pickle._Unpickler.dispatch | {
        code[0]: _counted(pickle._Unpickler.dispatch[code[0]])
        for code in (pickle.REDUCE, pickle.BUILD, pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX)
    }

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, encoding="latin1")
        self.left = 4 * size + (1 << 20)

    def load_bytearray8(self: Any) -> None:
        """As pickle's own, which fills the memory before it looks whether as many bytes follow."""
        (size,) = struct.unpack("<Q", self.read(8))
        data = self.read(size)
        if len(data) != size:
            raise _Malformed("it is cut short")
        self.append(bytearray(data))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _Refused(f"it wants {_short(f'{module}.{name}')}")
        return _ADMITTED[module, name]

    def persistent_load(self, reference: Any) -> Any:
        raise _Refused("it refers to something outside")


def _short(text: str) -> str:
    """A text of a file that is not trusted, fit to be shown."""
    return ascii(text if len(text) <= 80 else f"{text[:80]}...")
