"""Loading by name, thresholds and classes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import slicedet
from slicedet.conditions import conditions, differences
from slicedet.detectors import choice
from slicedet.detectors.choice import EngineChoice
from slicedet.detectors.loading import circumstances_of
from slicedet.detectors.network import NetworkDetector
from slicedet.detectors.protocol import Detector, minimum_scores, name_of, provenance_of
from slicedet.errors import (
    InvalidSetting,
    MissingWeights,
    ModelMismatch,
    ModelWarning,
    OutputError,
    SlicedetWarning,
    UnknownCategory,
    UnknownModel,
)
from slicedet.models import catalogue, conversion
from slicedet.pipeline import Settings

OWN = "aerial-vehicles"
"""The model that comes with slicedet."""

QUICK = "onnxruntime" if importlib.util.find_spec("onnxruntime") else "openvino"
"""The engine for what does not depend on it: the first compiles nothing."""

CATEGORIES = ("car", "truck", "bus")


def test_a_catalogue_model_is_a_detector(shared: Path) -> None:
    weights = shared / "models" / "picodet_s_320_coco.onnx"
    detector = slicedet.load_detector("picodet_s_320_coco", weights, threshold=0.4)
    assert isinstance(detector, Detector)
    assert (name_of(detector), detector.input_size, len(detector.categories)) == ("picodet_s_320_coco", 320, 80)
    said = provenance_of(detector)
    assert (said["engine"], said["device"], said["precision"]) == ("openvino", "cpu", "f32")
    assert len(said["weights_sha256"]) == 64
    (found,) = detector.detect([np.zeros((320, 320, 3), np.uint8)])
    assert (found.scores >= 0.4).all()


def test_a_users_yaml_brings_its_weights(shared: Path, tmp_path: Path) -> None:
    config = Path(slicedet.__file__).parents[1] / "configs" / "picodet_s_320_coco.yaml"
    (tmp_path / "w.onnx").symlink_to(shared / "models" / "picodet_s_320_coco.onnx")
    (tmp_path / "mine.yaml").write_text(config.read_text() + "weights: w.onnx\n")
    assert name_of(slicedet.load_detector(str(tmp_path / "mine.yaml"), engine=QUICK)) == "mine"


CONFIGS = Path(slicedet.__file__).parents[1] / "configs"


def mine(folder: Path, weights: Path, *changes: tuple[str, str]) -> Path:
    """A YAML file like that of the model that comes along, with one look, these weights and these changes."""
    text = (CONFIGS / f"{OWN}-fast.yaml").read_text().replace(f"{OWN}/inference.onnx", str(weights))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


def network(*arguments: Any, **options: Any) -> NetworkDetector:
    detector = slicedet.load_detector(*arguments, **options)
    assert isinstance(detector, NetworkDetector)
    return detector


@pytest.mark.parametrize(("engine", "weights"), [("paddle", "inference.onnx"), ("paddle", ""), (QUICK, "")])
def test_a_configuration_goes_before_the_folder_that_it_names(engine: str, weights: str, tmp_path: Path) -> None:
    """Also where the paddle engine takes the folder in place of the ONNX file."""
    pytest.importorskip("paddle")
    if engine == QUICK and not conversion.available():
        pytest.skip("needs paddle2onnx")
    changes = (("gsd: 0.15", "gsd: 0.2"), ("[vehicle]", "[thing]"), ("iou: 0.6", "iou: 0.3"))
    detector = network(mine(tmp_path, CONFIGS / OWN / weights, *changes), engine=engine)
    assert (detector.name, detector.gsd, detector.categories) == ("mine", 0.2, ("thing",))
    assert (detector.provenance["half_turn"], detector.provenance["nms"]["iou"]) == (False, 0.3)


@pytest.mark.parametrize("engine", ["paddle", QUICK])
def test_a_folder_that_the_user_names_is_used_as_it_says(engine: str) -> None:
    """As model or as weights."""
    pytest.importorskip("paddle")
    if engine == QUICK and not conversion.available():
        pytest.skip("needs paddle2onnx")
    for folder in (network(CONFIGS / OWN, engine=engine), network("picodet-s", CONFIGS / OWN, engine=engine)):
        assert (folder.name, folder.gsd, folder.categories, folder.threshold) == (OWN, 0.15, ("vehicle",), 0.6)
        assert folder.provenance["half_turn"]


def test_the_twin_beside_an_onnx_file_is_used_as_asked() -> None:
    pytest.importorskip("paddle")
    named = network(f"{OWN}-fast", CONFIGS / OWN / "inference.onnx", engine="paddle")
    assert (named.name, named.provenance["half_turn"]) == (f"{OWN}-fast", False)


def test_a_folder_of_other_classes_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("paddle")
    with pytest.raises(ModelMismatch, match="has 1 classes, the configuration mine names 2"):
        slicedet.load_detector(mine(tmp_path, CONFIGS / OWN, ("[vehicle]", "[car, van]")), engine="paddle")


@pytest.mark.parametrize(
    "change",
    [
        ("gsd: 0.15", "gsd: 0.3"),
        ("iou: 0.6", "iou: 0.5"),
        ("box_voting: 0.7", "box_voting: 0.6"),
        ("channels: rgb", "channels: bgr"),
        ("[0.485,", "[0.4,"),
        ("interpolation: cubic", "interpolation: linear"),
    ],
)
def test_what_changes_results_is_told_apart(change: tuple[str, str], tmp_path: Path, fast: NetworkDetector) -> None:
    """So that a batch does not go on with other settings."""
    before, same, now = (
        conditions(
            NetworkDetector(catalogue.find(str(mine(tmp_path, Path("w.onnx"), *each))), fast.engine, 0.5, {}),
            Settings(),
            {},
        )
        for each in ([], [], [change])
    )
    assert differences(before, same) == ""
    assert len(differences(before, now).split("; ")) == 1


@pytest.fixture(scope="module")
def fast() -> NetworkDetector:
    return network(f"{OWN}-fast", engine=QUICK)


def test_scores_that_a_detector_never_returns_are_warned_of() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    detector = slicedet.load_detector(OWN, engine=QUICK)
    with pytest.warns(SlicedetWarning, match=r"threshold 0\.3: the detector returns scores from 0\.6 on"):
        slicedet.predict(pixels, detector, threshold=0.3)
    slicedet.predict(pixels, detector, threshold=0.6)
    slicedet.predict(pixels, detector, threshold=0.9)
    slicedet.predict(pixels, slicedet.load_detector(OWN, engine=QUICK, threshold=0.3), threshold=0.3)


def test_the_hint_names_files_that_the_engine_reads(home: Path) -> None:
    with pytest.raises(MissingWeights, match="models pull picodet_s_320_coco gets"):
        slicedet.load_detector("picodet_s_320_coco")
    with pytest.raises(MissingWeights, match="models pull picodet_s_320_coco --kind pdparams gets"):
        slicedet.load_detector("picodet_s_320_coco", engine="paddle")


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UnknownModel, match="slicedet models lists"):
        slicedet.load_detector("nonsense")
    with pytest.raises(MissingWeights, match="--weights"):
        slicedet.load_detector("picodet_s_416_coco")
    with pytest.raises(MissingWeights, match=r"nowhere\.onnx"):
        slicedet.load_detector("picodet_s_416_coco", "nowhere.onnx")
    with pytest.raises(InvalidSetting, match="threshold"):
        slicedet.load_detector("picodet_s_416_coco", "nowhere.onnx", threshold=1.5)


def test_models_may_be_paths(tmp_path: Path) -> None:
    folder = Path(slicedet.__file__).parents[1] / "configs" / OWN
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with pytest.raises(UnknownModel, match=r"copy/nowhere: no such file or folder"):
        slicedet.load_detector(copy / "nowhere")
    assert slicedet.load_detector(copy, engine="paddle").categories == ("vehicle",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": None}, "model None: expected a name"),
        ({"model": 5}, "model 5: expected a name"),
        ({"model": ""}, "model '': expected a name"),
        ({"model": OWN, "weights": 5}, "weights 5: expected the path"),
        ({"model": OWN, "threshold": "high"}, "threshold high: expected a number"),
        ({"model": OWN, "threshold": [0.5]}, r"threshold \[0.5\]: expected a number"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        slicedet.load_detector(**arguments)


@pytest.mark.parametrize("name", ["mine.onnx", "below/mine.xml", "mine.pdparams"])
def test_weights_are_no_model(name: str) -> None:
    with pytest.raises(UnknownModel, match=rf"{name}: a weights file; name a configuration .*--weights$"):
        slicedet.load_detector(name)


def test_the_command_line_knows_all_engines_and_precisions() -> None:
    from slicedet.cli import options

    assert set(options.ENGINES) == {"auto", *choice.ENGINES}
    assert set(options.PRECISIONS) == {"auto", *choice.PRECISIONS}


def test_thresholds_by_class() -> None:
    assert minimum_scores(CATEGORIES).tolist() == [0, 0, 0]
    assert minimum_scores(CATEGORIES, 0.5).tolist() == [0.5, 0.5, 0.5]
    assert minimum_scores(CATEGORIES, {"*": 0.5, "truck": 0.25}).tolist() == [0.5, 0.25, 0.5]
    assert minimum_scores(CATEGORIES, 0.5, ["bus"]).tolist() == [np.inf, np.inf, 0.5]


def test_unknown_classes_and_numbers_outside_are_refused() -> None:
    with pytest.raises(UnknownCategory, match="'ship': the detector knows car, truck, bus"):
        minimum_scores(CATEGORIES, {"ship": 0.5})
    with pytest.raises(UnknownCategory, match="'ship'"):
        minimum_scores(CATEGORIES, None, ["ship"])
    with pytest.raises(InvalidSetting, match=r"1\.5"):
        minimum_scores(CATEGORIES, {"car": 1.5})


def test_pulled_weights_need_not_be_named(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slicedet.models import cache, catalogue

    monkeypatch.setenv("SLICEDET_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="slicedet models pull picodet_s_320_coco"):
        slicedet.load_detector("picodet_s_320_coco")
    monkeypatch.setenv("SLICEDET_MODEL_MIRROR", str(shared / "models"))
    cache.pull(catalogue.find("picodet_s_320_coco"))
    monkeypatch.delenv("SLICEDET_MODEL_MIRROR")
    detector = slicedet.load_detector("picodet_s_320_coco", engine=QUICK, threshold=0)
    (found,) = detector.detect([np.zeros((320, 320, 3), np.uint8)])
    assert len(found) > 0


def test_f32_and_streams_are_asked_of_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = []
    compile_model = openvino.Core.compile_model

    def noting(core: openvino.Core, model: Any, device: str, config: dict[str, Any]) -> Any:
        hints.append((config["INFERENCE_PRECISION_HINT"], config["NUM_STREAMS"]))
        return compile_model(core, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", noting)
    said = slicedet.load_detector(OWN, streams=1).provenance
    assert (said["precision"], said["streams"]) == ("f32", 1)
    assert hints == [("f32", "1")]


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_what_the_processor_lacks_is_refused_and_what_it_has_runs(precision: str) -> None:
    capability = {"bf16": "BF16", "f16": "FP16"}[precision]
    if capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert slicedet.load_detector(OWN, precision=precision).provenance["precision"] == precision
    else:
        with pytest.raises(InvalidSetting, match=f"precision {precision}: OpenVINO has f32 on this cpu"):
            slicedet.load_detector(OWN, precision=precision)
    pytest.importorskip("onnxruntime")
    with pytest.raises(InvalidSetting, match=f"precision {precision}: the onnxruntime engine runs f32 only"):
        slicedet.load_detector(OWN, engine="onnxruntime", precision=precision)


def test_unknown_precisions_and_numbers_of_streams_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="precision 'int8': expected auto, f32, bf16, f16"):
        slicedet.load_detector(OWN, precision="int8")
    with pytest.raises(InvalidSetting, match="streams 0: expected a whole number, at least 1"):
        slicedet.load_detector(OWN, streams=0)
    with pytest.raises(InvalidSetting, match="device 'gpu9': OpenVINO finds "):
        slicedet.load_detector(OWN, device="gpu9", precision="f16")


def test_streams_reach_onnxruntime() -> None:
    pytest.importorskip("onnxruntime")
    assert slicedet.load_detector(OWN, engine="onnxruntime", streams=2).provenance["streams"] == 2


def test_paddle_has_no_streams() -> None:
    pytest.importorskip("paddle")
    with pytest.raises(InvalidSetting, match="streams 2: the paddle engine runs one request at a time"):
        slicedet.load_detector(OWN, engine="paddle", streams=2)


def test_auto_is_f32_until_something_is_chosen(home: Path) -> None:
    with pytest.warns(ModelWarning, match=f"so it is f32; slicedet bench {OWN} would choose"):
        said = slicedet.load_detector(OWN, precision="auto").provenance
    assert (said["engine"], said["precision"]) == ("openvino", "f32")
    assert not home.exists()


def test_the_warning_names_the_whole_command(shared: Path, home: Path) -> None:
    weights = shared / "models" / "picodet_s_320_coco.onnx"
    with pytest.warns(ModelWarning, match=f"slicedet bench picodet_s_320_coco --weights {re.escape(str(weights))} "):
        slicedet.load_detector("picodet_s_320_coco", weights, engine=QUICK, precision="auto")


def test_auto_is_what_was_chosen(home: Path) -> None:
    pytest.importorskip("onnxruntime")
    quick, slow = EngineChoice("onnxruntime", streams=1), EngineChoice("openvino", streams=1)
    choice.store(circumstances_of(OWN, None, "cpu"), {"auto": quick, "onnxruntime": quick, "openvino": slow})
    for engine, expected in {"auto": quick, "onnxruntime": quick, "openvino": slow}.items():
        said = slicedet.load_detector(OWN, engine=engine, precision="auto").provenance
        assert (said["engine"], said["precision"], said["streams"]) == (expected.engine, "f32", 1)
    # What is said is not chosen.
    assert slicedet.load_detector(OWN, precision="auto", streams=2).provenance["streams"] == 2
    assert slicedet.load_detector(OWN, precision="f32").provenance["engine"] == "openvino"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "another"},
        {"weights_sha256": "0" * 64},
        {"device": "gpu"},
        {"hardware": {"CPU": "another"}},
        {"capabilities": ["FP32", "BF16"]},
        {"cores": 4096},
        {"engines": {"openvino": "1.0"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_choices_made_elsewhere_are_not_taken(home: Path, other: dict[str, Any]) -> None:
    here = circumstances_of(OWN, None, "cpu")
    made = choice.store({**here, **other}, {"auto": EngineChoice("openvino", streams=1)})
    assert choice.recall(here, "auto") is None
    # Nor if somebody gives the file the name of one made here.
    made.rename(choice.store(here, {}))
    with pytest.warns(ModelWarning, match="not what slicedet bench writes"):
        assert choice.recall(here, "auto") is None


@pytest.mark.parametrize(
    "chosen",
    [
        {"engine": "openvino", "precision": "f32", "streams": 10**9},
        {"engine": "openvino", "precision": "f32", "streams": [1]},
        {"engine": "openvino", "precision": "int8", "streams": None},
        {"engine": "os", "precision": "f32", "streams": None},
        {"engine": ["openvino"], "precision": "f32", "streams": None},
        {"engine": "openvino", "device": "gpu"},
        {},
        "openvino",
        [1, 2],
    ],
)
def test_choices_that_cannot_be_are_ignored(home: Path, chosen: Any) -> None:
    here = circumstances_of(OWN, None, "cpu")
    choice.store(here, {}).write_text(json.dumps({"circumstances": here, "chosen": {"auto": chosen}}))
    with pytest.warns(ModelWarning, match="not what slicedet bench writes"):
        assert choice.recall(here, "auto") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b" " * 100_000 + b"{}"])
def test_garbled_files_are_ignored(home: Path, content: bytes) -> None:
    here = circumstances_of(OWN, None, "cpu")
    choice.store(here, {}).write_bytes(content)
    with pytest.warns(ModelWarning, match="not what slicedet bench writes"):
        assert choice.recall(here, "auto") is None


def test_a_garbled_choice_is_f32(home: Path) -> None:
    choice.store(circumstances_of(OWN, None, "cpu"), {}).write_bytes(b"{")
    with pytest.warns(ModelWarning) as told:
        assert slicedet.load_detector(OWN, engine=QUICK, precision="auto").provenance["precision"] == "f32"
    assert [str(warning.message).partition(": ")[2].split()[0] for warning in told] == ["not", "nothing"]


def test_a_choice_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SLICEDET_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="SLICEDET_HOME names another folder"):
        choice.store(circumstances_of(OWN, None, "cpu"), {})
