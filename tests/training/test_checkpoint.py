"""Checkpoints: whole or not at all, and safe to read."""

from __future__ import annotations

import json
import pickle
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slicedet.errors import CorruptFile, InvalidTraining, OutputError
from slicedet.models.pdparams import load_pdparams
from slicedet.training.checkpoint import Checkpoint, load, located, require_same, save, save_pdparams

ARRAYS = {"model": {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, "optimizer": {"a.weight|_0": np.ones(1)}}
RECORD = {
    "step": 7,
    "network": {"categories": ["Straße"], "network": {}},
    "replicas": 2,
    "scaler": {},
    "pending": [{"loss": 0.5, "loss_box": 0.25}],
    "best": {"step": 6, "ap": 0.5, "ap50": 0.75, "threshold": 0.3, "best": True},
    "history": [
        {"step": 6, "loss": 0.1, "rate": 0.1},
        {"step": 6, "ap": 0.5, "ap50": 0.75, "threshold": 0.3, "best": True},
    ],
}


def test_round_trip(tmp_path: Path) -> None:
    save(Checkpoint(ARRAYS, RECORD), tmp_path / "last.npz")
    again = load(tmp_path / "last.npz")
    assert again.record == RECORD
    assert again.arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(again.arrays["model"]["a.weight"], ARRAYS["model"]["a.weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]


def test_pdparams_is_read_by_the_reader_without_paddle(tmp_path: Path) -> None:
    save_pdparams({"a.weight": ARRAYS["model"]["a.weight"].T}, tmp_path / "best.pdparams")
    np.testing.assert_array_equal(load_pdparams(tmp_path / "best.pdparams")["a.weight"], ARRAYS["model"]["a.weight"].T)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_hostile_and_damaged_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(Checkpoint(ARRAYS, RECORD), tmp_path / "good.npz")
    good = (tmp_path / "good.npz").read_bytes()
    np.savez(tmp_path / "objects.npz", allow_pickle=True, record=np.array([_Bomb()], object))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "empty_record.npz", record=np.frombuffer(b"{}", np.uint8))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(_Bomb()))
    (tmp_path / "half.npz").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "weights.pdparams").write_bytes(pickle.dumps({"a": np.ones(2)}))
    bomb = np.zeros(50_000_000, np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", record=bomb)
    np.save(tmp_path / "plain.npz.npy", bomb[:9])
    encrypted = bytearray(good)
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[good.index(mark) + place] |= 1
    (tmp_path / "encrypted.npz").write_bytes(encrypted)
    record = np.frombuffer(json.dumps(RECORD).encode(), np.uint8)
    heads = {"huge": "'shape':(100000000000,)", "tokens": "(((((((((((", "deep": "[" * 9000, "minus": "-" * 5000 + "1"}
    for name, head in heads.items():
        text = f"{{'descr':'<f4','fortran_order':False,{head}}}" if name == "huge" else head
        np.savez(tmp_path / f"{name}.npz", record=record)
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "a") as archive:
            archive.writestr("model/a.npy", b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode())
    np.savez(tmp_path / "deep_record.npz", record=np.frombuffer(b"[" * 200_000, np.uint8))
    (tmp_path / "good.npz").unlink()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CorruptFile, match=rf"{path.name}: is no checkpoint of slicedet train, or is damaged$"):
            load(path)
    assert capsys.readouterr().out == ""
    with pytest.raises(InvalidTraining, match="no such checkpoint"):
        load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "x"},
        {"step": -1},
        {"step": True},
        {"replicas": 0},
        {"network": []},
        {"network": {"categories": [1], "network": {}}},
        {"scaler": None},
        {"pending": 5},
        {"pending": [{"loss": "x"}]},
        {"pending": [{"loss": 1.0}, {"loss": 1.0, "loss_box": 1.0}]},
        {"history": [5]},
        {"history": [{"loss": 1.0}]},
        {"best": {"step": 3}},
        *({name: ...} for name in RECORD),
    ],
)
def test_records_of_other_values(tmp_path: Path, change: dict[str, Any]) -> None:
    record = {name: value for name, value in {**RECORD, **change}.items() if value is not ...}
    save(Checkpoint(ARRAYS, record), tmp_path / "last.npz")
    with pytest.raises(CorruptFile, match=r"last\.npz: is no checkpoint of slicedet train, or is damaged$"):
        load(tmp_path / "last.npz")


def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "run.1"
    folder.mkdir()
    assert located(folder) == folder / "last.npz"
    assert located(folder / "last.npz") == folder / "last.npz"


def test_another_network() -> None:
    with pytest.raises(InvalidTraining, match=r"last\.npz: is of another network: 2 parameters differ, the first b"):
        require_same(
            {"a": np.ones(2), "b": np.ones(3)}, {"a": np.ones(2), "b": np.ones(4), "c": np.ones(1)}, Path("last.npz")
        )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_leaves_the_checkpoint_before(small_disk: Path) -> None:
    path = small_disk / "last.npz"
    save(Checkpoint(ARRAYS, RECORD), path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"last\.npz: cannot be written: No space left on device"):
        save(Checkpoint({"model": {"a.weight": np.ones(200_000)}}, RECORD), path)
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]
