"""The loss of PP-YOLOE (arXiv 2203.16250) and PP-YOLOE+ SOD."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor
from paddle.nn import functional as F

from slicedet.networks.heads.distribution import Level
from slicedet.training.losses.assignment import Assigner, Floats
from slicedet.training.losses.base import Criterion, Targets, class_map, process_mean, weighted
from slicedet.training.losses.task_aligned import CenteredTaskAligned, TaskAligned


class PPYOLOECriterion(Criterion):
    """All terms are weighed by the scores of the matches; `loss_l1` is not, and no part of the loss."""

    margin = 0.01

    def assigner(self, epoch: int) -> Assigner:
        # Only a head with bins below 0 can place a box that its point lies outside of.
        return CenteredTaskAligned() if float(self._head.bins()[0]) < 0 else TaskAligned()

    def terms(self, levels: Sequence[Level], targets: Targets, scores: Floats) -> dict[str, Tensor]:
        logits = class_map(levels)
        classes = self.class_loss(F.sigmoid(logits), F.softplus(logits), targets)
        normaliser = process_mean(float(targets.scores.sum()))
        terms = {"loss_cls": classes / normaliser}
        if len(targets.points):
            box = self.box_losses(levels, targets)
            terms["loss_iou"] = weighted(box.giou, targets.scores, normaliser)
            terms["loss_dfl"] = weighted(box.distribution, targets.scores, normaliser)
            terms["loss_l1"] = F.l1_loss(box.distances, paddle.to_tensor(targets.distances)).detach()
        else:
            terms["loss_iou"] = terms["loss_dfl"] = self.no_box_loss(levels)
            terms["loss_l1"] = paddle.zeros([])
        return {**terms, "loss": terms["loss_cls"] + 2.5 * terms["loss_iou"] + 0.5 * terms["loss_dfl"]}
