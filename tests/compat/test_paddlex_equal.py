"""The same calls, the same answers: slicedet against what PaddleX 3.7.2 said, and against PaddleX where it is."""

from __future__ import annotations

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paddle")

import paddlex_facts

from slicedet import compat


def assert_same(said: Any, expected: Any, where: str = "") -> None:
    """Numbers within a hundredth of a pixel or 0.0002 of a score, all else exactly."""
    if isinstance(expected, dict):
        assert list(said) == list(expected), where
        for key in expected:
            assert_same(said[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(said) == len(expected), where
        for index, (one, other) in enumerate(zip(said, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert said == pytest.approx(expected, abs=2e-4 if where.endswith(".score") else 0.01), where
    else:
        assert said == expected, where


@pytest.fixture
def said(model_dir: Path, pictures: Path) -> dict[str, Any]:
    """slicedet's answers."""
    return paddlex_facts.answers(partial(compat.create_model, engine="paddle_static"), model_dir)


def test_what_paddlex_said(said: dict[str, Any]) -> None:
    expected = json.loads(paddlex_facts.RECORDED.read_text(encoding="utf-8"))
    assert len(expected["folder"]) == 4
    assert len(expected["file"][0]["res"]["boxes"]) > 20
    assert_same(said, expected)


def test_what_paddlex_says(
    said: dict[str, Any], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("paddlex") is None:
        pytest.skip("needs paddlex[cv]")
    again = tmp_path / "again" / "pictures"
    again.mkdir(parents=True)
    paddlex_facts.make_pictures(again)
    monkeypatch.chdir(again)
    assert_same(said, json.loads(json.dumps(paddlex_facts.answers(paddlex_facts.paddlex(), model_dir))))
