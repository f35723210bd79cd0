"""Annotations and detections to compare, and pycocotools to compare them by itself."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = 400


@pytest.fixture
def scatter() -> Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A function that makes a COCO document and results for it: boxes near true ones, false ones, tied scores,
    crowds, stated areas below those of the boxes, and images and classes without truth or without results."""

    def make(
        seed: int, images: int = 4, objects: int = 25, found: int = 60, classes: int = 3, crowds: float = 0.1
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rng = np.random.default_rng(seed)
        numbers = rng.permutation(np.arange(1, 50))[:images].tolist()
        truth: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []

        def box() -> np.ndarray:
            return np.round([*rng.uniform(0, SIZE - 150, 2), *np.exp(rng.uniform(1.5, 5, 2))], 2)

        for number in numbers:
            own = [box() for _ in range(rng.integers(0, objects + 1))]
            for sides in own:
                area = float(np.round(sides[2] * sides[3] * rng.choice([1, 0.6]), 2))
                kind = {"category_id": int(rng.integers(classes)) * 7 + 2, "iscrowd": int(rng.random() < crowds)}
                truth.append({"id": len(truth) + 1, "image_id": number, "bbox": sides.tolist(), "area": area, **kind})
            for _ in range(rng.integers(0, found + 1)):
                sides, category = box(), int(rng.integers(classes + 1)) * 7 + 2
                if own and rng.random() < 0.7:
                    copied = truth[len(truth) - 1 - int(rng.integers(len(own)))]
                    sides = np.maximum(copied["bbox"] + np.round(rng.normal(0, 2, 4), 2), 1.0)
                    category = copied["category_id"] if rng.random() < 0.8 else category
                score = float(np.round(rng.random(), 2))
                results.append({"image_id": number, "category_id": category, "bbox": sides.tolist(), "score": score})
        names = [{"id": number * 7 + 2, "name": f"class {number}"} for number in range(classes)]
        frames = [{"id": n, "file_name": f"{n}.png", "width": SIZE, "height": SIZE} for n in numbers]
        return {"images": frames, "annotations": truth, "categories": names}, results

    return make


@pytest.fixture
def reference() -> Callable[..., COCOeval]:
    """A function that evaluates with pycocotools alone: its `stats` are the twelve figures, `evalImgs` the matches."""

    def evaluate(document: dict[str, Any], results: list[dict[str, Any]], limits: Any = (1, 10, 100)) -> COCOeval:
        with contextlib.redirect_stdout(io.StringIO()):
            known = COCO()
            known.dataset = copy.deepcopy(document)
            known.createIndex()
            evaluation = COCOeval(known, known.loadRes(copy.deepcopy(results)), "bbox")
            evaluation.params.maxDets = list(limits)
            evaluation.evaluate()
            evaluation.accumulate()
            if limits == (1, 10, 100):
                evaluation.summarize()
        return evaluation

    return evaluate


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """A function that writes JSON to a file of this name."""

    def to(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return to
