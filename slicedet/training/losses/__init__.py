"""Training losses of the three heads, with the official assigners and weights (PaddleDetection's)."""

from __future__ import annotations

from slicedet.networks import Network
from slicedet.networks.heads.pico import PicoHead
from slicedet.networks.heads.pico_v2 import PicoHeadV2
from slicedet.networks.heads.ppyoloe import PPYOLOEHead
from slicedet.training.losses.base import Criterion
from slicedet.training.losses.pico import PicoCriterion
from slicedet.training.losses.pico_v2 import PicoV2Criterion
from slicedet.training.losses.ppyoloe import PPYOLOECriterion

__all__ = ["Criterion", "criterion"]


def criterion(network: Network, static_assigner_epoch: int = 100) -> Criterion:
    """The loss that the network's head is trained with.

    static_assigner_epoch: first epoch, counted from 0, in which PicoDet's second version matches points to boxes by its
    own predictions; before it, by the places of the points alone. The other heads use their predictions from the start.
    """
    head = network.detection_head()
    if isinstance(head, PicoHeadV2):
        return PicoV2Criterion(head, static_assigner_epoch)
    if isinstance(head, PicoHead):
        return PicoCriterion(head)
    if isinstance(head, PPYOLOEHead):
        return PPYOLOECriterion(head)
    raise TypeError(f"no loss for a {type(head).__name__}")
