"""What a library with PaddleX's create_model does with some pictures: the same questions to PaddleX and to slicedet.

    python tests/compat/paddlex_facts.py

where paddlex is installed, writes its answers to paddlex_facts.json, with which slicedet's are compared.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
from colour_model import NAME, make_model
from PIL import Image, ImageFont

RECORDED = Path(__file__).with_suffix(".json")
THRESHOLDS: list[Any] = [0.7, {0: 0.7}, {0: 0.8, 2: 0.3}, 0.0, 1.0]


def paint(seed: int, width: int, height: int) -> np.ndarray:
    """Blocks of colour, uint8 RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8)
    return coarse.repeat(25, axis=0).repeat(25, axis=1)


def make_pictures(folder: Path) -> None:
    """Pictures in a folder and one below it, one of them in two pages, and a file that is none."""
    (folder / "below").mkdir()
    Image.fromarray(paint(1, 400, 300)).save(folder / "b.png")
    # In full colour: of a JPEG with less, libraries make different pixels.
    Image.fromarray(paint(2, 300, 400)).save(folder / "below" / "a.JPG", quality=95, subsampling=0)
    pages = [Image.fromarray(paint(seed, 350, 350)) for seed in (3, 4)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    (folder / "notes.txt").write_text("no picture")


def answers(create_model: Callable[..., Any], model: Path) -> dict[str, Any]:
    """What the library answers in a current folder with the pictures."""
    said: dict[str, Any] = {}
    create = partial(create_model, NAME, model_dir=str(model))
    detector = create(threshold=0.85)
    array = np.ascontiguousarray(paint(1, 400, 300)[..., ::-1])
    inputs = {"file": "b.png", "array": array, "folder": ".", "pages": "pages.tif", "list": ["below/a.JPG", array]}
    for name, given in inputs.items():
        results = list(detector.predict(given, batch_size=2))
        said[name] = [result.json for result in results]
        for number, result in enumerate(results):
            result.save_all(f"../out/{name}/{number}")
    said["keys"] = list(next(iter(detector.predict("b.png"))))
    said["lazy"] = isinstance(detector.predict("missing.png"), GeneratorType)
    said["files"] = {}
    for path in sorted(Path("../out").rglob("*.*")):
        name = re.sub(r"/\d{10}_\d{4}_", "/TIME_NUMBER_", path.as_posix())
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            said["files"][name] = {**content, "boxes": len(content["boxes"])}
        else:
            with Image.open(path) as picture:
                said["files"][name] = [picture.format, picture.mode, *picture.size]
    result = next(iter(detector.predict("b.png")))
    result.save_to_json("../named/any.json")
    result.save_to_img("../named/any.png")
    said["named"] = sorted(path.name for path in Path("../named").iterdir())
    said["input_img"] = bool((result["input_img"] == array).all())
    said["img"] = [result.img["res"].mode, *result.img["res"].size]
    # At creation, at prediction, and at both.
    for threshold in THRESHOLDS:
        said[f"created with {threshold}"] = classes(create(threshold=threshold).predict("b.png"))
        said[f"predicted with {threshold}"] = classes(detector.predict("b.png", threshold=threshold))
    said["stated nowhere"] = classes(create().predict("b.png"))
    return said


def classes(results: Any) -> list[list[int]]:
    """How many boxes there are of each class."""
    (result,) = results
    ids, counts = np.unique([box["cls_id"] for box in result["boxes"]], return_counts=True)
    return [[int(id), int(count)] for id, count in zip(ids, counts, strict=True)]


def paddlex() -> Callable[..., Any]:
    """PaddleX's create_model, without oneDNN, which fails on these models, and with a font that is here."""
    font = Path(tempfile.gettempdir()) / "paddlex_facts.ttf"
    font.write_bytes(ImageFont.load_default(20).font_bytes)
    os.environ["PADDLE_PDX_LOCAL_FONT_FILE_PATH"] = str(font)
    from paddlex import create_model

    return partial(create_model, engine="paddle_static", engine_config={"run_mode": "paddle"})


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        (folder / "pictures").mkdir()
        make_pictures(folder / "pictures")
        os.chdir(folder / "pictures")
        said = answers(paddlex(), folder / "model")
        os.chdir(RECORDED.parent)
    # A line for each question.
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in said.items())
    RECORDED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
