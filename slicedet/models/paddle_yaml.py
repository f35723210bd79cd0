"""The YAML that PaddleDetection and PaddleX read beside a program, written; paddle_folder reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicedet.models import catalogue
from slicedet.models.config import INTERPOLATIONS, InputConfig, ModelConfig

if TYPE_CHECKING:
    from slicedet.networks import Network


def fuses(network: Network, source: InputConfig) -> bool:
    """Whether the graph normalises: PP-YOLOE's as the official ones do, others where the YAML cannot say it."""
    from slicedet.networks.heads.ppyoloe import PPYOLOEHead

    head = network.detection_head()
    return isinstance(head, PPYOLOEHead) or source.channels == "bgr" or source.divide not in (1.0, 255.0)


def written(network: Network, config: ModelConfig, fused: bool) -> str:
    """The text of the YAML for a network whose graph normalises (`fused`) or does not."""
    import yaml

    from slicedet.networks.heads.ppyoloe import PPYOLOEHead

    source, nms = config.input, config.nms
    assert nms is not None
    head = network.detection_head()
    of_yolo = isinstance(head, PPYOLOEHead)
    steps: list[dict[str, Any]] = [
        {
            "type": "Resize",
            "interp": INTERPOLATIONS.index(source.interpolation),
            "keep_ratio": False,
            "target_size": [source.size[1], source.size[0]],
        }
    ]
    if not fused:
        steps.append(
            {
                "type": "NormalizeImage",
                "is_scale": source.divide == 255,
                "mean": list(source.mean),
                "std": list(source.std),
                "norm_type": "mean_std",
            }
        )
    steps.append({"type": "Permute"})
    content: dict[str, Any] = {
        "mode": "paddle",
        "draw_threshold": 0.5,
        "metric": "COCO",
        "use_dynamic_shape": source.dynamic,
        "Global": {"model_name": _paddlex_name(config, of_yolo)},
        "arch": "YOLO" if of_yolo else "GFL",
        "min_subgraph_size": 3,
        "Preprocess": steps,
        "label_list": list(config.categories),
        "NMS": {
            "name": "MultiClassNMS",
            "score_threshold": nms.score_threshold,
            "nms_threshold": nms.iou,
            "nms_top_k": nms.top_k,
            "keep_top_k": nms.keep,
        },
        "fpn_stride": list(head.strides),
        "slicedet": {
            key: value
            for key, value in (
                ("name", config.name),
                ("gsd", config.gsd),
                ("slice", config.slice),
                ("threshold", config.threshold),
                ("box_voting", config.box_voting),
                ("half_turn", config.half_turn or None),
            )
            if value is not None
        },
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _paddlex_name(config: ModelConfig, of_yolo: bool) -> str:
    """The name under which PaddleX runs a network: that of the same network, else of a relative. PaddleX takes no name
    it does not know, and does the same for all models of a kind."""
    for name in catalogue.names():
        known = catalogue.find(name)
        if known.aliases and known.network == config.network:
            return known.aliases[0]
    return "PP-YOLOE_plus-S" if of_yolo else "PicoDet-S"
