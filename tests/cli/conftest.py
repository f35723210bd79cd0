"""What the tests of the command line share: running it in an empty folder, with real weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from slicedet.cli import main


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def slicedet(here: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line with arguments of any kind, in an empty current folder."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments], prog_name="slicedet")
        return Outcome(int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def model(shared: Path) -> list[str]:
    """The options for a quick network with real weights."""
    return ["-m", "picodet_s_320_coco", "--weights", str(shared / "models/picodet_s_320_coco.onnx")]


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of last change of everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        if path.is_file()
        else (0, 0)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def unchanged(tmp_path: Path) -> Callable[[], bool]:
    """Whether nothing was written, changed or removed since it was first asked."""
    before: list[dict[str, tuple[int, int]]] = []

    def check() -> bool:
        before.append(tree(tmp_path))
        return before[0] == before[-1]

    return check
