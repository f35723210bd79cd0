"""State dicts as Paddle writes them, and pickles made to do harm."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slicedet.errors import CorruptFile, UnsafeFile
from slicedet.models.pdparams import load_pdparams

ARRAYS = {
    "backbone.conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "head.scale": np.float32([1.5]),
    "head.bias": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "steps": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float16),
    "flags": np.array([True, False]),
    "foreign": np.arange(3, dtype=">i4"),
}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert found[name].dtype == values.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], values)
        assert found[name].flags.writeable


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_dicts_of_arrays_of_every_protocol(tmp_path: Path, protocol: int, kind: Any) -> None:
    path = tmp_path / "w.pdparams"
    table = {"StructuredToParameterName@@": {"steps": "conv_0.w_0"}}
    path.write_bytes(pickle.dumps(kind({**ARRAYS, **table}), protocol))
    same(load_pdparams(path), ARRAYS)


def test_pairs_of_internal_name_and_array(tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps({name: (f"conv_{name}", values) for name, values in ARRAYS.items()}, 4))
    same(load_pdparams(path), ARRAYS)


def test_names_of_numpy_1_and_of_python_2(tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    array = {"a": np.arange(200, dtype=np.uint8)}
    text = pickle.dumps(array, 2)
    path.write_bytes(text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    same(load_pdparams(path), array)
    raw = bytes(range(200))
    old = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\xc8\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\xc8" + raw + b"tbs."
    )
    path.write_bytes(old)
    same(load_pdparams(path), array)


def test_what_paddle_itself_writes(tmp_path: Path) -> None:
    script = """
import sys, numpy, paddle
network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Linear(4, 2))
for protocol in (2, 3, 4):
    paddle.save(network.state_dict(), f"{sys.argv[1]}/{protocol}.pdparams", protocol)
paddle.save(dict(network.state_dict()), f"{sys.argv[1]}/dict.pdparams")
paddle.save(dict(nested=network.state_dict()), f"{sys.argv[1]}/nested.pdparams")
numpy.savez(f"{sys.argv[1]}/expected.npz", **{name: value.numpy() for name, value in network.state_dict().items()})
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], check=True)
    expected = dict(np.load(tmp_path / "expected.npz"))
    assert len(expected) == 8
    for name in ("2", "3", "4", "dict"):
        same(load_pdparams(tmp_path / f"{name}.pdparams"), expected)
    with pytest.raises(CorruptFile, match="'nested' is no array"):
        load_pdparams(tmp_path / "nested.pdparams")


def test_paddle_is_not_imported() -> None:
    script = "import sys, slicedet.models.cache; print('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self._reduced


reconstruct, multiarray_scalar = np.zeros(1).__reduce__()[0], np.float64(1).__reduce__()[0]  # type: ignore[misc]


def object_array() -> Any:
    return np.array([{}, "x"], dtype=object)


def forged_array() -> Any:
    """Its bytes would be taken for pointers to objects."""
    dtype = Calls(np.dtype, "V8", state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
    return Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, b"x" * 8))


HARM: dict[str, Any] = {
    "os.system": Calls(os.system, "touch harm"),
    "subprocess": Calls(subprocess.Popen, ["touch", "harm"]),
    "eval": Calls(eval, "open('harm', 'w')"),
    "exec": Calls(exec, "open('harm', 'w')"),
    "getattr": Calls(getattr, "x", "upper"),
    "import": Calls(__import__, "antigravity"),
    "open": Calls(open, "harm", "w"),
    "bytearray": Calls(bytearray, 10),
    "numpy load": Calls(np.load, "harm.npy", None, True),
    "numpy fromfile": Calls(np.fromfile, "/etc/passwd"),
    "numpy runstring": b"cnumpy.testing._private.utils\nrunstring\n(S\"open('harm','w')\"\n}tR.",
    "numpy f2py": b"cnumpy.f2py.capi_maps\ngetinit\n(S'x'\ntR.",
    "object array": object_array(),
    "object scalar": Calls(multiarray_scalar, np.dtype("O"), b"cos\nsystem\n(S'touch harm'\ntR."),
    "text array": np.array(["text"]),
    "record array": np.zeros(2, [("a", "f4"), ("b", "O")]),
    "matrix": Calls(reconstruct, dict, (0,), b"b"),
    "forged fields": forged_array(),
    "forged order": Calls(np.dtype, "f4", False, True, state=(3, "<", ("f4", (2,)), None, None, -1, -1, 0)),
    "changed builder": b"cnumpy\ndtype\n}S'_build'\ncnumpy\nndarray\nsb.",
    "changed slots": b"cnumpy\ndtype\n(N}S'_build'\ncnumpy\nndarray\nstb.",
    "persistent": b"Pharm\n.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x1aos.system\x93.".replace(b"\x1a", b"\x09"),
    "instance": b"(S'touch harm'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'touch harm'\no.",
    "control characters": b"c\x1b[2J\x1b[31m\nsystem\n(S'touch harm'\ntR.",
}  # fmt: skip


@pytest.mark.parametrize("name", HARM)
def test_pickles_that_want_more_than_arrays_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    harm = HARM[name]
    path = tmp_path / "evil.pdparams"
    path.write_bytes(harm if isinstance(harm, bytes) else pickle.dumps({"weight": harm}, 4))
    with pytest.raises(UnsafeFile, match=r"evil\.pdparams: refused: it ") as error:
        load_pdparams(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300 + len(str(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pdparams"]


def huge(opcode: bytes, size: bytes) -> bytes:
    return b"\x80\x04" + opcode + size + b"x."


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "page": b"<html>Please log in</html>",
    "list": pickle.dumps([1, 2]),
    "number": pickle.dumps(7),
    "text value": pickle.dumps({"a": "b"}),
    "number as name": pickle.dumps({1: ARRAYS["steps"]}),
    "array alone": pickle.dumps(ARRAYS["steps"]),
    "array without content": b"(S'a'\ncnumpy\nndarray\n(tRd.",
    "cut": pickle.dumps(ARRAYS)[:-40],
    "huge text": huge(b"\x8d", struct.pack("<Q", 1 << 62)),
    "huge bytes": huge(b"\x8e", struct.pack("<Q", 1 << 62)),
    "huge frame": huge(b"\x95", struct.pack("<Q", 1 << 62)),
    "huge memo": b"\x80\x04}r\xff\xff\xff\xff.",
    "deep": b"(" * 100_000 + b"l" * 100_000 + b".",
    "dict from the wrong things": b"c__builtin__\ndict\n(I1\ntR.",
    "laughs": b"]q\x00" + b"(h\x00h\x00h\x00tq\x00" * 60 + b".",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_no_state_dict_is_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.pdparams"
    path.write_bytes(DAMAGE[name])
    with pytest.raises(CorruptFile, match=r"bad\.pdparams: not a \.pdparams file") as error:
        load_pdparams(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("shape", "raw"),
    [((3,), bytes(8)), ((1 << 40,), b""), ((-1,), bytes(4)), ((2.0,), bytes(8)), ("ab", bytes(8)), ((2,), 7)],
)
def test_shapes_that_do_not_fit_the_bytes_are_refused(tmp_path: Path, shape: Any, raw: Any) -> None:
    path = tmp_path / "bad.pdparams"
    array = Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, shape, np.dtype("f4"), False, raw))
    path.write_bytes(pickle.dumps({"weight": array}, 4))
    with pytest.raises(CorruptFile):
        load_pdparams(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="No such file"):
        load_pdparams(tmp_path / "nowhere.pdparams")


def test_damage_anywhere_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.pdparams"
    good = pickle.dumps({"a": ARRAYS["head.scale"], "b": ("x", ARRAYS["steps"])}, 4)
    for place in range(len(good)):
        for value in (0, ord("c"), ord("R"), ord("b"), 0x93, 0xFF):
            path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
            try:
                found = load_pdparams(path)
            except (CorruptFile, UnsafeFile):
                continue
            assert all(type(values) is np.ndarray for values in found.values())


def copies(kind: str) -> bytes:
    """A pickle that makes thousands of copies of one thing."""
    if kind == "tuples":
        once = b"(" + b"N" * 20_000 + b"l" + b"q\x00" + b"cbuiltins\ntuple\nq\x01"
        return once + b"(" + b"h\x01h\x00\x85R" * 4000 + b"l."
    raw = bytes(100_000)
    once = b"B" + struct.pack("<I", len(raw)) + raw + b"q\x00"
    if kind == "texts":
        once = b"X" + struct.pack("<I", len(raw)) + raw + b"q\x00"
        return once + b"c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02(" + b"h\x01h\x00h\x02\x86R" * 20_000 + b"l."
    once += b"cnumpy.core.numeric\n_frombuffer\nq\x01cnumpy\ndtype\n(X\x02\x00\x00\x00f4tRq\x02"
    once += struct.pack("<cI", b"J", 25_000) + b"\x85q\x03" + b"X\x01\x00\x00\x00Cq\x04"
    named = (b"X\x05\x00\x00\x00%05dh\x01(h\x00h\x02h\x03h\x04tR" % number for number in range(20_000))
    return once + b"}(" + b"".join(named) + b"u."


@pytest.mark.parametrize("kind", ["tuples", "texts", "arrays"])
def test_a_small_file_does_not_fill_the_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x04" + copies(kind))
    with pytest.raises(UnsafeFile, match=r"w\.pdparams: refused: it makes much more of itself"):
        load_pdparams(path)


def test_bytes_that_do_not_follow_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"abc.")
    with pytest.raises(CorruptFile, match=r"w\.pdparams: not a \.pdparams file"):
        load_pdparams(path)
