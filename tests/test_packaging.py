"""What is installed is what is in the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of all files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the wheel cannot be built here: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def sources() -> list[str]:
    homes = {"slicedet": "slicedet", "cli": "slicedet/cli", "configs": "slicedet/configs"}
    return [
        f"{home}/{path.relative_to(PROJECT / folder).as_posix()}"
        for folder, home in homes.items()
        for suffix in ("*.py", "*.yaml", "*.txt", "py.typed")
        for path in (PROJECT / folder).rglob(suffix)
    ]


def test_every_module_and_configuration_is_in_the_wheel(installed: list[str]) -> None:
    assert len(sources()) > 40
    assert sorted(set(sources()) - set(installed)) == []


def test_nothing_but_slicedet_lands_in_site_packages(installed: list[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in installed} == {"slicedet"}
