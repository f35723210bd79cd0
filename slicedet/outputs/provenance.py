"""The provenance of a run as JSON beside its outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from slicedet.outputs.files import check_target, staged


def save_provenance(run: dict[str, Any], path: str | Path, overwrite: bool = False) -> Path:
    """Writes what a run was made with (versions, arguments, times) as JSON; named `<stem>.run.json` by convention.

    Raises OutputError where the file cannot be written, or exists and `overwrite` is not set.
    """
    target = Path(path)
    check_target(target, overwrite)
    with staged(target, overwrite) as temporary:
        temporary.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return target
