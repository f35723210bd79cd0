"""The loss of PicoDet's second version."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor

from slicedet.networks.heads.distribution import DistributionHead, Level
from slicedet.training.losses.assignment import Assigner, Floats
from slicedet.training.losses.atss import ATSS
from slicedet.training.losses.base import Criterion, Targets, class_map, process_mean, weighted
from slicedet.training.losses.task_aligned import TaskAligned
from slicedet.training.losses.varifocal import SMALLEST


class PicoV2Criterion(Criterion):
    """All terms are weighed by the scores of the matches.

    static_assigner_epoch: first epoch of the task-aligned assigner; ATSS serves before it.
    """

    margin = 0.1

    def __init__(self, head: DistributionHead, static_assigner_epoch: int) -> None:
        super().__init__(head)
        self._static_assigner_epoch = static_assigner_epoch

    def assigner(self, epoch: int) -> Assigner:
        return ATSS() if epoch < self._static_assigner_epoch else TaskAligned()

    def terms(self, levels: Sequence[Level], targets: Targets, scores: Floats) -> dict[str, Tensor]:
        found = class_map(levels)
        classes = self.class_loss(found, -(1 - found).clip(min=SMALLEST).log(), targets)
        normaliser = process_mean(float(targets.scores.sum()))
        terms = {"loss_vfl": classes / normaliser}
        if len(targets.points):
            box = self.box_losses(levels, targets)
            terms["loss_bbox"] = 2.5 * weighted(box.giou, targets.scores, normaliser)
            terms["loss_dfl"] = 0.5 * weighted(box.distribution, targets.scores, normaliser)
        else:
            terms["loss_bbox"] = terms["loss_dfl"] = self.no_box_loss(levels)
        return {**terms, "loss": terms["loss_vfl"] + terms["loss_bbox"] + terms["loss_dfl"]}
