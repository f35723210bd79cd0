"""Exports, run by the runtimes they are for and compared with the network in memory."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

paddle = pytest.importorskip("paddle")
sys.path.append(str(Path(__file__).parent / "detectors"))

from finding import assert_close, assert_same, by_layers, make_tiles, noise, normalised, raw  # noqa: E402
from paddle_folders import lively, suppression  # noqa: E402

from slicedet import Detections, load_detector  # noqa: E402
from slicedet.datasets.synthetic import synthetic_tile  # noqa: E402
from slicedet.errors import InvalidSetting, MissingWeights, ModelMismatch, OutputError  # noqa: E402
from slicedet.export import Export, ExportSettings, export, export_network  # noqa: E402
from slicedet.models import catalogue, conversion, deployment  # noqa: E402
from slicedet.models.config import ModelConfig, stated  # noqa: E402
from slicedet.networks.layers import RepConv  # noqa: E402

# One of each backbone but MobileNetV3, each neck and each head.
PICODET = "picodet_xs_320_coco_lcnet"
ESNET = "picodet_s_320_coco"
SHUFFLENET = "picodet_shufflenetv2_1x_416_coco"
SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
pytestmark = pytest.mark.usefixtures("lasting_home")
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")


def batch(count: int, height: int, width: int) -> np.ndarray:
    """Pixels 0..255, [count, 3, height, width]."""
    rng = np.random.default_rng(3)
    return np.stack([noise(rng, width, height).transpose(2, 0, 1) for _ in range(count)]).astype("float32")


def predictor(folder: Path, stem: str, onednn: bool = False) -> Any:
    config = paddle.inference.Config(str(folder / f"{stem}.json"), str(folder / f"{stem}.pdiparams"))
    if onednn:
        config.enable_mkldnn()
    else:
        config.disable_mkldnn()
    config.disable_glog_info()
    return paddle.inference.create_predictor(config)


def by_paddle(predictor: Any, **values: np.ndarray) -> list[np.ndarray]:
    assert set(predictor.get_input_names()) == set(values)
    for name, value in values.items():
        predictor.get_input_handle(name).copy_from_cpu(value)
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def of_size(name: str, width: int, height: int) -> ModelConfig:
    """The configuration of a model with another size of its own."""
    config = catalogue.find(name)
    return replace(config, input=replace(config.input, size=(width, height)))


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    return make_tiles()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    """Folders of Paddle's for any size, with sizes of their own that are not square, and one with names of its own."""
    parent = tmp_path_factory.mktemp("exports")
    sod = replace(of_size(SOD, 160, 128), name="my vehicles", gsd=0.1)
    pico = replace(of_size(ESNET, 224, 160), box_voting=0.6)
    settings = ExportSettings(input_size="dynamic")
    return {
        SOD: export_network(lively(SOD), sod, parent / "sod", settings),
        ESNET: export_network(lively(ESNET), pico, parent / "pico", settings),
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A folder of Paddle's for one size and without suppression, of parameters and a configuration."""
    parent = tmp_path_factory.mktemp("built")
    trained = parent / "best_model"
    trained.mkdir()
    paddle.save(lively(SOD).state_dict(), str(trained / "best.pdparams"))
    content = stated(replace(catalogue.find(SOD), name="mine"), "best.pdparams")
    (trained / catalogue.IN_FOLDER).write_text(yaml.safe_dump(content))
    return export(str(trained), parent / "made", ExportSettings(input_size="96x64", nms=False))


@pytest.mark.parametrize(("name", "stem"), [(ESNET, "model"), (SOD, "inference")])
def test_a_paddle_folder_answers_in_original_pixels_as_the_official_ones(
    name: str, stem: str, exports: dict[str, Export]
) -> None:
    nms = catalogue.find(name).nms
    assert nms is not None
    predictors = [predictor(exports[name].folder, stem, onednn) for onednn in (False, True)]
    factor = np.array([[0.5, 0.8], [2, 1]], "float32")
    for height, width in ((320, 352), (96, 64)):
        pixels = batch(2, height, width)
        # PP-YOLOE's graphs normalise, PicoDet's are given normalised pixels.
        image = pixels if name == SOD else normalised(pixels, name)
        boxes, scores = raw(name, pixels)
        boxes = boxes / factor[:, None, [1, 0, 1, 0]]
        suppressed = suppression(
            paddle.to_tensor(boxes), paddle.to_tensor(scores), nms.score_threshold, nms.iou, nms.top_k, nms.keep
        )
        expected, expected_counts = (value.numpy() for value in suppressed)
        for each in predictors:
            rows, counts = by_paddle(each, image=image, scale_factor=factor)
            np.testing.assert_array_equal(counts, expected_counts)
            assert len(rows) > 20
            ends = np.cumsum(counts)[:-1]
            for found, wanted in zip(np.split(rows, ends), np.split(expected, ends), strict=True):
                apart = np.abs(found[:, None] - wanted[None]).max(axis=2)
                # Each has its like, whatever the order of equal scores.
                assert len(np.unique(apart.argmin(axis=1))) == len(found)
                np.testing.assert_array_less(apart.min(axis=1), 0.05)


def test_what_the_yaml_of_a_folder_says(exports: dict[str, Export], built: Export) -> None:
    made = exports[SOD]
    texts = [(made.folder / name).read_text() for name in ("infer_cfg.yml", "inference.yml")]
    assert texts[0] == texts[1]
    content = yaml.safe_load(texts[0])
    assert content["Global"] == {"model_name": "PP-YOLOE_plus_SOD-S"}
    assert (content["arch"], content["use_dynamic_shape"], len(content["label_list"])) == ("YOLO", True, 10)
    assert [step["type"] for step in content["Preprocess"]] == ["Resize", "Permute"]
    assert content["Preprocess"][0] == {"type": "Resize", "interp": 2, "keep_ratio": False, "target_size": [128, 160]}
    assert (made.config.name, made.config.gsd, made.config.input.size) == ("my vehicles", 0.1, (160, 128))
    assert exports[ESNET].config.box_voting == 0.6
    content = yaml.safe_load((built.folder / "inference.yml").read_text())
    assert (content["use_dynamic_shape"], content["Preprocess"][0]["target_size"]) == (False, [64, 96])
    content = yaml.safe_load((exports[ESNET].folder / "inference.yml").read_text())
    # PaddleX has no name for this network: one of its relatives.
    assert (content["Global"], content["arch"]) == ({"model_name": "PicoDet-S"}, "GFL")
    assert [step["type"] for step in content["Preprocess"]] == ["Resize", "NormalizeImage", "Permute"]
    assert content["Preprocess"][1]["mean"] == [0.485, 0.456, 0.406]


def test_a_folder_with_parameters_and_a_configuration_is_built_without_suppression_in_input_pixels(
    built: Export, tmp_path: Path
) -> None:
    assert (built.config.name, built.config.input.size, built.config.input.dynamic) == ("mine", (96, 64), False)
    runs = predictor(built.folder, "model")
    for count in (1, 2):
        pixels = batch(count, 64, 96)
        assert_close(by_paddle(runs, image=pixels), raw(SOD, pixels))
    with pytest.raises(InvalidSetting, match="brings its own weights"):
        export(str(built.folder), tmp_path / "other", weights="other.pdparams")


@pytest.fixture(scope="module")
def expected(tiles: list[np.ndarray]) -> dict[tuple[int, int], list[Detections]]:
    """What SOD finds in the tiles at two sizes."""
    return {size: [by_layers(SOD, tile, size, 0.8) for tile in tiles] for size in ((160, 128), (256, 224))}


@pytest.mark.parametrize(
    ("engine", "sizes"),
    [
        ("paddle", {None: (160, 128), "256x224": (256, 224)}),
        pytest.param("openvino", {None: (160, 128), "256x224": (256, 224)}, marks=converts),
        pytest.param("onnxruntime", {"256x224": (256, 224)}, marks=converts),
    ],
)
def test_a_folder_for_any_size_runs_at_the_size_asked_for(
    engine: str,
    sizes: dict[str | None, tuple[int, int]],
    exports: dict[str, Export],
    tiles: list[np.ndarray],
    expected: dict[tuple[int, int], list[Detections]],
) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    for size, runs_at in sizes.items():
        detector = load_detector(str(exports[SOD].folder), engine=engine, threshold=0.8, input_size=size)
        assert detector.provenance["engine"] == engine
        assert detector.provenance["input_size"] == list(runs_at)
        for found, wanted in zip(detector.detect(tiles), expected[runs_at], strict=True):
            assert_same(found, wanted)
        assert_same(detector.detect(tiles[1:2])[0], expected[runs_at][1])


def test_at_a_size_that_no_network_takes_a_folder_for_any_size_runs_at_its_own(exports: dict[str, Export]) -> None:
    detector = load_detector(str(exports[ESNET].folder), engine="paddle", input_size=500)
    assert detector.provenance["input_size"] == [224, 160]


@converts
def test_a_folder_for_any_size_becomes_onnx_of_the_size_asked_for(exports: dict[str, Export], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = export(str(exports[ESNET].folder), tmp_path / "made", ExportSettings("onnx", "96x64"))
    assert (made.config.input.size, made.config.input.dynamic) == ((96, 64), False)
    session = onnxruntime.InferenceSession(str(made.config.weights), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 64, 96]
    pixels = batch(2, 64, 96)
    values = {"image": normalised(pixels, ESNET), "scale_factor": np.ones((2, 2), np.float32)}
    assert_close(session.run(None, values), raw(ESNET, pixels))


@converts
def test_a_folder_becomes_onnx_for_any_size_used_as_the_configuration_says_that_names_it(
    exports: dict[str, Export], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    content = stated(replace(catalogue.find(ESNET), name="mine", threshold=0.4, gsd=0.2), str(exports[ESNET].folder))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    made = export(str(tmp_path / "mine.yaml"), tmp_path / "made", ExportSettings("onnx"))
    assert (made.config.name, made.config.threshold, made.config.gsd) == ("mine", 0.4, 0.2)
    assert made.config.output.layout == "boxes-and-scores"
    assert (made.config.input.size, made.config.input.dynamic) == ((224, 160), True)
    assert made.pixels < 0.5
    session = onnxruntime.InferenceSession(str(made.config.weights), providers=["CPUExecutionProvider"])
    for count, height, width in ((1, 160, 224), (2, 96, 64)):
        pixels = batch(count, height, width)
        values = {"image": normalised(pixels, ESNET), "scale_factor": np.ones((count, 2), np.float32)}
        assert_close(session.run(None, values), raw(ESNET, pixels))


@converts
def test_a_folder_for_one_size_is_not_exported_for_another_nor_as_what_it_is(built: Export, tmp_path: Path) -> None:
    for settings, said in ((ExportSettings("onnx", 416), "96 x 64 only"), (ExportSettings(), "already")):
        with pytest.raises(InvalidSetting, match=said):
            export(str(built.folder), tmp_path / "other", settings)
        with pytest.raises(InvalidSetting, match=said):
            export(SOD, tmp_path / "other", settings, weights=built.folder)


@converts
def test_onnx_for_any_size_in_place_of_an_earlier_export(
    built: Export, tiles: list[np.ndarray], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    target = Path(shutil.copytree(built.folder, tmp_path / "made"))
    settings = ExportSettings("onnx", "dynamic")
    made = export_network(lively(PICODET), of_size(PICODET, 128, 96), target, settings, overwrite=True)
    assert [path.name for path in made.files] == ["model.onnx", "model.yaml"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["made", "model.onnx", "model.yaml"]
    session = onnxruntime.InferenceSession(str(made.files[0]), providers=["CPUExecutionProvider"])
    for shape in ((1, 320, 320), (3, 64, 96)):
        pixels = batch(*shape)
        assert_close(session.run(None, {"image": normalised(pixels, PICODET)}), raw(PICODET, pixels))
    detector = load_detector(str(target), threshold=0.6, input_size="320x224")
    assert (detector.name, detector.provenance["engine"]) == (PICODET, "openvino")
    assert detector.provenance["input_size"] == [320, 224]
    for tile, found in zip(tiles, detector.detect(tiles), strict=True):
        assert_same(found, by_layers(PICODET, tile, (320, 224), 0.6))


@converts
def test_openvino_in_batches_and_with_the_slopes_of_leaky_relus(tiles: list[np.ndarray], tmp_path: Path) -> None:
    import openvino

    (tmp_path / "made").mkdir()
    # A configuration of weights alone will do for a network in memory.
    config = replace(catalogue.find(SHUFFLENET), network=None)
    made = export_network(lively(SHUFFLENET), config, tmp_path / "made", ExportSettings("openvino", 224))
    assert made.pixels < 0.01
    assert made.config.weights == tmp_path / "made" / "model.xml"
    assert [path.name for path in made.files] == ["model.bin", "model.xml", "model.yaml"]
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(made.folder / "model.xml", "CPU", hints)
    for count in (1, 3):
        pixels = batch(count, 224, 224)
        given = compiled([normalised(pixels, SHUFFLENET)])
        assert_close([given[0], given[1]], raw(SHUFFLENET, pixels))
    detector = load_detector(str(made.folder), threshold=0.8)
    assert (detector.name, detector.provenance["engine"]) == (SHUFFLENET, "openvino")
    for tile, found in zip(tiles, detector.detect(tiles), strict=True):
        assert_same(found, by_layers(SHUFFLENET, tile, (224, 224), 0.8))


def test_reparameterised_it_computes_the_same() -> None:
    network = lively(SOD)
    deployed = deployment.reparameterised(network)
    assert not any(isinstance(layer, RepConv) for layer in deployed.sublayers())
    assert any(isinstance(layer, RepConv) for layer in network.sublayers())
    pixels = paddle.to_tensor(normalised(batch(2, 96, 128), SOD))
    with paddle.no_grad():
        assert_close([value.numpy() for value in deployed(pixels)], [value.numpy() for value in network(pixels)])


def test_a_mismatch_leaves_the_folder_and_the_network_as_they_were(
    built: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path(shutil.copytree(built.folder, tmp_path / "made"))
    files = {path.name: path.read_bytes() for path in target.iterdir()}
    network = lively(PICODET)
    state = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    # It is found when everything is written and run.
    monkeypatch.setattr(conversion, "SCORE", -1.0)
    settings = ExportSettings(input_size=64, nms=False)
    network.train()
    try:
        with pytest.raises(ModelMismatch, match=f"{PICODET}: ") as error:
            export_network(network, catalogue.find(PICODET), target, settings, overwrite=True)
        assert network.training
    finally:
        network.eval()
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])


@converts
def test_the_model_that_comes_along_becomes_onnx_used_as_it_is(tmp_path: Path) -> None:
    made = export("aerial-vehicles", tmp_path / "made", ExportSettings("onnx"))
    ours, exported = load_detector("aerial-vehicles", threshold=0.1), load_detector(str(made.folder), threshold=0.1)
    for key in ("input_size", "half_turn", "box_voting", "nms", "pixels"):
        assert exported.provenance[key] == ours.provenance[key]
    assert (made.config.gsd, made.config.slice, made.config.threshold) == (0.15, 272, 0.6)
    tile = synthetic_tile(104, 320, 0.15).pixels
    (found,), (expected,) = exported.detect([tile]), ours.detect([tile])
    assert_same(found, expected)
    with pytest.raises(InvalidSetting, match="is a Paddle model already"):
        export("aerial-vehicles", tmp_path / "other")


def test_only_exports_are_replaced(built: Export, tmp_path: Path) -> None:
    target = Path(shutil.copytree(built.folder, tmp_path / "made"))
    network, config = lively(PICODET), catalogue.find(PICODET)
    with pytest.raises(OutputError, match="--overwrite"):
        export_network(network, config, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt, which no export writes"):
        export_network(network, config, target, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        export_network(network, config, target / "notes.txt", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        export_network(network, config, tmp_path / "no" / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert {path.name for path in target.iterdir()} == {"notes.txt", *(path.name for path in built.files)}


@pytest.mark.parametrize(
    "values", [{"format": "tflite"}, {"input_size": 100}, {"input_size": "all"}, {"format": "onnx", "nms": True}]
)
def test_settings_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        ExportSettings(**values)


def test_weights_that_do_not_fit(tmp_path: Path, home: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, MissingWeights, "slicedet models pull --kind pdparams"),
        ({"weights": tmp_path / "none.pdparams"}, MissingWeights, "no such weights file"),
        ({"weights": tmp_path / "w.onnx"}, InvalidSetting, "built from .pdparams"),
        ({"weights": tmp_path / "other.pdparams"}, ModelMismatch, "parameters are not those of"),
    ]
    (tmp_path / "w.onnx").write_bytes(b"")
    paddle.save(lively(PICODET).state_dict(), str(tmp_path / "other.pdparams"))
    for arguments, kind, said in cases:
        with pytest.raises(kind, match=said) as error:
            export(SOD, tmp_path / "made", **arguments)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()
