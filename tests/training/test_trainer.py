"""The trainer on a dataset of three small images: results, resuming, and what stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from slicedet.cli import main
from small_data import settings, write_dataset

import slicedet
from slicedet.errors import InvalidDataset, InvalidTraining, OutputError
from slicedet.training import checkpoint
from slicedet.training.config import TrainingConfig, load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def configured(folder: Path, **changes: Any) -> TrainingConfig:
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(settings(folder, **changes)))
    return load(path)


def train(config: TrainingConfig, **arguments: Any) -> Any:
    from slicedet.training.trainer import train as run

    return run(config, **arguments)


KILLED = """
import sys
from slicedet.training.config import load
from slicedet.training.trainer import train
train(load(sys.argv[1]), listen=lambda record: print(record.get("step"), flush=True))
"""


def test_killed_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    config = configured(tmp_path, steps=6, log_interval=1, frozen_norms=False, augmentation={"mosaic": 0.3})
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "training.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "2":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    reached = checkpoint.load(config.output / "last.npz").record["step"]
    assert 1 <= reached < 6
    train(config, resume=True)
    unbroken = replace(config, output=tmp_path / "unbroken", workers=0)
    train(unbroken)
    one, other = (checkpoint.load(folder / "last.npz") for folder in (config.output, unbroken.output))
    assert one.record["step"] == other.record["step"] == 6
    for part, arrays in other.arrays.items():
        assert one.arrays[part].keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(one.arrays[part][name], value, err_msg=f"{part} {name}")
    losses = [[each["loss"] for each in point.record["history"]] for point in (one, other)]
    assert losses[0] == losses[1]
    lines = (config.output / "train.log").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 7))


def test_command_and_its_results(tmp_path: Path) -> None:
    """From a configuration to predictions of the exported model."""
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", images=1)
    configured(tmp_path, name="bright", evaluation={"slice": "full"})
    answer = CliRunner().invoke(main, ["train", str(tmp_path / "training.yaml"), "--set", "steps=3", "--json"])
    assert answer.exit_code == 0, answer.output
    output = tmp_path / "output"
    outcome = json.loads(answer.stdout)
    assert outcome["steps"] == 3
    assert 0 <= outcome["best"]["ap"] <= outcome["best"]["ap50"] <= 1
    assert "step 2/3 epoch 1: loss" in answer.stderr
    assert "INFO" not in answer.stderr
    result = json.loads((output / "train_result.json").read_text())
    assert result["done_flag"] is True
    assert result["label_dict"] == {"0": "car"}
    assert result["models"]["best"]["score"] == outcome["best"]["ap"]
    for key in ("pdparams", "inference_config", "pdmodel", "pdiparams"):
        assert (output / result["models"]["best"][key]).is_file()
    for name in ("config.yaml", "train.log", "curves.png", "last.npz", "best_model/model.yaml"):
        assert (output / name).is_file()
    assert load(output / "config.yaml").steps == 3
    detector = slicedet.load_detector(str(output / "best_model" / "inference"), engine="paddle", threshold=0.0)
    assert tuple(detector.categories) == ("car",)
    found = slicedet.predict(tmp_path / "images" / "val0.png", detector, slice=64, threshold=0.0)
    assert found.run["tiles"]["run"] > 1

    again = CliRunner().invoke(main, ["train", str(tmp_path / "training.yaml")])
    assert again.exit_code == 1
    assert "holds a training already; go on with it (--resume)" in again.stderr


def test_replicas_agree() -> None:
    """Parts of a batch side by side have the outputs and the gradients of the whole."""
    import paddle

    from slicedet import networks
    from slicedet.training.frozen import freeze_norms
    from slicedet.training.replicas import Replicas

    paddle.seed(0)
    network = networks.build("picodet_s_320_coco")
    freeze_norms(network)
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32))
    results = []
    for count in (1, 2, 3):
        network.train()
        replicas = Replicas(network, count)
        levels = replicas.forward(images, lambda part, pixels: part(pixels))
        loss = sum(((classes + 5) ** 2).mean() + (distances**2).mean() for classes, distances in levels)
        replicas.backward(loss, levels)
        gradients = {name: each.grad.numpy() for name, each in network.named_parameters() if each.grad is not None}
        results.append((float(loss), gradients))
        network.clear_gradients()
    for loss, gradients in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        assert gradients.keys() == results[0][1].keys()
        for name, value in results[0][1].items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(gradients[name], value, rtol=1e-3, atol=1e-4 * scale + 1e-9, err_msg=name)


def test_loss_that_is_no_number(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    config = configured(tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=None)
    with pytest.raises(InvalidTraining, match=r"step \d: .*last\.npz is from before\. Lower learning_rate"):
        train(config)
    kept = checkpoint.load(config.output / "last.npz")
    assert all(np.isfinite(value).all() for value in kept.arrays["model"].values())


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    config = configured(tmp_path, steps=1)
    with pytest.raises(InvalidTraining, match=r"last\.npz: no such checkpoint"):
        train(config, resume=True)
    train(config)
    with pytest.raises(InvalidTraining, match=r"last\.npz: is of another network: \d+ parameters differ"):
        train(replace(config, model="picodet_m_320_coco"), resume=True)
    with pytest.raises(InvalidTraining, match=r"last\.npz: is of another network or of other categories \(car\)"):
        train(replace(config, categories={"vehicle": ("car",)}), resume=True)
    with pytest.raises(OutputError, match="holds a training already"):
        train(config)


def test_categories_that_differ(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", names=("car", "boat"))
    with pytest.raises(InvalidDataset, match=r"instance_val\.json: category 'boat' is not among those trained \(car\)"):
        train(configured(tmp_path))


def test_validation_without_objects(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", empty=True)
    with pytest.raises(InvalidDataset, match=r"instance_val\.json: holds no object of the trained categories"):
        train(configured(tmp_path))


def test_number_of_classes_is_checked(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    with pytest.raises(InvalidTraining, match=r"num_classes 4: the annotations have 1 \(car\)"):
        train(configured(tmp_path, num_classes=4))
