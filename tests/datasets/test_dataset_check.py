"""Faults planted one by one are found by the check, and gone from the repaired copy."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import Dataset, load, picture
from PIL import Image
from pycocotools.coco import COCO

from slicedet.datasets.check import check
from slicedet.datasets.findings import ERROR, KEPT, KINDS, Findings
from slicedet.datasets.repair import repair
from slicedet.datasets.report import write_report
from slicedet.datasets.slicing import slice_dataset
from slicedet.datasets.split import split as divide
from slicedet.datasets.stats import measure_all
from slicedet.errors import InvalidDataset, InvalidSetting, OutputError


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = tmp_path / "data"
    root.mkdir()
    return Dataset(root)


def box(values: list[float]) -> Callable[[Dataset], None]:
    def plant(dataset: Dataset) -> None:
        dataset.train["annotations"][0]["bbox"] = values

    return plant


def change(section: str, place: int, **values: object) -> Callable[[Dataset], None]:
    return lambda dataset: dataset.train[section][place].update(values)


def drop(section: str, place: int, key: str) -> Callable[[Dataset], None]:
    return lambda dataset: dataset.train[section][place].pop(key)


def repeat(section: str, place: int, **values: object) -> Callable[[Dataset], None]:
    return lambda dataset: dataset.train[section].append({**dataset.train[section][place], **values})


def missing_image(dataset: Dataset) -> None:
    (dataset.root / "images" / "a1.png").unlink()


def truncated_image(dataset: Dataset) -> None:
    path = dataset.root / "images" / "a1.png"
    path.write_bytes(path.read_bytes()[:-200])


def truncated_photo(dataset: Dataset) -> None:
    path = picture(dataset.root / "images" / "long.jpg", 60, 40, 9)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    dataset.train["images"][1]["file_name"] = "long.jpg"


def turned_image(dataset: Dataset) -> None:
    picture(dataset.root / "images" / "turned.jpg", 60, 40, 9, exif=6)
    dataset.train["images"][1]["file_name"] = "turned.jpg"


def category_of_another_name(dataset: Dataset) -> None:
    dataset.val["categories"][1]["name"] = "tram"


def swapped_categories(dataset: Dataset) -> None:
    dataset.val["categories"] = [{"id": 2, "name": "car"}, {"id": 1, "name": "bus"}]


def same_file(dataset: Dataset) -> None:
    dataset.val["images"][0]["file_name"] = "a0.png"


def same_pixels(dataset: Dataset) -> None:
    shutil.copyfile(dataset.root / "images" / "a0.png", dataset.root / "images" / "b0.png")


def no_boxes(dataset: Dataset) -> None:
    dataset.val["annotations"] = []


def copied_twice(dataset: Dataset) -> None:
    for name in ("a1", "b0"):
        shutil.copyfile(dataset.root / "images" / "a0.png", dataset.root / "images" / f"{name}.png")


FAULTS = {
    "image-missing": [missing_image],
    "image-unreadable": [truncated_image, truncated_photo],
    "image-size": [change("images", 0, width=61), change("images", 0, height=400)],
    "image-turned": [turned_image],
    "image-invalid": [
        drop("images", 1, "file_name"),
        change("images", 1, width=0),
        change("images", 1, id=None),
        change("images", 1, file_name=""),
        change("images", 1, id=1.5),
    ],
    "image-duplicate-id": [change("images", 1, id=1)],
    "image-duplicate-name": [repeat("images", 0, id=77), repeat("images", 0)],
    "image-outside": [
        *(change("images", 1, file_name=name) for name in ("../../secret.png", "/etc/x.png", "a" * 300, "a\0b")),
        change("images", 1, file_name="/".join(["a" * 200] * 30)),
    ],
    "image-unknown": [change("annotations", 0, image_id=99), drop("annotations", 0, "image_id")],
    "id-type": [change("images", 0, id="1"), change("annotations", 0, id="1"), change("categories", 0, id="1")],
    "category-invalid": [drop("categories", 1, "name"), change("categories", 1, id="x")],
    "category-duplicate": [repeat("categories", 0, id=3), repeat("categories", 0, name="van")],
    "category-differs": [category_of_another_name, swapped_categories],
    "category-unknown": [change("annotations", 0, category_id=9)],
    "annotation-duplicate-id": [change("annotations", 0, id=2)],
    "annotation-invalid": [drop("annotations", 0, "bbox"), box([1, 2, 3]), drop("annotations", 0, "id")],
    "annotation-incomplete": [
        drop("annotations", 0, "area"),
        drop("annotations", 0, "iscrowd"),
        change("annotations", 0, area=None),
        change("annotations", 0, area=math.nan),
        change("annotations", 0, area="x"),
        change("annotations", 0, iscrowd="x"),
    ],
    "box-nan": [box([math.nan, 6, 20, 10]), box([5, 6, math.inf, 10]), box([5, 6, 20, -math.inf])],
    "box-inverted": [box([25, 6, -20, 10]), box([25, 16, -20, -10])],
    "box-empty": [box([5, 6, 0, 10]), box([5, 6, 20, 0])],
    "box-outside": [box([50, 6, 20, 10]), box([-5, 6, 20, 10]), box([70, 50, 20, 10]), box([5, 30, 20, 30])],
    "box-duplicate": [repeat("annotations", 0, id=99)],
    "leak-file": [same_file],
    "leak-content": [same_pixels, copied_twice],
}
CASES = [(kind, plant) for kind, plants in FAULTS.items() for plant in plants]
NAMES = [f"{kind}-{number}" for number, (kind, _) in enumerate(CASES)]


def test_a_sound_dataset_passes(dataset: Dataset) -> None:
    checked = check(dataset.write())
    assert checked.findings.lines() == []
    assert checked.passed


@pytest.mark.parametrize(("kind", "plant"), CASES, ids=NAMES)
def test_a_planted_fault_is_found_and_mended(
    dataset: Dataset, tmp_path: Path, kind: str, plant: Callable[[Dataset], None]
) -> None:
    plant(dataset)
    root = dataset.write()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    checked = check(root)
    assert checked.findings.counts[kind] >= 1
    assert checked.passed == (KINDS[kind][0] != ERROR)
    found = checked.findings.of(kind)[0]
    assert found.file
    assert found.message
    repair(checked, tmp_path / "mended")
    again = check(tmp_path / "mended")
    assert again.findings.counts[kind] == 0
    assert again.passed
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    for split in ("train", "val"):
        reference = COCO(tmp_path / "mended" / "annotations" / f"instance_{split}.json")
        assert reference.imgs
        assert reference.anns
        assert reference.dataset["info"]["year"] == 2024
        assert reference.dataset["licenses"] == [{"id": 1, "name": "CC0"}]


@pytest.mark.parametrize("plant", [plant for _, plant in CASES], ids=NAMES)
def test_what_passes_is_read_by_all_commands(
    dataset: Dataset, tmp_path: Path, plant: Callable[[Dataset], None]
) -> None:
    plant(dataset)
    dataset.train["info"]["contributor"] = math.nan
    if not check(dataset.write()).passed:
        repair(check(dataset.root), tmp_path / "mended")
        dataset.root = tmp_path / "mended"
    assert set(measure_all(dataset.root)) == {"train", "val"}
    sliced = slice_dataset(dataset.root, tmp_path / "tiles")
    assert sum(divide(dataset.root).images.values()) == sum(part.images for part in sliced.values()) >= 4


def test_ids_that_are_texts_are_said_and_numbered_anew(dataset: Dataset, tmp_path: Path) -> None:
    for image in dataset.train["images"]:
        image["id"] = f"65f0c0{image['id']}"
    for annotation in dataset.train["annotations"]:
        annotation |= {"id": f"x{annotation['id']}", "image_id": f"65f0c0{annotation['image_id']}"}
    before = {image["file_name"]: image["id"] for image in dataset.train["images"]}
    boxes = [(entry["image_id"], entry["bbox"]) for entry in dataset.train["annotations"]]
    checked = check(dataset.write())
    assert set(checked.findings.counts) == {"id-type"}
    assert [finding.message for finding in checked.findings.of("id-type")[::4]][:2] == [
        "image number 1: its id '65f0c01' is a text, not a whole number",
        "annotation number 1: its id 'x1' is a text, not a whole number",
    ]
    changes = repair(checked, tmp_path / "mended")
    assert set(changes["train"]) == {"ids-renumbered"}
    mended = load(tmp_path / "mended", "train")
    assert [image["id"] for image in mended["images"]] == [1, 2, 3, 4]
    old = {image["id"]: before[image["file_name"]] for image in mended["images"]}
    assert [(old[entry["image_id"]], entry["bbox"]) for entry in mended["annotations"]] == boxes


def test_a_test_split_is_checked_with_the_others(dataset: Dataset, tmp_path: Path) -> None:
    root = dataset.write()
    same_file(dataset)
    (root / "annotations" / "instance_test.json").write_text(json.dumps(dataset.val))
    checked = check(root)
    assert {finding.split for finding in checked.findings.of("leak-file")} == {"test"}
    repair(checked, tmp_path / "mended")
    again = check(tmp_path / "mended")
    assert again.passed
    assert {part.split.name: len(part.images) for part in again.splits} == {"train": 3, "val": 1, "test": 2}


def test_an_input_size_below_one_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InvalidSetting, match="input-size 0"):
        check(dataset.write(), input_size=0)


def test_findings_name_file_and_id(dataset: Dataset) -> None:
    box([50, 6, 20, 10])(dataset)
    finding = check(dataset.write()).findings.of("box-outside")[0]
    assert (finding.severity, finding.split, finding.file, finding.id) == ("error", "train", "a0.png", 1)
    assert "[50, 6, 20, 10] in an image of 60 x 40" in finding.message


def test_mending_keeps_what_is_right(dataset: Dataset, tmp_path: Path) -> None:
    values = ([50, 6, 20, 10], [25, 16, -20, -10], [math.nan, 1, 2, 3])
    for annotation, bbox in zip(dataset.train["annotations"], values, strict=False):
        annotation["bbox"] = bbox
    changes = repair(check(dataset.write()), tmp_path / "mended")
    assert changes["train"]["boxes-clipped"] == 1
    assert changes["train"]["boxes-righted"] == 1
    assert changes["train"]["boxes-dropped"] == 1
    annotations = load(tmp_path / "mended", "train")["annotations"]
    assert [entry["bbox"] for entry in annotations[:3]] == [[50, 6, 10, 10], [5, 6, 20, 10], [30, 20.5, 25, 15]]
    assert [entry["area"] for entry in annotations[:2]] == [100, 200]


def test_boxes_whose_area_no_number_holds_are_read(dataset: Dataset) -> None:
    for entry, sides in zip(dataset.train["annotations"], (1e-200, 1e200), strict=False):
        entry["bbox"] = [1, 1, sides, sides]
    assert check(dataset.write()).findings.counts["box-outside"] == 1


def test_boxes_too_thin_to_be_written_are_left_out(dataset: Dataset, tmp_path: Path) -> None:
    box([0, 30, 0.0001, 12])(dataset)
    changes = repair(check(dataset.write()), tmp_path / "mended")
    assert changes["train"]["boxes-dropped"] == 1
    assert check(tmp_path / "mended").passed


def test_boxes_of_a_duplicated_category_are_kept(dataset: Dataset, tmp_path: Path) -> None:
    dataset.train["categories"].append({"id": 3, "name": "car"})
    dataset.train["annotations"][0]["category_id"] = 3
    repair(check(dataset.write()), tmp_path / "mended")
    mended = load(tmp_path / "mended", "train")
    assert [entry["category_id"] for entry in mended["annotations"]] == [1, 2] * 4


def test_categories_are_matched_by_name(dataset: Dataset, tmp_path: Path) -> None:
    swapped_categories(dataset)
    repair(check(dataset.write()), tmp_path / "mended")
    train, val = (load(tmp_path / "mended", split) for split in ("train", "val"))
    assert train["categories"] == val["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    assert [entry["category_id"] for entry in val["annotations"]] == [2, 1, 2, 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_turned_images_are_turned(dataset: Dataset, tmp_path: Path, orientation: int) -> None:
    # A white rectangle where the box is, as stored, in an image that EXIF shows upright.
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[6:16, 5:25] = 255
    tags = Image.Exif()
    tags[274] = orientation
    path = dataset.root / "images" / "turned.png"
    Image.fromarray(pixels).save(path, exif=tags)
    dataset.train["images"][0]["file_name"] = "turned.png"
    checked = check(dataset.write())
    assert checked.findings.counts["image-turned"] == 1
    repair(checked, tmp_path / "mended")
    mended = load(tmp_path / "mended", "train")
    assert (mended["images"][0]["width"], mended["images"][0]["height"]) == (40, 60)
    from PIL import ImageOps

    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))[..., 0]
    rows, columns = np.nonzero(shown)
    x, y, width, height = mended["annotations"][0]["bbox"]
    assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_turned_image_with_its_shown_size_is_only_warned_of(dataset: Dataset) -> None:
    picture(dataset.root / "images" / "turned.jpg", 40, 60, 9, exif=6)
    dataset.train["images"][1]["file_name"] = "turned.jpg"
    checked = check(dataset.write())
    assert checked.findings.counts["image-exif"] == 1
    assert checked.passed


def test_splits_without_boxes_and_images_without_boxes(dataset: Dataset) -> None:
    no_boxes(dataset)
    dataset.train["annotations"] = dataset.train["annotations"][2:]
    checked = check(dataset.write())
    assert checked.findings.counts["no-boxes"] == 1
    assert [finding.file for finding in checked.findings.of("image-without-boxes")] == ["a0.png"]
    assert not checked.passed


def test_a_file_no_split_lists_is_noted(dataset: Dataset) -> None:
    picture(dataset.root / "images" / "deep" / "more.png", seed=50)
    findings = check(dataset.write()).findings
    assert [finding.file for finding in findings.of("image-unlisted")] == ["deep/more.png"]


def test_folders_may_be_parted_by_backslashes(dataset: Dataset, tmp_path: Path) -> None:
    picture(dataset.root / "images" / "deep" / "a0.png", seed=50)
    (dataset.root / "images" / "a0.png").unlink()
    dataset.train["images"][0]["file_name"] = "deep\\a0.png"
    checked = check(dataset.write())
    assert checked.findings.lines() == []
    repair(checked, tmp_path / "mended")
    assert load(tmp_path / "mended", "train")["images"][0]["file_name"] == "deep/a0.png"
    assert (tmp_path / "mended" / "images" / "deep" / "a0.png").is_file()
    # Both ways to write it mean one image.
    dataset.train["images"].append({**dataset.train["images"][0], "id": 77, "file_name": "deep/a0.png"})
    assert check(dataset.write()).findings.counts == {"image-duplicate-name": 1, "image-without-boxes": 1}


@pytest.mark.parametrize("name", ["C:\\photos\\a0.png", "..\\a0.png", "\\\\server\\photos\\a0.png"])
def test_backslashes_lead_out_of_no_folder(dataset: Dataset, name: str) -> None:
    dataset.train["images"][0]["file_name"] = name
    assert check(dataset.write()).findings.counts["image-outside"] == 1


def test_recompressed_images_in_both_splits_are_warned_of(dataset: Dataset) -> None:
    with Image.open(dataset.root / "images" / "a0.png") as image:
        image.save(dataset.root / "images" / "copy.jpg", quality=40)
    dataset.val["images"][0]["file_name"] = "copy.jpg"
    checked = check(dataset.write())
    assert [finding.file for finding in checked.findings.of("leak-similar")] == ["copy.jpg"]
    assert checked.passed


def test_copies_within_a_split_are_warned_of(dataset: Dataset) -> None:
    shutil.copyfile(dataset.root / "images" / "a0.png", dataset.root / "images" / "a3.png")
    checked = check(dataset.write())
    assert [finding.file for finding in checked.findings.of("image-copy")] == ["a3.png"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": 5}', '{"images": [5]}', "\x00\xff"])
def test_files_that_are_no_annotations_are_errors(dataset: Dataset, content: str) -> None:
    root = dataset.write()
    (root / "annotations" / "instance_val.json").write_text(content)
    checked = check(root)
    counts = checked.findings.counts
    assert counts["annotations-unreadable"] or counts["no-images"]
    assert not checked.passed


def test_a_missing_split_is_an_error_of_a_folder_not_of_a_file(dataset: Dataset) -> None:
    root = dataset.write()
    (root / "annotations" / "instance_val.json").unlink()
    assert check(root).findings.counts["annotations-missing"] == 1
    assert check(root / "annotations" / "instance_train.json").passed


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="no such folder"):
        check(tmp_path / "none")
    with pytest.raises(InvalidDataset, match="needs one folder images"):
        check(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InvalidDataset, match="slicedet dataset convert"):
        check(tmp_path)


def test_a_dataset_in_a_folder_is_found_as_in_paddlex(dataset: Dataset) -> None:
    dataset.write()
    assert check(dataset.root.parent).layout.root == dataset.root


def test_a_repair_never_replaces_anything(dataset: Dataset, tmp_path: Path) -> None:
    checked = check(dataset.write())
    with pytest.raises(OutputError, match="exists already"):
        repair(checked, dataset.root)
    repair(checked, tmp_path / "linked", image_mode="link")
    assert (tmp_path / "linked" / "images" / "a0.png").is_symlink()


def test_the_report_has_the_keys_of_paddlex(dataset: Dataset, tmp_path: Path) -> None:
    result = json.loads(write_report(check(dataset.write()), tmp_path / "output").read_text())
    assert result["done_flag"] is True
    assert result["check_pass"] is True
    assert result["dataset_path"] == "data"
    assert result["dataset_type"] == "COCODetDataset"
    assert result["show_type"] == "image"
    attributes = result["attributes"]
    assert (attributes["num_classes"], attributes["train_samples"], attributes["val_samples"]) == (2, 4, 2)
    for name in (*attributes["train_sample_paths"], *attributes["val_sample_paths"], result["analysis"]["histogram"]):
        with Image.open(tmp_path / "output" / name) as image:
            image.load()
    with Image.open(tmp_path / "output" / attributes["train_sample_paths"][0]) as drawn:
        shown = np.asarray(drawn).astype(int)
    with Image.open(dataset.root / "images" / "a0.png") as image:
        changed = (shown != np.asarray(image)).any(axis=2)
    assert changed[5, 4:26].all()
    assert changed[5:17, 4].all()
    assert not changed[7:15, 7:23].any()


def test_each_sample_has_a_picture_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    names = ["a/b.png", "a_b.png", "train_a_b.png", "a_b.tif"]
    for seed, (entry, name) in enumerate(zip(dataset.train["images"], names, strict=True)):
        entry["file_name"] = name
        picture(dataset.root / "images" / name, seed=seed)
    result = json.loads(write_report(check(dataset.write()), tmp_path / "output").read_text())
    drawn = result["attributes"]["train_sample_paths"]
    assert len(set(drawn)) == 4
    for seed, name in enumerate(drawn):
        expected = np.asarray(Image.open(picture(tmp_path / "expected.png", seed=seed)))
        assert (np.asarray(Image.open(tmp_path / "output" / name))[37:] == expected[37:]).all()


def test_real_photos_pass_and_their_advice_follows(shared: Path, tmp_path: Path) -> None:
    checked = check(shared / "data" / "aerial_vehicles", input_size=416)
    assert checked.passed
    assert set(checked.findings.counts) == {"category-unused"}
    advice = checked.advice
    assert advice is not None
    sizes = np.concatenate([part.sizes for part in checked.statistics.values()])
    sides = np.concatenate([part.sides for part in checked.statistics.values()])
    assert 25 <= np.median(sizes) * 416 / advice.slice <= 60
    assert (sides.max(axis=1) <= advice.overlap * advice.slice).mean() >= 0.95
    assert advice.reg_range[0] == -2
    assert np.percentile(sides / advice.slice, 90) * 416 / 8 < advice.reg_range[1] * 2


def test_findings_beyond_the_limit_are_counted_only() -> None:
    findings = Findings()
    for number in range(KEPT + 5):
        findings.add("box-nan", "train", "a.png", "bbox", number)
    assert len(findings.of("box-nan")) == KEPT
    assert findings.summary()["counts"]["box-nan"] == KEPT + 5
    assert any(f"and {KEPT + 2:,} more" in line for line in findings.lines())


@pytest.mark.parametrize("name", [r"$\foo$", "price $5 and $x_{$", "\x1b[31mred\n", "n" * 1_000_000])
def test_a_category_of_any_name_has_its_report(dataset: Dataset, tmp_path: Path, name: str) -> None:
    for part in (dataset.train, dataset.val):
        part["categories"][0]["name"] = name
    checked = check(dataset.write())
    result = json.loads(write_report(checked, tmp_path / "report").read_text())
    assert result["check_pass"]
    assert (tmp_path / "report/check_dataset/histogram.png").stat().st_size > 1000


def test_findings_are_short_and_rule_no_terminal(dataset: Dataset) -> None:
    dataset.train["images"][0]["file_name"] = "\x1b[2J.png"
    dataset.train["annotations"][0]["category_id"] = "c" * 1_000_000
    checked = check(dataset.write())
    text = "\n".join(checked.findings.lines())
    assert "\x1b" not in text
    assert r"\x1b[2J.png" in text
    assert len(json.dumps(checked.summary())) < 20_000
