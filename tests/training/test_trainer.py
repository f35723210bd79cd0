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

import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from slicedet.cli import main
from small_data import settings, write_dataset

import slicedet
from slicedet.errors import InvalidDataset, InvalidTraining, OutputError, SlicedetError
from slicedet.training import checkpoint, report
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


class Said(Exception):
    """Ends a training at a message."""


def message(number: int, config: TrainingConfig, **arguments: Any) -> str:
    """The message of this number, from 1, at which the training ends."""
    heard = []

    def listen(record: dict[str, Any]) -> None:
        heard.append(record["message"])
        if len(heard) == number:
            raise Said

    with pytest.raises(Said):
        train(config, listen=listen, **arguments)
    return str(heard[-1])


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """Nothing appears in a new folder, and --overwrite leaves the old training until the new one begins."""
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", images=1)
    validated = configured(tmp_path, steps=1)
    config = replace(validated, val=())
    wrong = [
        (replace(config, pretrained=tmp_path / "none.pdparams"), r"none\.pdparams: no such weights file"),
        (replace(config, categories={"boat": ("boat",)}), "category 'car' is not among those trained"),
        (replace(config, device="gpu:0,1"), "device gpu:0,1: "),
    ]
    (tmp_path / "images" / "val0.png").write_bytes(b"no image")
    wrong += [(validated, r"val0\.png: not an image")]
    for each, words in wrong:
        with pytest.raises(SlicedetError, match=words):
            train(each)
        assert not config.output.exists()
    assert message(1, config).startswith("begins with random weights")
    assert not config.output.exists()
    train(config)
    before = {path: path.read_bytes() for path in config.output.rglob("*") if path.is_file()}
    for each, words in wrong:
        with pytest.raises(SlicedetError, match=words):
            train(each, overwrite=True)
        assert {path: path.read_bytes() for path in config.output.rglob("*") if path.is_file()} == before
    last, best = config.output / "last.npz", config.output / "best_model" / "best_model.pdparams"
    assert message(1, config, resume=True) == f"goes on with the weights of {last}"
    anew = replace(config, seed=5, pretrained=best)
    assert message(1, anew, overwrite=True).startswith("begins with the weights of best_model.pdparams: ")
    assert checkpoint.load(last).record["step"] == 1
    assert "from step 0" in message(2, anew, overwrite=True)
    assert checkpoint.load(last).record["step"] == 0
    assert load(config.output / "config.yaml").seed == 5


def test_validation_images_of_another_size(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    annotations = write_dataset(tmp_path, role="val")
    annotations.write_text(annotations.read_text().replace('"width": 160', '"width": 170'))
    with pytest.raises(InvalidDataset, match=r"val0\.png: is 160 x 128 pixels, its annotations say 170 x 128"):
        train(configured(tmp_path))


def test_an_unreadable_image_is_said_in_one_line(tmp_path: Path) -> None:
    """Paddle makes rasterio's log go to stderr."""
    write_dataset(tmp_path)
    configured(tmp_path)
    for path in (tmp_path / "images").iterdir():
        content = bytearray(path.read_bytes())
        content[3000:4000] = bytes(1000)
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", "from slicedet.cli import main; main()", "train", str(tmp_path / "training.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["begins", "picodet_s_320_coco_trained:", "Error:"]
    assert "cannot be decoded" in lines[-1]


def test_wrong_changes_are_wrong_usage(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    configured(tmp_path)
    done = CliRunner().invoke(main, ["train", str(tmp_path / "training.yaml"), "--set", "pretrained="])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith("Error: --set pretrained=: the value is missing; pretrained=null stands for none\n")


def test_curves_of_a_single_record_are_seen(tmp_path: Path) -> None:
    report.draw_curves([{"step": 1, "loss": 2.0, "rate": 0.1}], tmp_path / "curves.png")
    pixels = cv2.imread(str(tmp_path / "curves.png")).astype(int)
    # The point is in the middle; the legend, which has the same blue, is in a corner.
    middle = pixels[:, int(0.45 * pixels.shape[1]) : int(0.6 * pixels.shape[1])]
    assert (middle[..., 0] - middle[..., 2] > 60).sum() > 5


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
