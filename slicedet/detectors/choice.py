"""How a model can be run on this machine, and how `slicedet bench` chose to: what precision "auto" stands for."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from slicedet.errors import ModelWarning
from slicedet.models import cache

ENGINES = ("openvino", "onnxruntime", "paddle")
PRECISIONS = ("f32", "bf16", "f16")

_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_PACKAGES = ("openvino", "onnxruntime", "paddlepaddle", "paddle-custom")
"""How the packages of engines begin, whatever device they are built for."""

_LARGEST = 1 << 16


@dataclass(frozen=True)
class EngineChoice:
    """One way to run a model. streams: requests at the same time, None for as many as the engine likes."""

    engine: str
    precision: str = "f32"
    streams: int | None = None


def precisions(engine: str, device: str) -> tuple[str, ...]:
    """The precisions that an engine has on a device, f32 first; all of them where OpenVINO does not know the device."""
    if engine != "openvino":
        return ("f32",)
    import openvino

    try:
        capabilities = openvino.Core().get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
    except RuntimeError:
        return PRECISIONS
    return tuple(precision for precision in PRECISIONS if _CAPABILITIES[precision] in capabilities)


def options(engine: str, device: str) -> list[EngineChoice]:
    """All ways in which an engine may run a model on a device that are worth trying, the engine's own f32 first."""
    cores = os.cpu_count() or 1
    numbers = (1, cores // 2, cores) if device == "cpu" else (1, 2, 4)
    streams = [None, *sorted({number for number in numbers if number})] if engine != "paddle" else [None]
    return [EngineChoice(engine, precision, each) for precision in precisions(engine, device) for each in streams]


def circumstances(model: str, weights_sha256: str, device: str) -> dict[str, Any]:
    """All that a choice depends on: the model, its weights, the device, the machine and the versions of the engines."""
    import openvino

    core = openvino.Core()
    versions = {dist.name: dist.version for dist in distributions() if (dist.name or "").startswith(_PACKAGES)}
    return {
        "model": model,
        "weights_sha256": weights_sha256,
        "device": device,
        "hardware": {name: core.get_property(name, "FULL_DEVICE_NAME") for name in core.available_devices},
        # Processors of one name differ in both, where they are virtual.
        "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "cores": os.cpu_count(),
        "engines": dict(sorted(versions.items())),
    }


def folder() -> Path:
    """Where choices are kept, made if it is not there. Raises OutputError where nothing can be written in it."""
    place = cache.home() / "bench"
    with cache.writing(place):
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    return place


def store(under: Mapping[str, Any], chosen: Mapping[str, EngineChoice]) -> Path:
    """Keeps what was chosen under these circumstances, by the engine asked for or "auto"; the file, in the cache.

    Raises OutputError where it cannot be written.
    """
    content = {"circumstances": under, "chosen": {name: asdict(choice) for name, choice in chosen.items()}}
    target = folder() / _name(under)
    with cache.writing(target), tempfile.TemporaryDirectory(dir=target.parent) as staging:
        made = Path(staging) / target.name
        made.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(made, target)
    return target


def recall(under: Mapping[str, Any], engine: str) -> EngineChoice | None:
    """What was chosen under these circumstances for an engine, or for "auto"; None if nothing was.

    Warns (ModelWarning) of a file that `store` did not write like that, and takes it for none.
    """
    path = cache.home() / "bench" / _name(under)
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST))
        if content["circumstances"] != under:
            raise ValueError("it is of other circumstances")
        stated = content["chosen"].get(engine)
        if stated is None:
            return None
        choice = EngineChoice(**stated)
        if choice.engine not in ENGINES or engine not in ("auto", choice.engine):
            raise ValueError("it names another engine")
        # Of what is there, so that nothing but equality is asked of what the file says.
        return next(each for each in options(choice.engine, str(under["device"])) if each == choice)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, StopIteration):
        warnings.warn(f"{path}: not what slicedet bench writes on this machine; ignored", ModelWarning, stacklevel=2)
        return None


def _name(under: Mapping[str, Any]) -> str:
    """The name of the file for these circumstances."""
    return f"{hashlib.sha256(json.dumps(under, sort_keys=True).encode()).hexdigest()[:32]}.json"
