"""Model configurations: those that come along, and those of users, complete or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from slicedet.errors import InvalidConfig, UnknownModel
from slicedet.models import catalogue

HEADS = {
    "categories": ["car", "truck"],
    "input": {"size": [416, 320], "mean": [0.5, 0.5, 0.5]},
    "output": {"layout": "picodet-heads", "strides": [8, 16], "reg_max": 7},
    "nms": {"score_threshold": 0.1, "iou": 0.5, "top_k": 100, "keep": 50},
}


def written(tmp_path: Path, content: object) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("model", ["PicoDet-S", "picodet-s", "picodet_s_416_coco"])
def test_a_folder_does_not_take_the_place_of_a_name_or_alias(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / model).mkdir()
    path = Path(written(tmp_path, {**HEADS, "name": "another"}))
    path.rename(tmp_path / model / catalogue.IN_FOLDER)
    expected = catalogue.find(model).name
    monkeypatch.chdir(tmp_path)
    assert catalogue.knows(model)
    assert catalogue.find(model).name == expected
    assert catalogue.find(f"./{model}").name == "another"


@pytest.mark.parametrize("name", catalogue.names())
def test_every_configuration_of_the_catalogue_is_complete(name: str) -> None:
    config = catalogue.find(name)
    assert config.name == name
    assert config.license
    if config.downloads:
        assert len(config.categories) in (10, 80)
    else:
        assert config.weights is not None
        assert config.weights.is_file()


def test_a_users_file_gets_the_defaults(tmp_path: Path) -> None:
    config = catalogue.find(written(tmp_path, {**HEADS, "gsd": 0.1, "weights": "w.onnx"}))
    assert (config.name, config.gsd, config.weights) == ("mine", 0.1, tmp_path / "w.onnx")
    assert config.input.size == (416, 320)
    assert (config.input.divide, config.input.std) == (255.0, (1.0, 1.0, 1.0))


def test_categories_may_name_a_list(tmp_path: Path) -> None:
    assert catalogue.find(written(tmp_path, {**HEADS, "categories": "coco"})).categories[2] == "car"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": None}, "input is missing|input"),
        ({"colour": "red"}, "unknown key colour"),
        ({"input": {"size": [416, 416], "colour": 1}}, "unknown key input.colour"),
        ({"input": {"size": 416}}, "input.size"),
        ({"input": {"size": [416, 0]}}, "input.size"),
        ({"input": {"size": [416, 416], "std": [0, 1, 1]}}, "input.std"),
        ({"input": {"size": [416, 416], "channels": "hsv"}}, "input.channels"),
        ({"input": {"size": [416, 416], "interpolation": "sinc"}}, "input.interpolation"),
        ({"output": {"layout": "boxes"}}, "output.layout"),
        ({"output": {"layout": "picodet-heads"}}, "needs strides"),
        ({"output": {"layout": "picodet-heads", "strides": ["a"], "reg_max": 7}}, "needs strides"),
        ({"nms": None}, "nms: needed"),
        ({"nms": {"score_threshold": 0.1, "iou": 0.5, "top_k": 100}}, "nms.keep is missing"),
        ({"nms": {"score_threshold": 0.1, "iou": 1.5, "top_k": 100, "keep": 1}}, "nms: expected"),
        ({"nms": [1]}, "nms: expected keys"),
        ({"categories": []}, "categories"),
        ({"categories": ["car", "car"]}, "categories"),
        ({"categories": "../../secret"}, "no list"),
        ({"categories": "unknown"}, "no list"),
        ({"gsd": -1}, "gsd"),
        ({"gsd": "fine"}, "gsd"),
        ({"box_voting": 0}, "box_voting"),
        ({"box_voting": "yes"}, "box_voting"),
        ({"half_turn": 180}, "half_turn"),
        ({"name": 7}, "name"),
        ({"title": ["a"]}, "title, license and source"),
        ({"weights": ["w.onnx"]}, "weights: expected"),
        ({"weights": "w" * 5000}, "weights: expected"),
        ({"categories": "a" * 5000}, "no list 'a{80}'$"),
        ({"gsd": 10**90}, "gsd"),
        ({"slice": 10**90}, "slice"),
        ({"a" * 5000: 1}, "unknown key a{80}$"),
        ({"aliases": "Mine"}, "aliases"),
        ({"downloads": ["https://example.org/a.onnx"]}, "downloads: expected keys"),
        ({"downloads": {"onnx": "https://example.org/a.onnx"}}, r"downloads\.onnx: expected keys"),
        ({"downloads": {"torch": {"url": "https://example.org/a.pt"}}}, r"downloads\.torch"),
        ({"downloads": {"onnx": {"size": 3}}}, r"downloads\.onnx\.url is missing"),
        ({"downloads": {"onnx": {"url": "file:///etc/passwd.onnx"}}}, r"downloads\.onnx\.url"),
        ({"downloads": {"onnx": {"url": "https://example.org/a.exe"}}}, r"downloads\.onnx\.url"),
        ({"downloads": {"onnx": {"url": "https://example.org/a.onnx"}}, "name": "../x"}, "name"),
        ({"downloads": {"onnx": {"url": "https://example.org/a%5C..%5Cb.onnx"}}}, r"downloads\.onnx\.url"),
        ({"downloads": {"onnx": {"url": "https://example.org/a.onnx", "size": 0}}}, r"downloads\.onnx\.size"),
        ({"downloads": {"onnx": {"url": "https://example.org/a.onnx", "sha256": "x"}}}, r"downloads\.onnx\.sha256"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message) as error:
        catalogue.find(written(tmp_path, {**HEADS, **change}))
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["- a list", "just a text", "{unclosed: [", "!!python/object/apply:os.system ['true']", "\x00"]
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=r"bad\.yaml"):
        catalogue.find(str(path))


@pytest.mark.parametrize("name", ["nonsense", "nowhere.yaml", "../configs/picodet_s_416_coco", ""])
def test_unknown_models_are_named(name: str) -> None:
    with pytest.raises(UnknownModel):
        catalogue.find(name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("PP-YOLOE_plus_SOD-S", "ppyoloe_plus_sod_crn_s_80e_visdrone"),
        ("PP-YOLOE_plus_SOD-L", "ppyoloe_plus_sod_crn_l_80e_visdrone"),
        ("PP-YOLOE_plus_SOD-largesize-L", "ppyoloe_plus_sod_crn_l_largesize_80e_visdrone"),
        ("PicoDet-XS", "picodet_xs_416_coco_lcnet"),
        ("PicoDet-S", "picodet_s_320_coco_lcnet"),
        ("PicoDet-M", "picodet_m_416_coco_lcnet"),
        ("PicoDet-L", "picodet_l_640_coco_lcnet"),
        ("Picodet_S_320_COCO", "picodet_s_320_coco"),
    ],
)
def test_models_are_found_by_the_names_paddlex_gives_them(alias: str, name: str) -> None:
    assert catalogue.find(alias) == catalogue.find(alias.upper()) == catalogue.find(name)


def test_names_that_are_close_are_suggested() -> None:
    with pytest.raises(UnknownModel, match="did you mean picodet_s_320_coco"):
        catalogue.find("picodet-s-320-coco")
    with pytest.raises(UnknownModel, match="PP-YOLOE_plus_SOD-largesize-L"):
        catalogue.find("PP-YOLOE+SOD-largesize-L")


@pytest.mark.parametrize("name", [name for name in catalogue.names() if catalogue.find(name).downloads])
def test_official_files_are_on_official_hosts(name: str) -> None:
    downloads = catalogue.find(name).downloads
    hosts = ("https://paddledet.bj.bcebos.com/", "https://paddle-model-ecology.bj.bcebos.com/")
    assert all(download.url.startswith(hosts) for download in downloads.values())
    assert downloads["pdparams"].filename == f"{name}.pdparams"
