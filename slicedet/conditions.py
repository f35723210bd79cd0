"""Conditions: all that decides a result, but the image itself; kept with results and compared with later wishes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slicedet import __version__
from slicedet.detectors.protocol import Detector, provenance_of, tile_size_of
from slicedet.models import cache
from slicedet.pipeline import Settings
from slicedet.raster.source import shown
from slicedet.tiling import parse_overlap, parse_slice

_SPEED_ONLY = ("streams",)
"""What a detector says of how fast it runs. Machines that share a batch differ in it."""


def conditions(
    detector: Detector, settings: Settings, scene_options: Mapping[str, Any], formats: Sequence[str] = ()
) -> dict[str, Any]:
    """All that decides a result, ready for JSON, but for the image itself."""
    values = asdict(settings)
    values["overlap"] = parse_overlap(settings.overlap)
    values["classes"] = None if settings.classes is None else sorted(set(settings.classes))
    size = settings.slice or tile_size_of(detector)
    values["slice"] = None if size is None else parse_slice(size)
    if settings.roi is not None and Path(settings.roi).is_file():
        values["roi"] = f"sha256:{cache.digest(Path(settings.roi))}"
    elif settings.roi is not None:
        values["roi"] = shown(str(settings.roi))
    everything = {
        "slicedet": __version__,
        "settings": values,
        "scene": dict(scene_options),
        "formats": list(formats),
        "categories": list(detector.categories),
        "detector": {key: value for key, value in provenance_of(detector).items() if key not in _SPEED_ONLY},
    }
    plain: dict[str, Any] = json.loads(json.dumps(everything, default=str, sort_keys=True))
    return plain


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two sets of conditions, in words; empty where nothing does."""
    old, new = dict(_flat(before)), dict(_flat(now))
    found = [
        f"{name} was {_shown(old.get(name))}, now {_shown(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if name == "settings" else f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: Any) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
