"""Folders that slicedet exports: every engine, PaddleX, and any size find the same in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from paddle_folders import lively  # noqa: E402

from slicedet import Detections, load_detector  # noqa: E402
from slicedet.export import ExportSettings, export_network  # noqa: E402
from slicedet.models import catalogue, conversion  # noqa: E402

SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
PICODET = "picodet_s_320_coco_lcnet"
THRESHOLDS = {"picodet_s_320_coco": 0.35, PICODET: 0.55, SOD: 0.8}
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("SLICEDET_HOME", str(folder))
        patch.delenv("SLICEDET_MODEL_MIRROR", raising=False)
        yield folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of Paddle's for each model, all for 320 pixels."""
    parent = tmp_path_factory.mktemp("exports")
    for name in THRESHOLDS:
        export_network(lively(name), catalogue.find(name), parent / name, ExportSettings(input_size=320))
    return {name: parent / name for name in THRESHOLDS}


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Paddle's for any size."""
    folder = tmp_path_factory.mktemp("dynamic") / "any"
    export_network(lively(PICODET), catalogue.find(PICODET), folder, ExportSettings(input_size="dynamic"))
    return folder


@pytest.fixture(scope="module")
def by_paddle(folders: dict[str, Path], tiles: list[np.ndarray]) -> list[Detections]:
    """What Paddle finds with PICODET."""
    return load_detector(str(folders[PICODET]), engine="paddle", threshold=THRESHOLDS[PICODET]).detect(tiles)


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (rows, 12, 3), dtype=np.uint8) for rows in (12, 8, 12, 20)]
    return [cv2.resize(image, (320, 27 * len(image)), interpolation=cv2.INTER_CUBIC) for image in coarse]


def assert_same(found: Detections, expected: Detections) -> None:
    """Within 0.5 px and 0.01, whatever the order of equal scores."""
    assert len(found) == len(expected) > 3
    apart = np.abs(found.boxes[:, None] - expected.boxes[None]).max(2)
    apart[found.category_ids[:, None] != expected.category_ids[None]] = np.inf
    like = apart.argmin(1)
    assert len(np.unique(like)) == len(expected), "two boxes have the same like"
    np.testing.assert_array_less(apart.min(1), 0.5)
    np.testing.assert_allclose(found.scores, expected.scores[like], atol=0.01)


@converts
@pytest.mark.parametrize("name", THRESHOLDS)
def test_engines_agree_one_by_one_and_in_a_batch(name: str, folders: dict[str, Path], tiles: list[np.ndarray]) -> None:
    expected = None
    for engine in ("paddle", "openvino", "onnxruntime"):
        if engine == "onnxruntime":
            pytest.importorskip("onnxruntime")
        detector = load_detector(str(folders[name]), engine=engine, threshold=THRESHOLDS[name])
        assert detector.provenance["engine"] == engine
        assert detector.provenance["input_size"] == [320, 320]
        together = detector.detect(tiles)
        expected = expected or together
        for tile, found, wanted in zip(tiles, together, expected, strict=True):
            assert_same(found, wanted)
            assert_same(detector.detect([tile])[0], wanted)


@converts
def test_boxes_vote_alike_on_every_engine(tiles: list[np.ndarray], by_paddle: list[Detections], tmp_path: Path) -> None:
    config = replace(catalogue.find(PICODET), box_voting=0.6)
    export_network(lively(PICODET), config, tmp_path / "voting", ExportSettings(input_size=320))
    paddles, converted = (
        load_detector(str(tmp_path / "voting"), engine=engine, threshold=THRESHOLDS[PICODET]).detect(tiles)
        for engine in ("paddle", "openvino")
    )
    for before, found, expected in zip(by_paddle, paddles, converted, strict=True):
        assert_same(found, expected)
        np.testing.assert_allclose(found.scores, before.scores, atol=1e-5)
    assert max(np.abs(found.boxes - before.boxes).max() for before, found in zip(by_paddle, paddles, strict=True)) > 1


@converts
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_exports_for_other_engines_load_as_folders(
    kind: str, tiles: list[np.ndarray], by_paddle: list[Detections], tmp_path: Path
) -> None:
    settings = ExportSettings(kind, 320)
    export_network(lively(PICODET), catalogue.find(PICODET), tmp_path / "made", settings)
    detector = load_detector(str(tmp_path / "made"), threshold=THRESHOLDS[PICODET])
    assert (detector.name, detector.provenance["engine"]) == (PICODET, "openvino")
    for found, expected in zip(detector.detect(tiles), by_paddle, strict=True):
        assert_same(found, expected)


@converts
def test_slopes_of_leaky_relus_survive_conversion(tmp_path: Path) -> None:
    name = "picodet_shufflenetv2_1x_416_coco"
    settings = ExportSettings("onnx", 320)
    made = export_network(lively(name), catalogue.find(name), tmp_path / "made", settings)
    assert made.pixels < 0.01


@pytest.mark.parametrize("engine", ["paddle", pytest.param("openvino", marks=converts)])
def test_a_dynamic_folder_runs_at_the_size_asked_for(
    engine: str, dynamic: Path, tiles: list[np.ndarray], by_paddle: list[Detections]
) -> None:
    for size, runs_at in ((None, [320, 320]), ("320x224", [320, 224]), (500, [320, 320])):
        detector = load_detector(str(dynamic), engine=engine, threshold=THRESHOLDS[PICODET], input_size=size)
        assert detector.provenance["input_size"] == runs_at
        (found,) = detector.detect(tiles[:1])
        if runs_at == [320, 320]:
            assert_same(found, by_paddle[0])
        else:
            assert len(found)


def test_parameters_are_run_at_the_size_asked_for_fixed_folders_at_their_own(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    name = "ppyoloe_plus_sod_crn_l_largesize_80e_visdrone"
    folder = folders[SOD]
    assert load_detector(str(folder), engine="paddle", input_size=640).provenance["input_size"] == [320, 320]
    weights = tmp_path / "w.pdparams"
    paddle.save(lively(SOD).state_dict(), str(weights))
    detector = load_detector(SOD, weights, "paddle", input_size=256)
    assert (detector.input_size, detector.provenance["input_size"]) == (256, [256, 256])
    tile = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    (outputs,) = detector.engine.stream([tile])
    with paddle.no_grad():
        expected = lively(SOD)(paddle.to_tensor(tile.transpose(2, 0, 1)[None].astype("float32") / 255))
    for given, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(given, value.numpy(), atol=1e-3 * float(np.ptp(value.numpy())))
    assert catalogue.find(name).input.size == (1920, 1920)


def test_of_pulled_files_those_are_taken_that_the_size_and_the_engine_need(
    home: Path, folders: dict[str, Path]
) -> None:
    config = catalogue.find("picodet_s_320_coco")
    place = home / "models" / config.name
    place.mkdir(parents=True)
    paddle.save(lively(config.name).state_dict(), str(place / config.downloads["pdparams"].filename))
    (place / config.downloads["onnx"].filename).write_bytes(b"\x08 not to be read")
    try:
        by_paddle = load_detector(config.name, engine="paddle")
        assert by_paddle.provenance["input_size"] == [320, 320]
        larger = load_detector(config.name, engine="paddle", input_size=352)
        assert larger.provenance["weights"] == "picodet_s_320_coco.pdparams"
        assert larger.provenance["input_size"] == [352, 352]
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_paddlex_finds_the_same(
    name: str, folders: dict[str, Path], tiles: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")  # It asks the network.
    paddlex = pytest.importorskip("paddlex", reason='needs PaddleX: pip install "paddlex[cv]==3.7.2"')
    known_as = "PP-YOLOE_plus_SOD-S" if name == SOD else "PicoDet-S"
    model = paddlex.create_model(
        known_as,
        model_dir=str(folders[name]),
        device="cpu",
        engine="paddle_static",
        engine_config={"run_mode": "paddle"},  # With oneDNN, its default, PaddlePaddle 3.3 is not to be trusted.
    )
    threshold = THRESHOLDS[name]
    results = list(model.predict([tile[..., ::-1] for tile in tiles], batch_size=4, threshold=threshold))
    detector = load_detector(str(folders[name]), engine="paddle", threshold=threshold)
    for tile, result, expected in zip(tiles, results, detector.detect(tiles), strict=True):
        rows = np.array([[box["cls_id"], box["score"], *box["coordinate"]] for box in result["boxes"]])
        # PaddleX cuts boxes at the borders, which makes many alike: sorted by class and score.
        clipped = np.clip(expected.boxes, 0, [tile.shape[1], tile.shape[0]] * 2)
        wanted = np.column_stack([expected.category_ids, expected.scores, clipped])
        left, right = (each[np.lexsort((each[:, 1], each[:, 0]))] for each in (rows, wanted))
        assert len(left) == len(right) > 3
        np.testing.assert_allclose(left[:, 2:], right[:, 2:], atol=0.5)
        np.testing.assert_allclose(left[:, :2], right[:, :2], atol=0.01)
