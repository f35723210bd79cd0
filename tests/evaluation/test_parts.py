"""Images with more boxes than a table of overlaps holds: cut into parts, measured the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from slicedet.datasets import coco
from slicedet.evaluation import parts, predictions
from slicedet.evaluation.evaluating import evaluate

COUNT = 30_000

LARGE = """
import re, sys
from pathlib import Path
import numpy as np
from slicedet import Detections
from slicedet.datasets import coco
from slicedet.evaluation import average_precision

dataset = coco.read(sys.argv[1])
count = len(dataset.boxes)
found = Detections(dataset.boxes, np.linspace(0.1, 0.9, count), np.zeros(count))
figures = average_precision(dataset, [found])
memory = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(figures.ap, figures.objects, figures.official["AR100"] * count, memory)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_the_square_of_the_objects(write):
    places = [(index % 200 * 30, index // 200 * 30) for index in range(COUNT)]
    path = write(
        "large.json",
        {
            "images": [{"id": 1, "file_name": "large.tif", "width": 6000, "height": 4500}],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": [
                {"id": number, "image_id": 1, "category_id": 1, "bbox": [x, y, 20, 20], "area": 400}
                for number, (x, y) in enumerate(places, 1)
            ],
        },
    )
    said = subprocess.run([sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=True).stdout
    ap, objects, of_the_best, kilobytes = map(float, said.split())
    assert (ap, objects) == (1, COUNT)
    assert of_the_best == pytest.approx(100)
    # All overlaps at once would take 7.2 GB.
    assert kilobytes < 1.5e6


@pytest.mark.parametrize("seed", range(8))
def test_parts_measure_what_whole_images_do(scatter, write, monkeypatch, seed):
    document, results = scatter(seed)
    rng = np.random.default_rng(seed)
    for result in results:
        result["score"] = float(rng.random())  # Of equal scores the order may differ.
    dataset = coco.read(write("truth.json", document))
    found = predictions.read(write("found.json", results), dataset)
    whole = evaluate(dataset, found).average_precision
    monkeypatch.setattr(parts, "PAIRS", 0)
    monkeypatch.setattr(parts, "_BOXES", 3)
    cut = evaluate(dataset, found).average_precision
    for part, of_whole in zip(_flat(asdict(cut)), _flat(asdict(whole)), strict=True):
        assert part == pytest.approx(of_whole, abs=1e-12, nan_ok=True)


def _flat(values):
    for value in values.values():
        yield from _flat(value) if isinstance(value, dict) else [value]
