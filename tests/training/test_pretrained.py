"""Starting weights from COCO's PicoDet with folded batch norms, and from state dicts of other classes and bins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

paddle = pytest.importorskip("paddle")

from slicedet import load_detector, networks  # noqa: E402
from slicedet.errors import CorruptFile, InvalidTraining, MissingWeights, ModelMismatch  # noqa: E402
from slicedet.models import catalogue  # noqa: E402
from slicedet.models.decoding import candidates, suppressed  # noqa: E402
from slicedet.models.network_folder import exported  # noqa: E402
from slicedet.training.averaging import MovingAverage  # noqa: E402
from slicedet.training.frozen import freeze, freeze_norms  # noqa: E402
from slicedet.training.pretrained import LeftOut, load_pretrained  # noqa: E402
from slicedet.training.pretrained import folded as folding  # noqa: E402

NAME, SIZE = "picodet_s_320_coco", 320
CAR, BUS, TRUCK = 2, 5, 7
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

Tiles = NDArray[np.uint8]


def description(name: str) -> dict[str, Any]:
    """The `network` section of a configuration in the catalogue."""
    path = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["network"]


def one_class() -> networks.Network:
    return networks.assemble(description(NAME), 1)


def batch(tiles: Tiles) -> NDArray[np.float32]:
    return np.ascontiguousarray(((tiles / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2))


def arrays(network: networks.Network) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def class_scores(levels: list[tuple[paddle.Tensor, paddle.Tensor]]) -> NDArray[np.float32]:
    return np.concatenate([1 / (1 + np.exp(-classes.flatten(2).numpy())) for classes, _ in levels], axis=2)


def cut(shared: Path, first: int, count: int) -> Tiles:
    """Tiles of every twelfth photo, from the given one, at places drawn by chance."""
    import cv2

    generator = np.random.default_rng(first)
    paths = sorted((shared / "data/aerial_vehicles/images").glob("*"))[first::12]
    photos = [cv2.imread(str(path))[..., ::-1] for path in paths]
    photos = [photo for photo in photos if min(photo.shape[:2]) >= SIZE]
    tiles = []
    for place in range(count):
        photo = photos[place % len(photos)]
        y, x = (generator.integers(0, length - SIZE + 1) for length in photo.shape[:2])
        tiles.append(photo[y : y + SIZE, x : x + SIZE])
    return np.ascontiguousarray(tiles)


@pytest.fixture(scope="module")
def onnx_path(shared: Path) -> Path:
    return shared / "models/picodet_s_320_coco.onnx"


@pytest.fixture(scope="module")
def tiles(shared: Path) -> Tiles:
    """Measured in two batches of unequal size."""
    return cut(shared, 0, 10)


@pytest.fixture(scope="module")
def network(onnx_path: Path, tiles: Tiles) -> networks.Network:
    """COCO's, its batch norms measured."""
    network = networks.build(NAME)
    report = load_pretrained(network, onnx_path, tiles)
    assert (report.in_part, report.left_out, report.missing) == ((), (), ())
    return network


@pytest.fixture(scope="module")
def pdparams(network: networks.Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "coco.pdparams"
    paddle.save(network.state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def refusing() -> networks.Network:
    """One for files and tiles that are refused, which leave a network as it was."""
    return one_class()


@pytest.fixture(scope="module")
def unmeasured(onnx_path: Path) -> networks.Network:
    network = networks.build(NAME)
    load_pretrained(network, onnx_path)
    return network


@pytest.mark.parametrize("kind", ["network", "unmeasured"])
def test_the_network_computes_what_the_onnx_file_does(
    kind: str, onnx_path: Path, shared: Path, request: pytest.FixtureRequest
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = request.getfixturevalue(kind)
    image = batch(cut(shared, 1, 1))
    outputs = onnxruntime.InferenceSession(str(onnx_path)).run(None, {"image": image})
    with paddle.no_grad():
        levels = network.detection_head()(network.neck(network.backbone(paddle.to_tensor(image))))
    for (classes, distances), scores, logits in zip(levels, outputs[:4], outputs[4:], strict=True):
        np.testing.assert_allclose(
            paddle.nn.functional.sigmoid(classes).flatten(2).numpy()[0].T, scores[0], atol=1e-4 * scores.max()
        )
        np.testing.assert_allclose(distances.flatten(2).numpy()[0].T, logits[0], atol=1e-4 * np.abs(logits).max())


def test_it_detects_what_the_onnx_file_does(network: networks.Network, onnx_path: Path, shared: Path) -> None:
    photos = list(cut(shared, 1, 4))
    expected = load_detector(NAME, weights=onnx_path, engine="openvino", threshold=0.2).detect(photos)
    assert sum(map(len, expected)) > 10
    config = exported(catalogue.find(NAME))
    assert config.nms is not None
    for photo, other in zip(photos, expected, strict=True):
        with paddle.no_grad():
            outputs = [value.numpy() for value in network(paddle.to_tensor(batch(photo[None])))]
        one = suppressed(candidates(config, outputs, 0.2), config.nms)
        np.testing.assert_array_equal(one.category_ids, other.category_ids)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_statistics_are_those_of_the_convolutions_outputs(
    network: networks.Network, onnx_path: Path, tiles: Tiles
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(str(onnx_path))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    biases = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    # In the order of the file: the stem, and the neck's projection of the finest level.
    chosen = {"backbone._conv1._batch_norm": convolutions[0], "neck.conv_t.convs.0.bn": convolutions[78]}
    for node in chosen.values():
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = [node.output[0] for node in chosen.values()]
    outputs = [session.run(wanted, {"image": image[None]}) for image in batch(tiles)]
    state = arrays(network)
    for place, (name, node) in enumerate(chosen.items()):
        features = np.concatenate([each[place] for each in outputs]).astype(np.float64)
        bias = biases[node.input[2]]
        mean, variance = features.mean(axis=(0, 2, 3)) - bias, features.var(axis=(0, 2, 3))
        np.testing.assert_allclose(state[f"{name}._mean"], mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state[f"{name}._variance"], variance, rtol=1e-3)
        np.testing.assert_allclose(state[f"{name}.weight"], np.sqrt(variance + 1e-5), rtol=1e-3)
        np.testing.assert_allclose(state[f"{name}.bias"], mean + bias, rtol=1e-3, atol=1e-3)


def test_measured_norms_can_train_with_the_statistics_of_a_batch(
    network: networks.Network, unmeasured: networks.Network, shared: Path
) -> None:
    # Other photos than those measured.
    images = paddle.to_tensor(batch(cut(shared, 1, 8)))
    agreement = []
    with paddle.no_grad():
        # In eval mode, both compute what the ONNX file does.
        expected = network(images)[1].numpy().ravel()
        for each in (network, unmeasured):
            trial = networks.build(NAME)
            trial.set_state_dict(each.state_dict())
            trial.train()
            agreement.append(np.corrcoef(expected, class_scores(trial(images)).ravel())[0, 1])
    assert agreement[0] > 0.9
    assert agreement[1] < 0.5


def test_layers_of_one_shape_are_told_apart(onnx_path: Path) -> None:
    image, convolutions = folding._read(onnx_path)
    values = [
        folding._matched(networks.build(NAME), onnx_path, image, order) for order in (convolutions, convolutions[::-1])
    ]
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name])


@pytest.mark.parametrize("source", ["onnx_path", "pdparams"])
def test_one_class_starts_from_the_mean_of_several(
    network: networks.Network, source: str, request: pytest.FixtureRequest
) -> None:
    vehicles = one_class()
    report = load_pretrained(vehicles, request.getfixturevalue(source), classes={0: [CAR, BUS, TRUCK]})
    predictions = {f"head.head_cls{level}.{part}" for level in range(4) for part in ("weight", "bias")}
    assert set(report.in_part) == predictions
    assert (report.left_out, report.missing) == ((), ())
    assert f"{report.loaded} arrays loaded, 8 in part (head.head_cls0.weight" in report.summary()
    state, coco = arrays(vehicles), arrays(network)
    for name in predictions:
        np.testing.assert_allclose(state[name][0], coco[name][[CAR, BUS, TRUCK]].mean(axis=0), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(state[name][1:], coco[name][80:])
    np.testing.assert_array_equal(state["backbone._conv1._conv.weight"], coco["backbone._conv1._conv.weight"])


def test_classes_without_a_source_keep_their_start(network: networks.Network, pdparams: Path) -> None:
    vehicles = one_class()
    start = vehicles.head.head_cls2.weight.numpy()
    load_pretrained(vehicles, pdparams)
    np.testing.assert_array_equal(vehicles.head.head_cls2.weight.numpy()[:1], start[:1])
    np.testing.assert_array_equal(
        vehicles.head.head_cls2.weight.numpy()[1:], network.head.head_cls2.weight.numpy()[80:]
    )


def test_averaged_weights_are_loaded_whole(network: networks.Network, pdparams: Path, tmp_path: Path) -> None:
    average = networks.build(NAME)
    load_pretrained(network, pdparams)
    averaging = MovingAverage(network, average, 0.9)
    for step in range(40):
        averaging.update(step)
    for name, value in average.state_dict().items():
        if "project" in name:  # The bins, which are no weights.
            np.testing.assert_array_equal(value.numpy(), network.state_dict()[name].numpy())
    state = {name: value.numpy() for name, value in average.state_dict().items()}
    # Files from before had them averaged with rounding.
    state = {name: value * np.float32(1.0000001) if "project" in name else value for name, value in state.items()}
    file = tmp_path / "best_model.pdparams"
    paddle.save({name: paddle.to_tensor(value) for name, value in state.items()}, str(file))
    report = load_pretrained(networks.build(NAME), file)
    assert (report.in_part, report.left_out, report.missing) == ((), (), ())


def test_loading_twice_changes_nothing(network: networks.Network, pdparams: Path) -> None:
    other = networks.build(NAME)
    reports = [load_pretrained(other, pdparams) for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].summary() == "coco.pdparams: 579 arrays loaded"
    expected = arrays(network)
    for name, value in arrays(other).items():
        np.testing.assert_array_equal(value, expected[name])


def test_other_classes_of_the_second_head_are_left_out(tmp_path: Path) -> None:
    name, path = "picodet_xs_320_coco_lcnet", tmp_path / "coco.pdparams"
    coco, vehicles = networks.build(name), networks.assemble(description(name), 2)
    paddle.save(coco.state_dict(), str(path))
    report = load_pretrained(vehicles, path)
    assert LeftOut("head.head_cls_list.0.bias", (80,), (2,)) in report.left_out
    assert {each.name.split(".")[1][:8] for each in report.left_out} == {"head_cls"}
    assert report.missing == ()
    np.testing.assert_array_equal(
        vehicles.head.head_reg_list[0].weight.numpy(), coco.head.head_reg_list[0].weight.numpy()
    )
    load_pretrained(vehicles, path, classes={1: [CAR]})
    np.testing.assert_array_equal(
        vehicles.head.head_cls_list[3].weight.numpy()[1], coco.head.head_cls_list[3].weight.numpy()[CAR]
    )


# The last has as many bins as the file, but they stand for other distances.
@pytest.mark.parametrize("reg_range", [[0, 9], [-1, 9]])
def test_distances_in_other_bins_are_left_out(tmp_path: Path, reg_range: list[int]) -> None:
    parts, path = description("ppyoloe_plus_sod_crn_s_80e_visdrone"), tmp_path / "visdrone.pdparams"
    parts["backbone"]["channels"], parts["neck"]["channels"] = [8, 16, 32, 64, 128], [96, 48, 24]
    parts["head"]["reg_range"] = [-2, 8]
    paddle.save(networks.assemble(parts, 10).state_dict(), str(path))
    parts["head"]["reg_range"] = reg_range
    network = networks.assemble(parts, 10)
    report = load_pretrained(network, path)
    assert {each.name.split(".")[1] for each in report.left_out} == {"pred_reg"}
    assert len(report.left_out) == 2 * len(network.yolo_head.strides)
    np.testing.assert_array_equal(network.yolo_head.bins().numpy(), np.arange(*reg_range))


def test_files_of_other_networks_are_refused(pdparams: Path, onnx_path: Path, tiles: Tiles) -> None:
    other = networks.build("picodet_m_320_coco")
    before = arrays(other)
    with pytest.raises(
        ModelMismatch, match=r"coco.pdparams: belongs to another network: \d+ of \d+ .* differ: backbone"
    ):
        load_pretrained(other, pdparams)
    with pytest.raises(
        ModelMismatch, match=r"coco.onnx: belongs to another network: after \d+ convolutions .* backbone"
    ):
        load_pretrained(other, onnx_path, tiles)
    for name, value in arrays(other).items():
        np.testing.assert_array_equal(value, before[name])


def test_unreadable_files_are_refused(tmp_path: Path, onnx_path: Path, refusing: networks.Network) -> None:
    with pytest.raises(MissingWeights, match=r"none.pdparams: no such weights file"):
        load_pretrained(refusing, tmp_path / "none.pdparams")
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(InvalidTraining, match=r"weights.pth: training starts from .pdparams or .onnx"):
        load_pretrained(refusing, tmp_path / "weights.pth")
    for content in (b"", b"no graph", onnx_path.read_bytes()[:100_000]):
        (tmp_path / "damaged.onnx").write_bytes(content)
        with pytest.raises(ModelMismatch, match=r"damaged.onnx: "):
            load_pretrained(refusing, tmp_path / "damaged.onnx")


def test_norms_that_are_not_folded_are_said_so(tmp_path: Path, refusing: networks.Network) -> None:
    onnx = pytest.importorskip("onnx")
    shapes = {"w": (24, 3, 3, 3), "gain": (24,), "bias": (24,), "mean": (24,), "variance": (24,)}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            onnx.helper.make_node("BatchNormalization", ["c", "gain", "bias", "mean", "variance"], ["out"]),
        ],
        "unfolded",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 24, 32, 32])],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()],
    )
    path = tmp_path / "unfolded.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), str(path))
    with pytest.raises(ModelMismatch, match="batch norms are not folded"):
        load_pretrained(refusing, path)


def test_values_that_are_not_finite_are_refused(pdparams: Path, tmp_path: Path, refusing: networks.Network) -> None:
    state = paddle.load(str(pdparams))
    state["neck.conv_t.convs.0.bn.bias"][3] = float("nan")
    path = tmp_path / "nan.pdparams"
    paddle.save(state, str(path))
    with pytest.raises(CorruptFile, match=r"nan.pdparams: neck.conv_t.convs.0.bn.bias holds values that are not"):
        load_pretrained(refusing, path)


@pytest.mark.parametrize("classes", [{1: [CAR]}, {0: []}, {0: [80]}, {0: [-1]}])
def test_classes_that_are_not_there_are_refused(
    pdparams: Path, classes: dict[int, list[int]], refusing: networks.Network
) -> None:
    before = arrays(refusing)
    with pytest.raises(InvalidTraining, match=r"classes: .* are 0 to (0|79)"):
        load_pretrained(refusing, pdparams, classes=classes)
    np.testing.assert_array_equal(refusing.backbone._conv1._conv.weight.numpy(), before["backbone._conv1._conv.weight"])


@pytest.mark.parametrize(
    "tiles",
    [
        np.zeros((0, 320, 320, 3), np.uint8),
        np.zeros((2, 320, 320, 3), np.float32),
        np.zeros((320, 320, 3), np.uint8),
        np.zeros((1, 300, 320, 3), np.uint8),
    ],
)
def test_tiles_that_the_network_cannot_take_are_refused(
    onnx_path: Path, tiles: Tiles, refusing: networks.Network
) -> None:
    with pytest.raises(InvalidTraining, match="tiles: "):
        load_pretrained(refusing, onnx_path, tiles)


def test_black_tiles_leave_the_function_as_it_is(network: networks.Network, onnx_path: Path, tiles: Tiles) -> None:
    """Every channel of the first convolutions has the variance 0, but at the edges."""
    black = networks.build(NAME)
    load_pretrained(black, onnx_path, np.zeros((1, SIZE, SIZE, 3), np.uint8))
    image = paddle.to_tensor(batch(tiles[:1]))
    with paddle.no_grad():
        for ours, theirs in zip(black(image), network(image), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-3)


def test_frozen_norms_give_in_training_what_they_give_in_eval_mode(pdparams: Path, tiles: Tiles) -> None:
    network = one_class()
    load_pretrained(network, pdparams)
    freeze_norms(network)
    fixed = freeze(network, ["backbone", "neck.conv_t"])
    assert fixed == sum(name.startswith(("backbone.", "neck.conv_t.")) for name, _ in network.named_parameters())
    images = paddle.to_tensor(batch(tiles[:2]))
    with paddle.no_grad():
        expected = network(images)[1].numpy()
    before = arrays(network)
    network.train()
    levels = network(images)
    np.testing.assert_allclose(class_scores(levels), expected, atol=1e-5)
    loss = paddle.add_n([classes.square().mean() + distances.square().mean() for classes, distances in levels])
    loss.backward()
    paddle.optimizer.SGD(0.01, parameters=network.parameters()).step()
    after = arrays(network)
    changed = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert not any(name.startswith(("backbone.", "neck.conv_t.")) for name in changed)
    assert not any(name.endswith(("._mean", "._variance")) for name in changed)
    assert {"head.head_cls0.weight", "neck.top_down_blocks.0.final_conv.bn.weight"} <= changed


def test_layers_to_freeze_must_be_there() -> None:
    with pytest.raises(InvalidTraining, match=r"'backbone.conv': the network has no layer"):
        freeze(one_class(), ["neck", "backbone.conv"])
