"""From slicedet.networks to a Paddle model in a folder."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicedet.errors import InvalidConfig, ModelMismatch
from slicedet.models.config import InputConfig, ModelConfig, OutputConfig
from slicedet.models.paddle_folder import PaddleModel
from slicedet.models.pdparams import load_pdparams
from slicedet.models.program import Program
from slicedet.paddle_import import import_paddle

if TYPE_CHECKING:
    from paddle.nn import Layer

    from slicedet.networks import Network


def exported(config: ModelConfig) -> ModelConfig:
    """What the network of a configuration is once it is exported: boxes and scores come out, whatever other files of
    the model give.

    Raises InvalidConfig where it states no network, or not how its boxes are suppressed.
    """
    if config.network is None:
        raise InvalidConfig(f"{config.name}: its configuration describes no network that parameters could fill")
    if config.nms is None:
        raise InvalidConfig(f"{config.name}: its configuration states no nms, which its network needs")
    return replace(config, output=OutputConfig("boxes-and-scores"))


def built(config: ModelConfig, weights: Path) -> Network:
    """The network of a configuration with the parameters of a .pdparams file.

    Raises ModelMismatch where the parameters are not those of the network, saying how many differ.
    """
    assert config.network is not None  # Said by `exported`.
    values: dict[str, Any] = load_pdparams(weights)
    import_paddle()
    from slicedet import networks

    try:
        network = networks.assemble(config.network, len(config.categories))
    except InvalidConfig:
        raise
    except Exception as error:  # Whatever Paddle raises of sizes that make no layer.
        raise InvalidConfig(
            f"{config.name}: its network cannot be built: {' '.join(str(error).split())[:200]}"
        ) from error
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: value.shape for name, value in values.items()}
    different = [name for name in [*wanted, *(given.keys() - wanted.keys())] if wanted.get(name) != given.get(name)]
    if different:
        shown = ", ".join(f"{name} {_shown(given.get(name))} for {_shown(wanted.get(name))}" for name in different[:3])
        raise ModelMismatch(f"{weights}: {len(different)} parameters are not those of {config.name}: {shown}")
    network.set_state_dict(values)
    return network


def save(network: Network, config: ModelConfig, folder: Path) -> PaddleModel:
    """Writes the network as a program for images of the configuration's size, in batches of any, without
    suppression."""
    import_paddle()
    from slicedet.models import deployment

    save_layer(deployment.reparameterised(network), config.input, folder / "model")
    program = folder / "model.json"
    whole = replace(config, output=OutputConfig("boxes-and-scores"))
    return PaddleModel(program, folder / "model.pdiparams", whole, Program(program))


def save_layer(layer: Layer, source: InputConfig, stem: Path, scale_factor: bool = False) -> None:
    """Writes STEM.json and STEM.pdiparams: the layer as a program that takes images of the configured size, or of any
    if that is dynamic, and, if it has one, the factor they were resized by."""
    import paddle

    from slicedet.models import deployment

    width, height = (None, None) if source.dynamic else source.size
    specs = [paddle.static.InputSpec([None, 3, height, width], "float32", "image")]
    if scale_factor:
        specs.append(paddle.static.InputSpec([None, 2], "float32", "scale_factor"))
    if not source.dynamic:
        layer = deployment.Traced(layer)
        layer.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paddle.jit.save(paddle.jit.to_static(layer, specs, full_graph=True), str(stem))


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))
