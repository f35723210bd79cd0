"""The house: a module imports only what stands on a floor below its own, or on its own if it is of the same package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import slicedet.cli

import slicedet

FLOORS = (
    "errors boxes texts",
    "detections tiling locks paddle_import yaml_files",
    "merging raster networks",
    "models",
    "detectors outputs",
    "export prediction publishing",
    "pipeline",
    "conditions manifest",
    "predicting",
    "batch resuming",
    "datasets",
    "evaluation",
    "bench compat demo training",
    "cli",
)
"""Modules and packages, from the ground up. Those of one floor do not know each other."""

HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor.split()}
FOLDERS = (Path(slicedet.__file__).parent, Path(slicedet.cli.__file__).parent)


def modules() -> Iterator[tuple[str, Path]]:
    """Each file with the name of the module or package it belongs to."""
    inside, commands = FOLDERS
    for path in sorted(inside.rglob("*.py")):
        place = path.relative_to(inside)
        if place.parts[0] not in ("cli", "configs") and place != Path("__init__.py"):
            yield place.parts[0].removesuffix(".py"), path
    for path in sorted(commands.rglob("*.py")):
        yield "cli", path


def imported(path: Path) -> Iterator[str]:
    """What of slicedet a file imports anywhere, functions included, but not for its types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {node for block in types for node in ast.walk(block)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "slicedet":
            names = [f"slicedet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            package, _, rest = name.partition(".")
            if package == "slicedet" and rest and not rest.startswith("__"):
                yield rest.partition(".")[0]


def test_imports_go_down() -> None:
    found = [(home, path, name) for home, path in modules() for name in imported(path)]
    assert {home for home, _, _ in found} >= {"models", "detectors", "pipeline", "training", "cli"}
    upwards = [
        f"{path.name} ({home}) imports {name}"
        for home, path, name in found
        if name not in ("configs", home) and HEIGHT[name] >= HEIGHT[home]
    ]
    assert upwards == []


def test_every_module_has_a_floor() -> None:
    assert {home for home, _ in modules()} == HEIGHT.keys()
