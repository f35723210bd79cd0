"""Configurations: what is read, and what is said of those that cannot be."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_data import settings

from slicedet.errors import InvalidSetting, InvalidTraining
from slicedet.training.config import SourceConfig, TrainingConfig, described, load


def read(folder: Path, content: dict[str, Any], *changes: str) -> TrainingConfig:
    path = folder / "training.yaml"
    path.write_text(yaml.safe_dump(content))
    return load(path, changes)


def test_own_keys(tmp_path: Path) -> None:
    content = settings(tmp_path, learning_rate="6e-4", categories={"vehicle": ["car", "bus"]}, tiles=None)
    config = read(tmp_path, content, "batch_size=8", "augmentation.flip=0.25", "tiles.scale=[1, 2]")
    assert config.learning_rate == 6e-4
    assert config.batch_size == 8
    assert config.augmentation.flip == 0.25
    assert config.tiles is not None
    assert config.tiles.scale == (1.0, 2.0)
    assert config.categories == {"vehicle": ("car", "bus")}
    assert config.train == (SourceConfig(tmp_path / "annotations" / "instance_train.json", tmp_path / "images"),)
    assert config.val == ()


def test_paddlex_keys(tmp_path: Path) -> None:
    content = {
        "Global": {"model": "PicoDet-S", "mode": "train", "dataset_dir": "data", "output": "out", "device": "cpu"},
        "Train": {
            "num_classes": 4, "epochs_iters": 50, "batch_size": 16, "learning_rate": 0.08, "log_interval": 10,
            "pretrain_weight_path": "weights.pdparams", "warmup_steps": 100, "resume_path": None, "eval_interval": 1,
            "dy2st": False, "amp": "OFF",
        },
        "Evaluate": {"weight_path": "output/best_model/best_model.pdparams", "log_interval": 10},
        "Export": {"weight_path": "x"},
        "Predict": {"batch_size": 1},
    }  # fmt: skip
    config = read(tmp_path, content, "Train.epochs_iters=5", "Global.output=elsewhere")
    assert config.epochs == 5
    assert config.output == Path("elsewhere")
    assert config.pretrained == Path("weights.pdparams")
    assert (config.num_classes, config.learning_rate, config.optimizer, config.amp) == (4, 0.08, "momentum", "off")
    assert (config.tiles, config.evaluation.slice) == (None, "full")
    assert config.train[0].annotations == Path("data/annotations/instance_train.json")


STOCK = """
Global:
  model: PicoDet-S
  mode: check_dataset # check_dataset/train/evaluate/predict
  dataset_dir: "/paddle/dataset/paddlex/det/det_coco_examples"
  device: gpu:0,1,2,3
  output: "output"

CheckDataset:
  convert:
    enable: False
    src_dataset_type: null
  split:
    enable: False
    train_percent: null
    val_percent: null

Train:
  num_classes: 4
  epochs_iters: 50
  batch_size: 16
  learning_rate: 0.08
  pretrain_weight_path: https://paddle-model-ecology.bj.bcebos.com/official_pretrained_model/PicoDet-S_pretrained.pdparams
  warmup_steps: 100
  resume_path: null
  log_interval: 10
  eval_interval: 1

Evaluate:
  weight_path: "output/best_model/best_model.pdparams"
  log_interval: 10

Export:
  weight_path: https://paddle-model-ecology.bj.bcebos.com/official_pretrained_model/PicoDet-S_pretrained.pdparams

Predict:
  batch_size: 1
  model_dir: "output/best_model/inference"
  input: "https://paddle-model-ecology.bj.bcebos.com/demo_image/road0_png.png"
  kernel_option:
    run_mode: paddle
"""
"""A module's configuration as PaddleX ships it."""


def test_a_whole_module_of_paddlex(tmp_path: Path) -> None:
    path = tmp_path / "PicoDet-S.yaml"
    path.write_text(STOCK)
    with pytest.raises(InvalidTraining, match=r"PicoDet-S\.yaml: pretrained: .* downloaded before .*'https://paddle-m"):
        load(path)
    unused = ["Global.mode=train", "Train.dy2st=False", "CheckDataset.split.enable=True", "Predict.batch_size=2"]
    local = ["Global.dataset_dir=data", "Train.pretrain_weight_path=w.pdparams"]
    config = load(path, [*unused, *local, "batch_size=8"])
    assert config == load(path, [*local, "Train.batch_size=8"])
    assert (config.device, config.epochs, config.batch_size, config.num_classes) == ("gpu:0,1,2,3", 50, 8, 4)
    assert (config.pretrained, config.optimizer) == (Path("w.pdparams"), "momentum")


def test_changes_are_of_one_load(tmp_path: Path) -> None:
    path = tmp_path / "PicoDet-S.yaml"
    path.write_text(STOCK)
    local = ["Global.dataset_dir=data", "Train.pretrain_weight_path=w.pdparams"]
    before = load(path, local)
    changed = load(path, [*local, "augmentation.crop=0", "evaluation.slice=640"])
    assert (changed.augmentation.crop, changed.augmentation.rotate90, changed.evaluation.slice) == (0, False, 640)
    assert load(path, local) == before


def test_round_trip(tmp_path: Path) -> None:
    config = read(tmp_path, settings(tmp_path, tiles=None, clip_norm=None, categories=["car"], val=[]))
    assert (config.tiles, config.clip_norm) == (None, None)
    assert read(tmp_path, described(config)) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learnin_rate": 1}, "unknown key learnin_rate; did you mean learning_rate?"),
        ({"tiles": {"near_object": 1}}, "unknown key tiles.near_object; did you mean tiles.near_objects?"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number above 0, not 'fast'"),
        ({"learning_rate": True}, "learning_rate: expected a number above 0, not True"),
        ({"batch_size": 0}, "batch_size: expected a whole number, 1 or more, not 0"),
        ({"input_size": 100}, "input_size: expected a multiple of 32, not 100"),
        ({"tiles": {"scale": [2, 1]}}, r"tiles.scale: expected two numbers, [least, greatest], not [2, 1]"),
        ({"model": "picodet_x"}, "model: picodet_x: unknown model; did you mean"),
        ({"epochs": 3}, "epochs and steps are both given; choose one (--set epochs=null or --set steps=null)"),
        ({"steps": None}, "epochs is missing (or steps)"),
        ({"dataset_dir": None}, "train is missing (or dataset_dir)"),
        (
            {"dataset_dir": None, "synthetic": {"share": 1}},
            "categories is missing: painted tiles alone do not say what",
        ),
        (
            {"dataset_dir": None, "synthetic": {"share": 1}, "categories": ["car"]},
            "epoch_tiles is missing: painted tiles alone do not say how long an epoch is",
        ),
        ({"categories": {"a": ["x"], "b": ["x"]}}, "categories: expected each name of the annotations in one"),
        ({"train": [{"images": "x"}]}, "train[0].annotations is missing"),
        ({"rate": 1}, "unknown key rate; did you mean learning_rate?"),
        ({"foo": 1}, "unknown key foo; see docs/training.md"),
        ({"evaluation": {"merge": "foo"}}, "evaluation.merge: expected one of nms, nmm, greedy-nmm, agreement"),
        ({"evaluation": {"slice": "abc"}}, "evaluation.slice: expected full, or pixels such as 640 or 640x512"),
        ({"evaluation": {"slice": 20}}, "evaluation.slice: expected full, or pixels such as 640 or 640x512, 32 or"),
        ({"amp": "O3"}, "amp: expected one of off, o1, o2, not 'O3'"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTraining) as caught:
        read(tmp_path, settings(tmp_path, **changes))
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "training.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\x00", "!!python/object/apply:os.system [echo]"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(text)
    with pytest.raises(InvalidTraining, match=r"training\.yaml"):
        load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidTraining, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batch_size", "--set batch_size: expected key=value"),
        ("pretrained=", "--set pretrained=: the value is missing; pretrained=null stands for none"),
        ("batch_size=0", "--set batch_size=0: batch_size: expected a whole number"),
        ("Train.epochs_iters=x", "--set Train.epochs_iters=x: epochs: expected a whole number"),
        ("train=[{images: x}]", "--set train=[{images: x}]: train[0].annotations is missing"),
        ("model=nothing", "--set model=nothing: model: nothing: unknown model"),
        ("evaluation.mrge=nms", "unknown key evaluation.mrge; did you mean evaluation.merge?"),
        ("tiles=3", "--set tiles=3: tiles: expected keys and values"),
    ],
)
def test_what_is_wrong_with_a_change(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read(tmp_path, settings(tmp_path), "seed=1", change)
    assert words in str(caught.value)


def test_a_change_to_none(tmp_path: Path) -> None:
    assert read(tmp_path, settings(tmp_path, pretrained="w.onnx"), "pretrained=null").pretrained is None


@pytest.mark.parametrize("name", sorted(path.name for path in (files("slicedet.configs") / "training").iterdir()))
def test_configurations_that_come_along(tmp_path: Path, name: str) -> None:
    config = load(name.removesuffix(".yaml"), ["dataset_dir=data"])
    # Those of the model that comes along say what it was trained on.
    folder = "aerial_vehicles" if name.startswith("aerial_vehicles") else "data"
    assert config.train[0].images == Path(folder) / "images"
    assert read(tmp_path, described(config)) == config
    # What trains on whole images is judged on them.
    assert (config.tiles is None) == (config.evaluation.slice == "full")
