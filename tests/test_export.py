"""Exports, run by the runtimes they are for and compared with the network in memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

paddle = pytest.importorskip("paddle")
sys.path.append(str(Path(__file__).parent / "detectors"))

from paddle_folders import lively, make, suppression  # noqa: E402

from slicedet.errors import InvalidSetting, MissingWeights, ModelMismatch, OutputError  # noqa: E402
from slicedet.export import Export, ExportSettings, export, export_network  # noqa: E402
from slicedet.models import catalogue, conversion, deployment  # noqa: E402
from slicedet.models.config import stated  # noqa: E402
from slicedet.networks.layers import RepConv  # noqa: E402

PICODET = "picodet_xs_320_coco_lcnet"
SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")


def batch(count: int, height: int, width: int) -> np.ndarray:
    """Pixels 0..255, [count, 3, height, width]."""
    return np.random.default_rng(3).integers(0, 256, (count, 3, height, width)).astype("float32")


def normalised(pixels: np.ndarray, name: str) -> np.ndarray:
    source = catalogue.find(name).input
    mean, std = (np.array(values, "float32").reshape(1, 3, 1, 1) for values in (source.mean, source.std))
    return ((pixels / 255 - mean) / std).astype("float32")


def by_layers(name: str, pixels: np.ndarray) -> list[np.ndarray]:
    with paddle.no_grad():
        return [value.numpy() for value in lively(name)(paddle.to_tensor(normalised(pixels, name)))]


def by_paddle(folder: Path, stem: str, **values: np.ndarray) -> list[np.ndarray]:
    config = paddle.inference.Config(str(folder / f"{stem}.json"), str(folder / f"{stem}.pdiparams"))
    config.disable_mkldnn()
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    assert set(predictor.get_input_names()) == set(values)
    for name, value in values.items():
        predictor.get_input_handle(name).copy_from_cpu(value)
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def written(name: str, folder: Path, **settings: Any) -> Export:
    return export_network(lively(name), catalogue.find(name), folder, ExportSettings(**settings))


def assert_same(given: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for output, value in zip(given, expected, strict=True):
        np.testing.assert_allclose(output, value, atol=1e-3 * np.ptp(value))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    """A folder of each family, one of them of a size that is not square and with names of its own."""
    parent = tmp_path_factory.mktemp("exports")
    sod = replace(catalogue.find(SOD), name="my vehicles", gsd=0.1)
    return {
        SOD: export_network(lively(SOD), sod, parent / "sod", ExportSettings(input_size="352x320")),
        PICODET: written(PICODET, parent / "pico", input_size="dynamic"),
    }


@pytest.mark.parametrize(("name", "stem"), [(PICODET, "model"), (SOD, "inference")])
def test_a_paddle_folder_answers_in_original_pixels_as_the_official_ones(
    name: str, stem: str, exports: dict[str, Export]
) -> None:
    made = exports[name]
    pixels, factor = batch(2, 320, 352), np.array([[0.5, 0.8], [2, 1]], "float32")
    # PP-YOLOE's graphs normalise, PicoDet's are given normalised pixels.
    image = pixels if name == SOD else normalised(pixels, name)
    rows, counts = by_paddle(made.folder, stem, image=image, scale_factor=factor)
    boxes, scores = by_layers(name, pixels)
    boxes = boxes / factor[:, None, [1, 0, 1, 0]]
    nms = catalogue.find(name).nms
    assert nms is not None
    expected, expected_counts = suppression(
        paddle.to_tensor(boxes), paddle.to_tensor(scores), nms.score_threshold, nms.iou, nms.top_k, nms.keep
    )
    np.testing.assert_array_equal(counts, expected_counts.numpy())
    assert len(rows) > 20
    order, wanted_order = (np.lexsort(each.T.round(2)) for each in (rows, expected.numpy()))
    np.testing.assert_allclose(rows[order], expected.numpy()[wanted_order], atol=0.05)


def test_what_the_yaml_of_a_folder_says(exports: dict[str, Export]) -> None:
    made = exports[SOD]
    texts = [(made.folder / name).read_text() for name in ("infer_cfg.yml", "inference.yml")]
    assert texts[0] == texts[1]
    content = yaml.safe_load(texts[0])
    assert content["Global"] == {"model_name": "PP-YOLOE_plus_SOD-S"}
    assert (content["arch"], content["use_dynamic_shape"], len(content["label_list"])) == ("YOLO", False, 10)
    assert [step["type"] for step in content["Preprocess"]] == ["Resize", "Permute"]
    assert content["Preprocess"][0] == {"type": "Resize", "interp": 2, "keep_ratio": False, "target_size": [320, 352]}
    assert (made.config.name, made.config.gsd, made.config.input.size) == ("my vehicles", 0.1, (352, 320))
    content = yaml.safe_load((exports[PICODET].folder / "inference.yml").read_text())
    assert content["Global"] == {"model_name": "PicoDet-XS"}
    assert (content["arch"], content["use_dynamic_shape"]) == ("GFL", True)
    assert [step["type"] for step in content["Preprocess"]] == ["Resize", "NormalizeImage", "Permute"]
    assert content["Preprocess"][1]["mean"] == [0.485, 0.456, 0.406]


def test_without_suppression_boxes_are_in_input_pixels(tmp_path: Path) -> None:
    made = written(PICODET, tmp_path / "made", input_size="dynamic", nms=False)
    for shape in ((1, 192, 320), (2, 96, 64)):
        pixels = batch(*shape)
        assert_same(by_paddle(made.folder, "model", image=normalised(pixels, PICODET)), by_layers(PICODET, pixels))


@converts
@pytest.mark.parametrize(
    ("name", "input_size", "shapes"),
    [(PICODET, None, [(1, 320, 320), (3, 320, 320)]), (SOD, "dynamic", [(1, 160, 224), (2, 96, 64)])],
)
def test_onnx_in_batches(name: str, input_size: str | None, shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = written(name, tmp_path / "made", format="onnx", input_size=input_size)
    assert [path.name for path in made.files] == ["model.onnx", "model.yaml"]
    session = onnxruntime.InferenceSession(str(made.files[0]), providers=["CPUExecutionProvider"])
    for shape in shapes:
        pixels = batch(*shape)
        assert_same(session.run(None, {"image": normalised(pixels, name)}), by_layers(name, pixels))


@converts
def test_openvino_in_batches(tmp_path: Path) -> None:
    import openvino

    # A configuration of weights alone will do for a network in memory.
    config = replace(catalogue.find(PICODET), network=None)
    made = export_network(lively(PICODET), config, tmp_path / "made", ExportSettings("openvino", 224))
    assert made.config.weights == tmp_path / "made" / "model.xml"
    assert [path.name for path in made.files] == ["model.bin", "model.xml", "model.yaml"]
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(made.folder / "model.xml", "CPU", hints)
    for count in (1, 3):
        pixels = batch(count, 224, 224)
        given = compiled([normalised(pixels, PICODET)])
        assert_same([given[0], given[1]], by_layers(PICODET, pixels))


@converts
def test_a_folder_becomes_onnx_used_as_the_configuration_says_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "paddle").mkdir()
    make(tmp_path / "paddle", PICODET)
    content = stated(replace(catalogue.find(PICODET), name="mine", threshold=0.4, gsd=0.1), "paddle")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    made = export(str(tmp_path / "mine.yaml"), tmp_path / "made", ExportSettings("onnx"))
    assert (made.config.name, made.config.threshold, made.config.gsd) == ("mine", 0.4, 0.1)
    assert made.config.output.layout == "boxes-and-scores"
    assert made.pixels < 0.5
    for settings, said in ((ExportSettings("onnx", 416), "320 x 320 only"), (ExportSettings(), "already")):
        with pytest.raises(InvalidSetting, match=said):
            export(str(tmp_path / "paddle"), tmp_path / "other", settings)
        with pytest.raises(InvalidSetting, match=said):
            export(PICODET, tmp_path / "other", settings, weights=tmp_path / "paddle")


@converts
def test_a_dynamic_folder_becomes_one_of_the_size_asked_for(exports: dict[str, Export], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = export(str(exports[PICODET].folder), tmp_path / "made", ExportSettings("onnx", "96x64"))
    assert (made.config.input.size, made.config.input.dynamic) == ((96, 64), False)
    session = onnxruntime.InferenceSession(str(made.config.weights), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 64, 96]
    pixels = batch(2, 64, 96)
    values = {"image": normalised(pixels, PICODET), "scale_factor": np.ones((2, 2), np.float32)}
    assert_same(session.run(None, values), by_layers(PICODET, pixels))


@converts
def test_a_dynamic_folder_stays_one_of_any_size(exports: dict[str, Export], tmp_path: Path) -> None:
    import openvino

    made = export(str(exports[PICODET].folder), tmp_path / "made", ExportSettings("openvino"))
    assert (made.config.input.size, made.config.input.dynamic) == (exports[PICODET].config.input.size, True)
    assert openvino.Core().read_model(made.config.weights).input("image").partial_shape[2].is_dynamic


def test_a_folder_with_parameters_and_a_configuration_is_built(tmp_path: Path) -> None:
    trained = tmp_path / "best_model"
    trained.mkdir()
    paddle.save(lively(PICODET).state_dict(), str(trained / "best.pdparams"))
    content = stated(replace(catalogue.find(PICODET), name="mine"), "best.pdparams")
    (trained / catalogue.IN_FOLDER).write_text(yaml.safe_dump(content))
    made = export(str(trained), tmp_path / "made", ExportSettings(input_size=64, nms=False))
    assert made.config.name == "mine"
    pixels = batch(1, 64, 64)
    assert_same(by_paddle(made.folder, "model", image=normalised(pixels, PICODET)), by_layers(PICODET, pixels))
    with pytest.raises(InvalidSetting, match="brings its own weights"):
        export(str(trained), tmp_path / "other", weights="other.pdparams")


def test_reparameterised_it_computes_the_same() -> None:
    network = lively(SOD)
    deployed = deployment.reparameterised(network)
    assert not any(isinstance(layer, RepConv) for layer in deployed.sublayers())
    assert any(isinstance(layer, RepConv) for layer in network.sublayers())
    pixels = paddle.to_tensor(normalised(batch(2, 96, 128), SOD))
    with paddle.no_grad():
        assert_same([value.numpy() for value in deployed(pixels)], [value.numpy() for value in network(pixels)])


def test_the_network_stays_as_it_is(tmp_path: Path) -> None:
    network = lively(PICODET)
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    network.train()
    try:
        export_network(network, catalogue.find(PICODET), tmp_path / "made", ExportSettings(input_size=64))
        assert network.training
    finally:
        network.eval()
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_a_mismatch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SCORE", -1.0)
    with pytest.raises(ModelMismatch, match=f"{PICODET}: ") as error:
        written(PICODET, tmp_path / "made", input_size=64, nms=False)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_only_exports_are_replaced(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    written(PICODET, target, input_size=64)
    first = (target / "model.json").stat().st_ino
    config = catalogue.find(PICODET)
    with pytest.raises(OutputError, match="--overwrite"):
        written(PICODET, target)
    export_network(lively(PICODET), config, target, ExportSettings(input_size=64), overwrite=True)
    assert (target / "model.json").stat().st_ino != first
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds notes\.txt, which no export writes"):
        export_network(lively(PICODET), config, target, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        export_network(lively(PICODET), config, target / "notes.txt", overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        written(PICODET, tmp_path / "no" / "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


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
