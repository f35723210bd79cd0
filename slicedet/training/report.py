"""What a training leaves to be read: train.log, curves.png and train_result.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slicedet.outputs.files import staged, write_errors
from slicedet.training.checkpoint import write

LOG, CURVES, RESULT, CONFIG = "train.log", "curves.png", "train_result.json", "config.yaml"

Record = dict[str, Any]


class Log:
    """One JSON object a line, in a file that holds `history` at first."""

    def __init__(self, path: Path, history: Sequence[Record]) -> None:
        self._path = path
        write("".join(json.dumps(record) + "\n" for record in history).encode(), path)

    def add(self, record: Record) -> None:
        """Adds a line. Raises OutputError where it cannot be written."""
        with write_errors(self._path, self._path.parent), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def line(record: Mapping[str, Any]) -> str:
    """A record of the log as people read it."""
    if "ap" in record:
        scores = f"AP {record['ap']:.4f}, AP50 {record['ap50']:.4f}, threshold {record['threshold']:.3g}"
        return f"step {record['step']}: {scores}" + (", the best so far" if record["best"] else "")
    if "loss" not in record:
        return str(record["message"])
    terms = " ".join(f"{name} {value:.3f}" for name, value in record.items() if name.startswith("loss"))
    hours, rest = divmod(round(record["seconds_left"]), 3600)
    return (
        f"step {record['step']}/{record['steps']} epoch {record['epoch']}: {terms} rate {record['rate']:.2e} "
        f"{record['seconds_per_step']:.2f} s/step, {hours}:{rest // 60:02}:{rest % 60:02} left"
    )


def draw_curves(history: Sequence[Record], path: Path) -> None:
    """Loss terms, rate and average precision over the steps, as a PNG. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = [record for record in history if "loss" in record]
    scores = [record for record in history if "ap" in record]
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    terms, rates, precision = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2))
    # A line through one point is not to be seen.
    style: dict[str, Any] = {"linewidth": 1, "marker": "." if len(losses) == 1 else ""}
    for name in [key for key in losses[0] if key.startswith("loss")] if losses else []:
        terms.plot([each["step"] for each in losses], [each[name] for each in losses], label=name, **style)
    rates.plot([each["step"] for each in losses], [each["rate"] for each in losses], color="tab:gray", **style)
    for key, label in (("ap", "AP"), ("ap50", "AP50")) if scores else ():
        precision.plot([each["step"] for each in scores], [each[key] for each in scores], marker=".", label=label)
    terms.set(ylabel="loss", ylim=(0, None))
    rates.set(ylabel="learning rate", ylim=(0, None))
    precision.set(ylabel="validation", xlabel="step", ylim=(0, 1))
    for axes in (terms, precision):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
    with staged(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=110)


def write_result(folder: Path, name: str, categories: Sequence[str], last: Record | None, best: Record | None) -> None:
    """train_result.json with the keys of PaddleX's; what slicedet does not make is "". Raises OutputError."""
    inference = "best_model/inference"
    content = {
        "model_name": name,
        "label_dict": dict(enumerate(categories)),
        "visualdl_log": "",
        "train_log": LOG,
        "config": CONFIG,
        "models": {
            "last_1": {"score": _score(last), "checkpoint": "last.npz"},
            "best": {
                "score": _score(best),
                "pdparams": "best_model/best_model.pdparams",
                "pdema": "",
                "pdopt": "",
                "pdstates": "",
                "inference_config": f"{inference}/inference.yml",
                "pdmodel": f"{inference}/inference.json",
                "pdiparams": f"{inference}/inference.pdiparams",
                "pdiparams.info": "",
            },
        },
        "done_flag": True,
    }
    write(json.dumps(content, indent=2, ensure_ascii=False).encode(), folder / RESULT)


def _score(record: Record | None) -> float | str:
    return record["ap"] if record else ""
