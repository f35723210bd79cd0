"""create_model and create_pipeline: thresholds, slices, weights, and what is refused."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import pytest
import yaml
from paddlex_facts import paint

import slicedet
from slicedet.compat import Model, create_model, create_pipeline
from slicedet.errors import (
    InvalidConfig,
    InvalidSetting,
    MissingWeights,
    ModelMismatch,
    SlicedetError,
    UnknownModel,
    UnreadableImage,
)
from slicedet.raster.scene import Scene


def found(results: Any) -> list[tuple[int, float]]:
    """Class and score of each box of the only image."""
    (result,) = results
    return [(box["cls_id"], box["score"]) for box in result["boxes"]]


@pytest.fixture
def spoilt(model_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model's folder whose YAML has other entries; None takes one away."""

    def copy(**entries: Any) -> Path:
        folder = Path(shutil.copytree(model_dir, tmp_path / f"copy{len(list(tmp_path.iterdir()))}"))
        content = {**yaml.safe_load((folder / "inference.yml").read_text()), **entries}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "inference.yml").write_text(yaml.safe_dump(content, sort_keys=False))
        return folder

    return copy


def test_thresholds_of_predict_come_before_those_of_the_model_and_those_before_the_folders(
    model_dir: Path, spoilt: Callable[..., Path], pictures: Path
) -> None:
    every = found(create_model(model_dir=model_dir, engine="paddle", threshold=0.0).predict("b.png"))
    assert min(score for _, score in every) < 0.65

    def above(number: float) -> list[tuple[int, float]]:
        return [(id, score) for id, score in every if score > number]

    folder = spoilt(draw_threshold=0.7)
    assert found(create_model(model_dir=folder, engine="paddle").predict("b.png")) == above(0.7) != every
    created = create_model(model_dir=folder, engine="paddle", threshold=0.8)
    assert found(created.predict("b.png")) == above(0.8)
    assert found(created.predict("b.png", threshold=0.75)) == above(0.75)
    assert found(created.predict("b.png")) == above(0.8)


def test_thresholds_are_strict(model: Model, pictures: Path) -> None:
    every = found(model.predict("b.png"))
    middle = sorted(score for _, score in every)[len(every) // 2]
    assert found(model.predict("b.png", threshold=middle)) == [each for each in every if each[1] > middle]
    just_below = float(np.nextafter(np.float32(middle), np.float32(0)))
    assert found(model.predict("b.png", threshold=just_below)) == [each for each in every if each[1] >= middle]


def test_whole_numbers_filter_and_left_out_classes_need_a_half(model: Model, pictures: Path) -> None:
    every = found(model.predict("b.png", threshold=0.0))
    assert found(model.predict("b.png", threshold=0)) == every
    assert found(model.predict("b.png", threshold=1)) == []
    assert found(model.predict("b.png", threshold=np.float64(0.8))) == [each for each in every if each[1] > 0.8]
    mixed = found(model.predict("b.png", threshold={0: 1, np.int64(2): 0.8}))
    assert mixed == [(id, score) for id, score in every if score > {0: 1, 1: 0.5, 2: 0.8}[id]]
    assert Counter(id for id, _ in mixed).keys() == {1, 2}


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), True, "0.5", {0: 2}, {3: 0.5}, {"0": 0.5}, {True: 0.5}])
def test_thresholds_that_make_no_sense(threshold: Any, model: Model) -> None:
    with pytest.raises(InvalidSetting, match="threshold"):
        model.predict("never read.png", threshold=threshold)


def test_batches_change_nothing(model: Model, pictures: Path) -> None:
    one, all_at_once = (list(model.predict([".", "b.png"], size)) for size in (1, 10))
    assert len(one) == 5
    assert [result["input_path"] for result in one] == [result["input_path"] for result in all_at_once]
    for left, right in zip(one, all_at_once, strict=True):
        assert [box["label"] for box in left["boxes"]] == [box["label"] for box in right["boxes"]]
        assert [box["score"] for box in left["boxes"]] == pytest.approx([box["score"] for box in right["boxes"]])
    for size in (0, -1, 1.0, True, "2"):
        with pytest.raises(InvalidSetting, match="batch_size"):
            model.predict("b.png", batch_size=size)  # type: ignore[arg-type]


def test_predict_does_nothing_before_it_is_asked(model: Model, pictures: Path) -> None:
    results = model.predict(["b.png", "missing.png"])
    assert isinstance(results, GeneratorType)
    assert next(results)["input_path"] == "b.png"
    with pytest.raises(UnreadableImage, match=r"missing\.png: no such file"):
        next(results)
    assert [result["input_path"] for result in model("b.png")] == ["b.png"]
    assert list(model.predict([])) == []


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """Size of each window read from a scene and of what is made of it."""
    seen: list[tuple[float, ...]] = []
    read = Scene.read_view

    def noted(self: Scene, window: Any, size: Any = None) -> Any:
        seen.append((*window[2:], *(size or window[2:])))
        return read(self, window, size)

    monkeypatch.setattr(Scene, "read_view", noted)
    return seen


def test_slices_are_those_of_slicedet(
    model_dir: Path, raster: Callable[..., Path], windows: list[tuple[float, ...]]
) -> None:
    path = raster("big.tif", paint(5, 1300, 900).transpose(2, 0, 1), tiled=True, blockxsize=256, blockysize=256)
    model = create_model(model_dir=model_dir, engine="paddle", slice=320, overlap=0.2, threshold={0: 0.8, 1: 1.0})
    (result,) = model.predict(str(path))
    assert windows == [(1300, 320, 1300, 320)] * 4  # A row of tiles at a time.
    frame = result.prediction.run["frame"]
    assert (frame["tile_width"], frame["tile_height"], frame["overlap_x"]) == (320, 320, 64)
    assert (result["input_path"], result["page_index"]) == (str(path), 0)
    least = {"red": 0.8, "blue": 0.5}
    expected = slicedet.predict(
        path,
        slicedet.load_detector(str(model_dir), engine="paddle", threshold=0.0),
        slice=320,
        overlap=0.2,
        threshold={name: float(np.nextafter(np.float32(number), np.float32(1))) for name, number in least.items()},
        classes=["red", "blue"],
    )
    np.testing.assert_array_equal(result.prediction.detections.boxes, expected.detections.boxes)
    assert len(result["boxes"]) == len(expected.detections) > 50
    assert {box["label"] for box in result["boxes"]} == {"red", "blue"}
    assert result.prediction.run["tiles"]["run"] == 20


def test_more_is_found_with_slices(model_dir: Path, model: Model, pictures: Path) -> None:
    whole = found(model.predict("b.png"))
    sliced = found(create_model(model_dir=model_dir, engine="paddle", slice="200x160").predict("b.png"))
    assert len(sliced) > len(whole)


def test_nothing_can_be_above_one_in_slices_either(model_dir: Path, pictures: Path) -> None:
    assert found(create_model(model_dir=model_dir, engine="paddle", slice=160).predict("b.png", threshold=1)) == []


def test_pipelines_by_name_file_and_content(model_dir: Path, model: Model, pictures: Path, tmp_path: Path) -> None:
    section = {"module_name": "x", "model_name": "PicoDet-XS", "model_dir": str(model_dir), "batch_size": 2}
    content = {
        "pipeline_name": "small_object_detection",
        "use_hpip": False,
        "SubModules": {"SmallObjectDetection": {**section, "engine": "paddle", "threshold": 0.8}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    expected = found(model.predict("b.png", threshold=0.8))
    for pipeline in (create_pipeline(path), create_pipeline(str(path)), create_pipeline("any", config=content)):
        assert found(pipeline.predict("b.png")) == expected
    assert found(pipeline.predict("b.png", 0.9)) == [each for each in expected if each[1] > 0.9] != expected
    assert found(pipeline.predict("b.png", batch_size=1)) == expected
    section["threshold"] = {0: 0.95}
    content = {"pipeline_name": "object_detection", "SubModules": {"ObjectDetection": {**section, "img_size": None}}}
    pipeline = create_pipeline(config=content, engine="paddle", slice=160)
    (result,) = pipeline.predict("b.png")
    assert result.prediction.run["settings"]["slice"] == 160
    assert result.prediction.run["settings"]["threshold"]["red"] == pytest.approx(0.95)


def test_official_weights_are_downloaded_once(
    model_dir: Path, tmp_path: Path, home: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", str(mirror))
    with pytest.raises(SlicedetError, match=r"PicoDet-S_infer\.tar: no such file in the mirror; without network, put"):
        create_pipeline("object_detection")
    content = {
        "categories": ["red", "green", "blue"],
        "input": {"size": [320, 320]},
        "output": {"layout": "rows"},
        "downloads": {"paddle": {"url": "https://example.org/colours_infer.tar"}},
    }
    Path("colours.yaml").write_text(yaml.safe_dump(content))
    with tarfile.open(mirror / "colours_infer.tar", "w") as archive:
        archive.add(model_dir, "colours_infer")
    expected = found(create_model(model_dir=model_dir, engine="paddle").predict("b.png"))
    assert found(create_model("colours.yaml", engine="paddle").predict("b.png")) == expected != []
    shutil.rmtree(mirror)
    assert found(create_model("colours.yaml", engine="paddle").predict("b.png")) == expected


def test_of_official_weights_those_that_the_engine_reads_are_downloaded(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paddle = pytest.importorskip("paddle")
    name = "picodet_s_320_coco"
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", str(tmp_path))
    with pytest.raises(SlicedetError, match=rf"{name}\.onnx: no such file in the mirror"):
        create_model(name)
    paddle.save(slicedet.networks.build(name).state_dict(), str(tmp_path / f"{name}.pdparams"))
    assert create_model(name, engine="paddle").detector.provenance["weights"] == f"{name}.pdparams"


def test_the_folder_may_state_another_name(spoilt: Callable[..., Path], pictures: Path) -> None:
    folder = spoilt(Global=None)
    assert found(create_model("Mine", folder, engine="paddle").predict("b.png"))
    with pytest.raises(ModelMismatch, match=r"the model in it is Other, not PicoDet-XS; name that, or no model_name"):
        create_model("PicoDet-XS", spoilt(Global={"model_name": "Other"}))
    folder = spoilt(slicedet={"name": "mine"})
    for name in ("PicoDet-XS", "mine"):
        assert create_model(name, folder, engine="paddle").model_name == "mine"


def test_a_folder_named_like_a_model_is_a_folder(
    model_dir: Path, pictures: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_dir, "picodet_s_320_coco")
    assert create_model(model_dir="picodet_s_320_coco", engine="paddle").detector.categories == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"model_dir": None}, InvalidSetting, "model_name and model_dir: one of them"),
        ({"model_dir": "nowhere"}, MissingWeights, "nowhere: no such folder"),
        ({"model_dir": "."}, UnknownModel, "no Paddle model in this folder"),
        ({"model_dir": None, "model_name": "PicoDet-XXS"}, UnknownModel, "did you mean PicoDet-XS"),
        ({"weights": "x.onnx"}, InvalidSetting, "a folder brings its own weights"),
        ({"device": "gpu:0,1"}, InvalidSetting, "one model runs on one device"),
        ({"device": "cpu:0"}, InvalidSetting, "device 'cpu:0'"),
        ({"device": "tpu"}, InvalidSetting, "device 'tpu'"),
        ({"device": "gpu:first"}, InvalidSetting, "device 'gpu:first'"),
        ({"engine": "genai_client"}, InvalidSetting, "engine 'genai_client'"),
        ({"engine_config": {"run_mode": "paddle"}}, InvalidSetting, "engine_config: leave it out"),
        ({"img_size": 640}, InvalidSetting, "img_size: the size of the network's input is fixed"),
        ({"use_hpip": True}, InvalidSetting, "use_hpip: leave it out"),
        ({"slice": 3}, InvalidSetting, "slice"),
        ({"slice": 160, "overlap": 2}, InvalidSetting, "overlap"),
        ({"merge": "best"}, InvalidSetting, "merge method 'best'"),
        ({"merge": "nms"}, InvalidSetting, "merge: only slices have that"),
        ({"overlap": 0.25}, InvalidSetting, "overlap: only slices have that; name their size, such as slice=640"),
        ({"batch_size": 0}, InvalidSetting, "batch_size"),
    ],
)
def test_models_that_cannot_be_made(
    settings: dict[str, Any], error: type[SlicedetError], said: str, model_dir: Path, pictures: Path
) -> None:
    with pytest.raises(error) as raised:
        create_model(**{"model_dir": model_dir, "engine": "paddle", **settings})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_misspelt_arguments(model_dir: Path) -> None:
    with pytest.raises(TypeError, match="treshold"):
        create_model(model_dir=model_dir, treshold=0.3)


@pytest.mark.parametrize("state", [{"draw_threshold": "high"}, {"draw_threshold": 7}, {"Global": ["PicoDet-XS"]}])
def test_folders_that_state_nonsense(state: dict[str, Any], spoilt: Callable[..., Path]) -> None:
    with pytest.raises(InvalidConfig, match=r"inference\.yml"):
        create_model("PicoDet-XS", spoilt(**state))


DETECTION = {"pipeline_name": "object_detection"}


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, InvalidSetting, "pipeline and config: one of them"),
        ({"pipeline": "OCR"}, InvalidSetting, "there are small_object_detection, object_detection"),
        ({"pipeline": "small_object_detektion"}, InvalidSetting, "did you mean small_object_detection?"),
        ({"pipeline": "mine.yaml"}, InvalidSetting, "mine.yaml: no such file"),
        ({"config": {}}, InvalidSetting, "pipeline 'None'"),
        ({"config": [1]}, InvalidSetting, "config of type list: expected keys and values"),
        ({"pipeline": "small_object_detection", "overlap": 0.5}, InvalidSetting, "overlap: only slices have that"),
        ({"config": {"pipeline_name": ["a"]}}, InvalidSetting, "pipeline \"['a']\""),
        ({"config": {**DETECTION, "SubModules": []}}, InvalidConfig, "SubModules.ObjectDetection"),
        ({"config": {**DETECTION, "SubModules": {"SmallObjectDetection": {}}}}, InvalidConfig, "ObjectDetection"),
        (
            {"config": {**DETECTION, "SubModules": {"ObjectDetection": {"model_dir": 5}}}},
            InvalidConfig,
            "model_dir: expected a text",
        ),
        (
            {"config": {**DETECTION, "SubModules": {"ObjectDetection": {"layout_nms": True}}}},
            InvalidConfig,
            "layout_nms: slicedet does not do this",
        ),
        ({"config": {**DETECTION, "use_hpip": True}}, InvalidSetting, "use_hpip: leave it out"),
    ],
)
def test_pipelines_that_cannot_be_made(
    arguments: dict[str, Any], error: type[SlicedetError], said: str, home: Path
) -> None:
    with pytest.raises(error) as raised:
        create_pipeline(**arguments)
    assert said in str(raised.value)


def test_yaml_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text in ("- a\n- b\n", "a: [", "!!python/object/apply:os.getcwd []"):
        path.write_text(text)
        with pytest.raises(InvalidConfig, match=r"mine\.yaml"):
            create_pipeline(path)
