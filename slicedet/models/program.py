"""Paddle's programs as JSON: their inputs, outputs and suppression, and copies without it. Knows no Paddle."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slicedet.errors import ModelMismatch, UnsafeFile
from slicedet.models.config import NmsConfig

Shape = list[int]

_EVERYTHING = 2**31 - 1
_SUPPRESSION = "multiclass_nms3"

_REACHING_OUT = re.compile(
    r"(?<![a-z])(barrier|bkcl|cinn|comm|custom|dequeue|distributed|dump|engine|enqueue|files?|hccl|heter|jit|listen"
    r"|load|nccl|print|program|pull|push|py|queue|reader|recv|rpc|save|send|serv|xccl)(?![a-z])|(^|\.)read_?$"
)
"""Words in names of operators that read or write files, talk to other machines, call Python, or run what is compiled
elsewhere. Networks need none of them. `read` alone takes from a queue; others of that word read a program's arrays."""


def refuse_reaching_out(operators: Iterable[str], path: Path) -> None:
    """Raises UnsafeFile for a program with an operator that does more than compute: Paddle would run it.

    operators: names of all operators in all blocks, such as "1.conv2d" or "pd_op.conv2d".
    """
    for name in operators:
        if _REACHING_OUT.search(name.lower()):
            raise UnsafeFile(
                f"{path}: refused: its operator {name[:80]!a} reaches for files, other machines or code, which no "
                "network needs"
            )


@contextmanager
def well_formed(path: Path) -> Iterator[None]:
    """Raises ModelMismatch for what goes wrong with the content of a file that is no program."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ModelMismatch(f"{path}: not a Paddle program") from error


class Program:
    """A program in a .json file.

    inputs, outputs: names (outputs have none of use) and shapes, -1 for a dynamic length. nms: the numbers of the
    suppression inside, None where it has none. candidates: shapes of boxes [B, N, 4] and scores [B, C, N] that enter
    it.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelMismatch for a file that is no program, UnsafeFile for one that does more than compute."""
        self.path = path
        operators: list[str] = []

        def collected(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            """An object, whatever it describes; types and attributes have names like those of operators."""
            made = dict(pairs)
            if len(made) != len(pairs):  # Other readers may take the first of two.
                raise ValueError("a key comes twice")
            if isinstance(name := made.get("#"), str):
                operators.append(name)
            return made

        with well_formed(path):
            self._content = json.loads(path.read_bytes(), object_pairs_hook=collected)
        refuse_reaching_out(operators, path)
        with well_formed(path):
            self._read()

    def _read(self) -> None:
        operations = _operations(self._content)
        self._shapes: dict[int, Shape] = {}
        for operation in operations:
            for output in _values(operation["O"]):
                if output.get("TT", {}).get("#", "").endswith("t_dtensor"):
                    self._shapes[output["%"]] = [int(length) for length in output["TT"]["D"][1]]
        self.inputs = [
            (str(_attributes(operation)["name"]), self._shapes[operation["O"][0]["%"]])
            for operation in operations
            if _kind(operation) == "data"
        ]
        fetched = sorted((op for op in operations if _kind(op) == "fetch"), key=lambda op: _attributes(op)["col"])
        self.outputs = [self._shapes[operation["I"][0]["%"]] for operation in fetched]
        if not self.inputs or not self.outputs:
            raise ValueError("no inputs or outputs")
        self.parameter_bytes = sum(
            math.prod(self._shapes[op["O"]["%"]]) * _item_bytes(op["O"]["TT"]["D"][0]["#"])
            for op in operations
            if _kind(op) == "p"
        )
        inside = [operation for operation in operations if _kind(operation) == _SUPPRESSION]
        self.nms: NmsConfig | None = None
        self.candidates: list[Shape] = []
        if len(inside) == 1:
            given = _attributes(inside[0])
            # -1 stands for no limit.
            top_k, keep = (int(given[key]) if given[key] > 0 else _EVERYTHING for key in ("nms_top_k", "keep_top_k"))
            # float32 in the file: 0.6 reads 0.6000000238.
            score, iou = (round(float(given[key]), 7) for key in ("score_threshold", "nms_threshold"))
            self.nms = NmsConfig(score, iou, top_k, keep)
            self.candidates = [self._shapes[value["%"]] for value in inside[0]["I"][:2]]
            self._plain = given["normalized"] and given["nms_eta"] == 1 and given["background_label"] == -1

    def without_nms(self) -> dict[str, Any]:
        """The program's content, giving boxes and scores where suppression began; it keeps all its parameters.

        Raises ModelMismatch where the suppression is of a kind that slicedet does not do.
        """
        if self.nms is not None and not self._plain:
            raise ModelMismatch(f"{self.path}: its suppression has a background class, an eta or whole pixels")
        with well_formed(self.path):
            content: dict[str, Any] = copy.deepcopy(self._content)
            if self.nms is not None:
                _cut(content)
            return content


def _cut(content: dict[str, Any]) -> None:
    """Makes a program give boxes and scores where its suppression begins, in place."""
    operations = _operations(content)
    suppression = next(operation for operation in operations if _kind(operation) == _SUPPRESSION)
    gone = {output["%"] for output in suppression["O"]}
    kept, fetches = [], []
    for operation in operations:
        if operation is not suppression and gone.isdisjoint(value["%"] for value in _values(operation["I"])):
            kept.append(operation)
        elif _kind(operation) == "fetch":
            fetches.append(operation)
        else:
            gone.update(output["%"] for output in operation["O"])
    number = max(output["%"] for operation in operations for output in _values(operation["O"]))
    types = {output["%"]: output["TT"] for operation in kept for output in _values(operation["O"])}
    for column, value in enumerate(suppression["I"][:2]):
        fetch = copy.deepcopy(fetches[0])
        for attribute in fetch["A"]:
            attribute["AT"]["D"] = {"name": f"fetch_name_{column}", "col": column}[attribute["N"]]
        fetch["I"] = [{"%": value["%"]}]
        fetch["O"][0] |= {"%": number + 1 + column, "TT": types[value["%"]]}
        kept.append(fetch)
    operations[:] = kept


def mend_for_conversion(content: dict[str, Any]) -> None:
    """Writes the scales of resizing and the slopes of leaky ReLUs as float32, in place: Paddle 3.3 writes doubles, for
    which paddle2onnx 2.1 fails or reads 0. Paddle will not run what is mended."""
    for operation in _operations(content):
        for attribute in operation.get("A", ()):
            if _kind(operation).endswith("_interp") and attribute["N"] == "scale":
                numbers = attribute["AT"]["D"]
            elif _kind(operation) == "leaky_relu" and attribute["N"] == "negative_slope":
                numbers = [attribute["AT"]]
            else:
                continue
            for number in numbers:
                number["#"] = number["#"].replace("a_f64", "a_f32")


def _operations(content: Any) -> list[dict[str, Any]]:
    operations: list[dict[str, Any]] = content["program"]["regions"][0]["blocks"][0]["ops"]
    for operation in operations:
        # Parameters have no inputs, and short forms of the rest.
        operation.setdefault("I", [])
    return operations


def _kind(operation: dict[str, Any]) -> str:
    return str(operation["#"]).rpartition(".")[2]


def _values(stated: Any) -> Iterable[dict[str, Any]]:
    return [stated] if isinstance(stated, dict) else stated


def _attributes(operation: dict[str, Any]) -> dict[str, Any]:
    return {attribute["N"]: attribute["AT"]["D"] for attribute in operation["A"]}


def _item_bytes(name: str) -> int:
    return {"t_f64": 8, "t_i64": 8, "t_f16": 2, "t_bf16": 2, "t_i8": 1, "t_ui8": 1, "t_bool": 1}.get(name[2:], 4)
