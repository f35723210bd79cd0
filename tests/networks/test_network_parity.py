"""Names, shapes and outputs of the official networks, for every name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from slicedet import networks  # noqa: E402

# Official, but without a reference; test_network_parts.py compares their names with their siblings'.
WITHOUT_REFERENCE = {"aerial-vehicles", "ppyoloe_crn_l_80e_visdrone", "ppyoloe_crn_s_p2_alpha_80e_visdrone"}


@pytest.fixture(scope="module", params=sorted(set(networks.names()) - WITHOUT_REFERENCE))
def official(request: pytest.FixtureRequest, parity: Path) -> dict[str, Any]:
    return {"name": request.param, **json.loads((parity / f"{request.param}.json").read_text())}


@pytest.fixture(scope="module")
def network(official: dict[str, Any]) -> networks.Network:
    with paddle.LazyGuard():  # Random weights, which nothing here needs, take seconds.
        return networks.build(official["name"])


def test_every_reference_has_its_network(parity: Path) -> None:
    references = {path.stem for path in parity.glob("*.json")} - {"losses"}
    assert references == set(networks.names()) - WITHOUT_REFERENCE


def test_the_state_dict_is_the_official_one(network: networks.Network, official: dict[str, Any]) -> None:
    state = [
        [name, value.shape, str(value.dtype).removeprefix("paddle.")] for name, value in network.state_dict().items()
    ]
    assert state == official["state"]


def test_the_outputs_are_the_official_ones(
    network: networks.Network,
    official: dict[str, Any],
    parity: Path,
    fill: Callable[..., None],
    images: Callable[..., paddle.Tensor],
) -> None:
    path = parity / f"{official['name']}.npz"
    if not path.is_file():
        pytest.skip("names and shapes only")
    expected = np.load(path)
    size, step = official["input_size"], int(expected["step"])
    fill(network, official["gain"])
    with paddle.no_grad():
        output = network(images(size, size, imagenet=official["name"].startswith("picodet")))
    boxes, scores = (value.numpy()[0] for value in output)
    assert boxes.shape == (official["num_points"], 4)
    assert scores.shape == (official["num_classes"], official["num_points"])
    assert np.abs(boxes[::step] - expected["boxes"]).max() < 1e-3 * np.ptp(expected["boxes"])
    assert np.abs(scores[:, ::step] - expected["scores"]).max() < 1e-3 * np.ptp(expected["scores"])
    assert np.abs(boxes.mean(0) - expected["box_mean"]).max() < 1e-3 * np.ptp(expected["boxes"])
    assert np.abs(scores.mean(1) - expected["score_mean"]).max() < 1e-3 * np.ptp(expected["scores"])
