"""Trainings that go on: after a kill, for longer, and in another folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import configured, message, train, write_dataset

from slicedet.errors import CorruptFile, InvalidTraining, OutputError
from slicedet.models.pdparams import load_pdparams
from slicedet.training import checkpoint
from slicedet.training.config import TrainingConfig, load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    """A training of one step with one validation, which has been run."""
    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder)
    write_dataset(folder, role="val", images=1)
    config = configured(folder, steps=1, evaluation={"slice": "full"})
    train(config)
    return config


@pytest.fixture
def trained(finished: TrainingConfig, tmp_path: Path) -> TrainingConfig:
    """The same, with results of its own to be changed, in a folder whose name looks like a file's."""
    shutil.copytree(finished.output, tmp_path / "run.1")
    return replace(finished, output=tmp_path / "run.1")


KILLED = """
import os, signal, sys
from slicedet.training.config import load
from slicedet.training.trainer import train

def listen(record):
    if record.get("step") == 4:
        os.kill(os.getpid(), signal.SIGKILL)

train(load(sys.argv[1]), listen=listen)
"""
"""A training that is killed between the fourth step and its checkpoint."""


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.startswith("seconds")}


def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", images=1)
    config = configured(
        tmp_path,
        steps=5,
        log_interval=4,
        eval_steps=2,
        frozen_norms=False,
        augmentation={"mosaic": 0.3},
        evaluation={"slice": "full"},
    )
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "training.yaml")], capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    reached = checkpoint.load(config.output / "last.npz").record
    assert (reached["step"], len(reached["pending"]), reached["best"]["step"]) == (3, 3, 2)
    train(config, resume=True)
    unbroken = replace(config, output=tmp_path / "unbroken", workers=0)
    train(unbroken)
    one, other = (checkpoint.load(folder / "last.npz") for folder in (config.output, unbroken.output))
    assert one.record["step"] == other.record["step"] == 5
    for part, arrays in other.arrays.items():
        assert one.arrays[part].keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(one.arrays[part][name], value, err_msg=f"{part} {name}")
    assert one.record["best"] == other.record["best"]
    best = "best_model/best_model.pdparams"
    assert (config.output / best).read_bytes() == (unbroken.output / best).read_bytes()
    logs = [(folder / "train.log").read_text().splitlines() for folder in (config.output, unbroken.output)]
    untimed = [[timeless(json.loads(line)) for line in log] for log in logs]
    assert untimed[0] == untimed[1]
    assert [(each["step"], "loss" in each) for each in untimed[0]] == [
        (2, False),
        (4, True),
        (4, False),
        (5, True),
        (5, False),
    ]


def test_what_cannot_be_resumed(trained: TrainingConfig, tmp_path: Path) -> None:
    config = trained
    with pytest.raises(InvalidTraining, match=r"last\.npz: no such checkpoint"):
        train(replace(config, output=tmp_path / "none"), resume=True)
    with pytest.raises(InvalidTraining, match=r"run\.1: resume goes on with a training, overwrite begins anew; choose"):
        train(replace(config, resume=config.output), overwrite=True)
    with pytest.raises(InvalidTraining, match=r"last\.npz: is of another network: \d+ parameters differ"):
        train(replace(config, model="picodet_m_320_coco"), resume=True)
    with pytest.raises(InvalidTraining, match=r"last\.npz: is of another network or of other categories \(car\)"):
        train(replace(config, categories={"vehicle": ("car",)}), resume=True)
    with pytest.raises(OutputError, match="holds a training already"):
        train(config)


def test_resume_is_of_one_run(trained: TrainingConfig) -> None:
    """The configuration that a resumed training saves begins anew where it is told to."""
    last = trained.output / "last.npz"
    assert message(1, replace(trained, resume=trained.output)) == f"goes on with the weights of {last}"
    assert "from step 1 " in message(2, replace(trained, steps=2), resume=True)
    saved = load(trained.output / "config.yaml")
    assert (saved.resume, saved.steps) == (None, 2)
    assert "from step 0 " in message(2, saved, overwrite=True)


def test_finished_training_goes_on_elsewhere(trained: TrainingConfig, tmp_path: Path) -> None:
    """No step is left, so no validation keeps the best weights there."""
    outcome = train(replace(trained, output=tmp_path / "elsewhere", resume=trained.output))
    assert outcome.best is None
    assert outcome.weights.read_bytes() == (trained.output / "best_model" / "best_model.pdparams").read_bytes()
    assert (outcome.model / "inference.json").is_file()


def test_last_weights_are_the_best_without_validation(trained: TrainingConfig) -> None:
    """Also where validations came before."""
    heard: list[str] = []
    more = replace(trained, steps=2, val=())
    outcome = train(more, resume=True, listen=lambda record: heard.append(record.get("message", "")))
    assert [each.partition(":")[0] for each in heard if each][2:] == ["no validation"]
    assert outcome.best is None
    average = checkpoint.load(trained.output / "last.npz").arrays["average"]
    for name, value in load_pdparams(outcome.weights).items():
        np.testing.assert_array_equal(value, average[name], err_msg=name)


@pytest.mark.parametrize("change", ["shape", "kind", "dtype", "missing", "terms", "weights"])
def test_checkpoints_that_do_not_fit_are_said(trained: TrainingConfig, change: str) -> None:
    last = trained.output / "last.npz"
    kept = checkpoint.load(last)
    arrays = {part: dict(content) for part, content in kept.arrays.items()}
    state, record = arrays["optimizer"], dict(kept.record)
    first = next(name for name, value in state.items() if value.ndim > 1)
    if change == "shape":
        state[first] = np.ones(5, np.float32)
    elif change == "kind":
        state[first.partition("|")[0] + "|_strange_0"] = state.pop(first)
    elif change == "dtype":
        state[first] = state[first].astype(str)
    elif change == "missing":
        del state[first]
    elif change == "terms":
        record["pending"] = [{"loss": 1.0, "loss_strange": 1.0}]
    else:
        name = next(iter(arrays["model"]))
        arrays["model"][name] = arrays["model"][name].astype(str)
    checkpoint.save(checkpoint.Checkpoint(arrays, record), last)
    with pytest.raises((CorruptFile, InvalidTraining), match=r"last\.npz: (is no checkpoint|is of|its optimizer)"):
        train(replace(trained, steps=2), resume=True)
