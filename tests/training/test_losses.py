"""The official losses of five cases, assigners against slow ones, learning, and batches without boxes."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import assigner_reference as slow
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

paddle = pytest.importorskip("paddle")

from slicedet import networks  # noqa: E402
from slicedet.boxes import overlap  # noqa: E402
from slicedet.networks.heads.distribution import DistributionHead  # noqa: E402
from slicedet.networks.heads.pico import PicoHead  # noqa: E402
from slicedet.networks.heads.pico_v2 import PicoHeadV2  # noqa: E402
from slicedet.networks.heads.ppyoloe import PPYOLOEHead  # noqa: E402
from slicedet.training.losses import criterion  # noqa: E402
from slicedet.training.losses.assignment import Matches, Points  # noqa: E402
from slicedet.training.losses.atss import ATSS  # noqa: E402
from slicedet.training.losses.simota import SimOTA  # noqa: E402
from slicedet.training.losses.task_aligned import CenteredTaskAligned, TaskAligned  # noqa: E402

# Epochs by network.
CASES = {
    "picodet_s_320_coco": [0],
    "picodet_s_320_coco_lcnet": [0, 200],
    "ppyoloe_plus_sod_crn_s_80e_visdrone": [0],
    "ppyoloe_crn_s_80e_visdrone": [0],
}
MEAN, STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "float32")
CONSTANTS = {"head.distribution_project.project", "yolo_head.proj_conv.weight"}

HEIGHT, WIDTH, CLASSES = 64, 96, 3
# Of each head and assigner one: the head, and the epoch.
HEADS = {
    "pico": (lambda: PicoHead([8] * 3, CLASSES, [8, 16, 32], convs=1, reg_max=7), 0),
    "pico-v2-static": (lambda: PicoHeadV2([8] * 3, CLASSES, [8, 16, 32], convs=1, reg_max=7), 99),
    "pico-v2": (lambda: PicoHeadV2([8] * 3, CLASSES, [8, 16, 32], convs=1, reg_max=7), 100),
    "ppyoloe": (lambda: PPYOLOEHead([8] * 3, CLASSES, [32, 16, 8], reg_range=[0, 17]), 0),
    "ppyoloe-sod": (lambda: PPYOLOEHead([8] * 3, CLASSES, [32, 16, 8], reg_range=[-2, 8]), 0),
}
BOXES = [
    np.array([[5.3, 7.1, 30.2, 29.4], [40.9, 10.3, 88.1, 50.7], [12.2, 38.9, 25.4, 57.3]], "float32"),
    np.array([[70.7, 38.3, 80.1, 49.2]], "float32"),
]
LABELS = [np.array([0, 2, 1]), np.array([1])]
NO_BOXES, NO_LABELS = np.zeros((0, 4), "float32"), np.zeros(0, "int64")


class Answers:
    """Free numbers in place of what a network would answer for a batch, and the loss of its head."""

    def __init__(self, kind: str, images: int = 2) -> None:
        build, self.epoch = HEADS[kind]
        self.head: DistributionHead = build()
        self.loss = criterion(networks.Network(paddle.nn.Identity(), paddle.nn.Identity(), self.head))
        rng = np.random.default_rng(7)
        self.classes, self.distances = [], []
        bins = self.head.bins().numpy()
        # Boxes of some three strides: task alignment learns nothing from boxes that hardly overlap the true one.
        slope = np.tile(-np.abs(bins - 1.5), 4)[:, None, None]
        for stride in self.head.strides:
            grid = HEIGHT // stride, WIDTH // stride
            for logits, mean in ((self.classes, np.full((CLASSES, 1, 1), -1)), (self.distances, slope)):
                values = rng.normal(mean, 1, [images, len(mean), *grid]).astype("float32")
                logits.append(paddle.to_tensor(values, stop_gradient=False))

    def levels(self) -> list[tuple[Any, Any]]:
        holds_scores = isinstance(self.head, PicoHeadV2)
        classes = [paddle.nn.functional.sigmoid(logits) if holds_scores else logits for logits in self.classes]
        return list(zip(classes, self.distances, strict=True))

    def terms(self, boxes: list[np.ndarray], labels: list[np.ndarray]) -> dict[str, Any]:
        return self.loss(self.levels(), boxes, labels, self.epoch)


@pytest.fixture(params=list(HEADS))
def answers(request: pytest.FixtureRequest) -> Answers:
    return Answers(request.param)


@pytest.mark.parametrize("name", list(CASES))
def test_the_losses_are_the_official_ones(name: str, parity: Path, reference: ModuleType) -> None:
    everything = json.loads((parity / "losses.json").read_text())
    assert [(case["name"], case["epoch"]) for case in everything] == [
        (each, epoch) for each, epochs in CASES.items() for epoch in epochs
    ]
    cases = [case for case in everything if case["name"] == name]
    (gain,), (size,) = ({case[key] for case in cases} for key in ("gain", "input_size"))

    with paddle.LazyGuard():  # Random weights, which nothing here needs, take time.
        network = networks.build(name)
    state = network.state_dict()
    network.set_state_dict(
        {key: value if key in CONSTANTS else reference.fill(key, value.shape, gain) for key, value in state.items()}
    )
    network.train()
    network.backbone.eval()
    network.neck.eval()
    pixels = reference.image(size).astype("float32") / 255
    pixels = (pixels - MEAN) / STD if name.startswith("picodet") else pixels
    batch = np.stack([pixels, pixels[:, ::-1]]).transpose(0, 3, 1, 2)
    with paddle.no_grad():
        levels = network(paddle.to_tensor(batch))
    for case in cases:
        boxes = [np.array(image["boxes"], "float32") for image in case["ground_truth"]]
        labels = [np.array(image["classes"]) for image in case["ground_truth"]]
        with paddle.no_grad():
            terms = criterion(network)(levels, boxes, labels, case["epoch"])
        assert {term: float(terms[term]) for term in case["losses"]} == pytest.approx(case["losses"], rel=1e-3)
        if name.startswith("picodet"):
            assert float(terms["loss"]) == pytest.approx(sum(case["losses"].values()), rel=1e-3)


@pytest.mark.parametrize("kind", list(HEADS))
def test_answers_that_follow_the_gradient_find_the_boxes(kind: str) -> None:
    answers = Answers(kind)
    # The last box holds no point: only a head with distances below 0 can answer with it.
    tiny = np.array([[14.1, 54.3, 18.2, 58.1]], "float32")
    boxes = [BOXES[0], np.concatenate([BOXES[1], tiny])[: 2 if kind == "ppyoloe-sod" else 1]]
    labels = [LABELS[0], np.array([1, 0])[: len(boxes[1])]]
    optimizer = paddle.optimizer.Adam(0.1, parameters=[*answers.classes, *answers.distances])
    before = float(answers.terms(boxes, labels)["loss"])
    for _ in range(75):
        loss = answers.terms(boxes, labels)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    assert float(loss) < before / 2
    predicted, scores = (value.numpy() for value in answers.head.decode(answers.levels()))
    for image in range(2):
        for box, label in zip(boxes[image], labels[image], strict=True):
            sure = scores[image, label] > 0.5
            assert overlap(predicted[image][sure], box[None], "iou").max(initial=0) > 0.8


def test_every_gradient_is_finite_and_reaches_only_what_it_should(answers: Answers) -> None:
    terms = answers.terms([BOXES[0], NO_BOXES], [LABELS[0], NO_LABELS])
    terms["loss"].backward()
    assert all(np.isfinite(float(value)) and value.shape == [] for value in terms.values())
    for classes, distances in zip(answers.classes, answers.distances, strict=True):
        assert np.isfinite(classes.grad.numpy()).all()
        assert (classes.grad.numpy() != 0).all()
        assert np.isfinite(distances.grad.numpy()).all()
        assert (distances.grad[1].numpy() == 0).all()
    assert any((distances.grad[0].numpy() != 0).any() for distances in answers.distances)


def test_without_any_box_only_classes_are_learnt(answers: Answers) -> None:
    terms = answers.terms([NO_BOXES] * 2, [NO_LABELS] * 2)
    terms["loss"].backward()
    class_term = terms.get("loss_vfl", terms.get("loss_cls"))
    assert float(terms["loss"]) == float(class_term) > 0
    assert all((classes.grad.numpy() > 0).all() for classes in answers.classes)
    assert all((distances.grad.numpy() == 0).all() for distances in answers.distances)


def test_a_box_that_no_point_can_have_is_no_error(answers: Answers) -> None:
    outside = np.array([[1000, 1000, 1010, 1010]], "float32")
    point = np.array([[41.3, 20.2, 41.3, 20.2]], "float32")
    for boxes in ([outside, outside], [point, outside]):
        assert np.isfinite(float(answers.terms(boxes, [np.array([1])] * 2)["loss"]))


def test_the_order_of_boxes_does_not_matter(answers: Answers) -> None:
    turned = [boxes[::-1].copy() for boxes in BOXES], [labels[::-1].copy() for labels in LABELS]
    one, other = answers.terms(BOXES, LABELS), answers.terms(*turned)
    assert {name: float(value) for name, value in one.items()} == {name: float(value) for name, value in other.items()}


def test_the_same_batch_has_the_same_loss_and_gradient() -> None:
    for kind in HEADS:
        results = []
        for answers in (Answers(kind), Answers(kind)):
            terms = answers.terms(BOXES, LABELS)
            terms["loss"].backward()
            gradients = [logits.grad.numpy() for logits in [*answers.classes, *answers.distances]]
            results.append([float(terms["loss"]), *(part.tobytes() for part in gradients)])
        assert results[0] == results[1]


def test_the_static_epochs_can_be_chosen() -> None:
    answers = Answers("pico-v2")
    network = networks.Network(paddle.nn.Identity(), paddle.nn.Identity(), answers.head)
    with paddle.no_grad():
        losses = {
            (first, epoch): float(criterion(network, first)(answers.levels(), BOXES, LABELS, epoch)["loss"])
            for first, epoch in [(3, 2), (3, 3), (100, 99), (100, 100)]
        }
    assert losses[3, 2] == losses[100, 99] != losses[3, 3] == losses[100, 100]


def _share(folder: Path) -> None:
    from slicedet.training.losses.base import process_mean

    paddle.distributed.init_parallel_env()
    rank = paddle.distributed.get_rank()
    (folder / str(rank)).write_text(f"{process_mean(10.0 * (rank + 1))} {process_mean(0.1)}")


def test_training_processes_share_one_normaliser(tmp_path: Path) -> None:
    paddle.distributed.spawn(_share, args=(tmp_path,), nprocs=2, backend="gloo")
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["15.0 1.0"] * 2


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Points, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points, boxes, labels, predicted boxes and scores; no two distances or scores are the same."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    number, size = draw(st.integers(1, 8)), draw(st.sampled_from([3, 12, 60]))
    middles, halves = rng.uniform(-5, [WIDTH + 5, HEIGHT + 5], (number, 2)), rng.uniform(0.5, size, (number, 2)) / 2
    boxes = np.concatenate([middles - halves, middles + halves], axis=1).astype("float32")
    points = Points.of([(HEIGHT // stride, WIDTH // stride) for stride in (8, 16, 32)], [8, 16, 32])
    corners = np.concatenate([points.centers, points.centers], axis=1)
    if draw(st.booleans()):  # A network that has learnt: many points answer with a box near one that is there.
        corners = boxes[rng.integers(0, number, len(corners))] + rng.normal(0, size / 10, corners.shape)
    reach = rng.uniform(0, size, corners.shape) * [-1, -1, 1, 1] / 3
    scores = rng.uniform(0.01, 0.99, (CLASSES, len(corners)))
    return points, boxes, rng.integers(0, CLASSES, number), (corners + reach).astype("f4"), scores.astype("f4")


def as_dict(matches: Matches) -> slow.Found:
    assert (np.diff(matches.points) > 0).all()
    return {
        int(point): (int(box), float(score))
        for point, box, score in zip(matches.points, matches.boxes, matches.scores, strict=True)
    }


def check(found: Matches, expected: slow.Found) -> None:
    result = as_dict(found)
    assert {point: box for point, (box, _) in result.items()} == {point: box for point, (box, _) in expected.items()}
    for point, (_, score) in expected.items():
        assert result[point][1] == pytest.approx(score, rel=1e-3, abs=1e-5)


def plain(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype("float64") for array in arrays]


@settings(max_examples=60)
@given(scenes())
def test_simota_is_the_slow_one(scene: tuple) -> None:
    points, boxes, labels, predicted, scores = scene
    centers, strides, *rest = plain(points.centers, points.strides, boxes, predicted, scores)
    check(SimOTA()(*scene), slow.simota(centers, strides, rest[0], labels, *rest[1:]))


@settings(max_examples=60)
@given(scenes())
def test_atss_is_the_slow_one(scene: tuple) -> None:
    points, boxes, _, predicted, _ = scene
    check(ATSS()(*scene), slow.atss(*plain(points.centers, points.strides, boxes, predicted)))


@settings(max_examples=60)
@given(scenes(), st.booleans())
def test_task_alignment_is_the_slow_one(scene: tuple, centered: bool) -> None:
    points, boxes, labels, predicted, scores = scene
    centers, strides, *rest = plain(points.centers, points.strides, boxes, predicted, scores)
    assigner = CenteredTaskAligned() if centered else TaskAligned()
    check(assigner(*scene), slow.task_aligned(centers, strides, rest[0], labels, *rest[1:], centered))
