"""Parts of a batch side by side are one batch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_replicas_agree() -> None:
    """Parts of a batch side by side have the outputs and the gradients of the whole."""
    import paddle

    from slicedet import networks
    from slicedet.training.frozen import freeze_norms
    from slicedet.training.replicas import Replicas

    paddle.seed(0)
    network = networks.build("picodet_s_320_coco")
    freeze_norms(network)
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32))
    results = []
    for count in (1, 2, 3):
        network.train()
        replicas = Replicas(network, count)
        levels = replicas.forward(images, lambda part, pixels: part(pixels))
        loss = sum(((classes + 5) ** 2).mean() + (distances**2).mean() for classes, distances in levels)
        replicas.backward(loss, levels)
        gradients = {name: each.grad.numpy() for name, each in network.named_parameters() if each.grad is not None}
        results.append((float(loss), gradients))
        network.clear_gradients()
    for loss, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert gradients.keys() == results[0][1].keys()
        for name, value in results[0][1].items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(gradients[name], value, rtol=1e-3, atol=1e-4 * scale + 1e-9, err_msg=name)


@pytest.mark.parametrize("count", [2, 4])
def test_running_statistics_are_those_of_all_parts(count: int) -> None:
    """Of three images, two replicas have two and one, four have one each, and the last none."""
    import paddle

    from slicedet import networks
    from slicedet.training.replicas import Replicas

    def statistics(network: Any) -> dict[str, Any]:
        values = {name: value.numpy() for name, value in network.state_dict().items()}
        return {name: value for name, value in values.items() if name.endswith(("._mean", "._variance"))}

    paddle.seed(0)
    network = networks.build("picodet_s_320_coco")
    network.train()
    # Each image has a brightness of its own, so that no part can stand for another.
    images = np.random.default_rng(0).normal(np.arange(3).reshape(3, 1, 1, 1), size=(3, 3, 64, 64)).astype(np.float32)
    parts = []
    for part in (images[:2], images[2:]) if count == 2 else (images[:1], images[1:2], images[2:]):
        alone = copy.deepcopy(network)
        alone(paddle.to_tensor(part))
        parts.append((len(part) / 3, statistics(alone)))
    whole = copy.deepcopy(network)
    whole(paddle.to_tensor(images))
    replicas = Replicas(network, count)
    levels = replicas.forward(paddle.to_tensor(images), lambda each, pixels: each(pixels))
    replicas.backward(sum(classes.mean() + distances.mean() for classes, distances in levels), levels)
    found = statistics(network)
    assert len(found) > 100
    for name, value in found.items():
        expected = sum(share * values[name] for share, values in parts)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7, err_msg=name)
    # What comes before the first norm does not depend on how the batch is parted.
    first = next(iter(found))
    np.testing.assert_allclose(found[first], statistics(whole)[first], rtol=1e-4, atol=1e-6)
