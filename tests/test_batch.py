"""Batch: good and bad images of a folder, results that mirror it, one table and one COCO file over all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from pycocotools.coco import COCO
from spots import Spots, spotted, tree

from slicedet.batch import Batch
from slicedet.errors import InvalidSetting, OutputError, SlicedetWarning, UnknownCategory, UnreadableImage
from slicedet.pipeline import Settings

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}


@pytest.fixture
def folder(raster, tmp_path) -> Path:
    """Three good images and two bad ones, in three folders, with other files between them."""
    raster("in/one.tif", spotted(5, 7), **PLACE)
    raster("in/north/two.png", spotted(30, 40, (60, 90)), driver="PNG")
    raster("in/north/deep/three.tif", spotted(0, 0), **PLACE)
    raster("in/north/void.tif", np.zeros((3, 50, 50), np.uint8), nodata=0, **PLACE)
    (tmp_path / "in/broken.jpg").write_bytes(b"no picture")
    (tmp_path / "in/notes.txt").write_text("not an image")
    raster("in/.hidden.tif", spotted(1, 1))
    raster("in/.cache/thumbnail.tif", spotted(1, 1))
    return tmp_path / "in"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_good_images_give_results_that_mirror_the_folders_and_bad_ones_a_line(folder, tmp_path):
    before, heard = tree(folder), []
    results = Batch(folder, tmp_path / "out").run(
        Spots(), Settings(), report=lambda result, total: heard.append((result, total))
    )
    assert tree(folder) == before
    assert sorted(heard, key=lambda told: told[0].image) == [(result, 5) for result in results]
    assert {result.image: result.error for result in results} == {
        "broken.jpg": f"{folder}/broken.jpg: not an image that GDAL can read",
        "north/deep/three.tif": "",
        "north/two.png": "",
        "north/void.tif": f"{folder}/north/void.tif: every pixel searched is nodata, there is nothing to detect",
        "one.tif": "",
    }
    files = {name for name in tree(tmp_path / "out") if (tmp_path / "out" / name).is_file()}
    assert files == {
        "summary.csv", "detections.coco.json",
        "one.geojson", "one.qml", "one.run.json",
        "north/two.coco.json", "north/two.run.json",
        "north/deep/three.geojson", "north/deep/three.qml", "north/deep/three.run.json",
    }  # fmt: skip
    assert len(json.loads((tmp_path / "out/one.geojson").read_text())["features"]) == 1


def test_summary_has_a_row_for_every_image(folder, tmp_path):
    Batch(folder, tmp_path / "out").run(Spots(), Settings())
    table = rows(tmp_path / "out/summary.csv")
    assert [(row["image"], row["detections"], row["tiles_run"], bool(row["error"])) for row in table] == [
        ("broken.jpg", "0", "0", True),
        ("north/deep/three.tif", "1", "1", False),
        ("north/two.png", "1", "1", False),
        ("north/void.tif", "0", "0", True),
        ("one.tif", "1", "1", False),
    ]


def test_one_coco_file_over_all_good_images_loads_in_pycocotools(folder, tmp_path):
    Batch(folder, tmp_path / "out").run(Spots(), Settings())
    coco = COCO(tmp_path / "out/detections.coco.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["spot", "stain"]
    boxes = {}
    for image in coco.loadImgs(coco.getImgIds()):
        (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
        boxes[image["file_name"]] = (image["width"], image["height"], annotation["bbox"])
    assert boxes == {
        "north/deep/three.tif": (100, 80, [0, 0, 10, 6]),
        "north/two.png": (60, 90, [30, 40, 10, 6]),
        "one.tif": (100, 80, [5, 7, 10, 6]),
    }


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ((), ["broken.jpg", "north/deep/three.tif", "north/two.png", "north/void.tif", "one.tif"]),
        (("*.tif",), ["north/deep/three.tif", "north/void.tif", "one.tif"]),
        (("*.png", "one.*"), ["north/two.png", "one.tif"]),
        (("north/*",), ["north/two.png", "north/void.tif"]),
        (("*.txt",), ["notes.txt"]),
    ],
)
def test_pattern_chooses_images_and_hidden_files_are_never_taken(folder, tmp_path, pattern, images):
    job = Batch(folder, tmp_path / "out", pattern=pattern)
    assert [item.name for item in job.items] == images


def test_images_of_one_stem_keep_their_suffix_in_the_results(raster, tmp_path):
    raster("in/scene.tif", spotted(5, 7), **PLACE)
    raster("in/scene.png", spotted(6, 8), driver="PNG")
    raster("in/deep/scene.tif", spotted(7, 9), **PLACE)
    results = Batch(tmp_path / "in", tmp_path / "out", formats=["csv"]).run(Spots(), Settings())
    assert not any(result.error for result in results)
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("scene*.csv")}
    assert written == {"scene.tif.csv", "scene.png.csv", "deep/scene.csv"}


def test_a_stem_that_is_another_images_name_is_not_used(raster, tmp_path):
    for name in ("scene.tif", "scene.png", "scene.tif.png"):
        raster(f"in/{name}", spotted(5, 7), driver="GTiff" if name.endswith("tif") else "PNG")
    results = Batch(tmp_path / "in", tmp_path / "out", formats=["csv"]).run(Spots(), Settings())
    assert not any(result.error for result in results)
    written = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert written == {"scene.tif.csv", "scene.png.csv", "scene.tif.png.csv", "summary.csv"}


def test_results_do_not_take_the_names_of_the_files_over_all_images(raster, tmp_path):
    for name in ("summary.tif", "detections.tif", "below/summary.tif"):
        raster(f"in/{name}", spotted(5, 7))
    results = Batch(tmp_path / "in", tmp_path / "out", formats=["csv", "coco"]).run(Spots(), Settings())
    assert not any(result.error for result in results)
    written = [path for path in (tmp_path / "out").rglob("*.*") if ".slicedet" not in path.parts and path.is_file()]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == [
        "below/summary.coco.json",
        "below/summary.csv",
        "below/summary.run.json",
        "detections.coco.json",
        "detections.tif.coco.json",
        "detections.tif.csv",
        "detections.tif.run.json",
        "summary.csv",
        "summary.tif.coco.json",
        "summary.tif.csv",
        "summary.tif.run.json",
    ]


def test_results_below_the_images_are_not_taken_for_images(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    output = tmp_path / "in/results"
    for _ in range(2):
        results = Batch(tmp_path / "in", output, formats=["png", "tif"], overwrite=True).run(Spots(), Settings())
        assert [result.image for result in results] == ["one.tif"]
        assert (output / "one.overlay.png").is_file()


def test_nothing_is_overwritten_unless_asked(folder, tmp_path):
    Batch(folder, tmp_path / "out").run(Spots(), Settings())
    first = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/.slicedet")
    with pytest.raises(OutputError, match=r"summary\.csv: exists already"):
        Batch(folder, tmp_path / "out")
    (tmp_path / "out/summary.csv").unlink()
    (tmp_path / "out/detections.coco.json").unlink()
    results = Batch(folder, tmp_path / "out").run(Spots(), Settings())
    assert all(result.error for result in results)
    again = Batch(folder, tmp_path / "out", overwrite=True).run(Spots(), Settings())
    assert sum(not result.error for result in again) == 3
    assert tree(tmp_path / "out").keys() == first.keys()


def test_bands_are_those_asked_for(raster, tmp_path):
    pixels = spotted(5, 7)
    pixels[0] = 0
    raster("in/blue.tif", pixels)
    (result,) = Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings(), {"bands": (3, 2, 1)})
    assert result.detections == 1


@pytest.mark.parametrize(
    "case", ["no folder", "a file", "no image", "no match", "own folder", "output a file", "format"]
)
def test_what_cannot_work_is_said_at_once_and_leaves_nothing(folder, tmp_path, case):
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").write_text("")
    source, output, options, error = {
        "no folder": (tmp_path / "nowhere", tmp_path / "out", {}, UnreadableImage),
        "a file": (folder / "one.tif", tmp_path / "out", {}, UnreadableImage),
        "no image": (tmp_path / "empty", tmp_path / "out", {}, UnreadableImage),
        "no match": (folder, tmp_path / "out", {"pattern": ["*.jp2"]}, UnreadableImage),
        "own folder": (folder, folder, {}, OutputError),
        "output a file": (folder, tmp_path / "taken", {}, OutputError),
        "format": (folder, tmp_path / "out", {"formats": ["xyz"]}, InvalidSetting),
    }[case]
    before = tree(tmp_path)
    with pytest.raises(error) as caught:
        Batch(source, output, **options)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("setting", [{"classes": ("cat",)}, {"threshold": {"cat": 0.5}}])
def test_unknown_class_fails_the_batch_and_not_each_image(folder, tmp_path, setting):
    with pytest.raises(UnknownCategory, match="cat"):
        Batch(folder, tmp_path / "out").run(Spots(), Settings(**setting))
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_made_is_said(folder, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        Batch(folder, tmp_path / "taken/deeper").run(Spots(), Settings())


def test_batch_of_bad_images_only_still_leaves_a_summary(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").touch()
    (result,) = Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings())
    assert "0 bytes" in str(result.error)
    assert "0 bytes" in rows(tmp_path / "out/summary.csv")[0]["error"]
    assert COCO(tmp_path / "out/detections.coco.json").getImgIds() == []


def listed(folder: Path, output: Path) -> list[str]:
    return [item.name for item in Batch(folder, output).items]


def test_linked_folders_are_followed_and_not_for_ever(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    raster("elsewhere/two.tif", spotted(5, 7), **PLACE)
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    raster("in/zone/deep/three.tif", spotted(5, 7), **PLACE)
    (tmp_path / "in/again").symlink_to(tmp_path / "in/zone/deep")
    assert listed(tmp_path / "in", tmp_path / "out") == ["linked/two.tif", "one.tif", "zone/deep/three.tif"]


def test_a_link_to_nothing_is_missed_and_a_pipe_is_not_waited_for(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    (tmp_path / "in/gone.tif").symlink_to(tmp_path / "unmounted.tif")
    os.mkfifo(tmp_path / "in/pipe.tif")
    results = {r.image: r.error for r in Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings())}
    assert results.keys() == {"gone.tif", "one.tif"}
    assert "gone.tif" in results["gone.tif"]
    assert not results["one.tif"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read a folder")
def test_a_folder_that_cannot_be_read_is_told(raster):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        for name in ("one.tif", "closed/two.tif"):
            raster(f"{place}/in/{name}", spotted(5, 7), **PLACE)
        os.chmod(f"{place}/in/closed", 0o700)
        os.seteuid(65534)
        try:
            with pytest.warns(SlicedetWarning, match="closed: this folder cannot be read"):
                assert listed(Path(place, "in"), Path(place, "out")) == ["one.tif"]
        finally:
            os.seteuid(0)


def test_what_earlier_runs_made_is_not_taken_for_images(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    raster("in/one.overlay.png", spotted(5, 7), driver="PNG")
    Batch(tmp_path / "in", tmp_path / "in/results", formats=["tif"]).run(Spots(), Settings())
    shutil.move(tmp_path / "in/results/one.overlay.tif", tmp_path / "in/results/renamed.tif")
    assert listed(tmp_path / "in", tmp_path / "in/others") == ["one.tif"]


def test_a_name_too_long_for_its_results_fails_that_image_alone(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    raster(f"in/{'m' * 249}.tif", spotted(5, 7), **PLACE)
    long, short = Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings())
    assert "cannot be written: File name too long" in long.error
    assert not short.error


def test_settings_may_change_as_long_as_nothing_came_of_them(folder, tmp_path):
    failing = Batch(folder, tmp_path / "out").run(Spots(), Settings(roi=str(tmp_path / "nowhere.shp")))
    assert all(result.error for result in failing)
    results = Batch(folder, tmp_path / "out").run(Spots(), Settings())
    assert sum(not result.error for result in results) == 3
    with pytest.raises(OutputError, match=r"results of other settings \(overlap"):
        Batch(folder, tmp_path / "out").run(Spots(), Settings(overlap=0.5))


def test_the_region_of_interest_is_never_overwritten(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), **PLACE)
    box = tmp_path / "out/one.geojson"
    box.parent.mkdir()
    ring = [[13.5, 45.1], [13.8, 45.1], [13.8, 45.2], [13.5, 45.2], [13.5, 45.1]]
    box.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    before = box.read_bytes()
    (result,) = Batch(tmp_path / "in", tmp_path / "out", overwrite=True).run(Spots(), Settings(roi=str(box)))
    assert "is the region of interest itself" in result.error
    assert box.read_bytes() == before


@pytest.mark.parametrize("value", ["\u00b2", "9" * 5000, "3\n4"], ids=["superscript", "long", "two lines"])
def test_an_odd_orientation_turns_nothing(tmp_path, value):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.moveaxis(spotted(5, 7), 0, -1)).save(tmp_path / "in/a.jpg", quality=95)
    item = f'<MDI key="EXIF_Orientation">{value}</MDI>'
    (tmp_path / "in/a.jpg.aux.xml").write_text(f"<PAMDataset><Metadata>{item}</Metadata></PAMDataset>", "utf-8")
    (result,) = Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings())
    assert (result.error, result.detections) == ("", 1)


def test_whatever_is_odd_about_an_image_it_fails_alone(raster, tmp_path, monkeypatch):
    import slicedet.batch.running

    raster("in/a.tif", spotted(5, 7))
    raster("in/b.tif", spotted(5, 7))
    scene = slicedet.batch.running.Scene

    def odd(path, **options):
        if path.name == "a.tif":
            raise IndexError("nobody thought of this")
        return scene(path, **options)

    monkeypatch.setattr(slicedet.batch.running, "Scene", odd)
    first, second = Batch(tmp_path / "in", tmp_path / "out").run(Spots(), Settings())
    assert first.error == f"{tmp_path}/in/a.tif: cannot be opened (IndexError: nobody thought of this)"
    assert (second.error, second.detections) == ("", 1)
