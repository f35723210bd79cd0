"""Networks by name: a backbone, a neck and a head, as the `network` section of a configuration describes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from paddle import Tensor, nn

from slicedet.errors import InvalidConfig, UnknownModel
from slicedet.networks.backbones.cspresnet import CSPResNet
from slicedet.networks.backbones.esnet import ESNet
from slicedet.networks.backbones.lcnet import LCNet
from slicedet.networks.backbones.mobilenet_v3 import MobileNetV3
from slicedet.networks.backbones.shufflenet_v2 import ShuffleNetV2
from slicedet.networks.heads.distribution import DistributionHead, Level
from slicedet.networks.heads.pico import PicoHead
from slicedet.networks.heads.pico_v2 import PicoHeadV2
from slicedet.networks.heads.ppyoloe import PPYOLOEHead
from slicedet.networks.necks.csp_pan import CSPPAN
from slicedet.networks.necks.custom_csp_pan import CustomCSPPAN
from slicedet.networks.necks.lc_pan import LCPAN

_PARTS: dict[str, dict[str, type[nn.Layer]]] = {
    "backbone": {kind.__name__: kind for kind in (CSPResNet, ESNet, LCNet, MobileNetV3, ShuffleNetV2)},
    "neck": {kind.__name__: kind for kind in (CSPPAN, CustomCSPPAN, LCPAN)},
    "head": {kind.__name__: kind for kind in (PicoHead, PicoHeadV2, PPYOLOEHead)},
}


class Network(nn.Layer):
    """A detector without suppression. Its state dict has the names and shapes of PaddleDetection's.

    images: [B, 3, H, W], normalised as the model's configuration says; H and W divisible by 32.
    In eval mode: boxes [B, N, 4] as x1 y1 x2 y2 in input pixels, unclipped, and scores [B, C, N].
    In training mode: for each level its class map and distance logits (see DistributionHead).
    """

    def __init__(self, backbone: nn.Layer, neck: nn.Layer, head: DistributionHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self._head_name = head.state_name
        self.add_sublayer(head.state_name, head)

    def detection_head(self) -> DistributionHead:
        """The head, whatever its name in the state dict."""
        return getattr(self, self._head_name)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor] | list[Level]:
        head = self.detection_head()
        levels = head(self.neck(self.backbone(images)))
        return levels if self.training else head.decode(levels)


def build(name: str) -> Network:
    """The network of a catalogue name, with random weights and in eval mode.

    Raises UnknownModel for a name that is not in the catalogue, or whose configuration describes no network.
    """
    config = _read(name) if name in _configured() else {}
    if "network" not in config:
        close = difflib.get_close_matches(name, names())
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names())}"
        raise UnknownModel(f"{name}: no network of this name; {hint}")
    return assemble(config["network"], _num_classes(config["categories"]))


def names() -> list[str]:
    """Names of all catalogue models whose network can be built, sorted."""
    return sorted(name for name in _configured() if "network" in _read(name))


def assemble(description: Mapping[str, Any], num_classes: int) -> Network:
    """The network that the `network` section of a configuration describes, with random weights and in eval mode.

    description: for each of backbone, neck and head, the `type` of the part and its parameters.
    Raises InvalidConfig for an unknown type or parameters it does not take.
    """
    backbone = _part("backbone", description)
    neck = _part("neck", description, in_channels=backbone.out_channels)
    head = _part("head", description, in_channels=neck.out_channels, num_classes=num_classes)
    if len(head.strides) != len(neck.out_channels):
        raise InvalidConfig(f"network.head.strides: expected {len(neck.out_channels)} numbers")
    network = Network(backbone, neck, head)
    network.eval()
    return network


def _part(role: str, description: Mapping[str, Any], **given: Any) -> Any:
    """One part of a network; `given` is what follows from the parts before it."""
    stated = description.get(role)
    if not isinstance(stated, Mapping) or stated.get("type") not in _PARTS[role]:
        raise InvalidConfig(f"network.{role}: expected a type among {', '.join(_PARTS[role])}")
    parameters = {key: value for key, value in stated.items() if key != "type"}
    try:
        return _PARTS[role][stated["type"]](**given, **parameters)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(f"network.{role}: {error}") from error


def _configured() -> list[str]:
    folder = files("slicedet.configs")
    return [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((files("slicedet.configs") / f"{name}.yaml").read_text(encoding="utf-8"))


def _num_classes(categories: str | list[str]) -> int:
    """The number of classes of a list of names, or of a list that comes with slicedet."""
    if isinstance(categories, list):
        return len(categories)
    listing = files("slicedet.configs") / "categories" / f"{categories}.txt"
    return len(listing.read_text(encoding="utf-8").splitlines())
