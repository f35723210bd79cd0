"""Both engines on real photos with real weights, in all three output layouts."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from graphs import constant_graph

from slicedet import Detections, Scene, TileGrid, load_detector
from slicedet.boxes import overlap
from slicedet.detectors.network import NetworkDetector
from slicedet.detectors.onnxruntime import OnnxRuntimeEngine
from slicedet.detectors.openvino import OpenVinoEngine
from slicedet.errors import InvalidSetting, ModelMismatch
from slicedet.models import DEFAULT_MODEL, catalogue
from slicedet.models.config import InputConfig, ModelConfig, NmsConfig, OutputConfig

MODELS = {
    "picodet_s_416_coco": "picodet_s_416_coco.onnx",
    "picodet_s_320_coco": "picodet_s_320_coco.onnx",
    "picodet_xs_320_coco_lcnet": "picodet_xs_320_lcnet_postprocessed.onnx",
}
PHOTOS = ["DJI_0005-0018.jpg", "DJI-00760-00001.jpg"]


@pytest.fixture(scope="module")
def tiles(shared: Path) -> list[np.ndarray]:
    """Two tiles of each photo."""
    found = []
    for name in PHOTOS:
        with Scene(shared / "data" / "aerial_vehicles" / "images" / name) as scene:
            places = list(TileGrid.cover(scene.width, scene.height, 416, 0.25))[7:12:4]
            found += [scene.read(place) for place in places]
    return found


@functools.cache
def loaded(model: str, engine: str, weights: Path | None = None) -> NetworkDetector:
    """A detector with its own threshold, loaded once, which takes a second."""
    detector = load_detector(model, weights, engine=engine)
    assert isinstance(detector, NetworkDetector)
    return detector


def from_score(threshold: float, detector: NetworkDetector, **changes: Any) -> NetworkDetector:
    """The same network with another threshold, and changes of its configuration."""
    return NetworkDetector(replace(detector.config, **changes), detector.engine, threshold, {})


def paired(a: Detections, b: Detections) -> tuple[np.ndarray, np.ndarray]:
    """Rows of class, score and box of two sets, each row beside its like."""
    rows = [np.column_stack([d.category_ids, d.scores, d.boxes]).astype(float) for d in (a, b)]
    order = [np.lexsort((r[:, 3].round(), r[:, 2].round(), r[:, 0])) for r in rows]
    return rows[0][order[0]], rows[1][order[1]]


@pytest.mark.parametrize("model", MODELS)
def test_engines_agree_on_real_photos(model: str, tiles: list[np.ndarray], shared: Path) -> None:
    weights = shared / "models" / MODELS[model]
    found = [from_score(0.2, loaded(model, e, weights)).detect(tiles) for e in ("openvino", "onnxruntime")]
    assert sum(map(len, found[0])) > 20
    for a, b in zip(*found, strict=True):
        left, right = paired(a, b)
        np.testing.assert_allclose(left[:, 2:], right[:, 2:], atol=0.5)
        np.testing.assert_allclose(left[:, 1], right[:, 1], atol=0.01)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_boxes_and_scores_layout_agrees_with_raw_heads(
    engine: str, tiles: list[np.ndarray], shared: Path, tmp_path: Path
) -> None:
    source = shared / "models" / "picodet_s_416_coco.onnx"
    with_boxes = tmp_path / "boxes.onnx"
    decode_in_graph(source, with_boxes)
    config = replace(catalogue.find("picodet_s_416_coco"), output=OutputConfig("boxes-and-scores"))
    kind = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}[engine]
    detector = NetworkDetector(config, kind(with_boxes, config, "cpu", "f32"), 0.2, {})
    raw = from_score(0.2, loaded("picodet_s_416_coco", engine, source))
    for a, b in zip(raw.detect(tiles), detector.detect(tiles), strict=True):
        left, right = paired(a, b)
        np.testing.assert_allclose(left, right, atol=0.01)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_with_a_half_turn_a_turned_tile_has_the_same_boxes_turned(
    engine: str, tiles: list[np.ndarray], shared: Path
) -> None:
    plain = from_score(0.2, loaded("picodet_s_416_coco", engine, shared / "models" / "picodet_s_416_coco.onnx"))
    both = from_score(0.2, plain, half_turn=True)
    assert (plain.provenance["half_turn"], both.provenance["half_turn"]) == (False, True)
    turned = [tile[::-1, ::-1] for tile in tiles]
    found, as_turned = both.detect(tiles), both.detect(turned)
    for tile, a, b in zip(tiles, found, as_turned, strict=True):
        frame = np.array([tile.shape[1], tile.shape[0]] * 2, np.float32)
        left, right = paired(a, b.replace(boxes=frame - b.boxes[:, [2, 3, 0, 1]]))
        np.testing.assert_allclose(left, right, atol=0.01)
    # Nothing that neither look sees alone, and no better than there.
    assert sum(map(len, found)) > 10
    for tile, looked, upright, other in zip(tiles, found, plain.detect(tiles), plain.detect(turned), strict=True):
        frame = np.array([tile.shape[1], tile.shape[0]] * 2, np.float32)
        alone = Detections.concatenate([upright, other.replace(boxes=frame - other.boxes[:, [2, 3, 0, 1]])])
        near = overlap(looked.boxes[:, None], alone.boxes, "iou") >= 0.6
        assert (looked.scores <= np.where(near, alone.scores, 0).max(axis=1, initial=0) + 1e-5).all()


def test_the_model_that_comes_along_sees_the_same_in_both_its_files_on_every_engine(tiles: list[np.ndarray]) -> None:
    pytest.importorskip("paddle")
    folder = str(files("slicedet.configs") / DEFAULT_MODEL)
    first = loaded(DEFAULT_MODEL, "openvino")
    expected = from_score(0.05, first).detect(tiles[:2])
    assert sum(map(len, expected)) > 10
    for model, engine in ((DEFAULT_MODEL, "onnxruntime"), (DEFAULT_MODEL, "paddle"), (folder, "paddle")):
        detector = loaded(model, engine)
        assert (detector.provenance["engine"], detector.provenance["half_turn"]) == (engine, True)
        for name in ("categories", "gsd", "input_size", "threshold"):
            assert getattr(detector, name) == getattr(first, name)
        for a, b in zip(expected, from_score(0.05, detector).detect(tiles[:2]), strict=True):
            left, right = paired(a, b)
            np.testing.assert_allclose(left[:, 2:], right[:, 2:], atol=0.01)
            np.testing.assert_allclose(left[:, :2], right[:, :2], atol=1e-4)


def test_a_photo_decodes_as_a_reference_written_from_the_facts(shared: Path, tiles: list[np.ndarray]) -> None:
    """OpenCV's resize, ImageNet's normalisation, ONNX Runtime and OpenCV's NMS, none of it slicedet's."""
    import onnxruntime

    path = shared / "models" / "picodet_s_320_coco.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tile = tiles[1]
    image = cv2.resize(tile, (320, 320), interpolation=cv2.INTER_CUBIC)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    blob = ((image / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    outputs = session.run(None, {"image": blob})
    expected = []
    for level, stride in enumerate((8, 16, 32, 64)):
        scores, logits = outputs[level][0], outputs[level + 4][0].reshape(-1, 4, 8)
        weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        left, top, right, bottom = ((weights * np.arange(8)).sum(-1) * stride).T
        y, x = np.divmod(np.arange(len(scores)), -(-320 // stride))
        x, y = (x + 0.5) * stride, (y + 0.5) * stride
        boxes = np.stack([x - left, y - top, x + right, y + bottom], -1) * 416 / 320
        for point, category in np.argwhere(scores >= 0.1):
            expected.append((int(category), float(scores[point, category]), *boxes[point]))
    kept = []
    for category in {row[0] for row in expected}:
        rows = [row for row in expected if row[0] == category]
        xywh = [[r[2], r[3], r[4] - r[2], r[5] - r[3]] for r in rows]
        kept += [rows[i] for i in cv2.dnn.NMSBoxes(xywh, [r[1] for r in rows], 0.1, 0.6)]
    (found,) = load_detector("picodet_s_320_coco", path, engine="onnxruntime", threshold=0.1).detect([tile])
    rows = np.column_stack([found.category_ids, found.scores, found.boxes]).astype(float)
    assert len(rows) == len(kept) > 3
    np.testing.assert_allclose(sorted(map(tuple, rows)), sorted(kept), atol=0.01)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_results_do_not_depend_on_what_shares_the_batch(engine: str, tiles: list[np.ndarray], shared: Path) -> None:
    detector = loaded("picodet_s_320_coco", engine, shared / "models" / "picodet_s_320_coco.onnx")
    together = detector.detect(tiles)
    for tile, found in zip(tiles, together, strict=True):
        (alone,) = detector.detect([tile])
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        np.testing.assert_array_equal(alone.scores, found.scores)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_one_detector_answers_several_streams_at_once(engine: str, tiles: list[np.ndarray]) -> None:
    detector = from_score(0.05, loaded(DEFAULT_MODEL, engine))
    alone = detector.detect(tiles)
    assert sum(map(len, alone)) > 20
    turns = [np.roll(np.arange(len(tiles)), by) for by in (0, 2)]
    streams = [detector.stream(iter([tiles[index] for index in turn])) for turn in turns]
    for pair in zip(*streams, strict=True):
        for turn, found in zip(turns, pair, strict=True):
            np.testing.assert_array_equal(found.boxes, alone[turn[0]].boxes)
        turns = [turn[1:] for turn in turns]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "paddle"])
def test_one_detector_serves_several_threads(engine: str, tiles: list[np.ndarray]) -> None:
    if engine == "paddle":
        pytest.importorskip("paddle")
    detector = from_score(0.05, loaded(DEFAULT_MODEL, engine), half_turn=False)
    alone = [detector.detect([tile])[0].boxes for tile in tiles]
    assert all(map(len, alone))
    turns = [number % len(tiles) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for turn, (found,) in zip(turns, pool.map(lambda turn: detector.detect([tiles[turn]]), turns), strict=True):
            np.testing.assert_array_equal(found.boxes, alone[turn])


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_weights_that_do_not_fit_say_what_differs(engine: str, shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    with pytest.raises(ModelMismatch, match=r"input 'image' is \[1, 3, 320, 320\], expected \[1, 3, 416, 416\]"):
        load_detector("picodet_s_416_coco", models / "picodet_s_320_coco.onnx", engine=engine)
    with pytest.raises(ModelMismatch, match="8 outputs, expected 1"):
        load_detector("picodet_xs_320_coco_lcnet", models / "picodet_s_320_coco.onnx", engine=engine)
    few = catalogue.find("picodet_s_320_coco")
    kind = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}[engine]
    with pytest.raises(ModelMismatch, match=r"output .* is \[1, 1600, 80\], expected \[1, 1600, 3\]"):
        kind(models / "picodet_s_320_coco.onnx", replace(few, categories=("a", "b", "c")), "cpu", "f32")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((models / "picodet_s_320_coco.onnx").read_bytes()[:100_000])
    with pytest.raises(ModelMismatch, match=r"broken\.onnx"):
        load_detector("picodet_s_320_coco", broken, engine=engine)


def test_engines_refuse_what_they_do_not_have(shared: Path) -> None:
    weights = shared / "models" / "picodet_s_320_coco.onnx"
    for arguments in (
        {"engine": "onnxruntime", "device": "npu"},
        {"engine": "onnxruntime", "precision": "bf16"},
        {"engine": "openvino", "device": "gpu"},
        {"engine": "openvino", "device": "nonsense"},
        {"engine": "tensorrt"},
        {"precision": "f64"},
    ):
        with pytest.raises(InvalidSetting) as error:
            load_detector("picodet_s_320_coco", weights, **arguments)
        assert "\n" not in str(error.value)


ROWS = ModelConfig("tiny", "", ("car",), InputConfig((64, 64)), OutputConfig("rows"))
KINDS = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}


def found_in_black(path: Path, config: ModelConfig, engine: str) -> Detections:
    runs = KINDS[engine](path, config, "cpu", "f32", 1)
    (found,) = NetworkDetector(config, runs, 0.25, {"weights": path.name}).detect([np.zeros((64, 64, 3), np.uint8)])
    return found


@pytest.mark.parametrize("engine", KINDS)
def test_values_that_cannot_be_are_told_with_the_file(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    inf, nan = np.inf, np.nan
    (box,) = found_in_black(constant_graph(path, {"o": [[0, 0.9, 1, 1, 30, 30]]}), ROWS, engine).boxes
    assert box.tolist() == [1, 1, 30, 30]
    for row, message in (
        ([7, 0.9, 1, 1, 30, 30], "class 7"),
        ([0, 0.9, nan, 1, 30, 30], "NaN or infinite"),
        ([0, 0.9, -inf, 1, inf, 30], "NaN or infinite"),
        ([0, 0.9, 30, 30, 1, 1], "end before they begin"),
        ([0, 5, 1, 1, 30, 30], "a score is 5"),
    ):
        constant_graph(path, {"o": [row]})
        with pytest.raises(ModelMismatch, match=rf"tiny\.onnx: it finds what cannot be: .*{message}"):
            found_in_black(path, ROWS, engine)
    assert len(found_in_black(constant_graph(path, {"o": [[nan, 0.9, 1, 1, 30, 30]]}), ROWS, engine)) == 0


@pytest.mark.parametrize("engine", KINDS)
def test_graphs_that_fail_once_they_run_are_told_with_the_file(engine: str, tmp_path: Path) -> None:
    path = constant_graph(tmp_path / "tiny.onnx", {"o": [[0, 0.9, 1, 1, 30, 30]]}, (None, 6), (100, 6))
    with pytest.raises(ModelMismatch, match=r"tiny\.onnx: ") as error:
        found_in_black(path, ROWS, engine)
    assert "\n" not in str(error.value)
    boxes = {"boxes": np.tile(np.float32([0, 0, 20, 20]), (1, 3, 1)), "scores": np.full((1, 1, 9), 0.9)}
    config = replace(ROWS, output=OutputConfig("boxes-and-scores"), nms=NmsConfig(0.01, 0.5, 100, 100))
    with pytest.raises(ModelMismatch, match=r"tiny\.onnx: .* it gives 3 boxes, but scores of 9"):
        found_in_black(constant_graph(path, boxes), config, engine)


def decode_in_graph(source: Path, target: Path) -> None:
    """Adds PicoDet's decoding to the graph of raw heads, so that its outputs are boxes and scores in input pixels."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    names = [port.name for port in graph.output]
    size, strides = graph.input[0].type.tensor_type.shape.dim[2].dim_value, (8, 16, 32, 64)
    centres, scale = [], []
    for stride in strides:
        steps = np.arange(-(-size // stride))
        y, x = np.meshgrid(steps, steps, indexing="ij")
        centre = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        centres.append(np.concatenate([centre, centre], 1))
        scale.append(np.full((len(centre), 4), stride) * [-1, -1, 1, 1])
    constants: dict[str, Any] = {
        "bins": np.arange(8, dtype=np.float32).reshape(8, 1),
        "split": np.array([1, -1, 4, 8]),
        "flat": np.array([1, -1, 4]),
        "centres": np.concatenate(centres).astype(np.float32)[None],
        "scale": np.concatenate(scale).astype(np.float32)[None],
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Concat", names[:4], ["all_scores"], axis=1),
            helper.make_node("Transpose", ["all_scores"], ["scores"], perm=[0, 2, 1]),
            helper.make_node("Concat", names[4:], ["all_logits"], axis=1),
            helper.make_node("Reshape", ["all_logits", "split"], ["split_logits"]),
            helper.make_node("Softmax", ["split_logits"], ["weights"], axis=3),
            helper.make_node("MatMul", ["weights", "bins"], ["means"]),
            helper.make_node("Reshape", ["means", "flat"], ["distances"]),
            helper.make_node("Mul", ["distances", "scale"], ["offsets"]),
            helper.make_node("Add", ["centres", "offsets"], ["boxes"]),
        ]
    )
    points = sum((-(-size // stride)) ** 2 for stride in strides)
    del graph.output[:]
    # Opset 11's softmax flattens from its axis on, which for the last axis is the same thing.
    graph.output.extend(
        [
            helper.make_tensor_value_info("boxes", onnx.TensorProto.FLOAT, [1, points, 4]),
            helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 80, points]),
        ]
    )
    onnx.save(model, target)
