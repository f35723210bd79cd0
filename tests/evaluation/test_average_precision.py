"""Average precision: the figures of pycocotools, run by itself on the same files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slicedet.datasets import coco
from slicedet.detections import Detections
from slicedet.errors import InvalidDataset, InvalidDetections, InvalidSetting
from slicedet.evaluation import average_precision, predictions
from slicedet.evaluation.average_precision import MOST_CLASSES
from slicedet.evaluation.evaluating import evaluate

OFFICIAL = ["AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"]
OFFICIAL += ["AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"]


def undefined(value: float) -> float:
    """The value as pycocotools has it, -1 where there is nothing to be found."""
    return -1.0 if math.isnan(value) else value


def mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


@pytest.mark.parametrize("seed", range(12))
def test_all_figures_equal_pycocotools(scatter, reference, write, seed):
    document, results = scatter(seed)
    dataset = coco.read(write("truth.json", document))
    found = evaluate(dataset, predictions.read(write("found.json", results), dataset)).average_precision
    expected = reference(document, results)
    assert [undefined(found.official[name]) for name in OFFICIAL] == pytest.approx(expected.stats.tolist(), abs=1e-9)

    unlimited = reference(document, results, limits=(1000,)).eval
    precision, recall = unlimited["precision"][..., 0], unlimited["recall"][..., 0]
    parts = [(found, slice(None), 0)]
    parts += [(found.by_size[name], slice(None), i) for i, name in enumerate(("small", "medium", "large"), 1)]
    parts += [(found.by_class[f"class {k}"], k, 0) for k in range(3)]
    for figures, category, size in parts:
        assert undefined(figures.ap) == pytest.approx(mean(precision[:, :, category, size]), abs=1e-9)
        assert undefined(figures.ap50) == pytest.approx(mean(precision[0, :, category, size]), abs=1e-9)
        assert undefined(figures.ap75) == pytest.approx(mean(precision[5, :, category, size]), abs=1e-9)
        assert undefined(figures.ar) == pytest.approx(mean(recall[:, category, size]), abs=1e-9)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_overlaps_of_exactly_a_threshold_fall_as_in_pycocotools(reference, write, data):
    """Shares of a box meet IoU 0.5, 0.55, ... but for the last bit."""
    cents = st.integers(1, 9999).map(lambda value: value / 100)
    x, y, w, h = (data.draw(cents) for _ in range(4))
    share = data.draw(st.integers(10, 19).map(lambda value: value / 20))
    document = {
        "images": [{"id": 1, "file_name": "a", "width": 300, "height": 300}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [x, y, round(w * share, 6), h], "score": 0.5}]
    dataset = coco.read(write("truth.json", document))
    found = evaluate(dataset, predictions.read(write("found.json", results), dataset)).average_precision
    assert found.ap == pytest.approx(reference(document, results).stats[0], abs=1e-9)


def detections(dataset: coco.CocoDataset, score: float = 1.0) -> list[Detections]:
    """The annotations themselves as detections."""
    rows = [dataset.of_image(index) for index in range(len(dataset.images))]
    return [
        Detections(dataset.boxes[row], np.full(len(dataset.ids[row]), score), dataset.category_ids[row]) for row in rows
    ]


def test_a_perfect_detector_has_1_everywhere(shared):
    dataset = coco.read(shared / "data/aerial_vehicles/annotations/instance_val.json")
    found = average_precision(dataset, detections(dataset))
    assert (found.ap, found.ap50, found.ap75, found.ar, found.objects) == (1, 1, 1, 1, 821)
    assert [figures.ap for figures in found.by_size.values()] == [1, 1, 1]
    by_class = {name: (figures.ap, figures.objects) for name, figures in found.by_class.items() if figures.objects}
    assert by_class == {"car": (1, 789), "truck": (1, 1), "bus": (1, 6), "minibus": (1, 25)}
    assert math.isnan(found.by_class["cyclist"].ap)


def test_nothing_found_is_0_and_nothing_to_find_is_undefined(scatter, write):
    document, _ = scatter(1)
    nothing = [Detections.empty() for _ in document["images"]]
    found = average_precision(coco.read(write("a.json", document)), nothing)
    assert (found.ap, found.ap50, found.ar) == (0, 0, 0)
    dataset = coco.read(write("b.json", {**document, "annotations": []}))
    for results in (nothing, [Detections([[0, 0, 9, 9]], [0.5], [0])] * len(nothing)):
        found = average_precision(dataset, results)
        assert (math.isnan(found.ap), math.isnan(found.official["AR100"]), found.objects) == (True, True, 0)


def test_more_than_100_objects_in_an_image_count_but_not_in_cocos_own_figures(write):
    boxes = [[20 * (i % 20), 20 * (i // 20), 10, 10] for i in range(250)]
    frame = {"id": 1, "file_name": "a.png", "width": 400, "height": 400}
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    document = {"images": [frame], "categories": [{"id": 1, "name": "car"}], "annotations": annotations}
    dataset = coco.read(write("a.json", document))
    found = average_precision(dataset, detections(dataset))
    assert found.ap == found.by_class["car"].ar == 1
    assert found.official["AR100"] == pytest.approx(0.4)
    assert found.official["AP"] == pytest.approx(41 / 101)


def test_detections_in_a_crowd_are_neither_right_nor_wrong(write):
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "area": 10000, "iscrowd": 1}
    alone = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [200, 0, 10, 10], "area": 100, "iscrowd": 0}
    frame = {"id": 1, "file_name": "a.png", "width": 400, "height": 400}
    document = {"images": [frame], "categories": [{"id": 1, "name": "car"}], "annotations": [crowd, alone]}
    dataset = coco.read(write("a.json", document))
    boxes = [[5, 5, 15, 15], [50, 50, 70, 70], [200, 0, 210, 10]]
    found = average_precision(dataset, [Detections(boxes, [0.9, 0.8, 0.7], [0, 0, 0])])
    assert (found.ap, found.objects) == (1, 1)


def test_classes_are_compared_by_name_and_renamed_on_both_sides(scatter, reference, write):
    document, results = scatter(3, crowds=0.0)
    dataset = coco.read(write("truth.json", document))
    as_one = {**document, "categories": [{"id": 1, "name": "thing"}]}
    as_one["annotations"] = [{**entry, "category_id": 1} for entry in document["annotations"]]
    found = evaluate(
        dataset, predictions.read(write("found.json", results), dataset), mapping={"*": "thing"}
    ).average_precision
    expected = reference(as_one, [{**entry, "category_id": 1} for entry in results])
    assert list(found.by_class) == ["thing"]
    assert [undefined(found.official[name]) for name in OFFICIAL] == pytest.approx(expected.stats.tolist(), abs=1e-9)


def test_names_of_one_side_are_left_out_or_missed(shared):
    dataset = coco.read(shared / "data/aerial_vehicles/annotations/instance_val.json")
    found = [part.replace(category_ids=np.zeros(len(part), int)) for part in detections(dataset)]
    for mapping, classes in (
        ({"van": "car", "truck": "car", "bus": "car", "minibus": "car"}, {"car": 821, "cyclist": 0}),
        ({"*": "vehicle", "cyclist": ""}, {"vehicle": 821}),
    ):
        report = average_precision(dataset, found, ["van", "boat"], mapping)
        assert {name: figures.objects for name, figures in report.by_class.items()} == classes
        assert report.ap == 1
    # Without a word the detector's vans would count for nothing.
    with pytest.raises(InvalidDataset, match=r"no class is the same.*--map"):
        average_precision(dataset, found, ["van", "boat"])


@pytest.mark.parametrize(
    ("error", "said", "arguments"),
    [
        (InvalidDetections, "detections of 1 images, but .* has 2", {"found": [Detections.empty()]}),
        (InvalidDetections, "category id 2: there are 2", {"found": [Detections([[0, 0, 1, 1]], [1], [2])] * 2}),
        (InvalidSetting, "neither .* know ship", {"mapping": {"ship": "boat"}}),
    ],
)
def test_what_does_not_fit_is_said(write, error, said, arguments):
    frames = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 40} for i in (1, 2)]
    names = [{"id": i, "name": name} for i, name in enumerate(("car", "bus"))]
    dataset = coco.read(write("a.json", {"images": frames, "categories": names, "annotations": []}))
    with pytest.raises(error, match=said):
        average_precision(**{"dataset": dataset, "found": [Detections.empty()] * 2, **arguments})


def test_classes_without_objects_change_nothing_and_cost_little(scatter, reference, write):
    document, results = scatter(3)
    document["categories"] += [{"id": number, "name": f"none {number}"} for number in range(100, 9100)]
    dataset = coco.read(write("truth.json", document))
    figures = evaluate(dataset, predictions.read(write("found.json", results), dataset)).average_precision
    expected = reference({**document, "categories": document["categories"][:3]}, results).stats.tolist()
    assert [undefined(figures.official[name]) for name in OFFICIAL] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(figures.by_class["none 100"].ap)
    assert len(figures.by_class) == 9003


def test_more_classes_with_objects_than_are_measured_at_a_time(write):
    number = MOST_CLASSES + 1
    frames = [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}]
    rows = [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 2, 2]} for i in range(number)]
    document = {"images": frames, "annotations": rows, "categories": [{"id": i, "name": f"{i}"} for i in range(number)]}
    dataset = coco.read(write("truth.json", document))
    with pytest.raises(InvalidDataset, match="4,001 classes have objects, at most 4,000"):
        average_precision(dataset, [Detections.empty()])
