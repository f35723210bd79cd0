"""The trainer on a dataset of three small images: results, and what stops it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from slicedet.cli import main
from small_data import configured, message, train, write_dataset

import slicedet
from slicedet.detectors.loading import default_threshold
from slicedet.errors import InvalidDataset, InvalidTraining, SlicedetError
from slicedet.training import checkpoint, report
from slicedet.training.config import load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_command_and_its_results(tmp_path: Path) -> None:
    """From a configuration to predictions of the exported model."""
    write_dataset(tmp_path)
    write_dataset(tmp_path, role="val", images=1)
    configured(tmp_path, model="picodet_xs_320_coco_lcnet", name="bright", evaluation={"slice": "full"})
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
    exported = output / "best_model" / "inference"
    for model in (exported, output / "best_model" / "model.yaml"):
        assert default_threshold(str(model)) == outcome["best"]["threshold"]
    detector = slicedet.load_detector(str(exported), engine="paddle", threshold=0.0)
    assert tuple(detector.categories) == ("car",)
    found = slicedet.predict(tmp_path / "images" / "val0.png", detector, slice=64, threshold=0.0)
    assert found.run["tiles"]["run"] > 1

    again = CliRunner().invoke(main, ["train", str(tmp_path / "training.yaml")])
    assert again.exit_code == 1
    assert "holds a training already; go on with it (--resume)" in again.stderr


def test_loss_that_is_no_number(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    config = configured(tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=None)
    with pytest.raises(InvalidTraining, match=r"step \d: .*last\.npz is from before\. Lower learning_rate"):
        train(config)
    kept = checkpoint.load(config.output / "last.npz")
    assert all(np.isfinite(value).all() for value in kept.arrays["model"].values())


def test_whole_images_however_small(tmp_path: Path) -> None:
    """Validation takes images of fewer pixels than a tile may have, and those in which nothing is valid."""
    write_dataset(tmp_path)
    annotations = write_dataset(tmp_path, role="val", images=2)
    content = json.loads(annotations.read_text())
    content["images"][0].update(width=20, height=12)
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] == 2]
    annotations.write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / "images" / "val0.png"), np.full((12, 20, 3), 90, np.uint8))
    transparent = np.zeros((128, 160, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "val1.png"), transparent)
    outcome = train(configured(tmp_path, steps=1, evaluation={"slice": "full"}))
    assert outcome.last["ap"] == 0


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
    assert [line.partition(" ")[0] for line in lines] == ["begins", "small_trained:", "no", "Error:"]
    assert "cannot be decoded" in lines[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    write_dataset(tmp_path)
    config = configured(tmp_path, steps=10_000, log_interval=1)
    process = subprocess.Popen(
        [sys.executable, "-c", "from slicedet.cli import main; main()", "train", str(tmp_path / "training.yaml")],
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 1/"):
            break
    process.send_signal(number)
    *_, last = process.stderr
    process.stderr.close()
    assert process.wait() == 1
    assert last == f"Error: interrupted; --resume goes on from {config.output / 'last.npz'}\n"


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
