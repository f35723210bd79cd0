"""The exponential moving average of a network's weights, which generalises better than the weights themselves."""

from __future__ import annotations

import paddle
from paddle import Tensor, nn


class MovingAverage:
    """Averages the state of one network into another of the same kind, whose state it overwrites.

    decay: the share of the old average in the new one after many updates. Before, it is (1 + t) / (10 + t) at update t,
    as in PaddleDetection; the average begins as the network's state, so it needs no correction for its start.
    """

    def __init__(self, network: nn.Layer, average: nn.Layer, decay: float) -> None:
        average.set_state_dict(network.state_dict())
        self.decay = decay
        mine, theirs = average.state_dict(), network.state_dict()
        # Some heads list one tensor under two names.
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {id(theirs[name]): (mine[name], theirs[name]) for name in mine}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Takes in the network's state after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        for average, value in self._pairs.values():
            if average.is_floating_point():
                # So what never changes stays as it is, to the last bit.
                average.add_((value.astype(average.dtype) - average) * (1 - decay))
            else:
                average.set_value(value)
