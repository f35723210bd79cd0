"""The loss of PicoDet's first version (arXiv 2111.00902)."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor
from paddle.nn import functional as F

from slicedet.networks.heads.distribution import Level
from slicedet.training.losses.assignment import Assigner, Floats
from slicedet.training.losses.base import Criterion, Targets, class_map, process_mean, weighted
from slicedet.training.losses.simota import SimOTA


class PicoCriterion(Criterion):
    """Varifocal loss of classes per match; box losses weighed by the highest class score at their point."""

    margin = 0.1

    def assigner(self, epoch: int) -> Assigner:
        return SimOTA()

    def terms(self, levels: Sequence[Level], targets: Targets, scores: Floats) -> dict[str, Tensor]:
        logits = class_map(levels)
        classes = self.class_loss(F.sigmoid(logits), F.softplus(logits), targets)
        terms = {"loss_vfl": classes / process_mean(len(targets.points))}
        weights = scores[targets.images, :, targets.points].max(axis=1)
        normaliser = process_mean(float(weights.sum()))
        if len(targets.points):
            box = self.box_losses(levels, targets)
            terms["loss_bbox"] = 2.0 * weighted(box.giou, weights, normaliser)
            terms["loss_dfl"] = 0.25 * weighted(box.distribution, weights, normaliser)
        else:
            terms["loss_bbox"] = terms["loss_dfl"] = self.no_box_loss(levels)
        return {**terms, "loss": terms["loss_vfl"] + terms["loss_bbox"] + terms["loss_dfl"]}
