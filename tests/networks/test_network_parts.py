"""Sizes, batches, training mode, loading, and what the parts compute."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from slicedet import networks  # noqa: E402
from slicedet.errors import InvalidConfig, UnknownModel  # noqa: E402
from slicedet.networks.heads.distribution import grid_points  # noqa: E402
from slicedet.networks.heads.ppyoloe import PPYOLOEHead  # noqa: E402
from slicedet.networks.transformer import position_embedding  # noqa: E402

# One of each backbone, neck and head.
SMALL = [
    "picodet_s_320_coco",
    "picodet_shufflenetv2_1x_416_coco",
    "picodet_mobilenetv3_large_1x_416_coco",
    "picodet_lcnet_1_5x_416_coco",
    "picodet_xs_320_coco_lcnet",
    "ppyoloe_crn_s_80e_visdrone",
    "ppyoloe_crn_s_p2_alpha_80e_visdrone",
    "ppyoloe_plus_sod_crn_s_80e_visdrone",
]
DESCRIPTION: dict[str, Any] = {
    "backbone": {"type": "LCNet", "scale": 0.35},
    "neck": {"type": "LCPAN", "channels": 32},
    "head": {"type": "PicoHeadV2", "strides": [8, 16, 32, 64], "convs": 1, "reg_max": 7},
}


def points(height: int, width: int, strides: list[int]) -> int:
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


def unset(name: str) -> networks.Network:
    """A network without random weights, which take seconds."""
    with paddle.LazyGuard():
        return networks.build(name)


@pytest.fixture(scope="module")
def filled(fill: Callable[..., None]) -> Callable[[str], networks.Network]:
    """The network of a name, with weights by the rule."""

    @functools.cache
    def filled(name: str) -> networks.Network:
        network = unset(name)
        fill(network, 1.5)
        return network

    return filled


@pytest.mark.parametrize("name", SMALL)
def test_sizes_and_batches(
    name: str, filled: Callable[[str], networks.Network], images: Callable[..., paddle.Tensor]
) -> None:
    network = filled(name)
    strides = network.detection_head().strides
    for height, width in [(96, 160), (160, 96)]:
        one = images(height, width, imagenet=True)
        other = one.flip([3])
        with paddle.no_grad():
            together = network(paddle.concat([one, other]))
            apart = [network(one), network(other)]
        boxes, scores = together
        assert boxes.shape == [2, points(height, width, strides), 4]
        assert scores.shape[::2] == [2, boxes.shape[1]]
        for place, alone in enumerate(apart):
            np.testing.assert_allclose(boxes[place].numpy(), alone[0][0].numpy(), atol=1e-3 * max(height, width))
            np.testing.assert_allclose(scores[place].numpy(), alone[1][0].numpy(), atol=1e-3)
        centres = ((boxes[:, :, :2] + boxes[:, :, 2:]) / 2).numpy()
        reach = 8 * max(strides)
        assert (np.abs(centres - [width / 2, height / 2]) < [width / 2 + reach, height / 2 + reach]).all()


@pytest.mark.parametrize("name", SMALL)
def test_training_mode_gives_what_losses_need(name: str) -> None:
    network = networks.build(name)
    network.train()
    head = network.detection_head()
    levels = network(paddle.rand([2, 3, 64, 96]))
    assert len(levels) == len(head.strides)
    for (classes, distances), stride in zip(levels, head.strides, strict=True):
        assert classes.shape[2:] == distances.shape[2:] == [-(-64 // stride), -(-96 // stride)]
        assert distances.shape[1] == 4 * head.bins().shape[0]
    sum(classes.square().mean() + distances.square().mean() for classes, distances in levels).backward()
    idle = {name for name, weight in network.named_parameters() if weight.grad is None and not weight.stop_gradient}
    assert all(name.endswith("scale_reg") for name in idle)


@pytest.mark.parametrize("name", ["picodet_xs_320_coco_lcnet", "ppyoloe_plus_sod_crn_s_80e_visdrone"])
def test_a_saved_state_loads_strictly(name: str, tmp_path: Path, filled: Callable[[str], networks.Network]) -> None:
    saved, loaded = filled(name), networks.build(name)
    paddle.save(saved.state_dict(), str(tmp_path / "weights.pdparams"))
    assert loaded.set_state_dict(paddle.load(str(tmp_path / "weights.pdparams"))) == ([], [])
    image = paddle.rand([1, 3, 96, 96])
    with paddle.no_grad():
        for expected, value in zip(saved(image), loaded(image), strict=True):
            np.testing.assert_array_equal(value.numpy(), expected.numpy())


@pytest.mark.parametrize("size", ["s", "l"])
def test_plain_ppyoloe_is_the_plus_one_without_alpha_and_transformer(size: str) -> None:
    plain = unset(f"ppyoloe_crn_{size}_80e_visdrone").state_dict()
    plus = unset(f"ppyoloe_plus_sod_crn_{size}_80e_visdrone").state_dict()
    assert list(plain) == [name for name in plus if "alpha" not in name and "encoder" not in name]
    differing = {name.split(".")[1] for name in plain if plain[name].shape != plus[name].shape}
    assert differing == {"pred_reg", "proj_conv"}


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(UnknownModel, match="did you mean picodet_s_320_coco") as error:
        networks.build("picodet_s_320_coc")
    assert "\n" not in str(error.value)
    with pytest.raises(UnknownModel, match="there are aerial-vehicles, picodet_l_320_coco"):
        networks.build("../categories/coco")


def test_a_description_of_ones_own_is_assembled() -> None:
    boxes, scores = networks.assemble(DESCRIPTION, num_classes=3)(paddle.rand([1, 3, 64, 64]))
    assert (boxes.shape, scores.shape) == ([1, 64 + 16 + 4 + 1, 4], [1, 3, 85])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": None}, "network.backbone: expected a type among CSPResNet"),
        ({"neck": {"type": "FPN"}}, "network.neck: expected a type among CSPPAN"),
        ({"backbone": {"type": "LCNet"}}, "network.backbone: .*scale"),
        ({"neck": {"type": "LCPAN", "channels": 32, "depth": 1}}, "network.neck: .*depth"),
        ({"backbone": {"type": "ESNet", "scale": 1, "ratios": [1]}}, "ratios: expected 13 numbers"),
        ({"backbone": {"type": "CSPResNet", "channels": [8], "blocks": [1], "alpha": True}}, "network.backbone: chann"),
        ({"neck": {"type": "CustomCSPPAN", "channels": [8], "blocks": 1}}, "network.neck: channels: expected 3"),
        ({"head": {**DESCRIPTION["head"], "strides": [8, 16]}}, "network.head.strides: expected 4 numbers"),
    ],
)
def test_what_is_wrong_in_a_description_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        networks.assemble({**DESCRIPTION, **change}, num_classes=3)


def test_positions_belong_to_their_pixels_on_maps_of_any_shape() -> None:
    square = position_embedding(5, 5, 8).numpy().reshape(5, 5, 8)
    for height, width in [(5, 3), (2, 5), (1, 1)]:
        table = position_embedding(height, width, 8).numpy().reshape(height, width, 8)
        np.testing.assert_allclose(table, square[:height, :width], atol=1e-6)
    y, x, frequencies = 2, 4, np.array([1, 0.01])
    expected = [f(place * frequencies) for place in (y, x) for f in (np.sin, np.cos)]
    np.testing.assert_allclose(square[y, x], np.concatenate(expected), atol=1e-6)


def test_points_run_row_by_row() -> None:
    expected = [[0.5, 1.5, 2.5, 0.5, 1.5, 2.5], [0.5, 0.5, 0.5, 1.5, 1.5, 1.5]]
    np.testing.assert_array_equal(grid_points(2, 3).numpy(), expected)


def test_distances_may_be_negative_where_the_bins_are() -> None:
    head = PPYOLOEHead([8], num_classes=1, strides=[8], reg_range=(-2, 3))
    sides = [-1, 0, 2, 1]  # left, top, right, bottom
    logits = np.full([1, 4, 5, 1, 2], -100, "float32")
    for side, distance in enumerate(sides):
        logits[0, side, distance + 2] = 100
    level = (paddle.zeros([1, 1, 1, 2]), paddle.to_tensor(logits.reshape(1, 20, 1, 2)))
    boxes, scores = head.decode([level])
    np.testing.assert_allclose(boxes.numpy(), [[[12, 4, 20, 12], [20, 4, 28, 12]]], atol=1e-4)
    np.testing.assert_allclose(scores.numpy(), [[[0.5, 0.5]]])
