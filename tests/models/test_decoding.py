"""The three output layouts against a reference that decodes one anchor at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicedet.detections import Detections
from slicedet.models.config import InputConfig, ModelConfig, NmsConfig, OutputConfig
from slicedet.models.decoding import candidates, decoded, expected_outputs, suppressed

CATEGORIES = ("car", "truck", "bus")


def config(layout: str, size: tuple[int, int] = (96, 64), nms: NmsConfig | None = None) -> ModelConfig:
    heads = {"strides": (8, 16, 32, 64), "reg_max": 7} if layout == "picodet-heads" else {}
    nms = nms or (None if layout == "rows" else NmsConfig(0.025, 0.6, 1000, 100))
    return ModelConfig("tiny", "tiny", CATEGORIES, InputConfig(size), OutputConfig(layout, **heads), nms)


def rows_of(found: Detections) -> list[tuple[float, ...]]:
    table = np.column_stack([found.category_ids, found.scores, found.boxes])
    return sorted(map(tuple, table.tolist()))


def reference_heads(outputs: list[np.ndarray], size: tuple[int, int], minimum: float) -> list[tuple[float, ...]]:
    rows = []
    for level, stride in enumerate((8, 16, 32, 64)):
        columns = math.ceil(size[0] / stride)
        for point, (scores, logits) in enumerate(zip(outputs[level][0], outputs[level + 4][0], strict=True)):
            distances = []
            for side in range(4):
                weights = [math.exp(float(v)) for v in logits[side * 8 : side * 8 + 8]]
                distances.append(stride * sum(k * w for k, w in enumerate(weights)) / sum(weights))
            x, y = (point % columns + 0.5) * stride, (point // columns + 0.5) * stride
            box = (x - distances[0], y - distances[1], x + distances[2], y + distances[3])
            rows += [(c, float(score), *box) for c, score in enumerate(scores) if score >= minimum]
    return sorted(rows)


@pytest.mark.parametrize("size", [(96, 64), (64, 64), (416, 320)])
def test_raw_heads_decode_as_an_anchor_by_anchor_reference(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    shapes = expected_outputs(config("picodet-heads", size))
    outputs = [rng.random(shape, np.float32) for shape in shapes[:4]]
    outputs += [rng.normal(0, 3, shape).astype(np.float32) for shape in shapes[4:]]
    found = rows_of(candidates(config("picodet-heads", size), outputs, 0.9))
    expected = reference_heads(outputs, size, 0.9)
    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_large_logits_do_not_overflow() -> None:
    shapes = expected_outputs(config("picodet-heads"))
    outputs = [np.ones(shape, np.float32) for shape in shapes[:4]]
    outputs += [np.full(shape, 500, np.float32) for shape in shapes[4:]]
    found = candidates(config("picodet-heads"), outputs, 0.5)
    assert np.allclose(found.boxes[0, 2] - found.boxes[0, 0], 2 * 3.5 * 8)


def test_boxes_and_scores_keep_every_class_of_a_point() -> None:
    boxes = np.array([[[0, 0, 10, 10], [5, 5, 20, 20]]], np.float32)
    scores = np.array([[[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]]], np.float32)
    found = rows_of(candidates(config("boxes-and-scores"), [boxes, scores], 0.5))
    expected = [(0, 0.9, 0, 0, 10, 10), (1, 0.8, 0, 0, 10, 10), (2, 0.7, 5, 5, 20, 20)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rows_drop_padding_and_low_scores() -> None:
    rows = np.array([[1, 0.9, 1, 2, 3, 4], [-1, 0.9, 0, 0, 0, 0], [0, 0.2, 1, 2, 3, 4]], np.float32)
    found = rows_of(candidates(config("rows"), [rows], 0.5))
    np.testing.assert_allclose(found, [(1, 0.9, 1, 2, 3, 4)], atol=1e-6)


@pytest.mark.parametrize("layout", ["picodet-heads", "boxes-and-scores", "rows"])
def test_nothing_above_the_threshold_gives_no_detections(layout: str) -> None:
    shapes = [[n or 5 for n in shape] for shape in expected_outputs(config(layout))]
    assert len(candidates(config(layout), [np.zeros(shape, np.float32) for shape in shapes], 0.1)) == 0


def test_suppression_is_per_class_with_limits_before_and_after() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]]
    found = Detections(np.array(boxes), np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 0, 1, 0, 0]))
    everything = suppressed(found, NmsConfig(0.1, 0.6, 100, 100))
    assert everything.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.5])
    assert suppressed(found, NmsConfig(0.1, 0.6, 100, 2)).scores.tolist() == pytest.approx([0.9, 0.7])
    # Of class 0 only the best two are looked at, before the second of them is suppressed.
    assert suppressed(found, NmsConfig(0.1, 0.6, 2, 100)).scores.tolist() == pytest.approx([0.9, 0.7])


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.5, 0.7, 1.0])
)
def test_boxes_vote_as_an_independent_count_says_at_any_threshold(
    seed: int, count: int, threshold: float, iou: float
) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 3, (count, 2)) * 30 + rng.normal(0, 2, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 25, (count, 2))], axis=1).astype(np.float32)
    scores = np.where(rng.random((2, count)) < 0.5, rng.random((2, count)), 0).astype(np.float32)
    outputs = [boxes[None], np.concatenate([scores, np.zeros((1, count), np.float32)])[None]]
    plain = config("boxes-and-scores")
    voting = replace(plain, box_voting=iou)
    kept, found = (decoded(each, [outputs], threshold) for each in (plain, voting))
    assert found.scores.tolist() == kept.scores.tolist()
    assert found.category_ids.tolist() == kept.category_ids.tolist()
    for before, after, score, class_id in zip(kept.boxes, found.boxes, kept.scores, kept.category_ids, strict=True):
        votes = []
        for other, weight in zip(boxes.tolist(), scores[class_id].tolist(), strict=True):
            wide = min(before[2], other[2]) - max(before[0], other[0])
            high = min(before[3], other[3]) - max(before[1], other[1])
            shared = max(wide, 0) * max(high, 0)
            both = (before[2] - before[0]) * (before[3] - before[1]) + (other[2] - other[0]) * (other[3] - other[1])
            if weight >= 0.5 * score and weight > 0.025 and shared / (both - shared) >= iou - 1e-6:
                votes.append([weight, *other])
        table = np.array(votes)
        np.testing.assert_allclose(after, np.average(table[:, 1:], axis=0, weights=table[:, 0]), atol=1e-4)
    # What a higher threshold keeps lies where it lay.
    higher = decoded(voting, [outputs], 0.6)
    np.testing.assert_array_equal(higher.boxes, found[found.scores >= 0.6].boxes)


@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.sampled_from([0.1, 0.3, 0.5]), st.booleans())
def test_a_box_has_the_mean_of_what_two_looks_give_its_object_at_any_threshold(
    seed: int, count: int, threshold: float, voting: bool
) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 3, (2, count, 2)) * 20 + rng.normal(0, 2, (2, count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 20, (2, count, 2))], axis=2).astype(np.float32)
    scores = rng.random((2, count)).astype(np.float32)
    frame = np.array([96, 64, 96, 64], np.float32)
    seen = [boxes[0], frame - boxes[1][:, [2, 3, 0, 1]]]  # The second look is at the image turned.
    rest = np.zeros((2, count), np.float32)
    looks = [[each[None], np.vstack([own, rest])[None]] for each, own in zip(seen, scores, strict=True)]
    both = replace(config("boxes-and-scores"), half_turn=True, box_voting=0.7 if voting else None)
    found = decoded(both, looks, threshold)

    left = sorted(
        (-float(scores[look, i]), look, i) for look in range(2) for i in range(count) if scores[look, i] > 0.025
    )
    expected = []
    while left:
        first = boxes[left[0][1], left[0][2]]
        best, remaining = [0.0, 0.0], []
        for negative, look, i in left:
            other = boxes[look, i]
            shared = np.prod(np.clip(np.minimum(first[2:], other[2:]) - np.maximum(first[:2], other[:2]), 0, None))
            areas = [np.prod(each[2:] - each[:2]) for each in (first, other)]
            if shared / (sum(areas) - shared) > 0.6:
                best[look] = max(best[look], -negative)
            else:
                remaining.append((negative, look, i))
        expected.append(sum(best) / 2)
        left = remaining
    np.testing.assert_allclose(found.scores, sorted((s for s in expected if s >= threshold), reverse=True), rtol=1e-6)
    # What a higher threshold keeps is what it was.
    higher = decoded(both, looks, 0.6)
    np.testing.assert_array_equal(higher.boxes, found[found.scores >= 0.6].boxes)


def test_a_box_without_area_stays_where_it_is() -> None:
    outputs = [np.array([[[5, 5, 5, 9]]], np.float32), np.array([[[0.9], [0], [0]]], np.float32)]
    found = decoded(replace(config("boxes-and-scores"), box_voting=0.7), [outputs], 0.5)
    assert found.boxes.tolist() == [[5, 5, 5, 9]]


def test_the_shared_weights_have_the_outputs_of_their_configurations(shared: Path) -> None:
    import onnx

    from slicedet.models import catalogue

    model = onnx.load(shared / "models" / "picodet_s_416_coco.onnx")
    shapes = [tuple(d.dim_value for d in port.type.tensor_type.shape.dim) for port in model.graph.output]
    assert shapes == expected_outputs(catalogue.find("picodet_s_416_coco"))
