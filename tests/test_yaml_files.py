"""YAML that is made to fill the memory, to take long, or to raise what nobody expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slicedet import yaml_files
from slicedet.errors import InvalidConfig

LEVELS = range(1, 12)
ALIASES = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in LEVELS)
MERGES = "a0: &a0 {k: 1, l: 2}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in LEVELS)


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        MERGES,
        "text: &a " + "x" * 100_000 + "\nall: [" + "*a, " * 100 + "]",
        "a: &a [*a]",
        "a: 2001-99-99",
        "a: " + "9" * 5000,
        "a: 0x" + "f" * 5000,
        "a: 1" + ":0" * 40_000,
        "a: !!float abc",
        "a: !!int ''",
        "a: !!bool perhaps",
        "a: !!timestamp today",
        "a: !!python/name:os.system",
        "a: " + "[" * 200 + "]" * 200,
        "[" * 5_000,
        "--- 1\n--- 2",
        "a: \x00",
        b"\xff\xfe",
        b"#" * (yaml_files.LARGEST + 1),
    ],
)
def test_it_is_refused_in_one_line(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidConfig, match=r"odd\.yaml: not a readable YAML file \(.+\)$") as error:
        yaml_files.read(path, InvalidConfig)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("\ufeffa: [1, 2.5, no, 2001-01-31]", {"a": [1, 2.5, False, yaml.safe_load("2001-01-31")]}),
        ("a: &a [1, 2]\nb: *a\nc: [*a, *a]", {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}),
        ("a: &a {k: 1}\nb: {<<: *a, l: 2}", {"a": {"k": 1}, "b": {"k": 1, "l": 2}}),
        ("a: " + "x" * 900_000, {"a": "x" * 900_000}),
    ],
)
def test_other_files_are_read(tmp_path: Path, text: str, content: Any) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(text, encoding="utf-8")
    assert yaml_files.read(path, InvalidConfig) == content
