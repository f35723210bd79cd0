"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
from host import Host
from hypothesis import settings
from rasterio.errors import NotGeoreferencedWarning

_PROJECT = Path(__file__).parents[1]

# How long an example takes says more of the machine than of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights, photos and rasters beside the project; without it, tests that need it are skipped."""
    folder = Path(os.environ.get("SLICEDET_SHARED", _PROJECT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip("needs the shared folder of weights and rasters beside the project (or SLICEDET_SHARED)")
    return folder


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    """The folder of official state dicts, outputs and losses."""
    return shared / "parity"


@pytest.fixture(scope="session")
def reference(parity: Path) -> ModuleType:
    """The rule for weights and images behind them: fill(name, shape, gain) and image(size)."""
    spec = importlib.util.spec_from_file_location("reference", parity / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def host() -> Iterator[Host]:
    """A web server on this machine."""
    with Host() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is slicedet's cache, and no mirror."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SLICEDET_HOME", str(folder))
    monkeypatch.delenv("SLICEDET_MODEL_MIRROR", raising=False)
    return folder


@pytest.fixture(scope="module")
def lasting_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for all tests of a module: what one of them converts serves the others."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("SLICEDET_HOME", str(folder))
        patch.delenv("SLICEDET_MODEL_MIRROR", raising=False)
        yield folder


@pytest.fixture
def raster(tmp_path: Path) -> Callable[..., Path]:
    """Writes a raster with rasterio: raster("name.tif", pixels [H, W] or [bands, H, W], colors=, mask=, **profile)."""

    def write(
        name: str,
        pixels: np.ndarray,
        colors: list[Any] | None = None,
        palette: dict[int, tuple[int, ...]] | None = None,
        mask: np.ndarray | None = None,
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = pixels[None] if pixels.ndim == 2 else pixels
        shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **profile}) as dataset:
                if colors is not None:
                    dataset.colorinterp = colors
                if palette is not None:
                    dataset.write_colormap(1, palette)
                if mask is not None:
                    dataset.write_mask(mask)
                dataset.write(bands)
        return path

    return write


@pytest.fixture
def damage() -> Callable[[Path], None]:
    """Overwrites the first block of a GeoTIFF so that it cannot be decoded."""

    def overwrite(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                offset, size = (
                    dataset.get_tag_item(f"BLOCK_{what}_0_0", "TIFF", bidx=1) for what in ("OFFSET", "SIZE")
                )
        with open(path, "rb+") as file:
            file.seek(int(offset))
            file.write(b"\xaa" * int(size))

    return overwrite
