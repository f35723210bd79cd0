"""Several CPU cores for one step: Paddle's kernels for training use one each, so parts of a batch run side by side."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import paddle
from paddle import Tensor, nn

from slicedet.networks.heads.distribution import Level

Compute = Callable[[nn.Layer, Tensor], Sequence[Level]]


class Replicas:
    """Copies of a network, each of which runs a part of every batch in a thread of its own.

    The loss is computed of the batch as a whole, so gradients are those of the network alone but for the order of
    summation. Batch norms that are not frozen normalise each part by itself, as on several devices; their running
    statistics are the mean of those of the parts, each weighted by its share of the batch. Results depend on the number
    of replicas, with frozen norms in their last digits only, and never on timing.
    """

    def __init__(self, network: nn.Layer, count: int) -> None:
        self._networks = [network, *(copy.deepcopy(network) for _ in range(count - 1))]
        self._pool = ThreadPoolExecutor(count, "slicedet-replica") if count > 1 else None
        self._norms = list(zip(*(_norms(each) for each in self._networks), strict=True))
        self._shares: list[float] = []
        self._outputs: list[list[Tensor]] = []

    def forward(self, images: Tensor, compute: Compute) -> list[Level]:
        """What the network returns for images [B, 3, H, W], as leaves of the graph; `compute` runs one network."""
        if self._pool is None:
            return list(compute(self._networks[0], images))
        self._share()
        parts = [part for part in paddle.tensor_split(images, len(self._networks)) if part.shape[0]]
        self._shares = [part.shape[0] / images.shape[0] for part in parts]
        results = list(self._pool.map(compute, self._networks, parts))
        self._outputs = [[tensor for level in result for tensor in level] for result in results]
        whole = [paddle.concat([tensor.detach() for tensor in same]) for same in zip(*self._outputs, strict=True)]
        for tensor in whole:
            tensor.stop_gradient = False
        return list(zip(whole[::2], whole[1::2], strict=True))

    def backward(self, loss: Tensor, levels: Sequence[Level]) -> None:
        """Adds to the gradients of the network those of a loss computed from what `forward` gave."""
        loss.backward()
        if self._pool is None:
            return
        whole = [tensor for level in levels for tensor in level]
        starts = [0]
        for outputs in self._outputs:
            starts.append(starts[-1] + outputs[0].shape[0])
        jobs = []
        for outputs, first, end in zip(self._outputs, starts, starts[1:], strict=False):
            pairs = [
                (out, tensor.grad[first:end])
                for out, tensor in zip(outputs, whole, strict=True)
                if tensor.grad is not None
            ]
            jobs.append(
                self._pool.submit(paddle.autograd.backward, *(list(column) for column in zip(*pairs, strict=True)))
            )
        for job in jobs:
            job.result()
        self._outputs = []
        self._gather()

    @paddle.no_grad()
    def _gather(self) -> None:
        """Sums all gradients into the network's, and averages its running statistics."""
        for first, *others in zip(*(each.parameters() for each in self._networks), strict=True):
            for other in others:
                if other.grad is not None:
                    first.grad = other.grad if first.grad is None else first.grad + other.grad
                    other.clear_gradient(set_to_zero=False)
        for norms in self._norms:
            if norms[0]._use_global_stats:
                continue  # A mean of what never changes could differ from it in the last bit.
            for statistic in ("_mean", "_variance"):
                # Replicas beyond the shares had no part of the batch.
                parts = [getattr(norm, statistic) * share for norm, share in zip(norms, self._shares, strict=False)]
                getattr(norms[0], statistic).set_value(sum(parts))

    @paddle.no_grad()
    def _share(self) -> None:
        """Gives all copies the state of the network."""
        for other in self._networks[1:]:
            for mine, theirs in zip(_tensors(self._networks[0]), _tensors(other), strict=True):
                theirs.set_value(mine)


def count_for(network: nn.Layer, device: str, batch: int) -> int:
    """How many replicas suit a network: one for each CPU core, one alone on other devices.

    One, too, for a network with dropout: its random numbers come from one row for all threads, so that results would
    depend on timing.
    """
    dropping = any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in network.sublayers())
    if not device.startswith("cpu") or dropping:
        return 1
    return max(1, min(_cores(), batch))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _norms(network: nn.Layer) -> list[nn.BatchNorm2D]:
    return [layer for layer in network.sublayers(include_self=True) if isinstance(layer, nn.BatchNorm2D)]


def _tensors(network: nn.Layer) -> list[Any]:
    return [*network.parameters(), *network.buffers()]
