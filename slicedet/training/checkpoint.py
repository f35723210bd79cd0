"""Checkpoints: all that a training needs to go on as if it had never stopped, in one file without code."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicedet.errors import CorruptFile, InvalidTraining
from slicedet.outputs.files import staged

FILE_NAME = "last.npz"

_RECORD = "record"

_STEPPED, _SCORED = ("step", "loss", "rate"), ("step", "ap", "ap50", "threshold")
"""What the two kinds of entries of a history have."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training between two steps.

    arrays: of each part (model, average, optimizer) its arrays by name. record: everything else, ready for JSON; it
    says which `network` it is of.
    """

    arrays: Mapping[str, Mapping[str, NDArray[Any]]]
    record: Mapping[str, Any]


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint in place of an earlier one, which stays until the new one is on the disk.

    Raises OutputError where it cannot be written.
    """
    content = {f"{part}/{name}": value for part, arrays in checkpoint.arrays.items() for name, value in arrays.items()}
    content[_RECORD] = np.frombuffer(json.dumps(checkpoint.record).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **content)
    write(buffer.getvalue(), path)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint. Raises InvalidTraining where there is none, CorruptFile where it is damaged or something
    else."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        _check_stored(path)
        with np.load(path, allow_pickle=False) as content:
            record = json.loads(content[_RECORD].tobytes())
            for key in content.files:
                part, slash, name = key.partition("/")
                if slash:
                    arrays.setdefault(part, {})[name] = content[key]
        _check_record(record)
    except FileNotFoundError as error:
        raise InvalidTraining(f"{path}: no such checkpoint; without resume, the training begins anew") from error
    except OSError as error:
        raise InvalidTraining(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # NumPy and zipfile raise whatever they like, MemoryError and RecursionError among it.
        raise corrupt(path) from error
    return Checkpoint(arrays, record)


def corrupt(path: Path) -> CorruptFile:
    """What is said of a file that is no checkpoint, or a damaged one."""
    return CorruptFile(f"{path}: is no checkpoint of slicedet train, or is damaged")


def _check_stored(path: Path) -> None:
    """Raises ValueError where a file holds more bytes than it has: `save` compresses nothing."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("larger than its file")


def _check_record(record: Any) -> None:
    """Raises ValueError where a record is not as the trainer writes it."""
    pending, history = record["pending"], record["history"]
    network, best = record["network"], record["best"]
    whole = [record["step"], record["replicas"]]
    if not (
        all(type(value) is int and low <= value < 1 << 63 for value, low in zip(whole, (0, 1), strict=True))
        and isinstance(record["scaler"], dict)
        and all(isinstance(name, str) for name in network["categories"])
        and isinstance(pending, list)
        and all(terms.keys() == pending[0].keys() and _numbers(terms, "loss") for terms in pending)
        and isinstance(history, list)
        and all(_is_logged(each) for each in history)
        and (best is None or _numbers(best, *_SCORED))
    ):
        raise ValueError("a record of other values")


def _is_logged(record: Any) -> bool:
    return _numbers(record, *(_SCORED if "ap" in record else _STEPPED))


def _numbers(record: Any, *needed: str) -> bool:
    """Whether a part of the record has these members, and numbers only."""
    return record.keys() >= set(needed) and all(isinstance(value, int | float) for value in record.values())


def located(path: Path) -> Path:
    """The checkpoint that a path means: the file, or the one in a folder of results."""
    return path / FILE_NAME if path.is_dir() else path


def require_same(wanted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Raises InvalidTraining where a checkpoint's weights are not those of the network to be trained."""
    different = [name for name, value in wanted.items() if name not in given or _form(given[name]) != _form(value)]
    different += [name for name in given if name not in wanted]
    if different:
        raise InvalidTraining(
            f"{path}: is of another network: {len(different)} parameters differ, the first {different[0]}; "
            "resume it with its own configuration, or start from its weights with pretrained"
        )


def _form(value: NDArray[Any]) -> tuple[Any, ...]:
    return value.dtype, value.shape


def save_pdparams(state: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Writes weights as Paddle's .pdparams. Raises OutputError where they cannot be written."""
    write(pickle.dumps({name: np.ascontiguousarray(value) for name, value in state.items()}, protocol=4), path)


def write(content: bytes, path: Path) -> None:
    """Writes a file whole, in place of an earlier one, or not at all."""
    with staged(path, overwrite=True) as temporary:
        temporary.write_bytes(content)
