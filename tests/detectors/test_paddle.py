"""Paddle's models in folders and .pdparams, on every engine."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

paddle = pytest.importorskip("paddle")

import paddle_folders  # noqa: E402
from finding import assert_same, by_layers  # noqa: E402
from paddle_folders import (  # noqa: E402
    SMALL_PICODET,
    SMALL_SOD,
    infer_cfg,
    lively,
    make,
    make_raw_heads,
    suppression,
)

from slicedet import Detections, load_detector  # noqa: E402
from slicedet.errors import (  # noqa: E402
    CorruptFile,
    InvalidConfig,
    InvalidSetting,
    MissingWeights,
    ModelMismatch,
    ModelWarning,
    SlicedetError,
    UnknownModel,
    UnsafeFile,
)
from slicedet.models import catalogue, conversion  # noqa: E402
from slicedet.models.config import ModelConfig, NmsConfig, OutputConfig  # noqa: E402
from slicedet.models.decoding import candidates, just_above, suppressed  # noqa: E402

PICODET = "picodet_xs_320_coco_lcnet"
SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
pytestmark = pytest.mark.usefixtures("lasting_home")
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaddleDetection's folder, with suppression inside."""
    path = tmp_path_factory.mktemp("picodet")
    make(path, SMALL_PICODET)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (rows, 12, 3), dtype=np.uint8) for rows in (8, 12, 20)]
    return [cv2.resize(image, (320, 20 * len(image)), interpolation=cv2.INTER_CUBIC) for image in coarse]


ENGINES = ["paddle", pytest.param("openvino", marks=converts), pytest.param("onnxruntime", marks=converts)]


def own_size(name: str) -> tuple[int, int]:
    return catalogue.find(name).input.size


def threshold_for(name: str, tiles: list[np.ndarray]) -> float:
    """Between two scores, so that the layers find 30 boxes in one of the tiles, and at least as many in the others."""
    scores = [np.sort(by_layers(name, tile, own_size(name), 0.05).scores) for tile in tiles]
    return min(float(each[-31:-29].mean()) for each in scores)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_folder_finds_what_the_layers_find(engine: str, folder: Path, tiles: list[np.ndarray]) -> None:
    threshold = threshold_for(SMALL_PICODET, tiles)
    detector = load_detector(str(folder), engine=engine, threshold=threshold)
    assert detector.provenance["engine"] == engine
    for tile, found in zip(tiles, detector.detect(tiles), strict=True):
        assert_same(found, by_layers(SMALL_PICODET, tile, own_size(SMALL_PICODET), threshold))
        assert_same(detector.detect([tile])[0], found)
    assert detector.detect([]) == []


def test_large_batches_are_run_in_parts(folder: Path, tiles: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load_detector(str(folder), engine="paddle", threshold=threshold_for(SMALL_PICODET, tiles))
    whole = detector.detect(tiles)
    monkeypatch.setattr("slicedet.detectors.paddle._PIXELS", 2 * 160 * 160)
    for found, expected in zip(detector.detect(tiles), whole, strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_paddlexs_folder_of_pp_yoloe_sod(engine: str, tiles: list[np.ndarray], sod_folder: Path) -> None:
    threshold = threshold_for(SMALL_SOD, tiles[:1])
    detector = load_detector(str(sod_folder), engine=engine, threshold=threshold)
    assert (detector.name, len(detector.categories), detector.input_size) == ("Some-Model", 10, 160)
    (found,) = detector.detect(tiles[:1])
    assert_same(found, by_layers(SMALL_SOD, tiles[0], own_size(SMALL_SOD), threshold))


@pytest.fixture(scope="module")
def sod_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaddleX's folder, with suppression inside."""
    path = tmp_path_factory.mktemp("sod")
    make(path, SMALL_SOD, paddlex=True)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_folder_without_suppression(engine: str, tiles: list[np.ndarray], bare_folder: Path) -> None:
    threshold = threshold_for(SMALL_PICODET, tiles[:1])
    (found,) = load_detector(str(bare_folder), engine=engine, threshold=threshold).detect(tiles[:1])
    assert_same(found, by_layers(SMALL_PICODET, tiles[0], own_size(SMALL_PICODET), threshold))


@pytest.fixture(scope="module")
def bare_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose suppression only the YAML knows."""
    path = tmp_path_factory.mktemp("bare")
    make(path, SMALL_PICODET, nms=None, NMS=paddle_folders.NMS)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_folder_of_raw_heads(engine: str, tiles: list[np.ndarray], raw_folder: Path) -> None:
    threshold = threshold_for(SMALL_PICODET, tiles[:1])
    detector = load_detector(str(raw_folder), engine=engine, threshold=threshold)
    assert detector.config.output.layout == "picodet-heads"
    assert_same(detector.detect(tiles)[0], by_layers(SMALL_PICODET, tiles[0], own_size(SMALL_PICODET), threshold))


@pytest.fixture(scope="module")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that gives the heads' own outputs."""
    path = tmp_path_factory.mktemp("raw")
    make_raw_heads(path, SMALL_PICODET)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_pdparams_run_by_the_name_of_their_network(engine: str, tiles: list[np.ndarray], pdparams: Path) -> None:
    threshold = threshold_for(PICODET, tiles[:1])
    (found,) = load_detector(PICODET, pdparams, engine=engine, threshold=threshold).detect(tiles[:1])
    assert_same(found, by_layers(PICODET, tiles[0], own_size(PICODET), threshold))


@pytest.fixture(scope="module")
def pdparams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pdparams") / "w.pdparams"
    paddle.save(lively(PICODET).state_dict(), str(path))
    return path


@pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")
def test_what_gives_other_outputs_once_converted_is_run_by_paddle(pdparams: Path) -> None:
    # At 64 pixels the converted graph gives one box more than scores.
    with pytest.warns(ModelWarning, match="the paddle engine runs it"):
        detector = load_detector(PICODET, pdparams, engine="openvino", input_size=64)
    assert detector.provenance["engine"] == "paddle"


def test_the_suppression_is_paddles_box_for_box() -> None:
    rng = np.random.default_rng(5)
    for top_k, keep, classes, digits in ((1000, 100, 4, 7), (40, 60, 3, 7), (50, 40, 5, 2), (10_000, 500, 10, 1)):
        nms = NmsConfig(0.5, 0.6, top_k, keep)
        corner, size = rng.integers(0, 60, (700, 2)), rng.integers(1, 40, (700, 2))
        boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
        # Few digits make ties, among them scores that are the threshold itself.
        scores = rng.random((classes, 700)).astype(np.float32).round(digits)
        rows, _ = suppression(paddle.to_tensor(boxes[None]), paddle.to_tensor(scores[None]), 0.5, 0.6, top_k, keep)
        expected = sorted(map(tuple, rows.numpy().astype(float)))
        config = replace(_config(classes), nms=nms)
        found = suppressed(_above_threshold(config, [boxes[None], scores[None]]), nms)
        given = np.column_stack([found.category_ids, found.scores, found.boxes]).astype(float)
        assert len(expected) >= 40
        assert sorted(map(tuple, given)) == expected


def _config(classes: int) -> ModelConfig:
    names = tuple(f"c{index}" for index in range(classes))
    return replace(catalogue.find(SOD), categories=names, output=OutputConfig("boxes-and-scores"))


def _above_threshold(config: ModelConfig, outputs: list[np.ndarray]) -> Detections:
    assert config.nms is not None
    return candidates(config, outputs, just_above(config.nms.score_threshold))


@converts
def test_a_second_start_imports_no_paddle(folder: Path) -> None:
    load_detector(str(folder))
    script = (
        "import sys, slicedet; d = slicedet.load_detector(sys.argv[1]); "
        "print(d.provenance['engine'], 'paddle' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["openvino", "False"]


@converts
def test_a_conversion_that_differs_is_not_used(
    copied: Path, tiles: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "SCORE", -1.0)
    _edit(copied, "label_list", [f"name {index}" for index in range(80)])
    monkeypatch.setenv("SLICEDET_HOME", str(copied / "home"))
    with pytest.warns(ModelWarning, match="differs from Paddle by .* the paddle engine runs it"):
        detector = load_detector(str(copied), engine="openvino", threshold=0.5)
    assert detector.provenance["engine"] == "paddle"
    assert not list((copied / "home").rglob("*.onnx"))


def test_without_the_converter_paddle_runs_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLICEDET_HOME", str(folder / "none"))
    monkeypatch.setattr(conversion, "available", lambda: False)
    with pytest.warns(ModelWarning, match="paddle2onnx .* the paddle engine runs it, several times slower"):
        assert load_detector(str(folder)).provenance["engine"] == "paddle"
    with pytest.raises(SlicedetError, match="need paddle2onnx to convert it"):
        load_detector(str(folder), engine="onnxruntime")


def test_labels_that_are_not_the_graphs_are_warned_of(copied: Path) -> None:
    _edit(copied, "label_list", ["pedestrian", "car"])
    with pytest.warns(ModelWarning, match="label_list has 2 names, .* the graph has 80 classes"):
        detector = load_detector(str(copied), engine="paddle")
    assert detector.categories[:2] == ("class_0", "class_1")


def test_cocos_labels_are_told(sod_folder: Path, tmp_path: Path) -> None:
    for path in sod_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "inference.yml").unlink()
    (tmp_path / "inference.yml").write_text(
        yaml.safe_dump(infer_cfg(SMALL_SOD, labels=list(catalogue.find(PICODET).categories)))
    )
    with pytest.warns(ModelWarning, match="80 names, those of COCO, .* the graph has 10 classes"):
        load_detector(str(tmp_path), engine="paddle")


def test_nms_numbers_that_the_graph_does_not_use_are_warned_of(copied: Path) -> None:
    _edit(copied, "NMS", {**paddle_folders.NMS, "score_threshold": 0.3, "nms_threshold": 0.5, "name": "MultiClassNMS"})
    with pytest.warns(ModelWarning, match=r"NMS says score 0\.3, iou 0\.5.* the graph does score 0\.025, iou 0\.6"):
        load_detector(str(copied), engine="paddle")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "Preprocess",
            [{"type": "Resize", "keep_ratio": True, "target_size": [320, 320]}, {"type": "Permute"}],
            "keep_ratio",
        ),
        ("Preprocess", [{"type": "LetterBoxResize"}, {"type": "Permute"}], "'LetterBoxResize'"),
        ("Preprocess", [{"type": "Resize", "keep_ratio": False, "target_size": ["a", 1]}, {"type": "Permute"}], "size"),
        ("Preprocess", [{"type": ["x"]}], "a word, not a collection"),
        ("Preprocess", {"a": 1}, "Preprocess"),
        ("Preprocess", ["Resize"], "expected keys and values"),
        ("label_list", "car", "label_list"),
        ("label_list", None, "label_list"),
        ("NMS", [1], "NMS"),
        ("NMS", {**paddle_folders.NMS, "keep_top_k": "all"}, "NMS: expected numbers"),
        ("label_list", [["car"]], "a word, not a collection"),
        ("Global", "x", "Global"),
    ],
)
def test_a_yaml_that_asks_for_more_is_refused(copied: Path, key: str, value: Any, said: str) -> None:
    _edit(copied, key, value)
    with pytest.raises(InvalidConfig, match=said) as error:
        load_detector(str(copied))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"a: [", b"!!python/object/apply:os.system ['true']", b"[" * 50_000, b"- 1"]
)
def test_a_hostile_yaml_is_refused(copied: Path, text: bytes) -> None:
    (copied / "infer_cfg.yml").write_bytes(text)
    with pytest.raises(InvalidConfig) as error:
        load_detector(str(copied))
    assert "\n" not in str(error.value)


def test_a_yaml_that_grows_when_written_out_is_refused(copied: Path) -> None:
    doublings = "".join(f"x{n + 1}: &x{n + 1} [*x{n}, *x{n}]\n" for n in range(60))
    _edit(copied, "label_list", [])
    text = (copied / "infer_cfg.yml").read_text().replace("label_list: []", "label_list: [*x60]")
    (copied / "infer_cfg.yml").write_text("x0: &x0 [1]\n" + doublings + text)
    with pytest.raises(InvalidConfig, match="its aliases make too much of it"):
        load_detector(str(copied))


def test_half_a_folder_says_what_is_missing(copied: Path, tmp_path: Path) -> None:
    for name in ("infer_cfg.yml", "model.pdiparams", "model.json"):
        half = Path(shutil.copytree(copied, tmp_path / f"no {name}"))
        (half / name).unlink()
        with pytest.raises(MissingWeights, match=f"half a Paddle model, {name}.* missing"):
            load_detector(str(half))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownModel, match="no Paddle model in this folder"):
        load_detector(str(tmp_path / "empty"))
    with pytest.raises(InvalidSetting, match="brings its own weights"):
        load_detector(str(copied), "w.onnx")


def test_files_that_do_not_fit_are_refused(copied: Path) -> None:
    params, program = copied / "model.pdiparams", copied / "model.json"
    whole = params.read_bytes()
    params.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelMismatch, match=r"the parameters of model\.json need"):
        load_detector(str(copied))
    params.write_bytes(bytes(len(whole)))
    with pytest.raises(ModelMismatch, match="Paddle cannot run it") as error:
        load_detector(str(copied), engine="paddle")
    assert "\n" not in str(error.value)
    for text in (b"{}", b"[" * 100_000, json.dumps({"program": {"regions": []}}).encode(), b"\x00"):
        program.write_bytes(text)
        with pytest.raises(ModelMismatch, match="not a Paddle program"):
            load_detector(str(copied))


def test_a_graph_of_another_size_is_refused(copied: Path) -> None:
    steps = infer_cfg(SMALL_PICODET)["Preprocess"]
    steps[0]["target_size"] = [416, 416]
    _edit(copied, "Preprocess", steps)
    with pytest.raises(ModelMismatch, match=r"image input 'image' is \[\?, 3, 160, 160\], expected \[1, 3, 416, 416\]"):
        load_detector(str(copied), engine="paddle")


def test_paddle_refuses_what_it_does_not_have(folder: Path) -> None:
    for arguments in ({"device": "gpu:x"}, {"device": "nonsense"}, {"device": "npu:0"}, {"precision": "f16"}):
        with pytest.raises(InvalidSetting):
            load_detector(str(folder), engine="paddle", **arguments)
    with pytest.raises(InvalidSetting, match="such device"):
        load_detector(str(folder), device="npu:0")


@pytest.mark.parametrize("engine", ["auto", "paddle"])
def test_programs_that_read_or_write_files_are_not_run(copied: Path, engine: str, tmp_path: Path) -> None:
    program, target = copied / "model.json", tmp_path / "overwritten"
    content = json.loads(program.read_text())
    operations = content["program"]["regions"][0]["blocks"][0]["ops"]
    saving = {"N": "file_path", "AT": {"#": "0.a_str", "D": str(target)}}
    operations.insert(-1, {"#": "1.save_combine", "A": [saving], "I": [operations[-1]["I"][0]], "O": []})
    program.write_text(json.dumps(content))
    with pytest.raises(UnsafeFile, match=r"model\.json: refused: its operator '1\.save_combine'"):
        load_detector(str(copied), engine=engine)
    from paddle.base.proto import framework_pb2

    old = framework_pb2.ProgramDesc()
    for index, kind in enumerate(("conv2d", "save_combine")):  # In a block within the first.
        block = old.blocks.add(idx=index, parent_idx=index - 1)
        block.ops.add(type=kind)
    program.unlink()
    (copied / "model.pdmodel").write_bytes(old.SerializeToString())
    with pytest.raises(UnsafeFile, match=r"model\.pdmodel: refused: its operator 'save_combine'"):
        load_detector(str(copied), engine="paddle")
    (copied / "model.pdmodel").write_bytes(b"{}")
    with pytest.raises(ModelMismatch, match=r"model\.pdmodel: not a Paddle program"):
        load_detector(str(copied), engine="paddle")
    assert not target.exists()


@pytest.mark.parametrize(
    "part", [{"backbone": {"type": ["LCNet"]}}, {"neck": {"out_channels": -5}}, {"head": {"type": {"a": 1}}}]
)
def test_networks_that_cannot_be_built_are_told_in_one_line(
    part: dict[str, Any], pdparams: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    content = yaml.safe_load((Path(str(files("slicedet.configs"))) / f"{PICODET}.yaml").read_text())
    for role, changes in part.items():
        content["network"][role] |= changes
    path.write_text(yaml.safe_dump({**content, "categories": ["car"], "aliases": [], "downloads": None}))
    with pytest.raises(InvalidConfig, match="network") as error:
        load_detector(str(path), pdparams, engine="paddle")
    assert "\n" not in str(error.value)


class Malice:
    """Runs a function where it is unpickled."""

    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


def test_pdparams_that_are_something_else_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "w.pdparams"
    for content in ({"a": Malice()}, {"a": "text"}, [1], {"a": np.array([None])}):
        weights.write_bytes(pickle.dumps(content))
        with pytest.raises((UnsafeFile, CorruptFile), match=r"w\.pdparams: "):
            load_detector(PICODET, weights, engine="paddle")
    paddle.save(lively("picodet_s_320_coco_lcnet").state_dict(), str(weights))
    with pytest.raises(ModelMismatch, match=rf"\d+ parameters are not those of {PICODET}: backbone\.\S+ \["):
        load_detector(PICODET, weights, engine="paddle")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CorruptFile, match=r"w\.pdparams: "):
        load_detector(PICODET, weights, engine="paddle")


def _edit(folder: Path, key: str, value: Any) -> None:
    path = folder / "infer_cfg.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}, sort_keys=False))
