"""Reports of an evaluation, whatever its classes are called."""

from __future__ import annotations

import json

import pytest

from slicedet.datasets import coco
from slicedet.evaluation import predictions, reporting
from slicedet.evaluation.evaluating import evaluate


@pytest.mark.parametrize("name", [r"$\foo$", "price $5 and $x_{$", "\x1b[31mred\n", "n" * 1_000_000])
def test_a_class_of_any_name_has_its_report(write, scatter, tmp_path, name):
    document, results = scatter(1)
    document["categories"][0]["name"] = name
    dataset = coco.read(write("truth.json", document))
    found = {"predictions": evaluate(dataset, predictions.read(write("found.json", results), dataset))}
    written = reporting.save(tmp_path / "report", dataset, found)
    assert [path.name for path in written] == ["evaluation.json", "images.csv", "precision_recall.png"]
    assert name in json.loads(written[0].read_text())["classes"]
    table = reporting.table(dataset, found)
    assert "\x1b" not in table
    assert len(table) < 10_000
