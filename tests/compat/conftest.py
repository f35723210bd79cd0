"""A Paddle model that finds colours, and pictures to find them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from slicedet.compat import Model, create_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, as PaddleX wants it."""
    pytest.importorskip("paddle")
    from colour_model import make_model

    return make_model(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="session")
def model(model_dir: Path) -> Model:
    """Sees images as a whole."""
    return create_model("PicoDet-XS", model_dir, engine="paddle")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with pictures in it and below it; a folder beside it is free."""
    from paddlex_facts import make_pictures

    folder = tmp_path / "pictures"
    folder.mkdir()
    make_pictures(folder)
    monkeypatch.chdir(folder)
    return folder
