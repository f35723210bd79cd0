"""Files move into place whole, from another file system too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from slicedet.errors import OutputError
from slicedet.publishing import flush_folder, move


def test_a_file_takes_the_place_of_another(tmp_path):
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    move(tmp_path / "new", tmp_path / "old")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "new")]
    flush_folder(tmp_path)


def test_a_file_moves_to_another_file_system(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        (tmp_path / "file.csv").write_text("content")
        move(tmp_path / "file.csv", Path(folder) / "file.csv")
        assert [(path.name, path.read_text()) for path in Path(folder).iterdir()] == [("file.csv", "content")]


def test_a_place_that_cannot_be_taken_is_told(tmp_path):
    (tmp_path / "file.csv").write_text("content")
    with pytest.raises(OutputError, match=r"nowhere/file\.csv: cannot be written: No such file"):
        move(tmp_path / "file.csv", tmp_path / "nowhere/file.csv")
