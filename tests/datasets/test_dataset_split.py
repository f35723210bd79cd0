"""Datasets divided into train and val."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from dataset_files import Dataset, load
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from slicedet.datasets.slicing import SliceSettings, slice_dataset
from slicedet.datasets.split import SplitSettings, _choose, split
from slicedet.errors import InvalidDataset, InvalidSetting


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Path:
    """The real annotations, without their images."""
    root = tmp_path / "real"
    shutil.copytree(shared / "data/aerial_vehicles/annotations", root / "annotations")
    (root / "images").mkdir()
    return root


def names(root: Path, part: str) -> set[str]:
    return {image["file_name"] for image in load(root, part)["images"]}


def boxes(root: Path) -> list[tuple[object, ...]]:
    """File, category and box of all annotations."""
    found = []
    for part in ("train", "val"):
        content = load(root, part)
        of = {image["id"]: image["file_name"] for image in content["images"]}
        found += [(of[entry["image_id"]], entry["category_id"], *entry["bbox"]) for entry in content["annotations"]]
    return sorted(found)


def test_every_box_stays_with_its_image(real: Path) -> None:
    before = boxes(real)
    done = split(real)
    assert done.images == {"train": 70, "val": 18}
    assert boxes(real) == before
    for part in ("train", "val"):
        assert len(COCO(real / "annotations" / f"instance_{part}.json").anns) == done.annotations[part]
    numbers = [image["id"] for part in ("train", "val") for image in load(real, part)["images"]]
    assert len(set(numbers)) == len(numbers)


def test_the_seed_alone_decides(real: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        split(real, SplitSettings(seed=seed))
        found.append(names(real, "val"))
    assert found[0] == found[1] != found[2]


def test_sequences_stay_together(real: Path) -> None:
    done = split(real, SplitSettings(70, 30, group_by="sequence"))
    assert set(done.groups["train"]) | set(done.groups["val"]) == {
        "MOS", "DJI-00760", "DJI_0005", "MunichStreet02-MOS", "DJI", "DJI_0013",
    }  # fmt: skip
    for group in ("MOS1", "DJI-00760", "DJI_0005", "MunichStreet02", "DJI_0013"):
        parts = [part for part in ("train", "val") if any(name.startswith(group) for name in names(real, part))]
        assert len(parts) == 1


@pytest.mark.parametrize("rule", [r"^[A-Za-z]+", r"^(?:Munich|(DJI|MOS))"])
def test_groups_by_expression(real: Path, rule: str) -> None:
    split(real, SplitSettings(group_by=rule))
    starts = [{name[:3] for name in names(real, part)} for part in ("train", "val")]
    assert not starts[0] & starts[1]


def test_older_files_are_kept_for_ever(real: Path) -> None:
    first = (real / "annotations" / "instance_val.json").read_bytes()
    split(real)
    second = (real / "annotations" / "instance_val.json").read_bytes()
    done = split(real, SplitSettings(seed=5))
    assert (real / "annotations" / "instance_val.json.bak").read_bytes() == first
    assert (real / "annotations" / "instance_val.json.bak1").read_bytes() == second
    assert [path.name for path in done.kept] == ["instance_train.json.bak1", "instance_val.json.bak1"]


def test_ids_and_other_members_survive(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    before = {image["file_name"]: image["id"] for image in dataset.train["images"] + dataset.val["images"]}
    split(dataset.write(), SplitSettings(50, 50))
    after = {}
    for part in ("train", "val"):
        content = load(tmp_path, part)
        assert content["info"] == {"description": "blobs", "year": 2024}
        assert content["licenses"] == [{"id": 1, "name": "CC0"}]
        after |= {image["file_name"]: image["id"] for image in content["images"]}
        assert len(content["images"]) == 3
    assert after == before


@pytest.mark.parametrize("licenses", ["CC-BY", ["CC-BY"], [{"id": 1}], {"name": "CC-BY"}])
def test_licences_of_any_form_survive(tmp_path: Path, licenses: object) -> None:
    dataset = Dataset(tmp_path)
    dataset.train["licenses"] = dataset.val["licenses"] = licenses
    split(dataset.write(), SplitSettings(50, 50))
    slice_dataset(tmp_path, tmp_path / "tiles", SliceSettings(32))
    for root in (tmp_path, tmp_path / "tiles"):
        assert load(root, "train")["licenses"] == licenses


def test_a_single_file_is_divided(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    dataset.write()
    (tmp_path / "annotations" / "instance_val.json").unlink()
    done = split(tmp_path, SplitSettings(75, 25))
    assert done.images == {"train": 3, "val": 1}
    assert [path.name for path in done.kept] == ["instance_train.json.bak"]


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 20), min_size=2, max_size=12), st.integers(1, 99)
)
def test_both_parts_have_groups_and_val_is_near_its_share(sizes: dict[str, int], percent: int) -> None:
    groups = {name: [name] * size for name, size in sizes.items()}
    chosen = _choose(groups, SplitSettings(100 - percent, percent))
    assert chosen["train"]
    assert chosen["val"]
    assert sorted(chosen["train"] + chosen["val"]) == sorted(groups)
    wanted, largest = sum(sizes.values()) * percent / 100, max(sizes.values())
    assert abs(sum(sizes[name] for name in chosen["val"]) - wanted) <= largest


def test_what_cannot_be_divided_is_said(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    root = dataset.write()
    before = (root / "annotations" / "instance_train.json").read_bytes()
    with pytest.raises(InvalidDataset, match="belong to one group"):
        split(root, SplitSettings(group_by="png"))
    dataset.val["images"][0]["file_name"] = "a0.png"
    dataset.write()
    with pytest.raises(InvalidDataset, match=r"a0\.png is listed twice"):
        split(root)
    dataset.val["images"][0]["file_name"] = "b0.png"
    dataset.val["categories"][0]["name"] = "tram"
    dataset.write()
    with pytest.raises(InvalidDataset, match="contradicts another"):
        split(root)
    assert (root / "annotations" / "instance_train.json").read_bytes() == before
    assert json.loads(before)["images"]


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("images", {"id": "img_1"}, "image number 1: its id 'img_1' is a text, not a whole number"),
        ("images", {"id": [1]}, r"image number 1: its id \[1\] is a list, not a whole number"),
        ("images", {"file_name": 5}, "image number 1: its file_name 5 is no name"),
        ("annotations", {"image_id": [1]}, r"annotation 1 belongs to image \[1\], which is missing"),
        ("categories", {"id": [1]}, r"category number 1: its id \[1\] is a list, not a whole number"),
        ("categories", {"name": None}, "category number 1: has no name"),
    ],
)
def test_entries_that_cannot_be_used_are_said(
    tmp_path: Path, section: str, values: dict[str, object], said: str
) -> None:
    dataset = Dataset(tmp_path)
    dataset.train[section][0] |= values
    root = dataset.write()
    before = {path: path.read_bytes() for path in root.rglob("*.json*")}
    with pytest.raises(InvalidDataset, match=said):
        split(root)
    assert {path: path.read_bytes() for path in root.rglob("*.json*")} == before


def test_ids_in_digits_become_numbers(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for section, keys in (("images", ["id"]), ("annotations", ["id", "image_id"]), ("categories", ["id"])):
        for entry in dataset.train[section]:
            entry |= {key: str(entry[key]) for key in keys}
    split(dataset.write(), SplitSettings(50, 50))
    for part in ("train", "val"):
        content = load(tmp_path, part)
        assert all(
            type(entry["id"]) is int for key in ("images", "annotations", "categories") for entry in content[key]
        )
        owners = {image["id"] for image in content["images"]}
        assert {entry["image_id"] for entry in content["annotations"]} == owners


def test_a_test_split_stays(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    root = dataset.write()
    test = root / "annotations" / "instance_test.json"
    (root / "annotations" / "instance_val.json").rename(test)
    before = test.read_bytes()
    done = split(root, SplitSettings(50, 50))
    assert done.images == {"train": 2, "val": 2}
    assert test.read_bytes() == before


@pytest.mark.parametrize("values", [(80, 30), (100, 0), (-20, 120), (80, 20, 0, "(")])
def test_settings_that_make_no_sense_are_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(InvalidSetting):
        SplitSettings(*values)
