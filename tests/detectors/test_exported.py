"""Folders that slicedet exports: every engine and PaddleX find the same in them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

paddle = pytest.importorskip("paddle")

from finding import assert_close, assert_same, by_layers, make_tiles, noise, raw  # noqa: E402
from paddle_folders import lively  # noqa: E402

from slicedet import Detector, load_detector  # noqa: E402
from slicedet.detectors.loading import circumstances_of  # noqa: E402
from slicedet.detectors.network import NetworkDetector  # noqa: E402
from slicedet.export import ExportSettings, export_network  # noqa: E402
from slicedet.models import cache, catalogue, conversion  # noqa: E402

SOD = "ppyoloe_plus_sod_crn_s_80e_visdrone"
PICODET = "picodet_s_320_coco_lcnet"
ESNET = "picodet_s_320_coco"
THRESHOLDS = {ESNET: 0.7, PICODET: 0.6, SOD: 0.85}
pytestmark = pytest.mark.usefixtures("lasting_home")
converts = pytest.mark.skipif(not conversion.available(), reason="needs paddle2onnx")

MakeFolder = Callable[[str], Path]
Load = Callable[[str, str], Detector]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """A folder of Paddle's for a model: folder(name)."""
    parent = tmp_path_factory.mktemp("exports")

    @functools.cache
    def make(name: str) -> Path:
        settings = ExportSettings(input_size="256x224")
        return export_network(lively(name), catalogue.find(name), parent / name, settings).folder

    return make


@pytest.fixture(scope="module")
def detector(folder: MakeFolder) -> Load:
    """The detector of such a folder: detector(name, engine). It is asked for a size, but has its own."""

    @functools.cache
    def load(name: str, engine: str) -> Detector:
        return load_detector(str(folder(name)), engine=engine, threshold=THRESHOLDS[name], input_size=640)

    return load


@pytest.fixture(scope="module")
def tiles() -> list[np.ndarray]:
    return make_tiles()


@converts
def test_engines_agree_one_by_one_and_in_a_batch(detector: Load, tiles: list[np.ndarray]) -> None:
    expected = [by_layers(PICODET, tile, (256, 224), THRESHOLDS[PICODET]) for tile in tiles]
    for engine in ("paddle", "openvino", "onnxruntime"):
        if engine == "onnxruntime":
            pytest.importorskip("onnxruntime")
        loaded = detector(PICODET, engine)
        assert loaded.provenance["engine"] == engine
        assert loaded.provenance["input_size"] == [256, 224]
        for tile, found, wanted in zip(tiles, loaded.detect(tiles), expected, strict=True):
            assert_same(found, wanted)
            assert_same(loaded.detect([tile])[0], wanted)


@converts
def test_boxes_vote_alike_on_every_engine(
    folder: MakeFolder, detector: Load, tiles: list[np.ndarray], tmp_path: Path
) -> None:
    voting = Path(shutil.copytree(folder(PICODET), tmp_path / "voting"))
    for name in ("infer_cfg.yml", "inference.yml"):
        content = yaml.safe_load((voting / name).read_text())
        content["slicedet"]["box_voting"] = 0.6
        (voting / name).write_text(yaml.safe_dump(content))
    (alone,) = detector(PICODET, "paddle").detect(tiles[:1])
    (found,), (expected,) = (
        load_detector(str(voting), engine=engine, threshold=THRESHOLDS[PICODET]).detect(tiles[:1])
        for engine in ("paddle", "openvino")
    )
    assert_same(found, expected)
    np.testing.assert_allclose(found.scores, alone.scores, atol=1e-5)
    assert np.abs(found.boxes - alone.boxes).max() > 1


def test_of_pulled_files_those_are_taken_that_the_size_and_the_engine_need(lasting_home: Path) -> None:
    config = catalogue.find(ESNET)
    place = lasting_home / "models" / config.name
    place.mkdir(parents=True)
    files = {kind: place / config.downloads[kind].filename for kind in ("pdparams", "onnx")}
    paddle.save(lively(ESNET).state_dict(), str(files["pdparams"]))
    files["onnx"].write_bytes(b"\x08 not to be read")
    try:
        for size, kind in ((None, "onnx"), ((320, 320), "onnx"), ((500, 500), "onnx"), ((352, 352), "pdparams")):
            assert circumstances_of(ESNET, None, "cpu", size)["weights_sha256"] == cache.digest(files[kind])
        detector = load_detector(ESNET, engine="paddle", input_size=352)
        assert isinstance(detector, NetworkDetector)
        assert detector.provenance["weights"] == "picodet_s_320_coco.pdparams"
        assert (detector.input_size, detector.provenance["input_size"]) == (352, [352, 352])
        tile = noise(np.random.default_rng(2), 352, 352)
        (outputs,) = detector.engine.stream([tile])
    finally:
        shutil.rmtree(place)
    assert_close(outputs, raw(ESNET, tile.transpose(2, 0, 1)[None]))


@pytest.mark.parametrize("name", THRESHOLDS)
def test_paddlex_finds_the_same(
    name: str, folder: MakeFolder, detector: Load, tiles: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")  # It asks the network.
    paddlex = pytest.importorskip("paddlex", reason='needs PaddleX: pip install "paddlex[cv]==3.7.2"')
    known_as = "PP-YOLOE_plus_SOD-S" if name == SOD else "PicoDet-S"
    model = paddlex.create_model(
        known_as,
        model_dir=str(folder(name)),
        device="cpu",
        engine="paddle_static",
        engine_config={"run_mode": "paddle"},  # With oneDNN, its default, PaddlePaddle 3.3 is not to be trusted.
    )
    threshold = THRESHOLDS[name]
    results = list(model.predict([tile[..., ::-1] for tile in tiles], batch_size=4, threshold=threshold))
    for tile, result, expected in zip(tiles, results, detector(name, "paddle").detect(tiles), strict=True):
        rows = np.array([[box["cls_id"], box["score"], *box["coordinate"]] for box in result["boxes"]])
        # PaddleX cuts boxes at the borders, which makes many alike: sorted by class and score.
        clipped = np.clip(expected.boxes, 0, [tile.shape[1], tile.shape[0]] * 2)
        wanted = np.column_stack([expected.category_ids, expected.scores, clipped])
        left, right = (each[np.lexsort((each[:, 1], each[:, 0]))] for each in (rows, wanted))
        assert len(left) == len(right) > 3
        np.testing.assert_allclose(left[:, 2:], right[:, 2:], atol=0.5)
        np.testing.assert_allclose(left[:, :2], right[:, :2], atol=0.01)
