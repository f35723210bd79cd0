"""Paddle's programs that do more than compute, or are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slicedet.errors import ModelMismatch, UnsafeFile
from slicedet.models.program import Program, refuse_reaching_out, well_formed


def tensor(number: int, shape: list[Any]) -> dict[str, Any]:
    return {"%": number, "TT": {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, shape, "NCHW", [], 0]}}


def attribute(name: str, value: Any) -> dict[str, Any]:
    return {"N": name, "AT": {"#": "0.a_str", "D": value}}


def written(folder: Path, *operations: dict[str, Any], shape: tuple[Any, ...] = (1, 3, 64, 64)) -> Path:
    """A program that gives its input back, with further operators before its end."""
    image = {"#": "1.data", "A": [attribute("name", "image")], "I": [], "O": [tensor(1, list(shape))]}
    last = {"#": "1.fetch", "A": [attribute("col", 0)], "I": [{"%": 1}], "O": [tensor(2, list(shape))]}
    blocks = [{"ops": [image, *operations, last]}]
    path = folder / "inference.json"
    path.write_text(json.dumps({"base_code": {}, "program": {"regions": [{"blocks": blocks}]}}))
    return path


def operator(name: str) -> dict[str, Any]:
    return {"#": name, "A": [], "I": [{"%": 1}], "O": []}


def test_what_computes_is_read(tmp_path: Path) -> None:
    names = [
        "1.conv2d",
        "1.matrix_nms",
        "1.shadow_feed",
        "2.while",
        "1.array_read",
        "1.read_array",
        "1.pyramid_hash",
    ]
    program = Program(written(tmp_path, *map(operator, names)))
    assert program.inputs == [("image", [1, 3, 64, 64])]


@pytest.mark.parametrize(
    "name",
    [
        "1.save_combine",
        "1.load_combine",
        "1.read_file",
        "1.print",
        "pd_op.read_file",
        "0.save_combine_",
        "1.py_func",
        "1.send_v2",
        "1.p_recv",
        "1.run_program",
        "1.tensorrt_engine",
        "cinn_runtime.jit_kernel",
        "1.LOAD",
        "1.distributed_push_sparse",
        "listen_and_serv",
        "read",
        "1.create_py_reader",
        "1.c_comm_init",
    ],
)
def test_what_reaches_out_is_refused_wherever_it_is(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFile, match=r"w\.pdmodel: refused: its operator"):
        refuse_reaching_out(["conv2d", name], tmp_path / "w.pdmodel")
    loop = operator("2.while") | {"regions": [{"blocks": [{"ops": [operator("1.relu"), operator(name)]}]}]}
    for each in (operator(name), loop):
        with pytest.raises(UnsafeFile, match=r"inference\.json: refused: its operator") as error:
            Program(written(tmp_path, each))
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_name_that_comes_twice_hides_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, operator("1.relu"))
    path.write_text(path.read_text().replace('"#": "1.relu"', '"#": "1.save_combine", "#": "1.relu"'))
    with pytest.raises(ModelMismatch, match="not a Paddle program"):
        Program(path)


@pytest.mark.parametrize("length", [float("inf"), float("nan"), "x", None, [1]])
def test_shapes_that_are_none(length: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match=r"inference\.json: not a Paddle program"):
        Program(written(tmp_path, shape=(1, length)))


def test_what_goes_wrong_later_is_told_as_well(tmp_path: Path) -> None:
    numbers = {"score_threshold": 0.1, "nms_threshold": 0.5, "nms_top_k": 10, "keep_top_k": 10}
    plain = {"normalized": True, "nms_eta": 1, "background_label": -1}
    suppression = operator("1.multiclass_nms3")
    suppression |= {"A": [attribute(*each) for each in {**numbers, **plain}.items()], "I": [{"%": 1}, {"%": 1}]}
    program = Program(written(tmp_path, suppression, operator("1.relu") | {"I": [{}]}))
    with pytest.raises(ModelMismatch, match=r"inference\.json: not a Paddle program"):
        program.without_nms()
    with pytest.raises(ModelMismatch, match="not a Paddle program"), well_formed(tmp_path / "a.json"):
        raise OverflowError
