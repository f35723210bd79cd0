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

from slicedet.errors import InvalidTraining
from slicedet.outputs.files import staged

FILE_NAME = "last.npz"

_RECORD = "record"


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
    """Reads a checkpoint. Raises InvalidTraining where there is none, or it is damaged."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            record = json.loads(content[_RECORD].tobytes())
            for key in content.files:
                part, slash, name = key.partition("/")
                if slash:
                    arrays.setdefault(part, {})[name] = content[key]
    except FileNotFoundError as error:
        raise InvalidTraining(f"{path}: no such checkpoint; without resume, the training begins anew") from error
    except OSError as error:
        raise InvalidTraining(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InvalidTraining(f"{path}: is no checkpoint of slicedet train, or is damaged") from error
    if not isinstance(record, dict) or not {"step", "network"} <= record.keys():
        raise InvalidTraining(f"{path}: is no checkpoint of slicedet train")
    return Checkpoint(arrays, record)


def located(path: Path) -> Path:
    """The checkpoint that a path means: the file, or the one in a folder of results."""
    return path / FILE_NAME if path.is_dir() else path


def require_same(wanted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Raises InvalidTraining where a checkpoint's weights are not those of the network to be trained."""
    different = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    different += [name for name in given if name not in wanted]
    if different:
        raise InvalidTraining(
            f"{path}: is of another network: {len(different)} parameters differ, the first {different[0]}; "
            "resume it with its own configuration, or start from its weights with pretrained"
        )


def save_pdparams(state: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Writes weights as Paddle's .pdparams. Raises OutputError where they cannot be written."""
    write(pickle.dumps({name: np.ascontiguousarray(value) for name, value in state.items()}, protocol=4), path)


def write(content: bytes, path: Path) -> None:
    """Writes a file whole, in place of an earlier one, or not at all."""
    with staged(path, overwrite=True) as temporary:
        temporary.write_bytes(content)
