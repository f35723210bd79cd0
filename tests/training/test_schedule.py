"""Learning rate and moving average against their definitions."""

from __future__ import annotations

import math

import numpy as np

from slicedet.training.schedule import Schedule


def test_schedule() -> None:
    schedule = Schedule(rate=0.4, warmup=100, start=0.1, length=1000)
    rates = [schedule.at(step) for step in range(1100)]
    assert math.isclose(rates[0], 0.04)
    assert math.isclose(rates[50], 0.04 + 0.36 / 2)
    assert math.isclose(rates[500], 0.2)
    assert math.isclose(rates[250], 0.2 * (1 + math.sqrt(0.5)))
    assert rates[1000] == rates[1099] == 0.0
    assert (np.diff(rates[100:1000]) < 0).all()


def test_no_warmup() -> None:
    assert Schedule(rate=1.0, warmup=0, start=0.1, length=10).at(0) == 1.0


def test_moving_average() -> None:
    import paddle

    from slicedet.training.averaging import MovingAverage

    network, average = paddle.nn.BatchNorm1D(3), paddle.nn.BatchNorm1D(3)
    moving = MovingAverage(network, average, 0.9)
    expected = {name: value.numpy().astype(float) for name, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    for step in range(120):
        for name, value in network.state_dict().items():
            value.set_value(rng.normal(size=3).astype(np.float32))
            decay = min(0.9, (1 + step) / (10 + step))
            expected[name] = decay * expected[name] + (1 - decay) * value.numpy()
        moving.update(step)
    for name, value in average.state_dict().items():
        np.testing.assert_allclose(value.numpy(), expected[name], atol=1e-6)
