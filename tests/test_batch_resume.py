"""Batch, broken off and gone on with: nothing twice, nothing missed, nothing of others harmed, the same files."""

from __future__ import annotations

import csv
import os
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from spots import Spots, spotted, strewn, tree

from slicedet.batch import Batch
from slicedet.errors import CorruptFile, OutputError, SlicedetWarning
from slicedet.pipeline import Settings

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
FORMATS = ["geojson", "csv"]
ALL_FORMATS = ["geojson,gpkg,fgb,parquet,csv,coco,jpg,png,tif"]


@pytest.fixture
def folder(raster, tmp_path) -> Path:
    """Four good images, one of several rows of tiles, and a bad one."""
    raster("in/big.tif", strewn(300, 700), **PLACE)
    raster("in/deep/a.tif", spotted(5, 7), **PLACE)
    raster("in/deep/b.tif", spotted(8, 9, (300, 90)), **PLACE)
    raster("in/z.tif", spotted(50, 20), **PLACE)
    (tmp_path / "in/broken.tif").write_bytes(b"no picture")
    return tmp_path / "in"


def run(folder: Path, output: Path, detector: Spots | None = None, settings: Settings | None = None, **options):
    """Runs a batch; gives its results by image."""
    options = {"formats": FORMATS, **options}
    results = Batch(folder, output, **options).run(detector or Spots(), settings or Settings())
    return {result.image: result for result in results}


def test_what_is_done_is_not_run_again_and_not_touched(folder, tmp_path):
    first = run(folder, tmp_path / "out")
    before, times = tree(tmp_path / "out"), {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.csv")}
    detector = Spots()
    second = run(folder, tmp_path / "out", detector)
    assert detector.seen == 0
    assert second == {name: result if result.error else _kept(result) for name, result in first.items()}
    assert tree(tmp_path / "out") == before
    assert all(p.stat().st_mtime_ns == t for p, t in times.items() if p.name != "summary.csv")


def _kept(result):
    return type(result)(**{**{name: getattr(result, name) for name in result.__dataclass_fields__}, "kept": True})


@pytest.mark.parametrize("tiles", [0, 9, 18])
def test_after_interruptions_the_rest_is_run_and_the_files_are_the_same(folder, tmp_path, tiles):
    everything = Spots()
    run(folder, tmp_path / "unbroken", everything, formats=ALL_FORMATS)
    for _ in range(2):
        with suppress(KeyboardInterrupt):  # Not raised once there are fewer tiles left.
            run(folder, tmp_path / "out", Spots(fails_after=tiles), formats=ALL_FORMATS)
    last = Spots()
    run(folder, tmp_path / "out", last, formats=ALL_FORMATS)
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)
    assert last.seen + tiles <= everything.seen


def test_finished_rows_of_tiles_are_not_run_again(raster, tmp_path):
    raster("in/big.tif", strewn(300, 1000), **PLACE)
    everything = Spots()
    run(tmp_path / "in", tmp_path / "unbroken", everything)
    row = 3  # Tiles of 128 px that overlap by a quarter, over 300 px.
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", Spots(fails_after=20))
    rest = Spots()
    run(tmp_path / "in", tmp_path / "out", rest)
    # What a batch of the detector holds is known only once it is through.
    assert everything.seen - 20 <= rest.seen <= everything.seen - 20 + row + 8
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def test_rows_are_kept_only_while_they_are_needed(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "out", Spots(fails_after=17))
    assert strips(tmp_path / "out") > 0
    run(folder, tmp_path / "out")
    assert strips(tmp_path / "out") == 0


def strips(output: Path) -> int:
    database = sqlite3.connect(output / ".slicedet/manifest.sqlite")
    ((count,),) = database.execute("SELECT count(*) FROM strips")
    database.close()
    return count


def test_a_changed_image_is_run_again_and_a_failed_one_tried_again(folder, raster, tmp_path):
    run(folder, tmp_path / "out")
    raster("in/z.tif", spotted(1, 2), **PLACE)
    raster("in/broken.tif", spotted(3, 4), **PLACE)
    detector = Spots()
    results = run(folder, tmp_path / "out", detector)
    assert detector.seen == 2
    assert not any(result.error for result in results.values())
    assert {name for name, result in results.items() if not result.kept} == {"z.tif", "broken.tif"}
    run(folder, tmp_path / "anew")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "anew", records=False)


def test_what_is_read_along_with_an_image_counts_as_the_image(raster, tmp_path):
    raster("in/a.tif", spotted(5, 7))
    raster("parts/b.tif", spotted(8, 9), **PLACE)
    raster("in/c.tif", spotted(1, 2))
    with rasterio.open(tmp_path / "parts/b.tif") as part:
        rasterio.shutil.copy(part, tmp_path / "in/b.vrt", driver="VRT")
    formats = ["csv"]
    run(tmp_path / "in", tmp_path / "out", formats=formats)
    (tmp_path / "in/a.tfw").write_text("0.2\n0\n0\n-0.2\n10\n50\n")
    raster("parts/b.tif", spotted(80, 90), **PLACE)
    results = run(tmp_path / "in", tmp_path / "out", formats=formats)
    assert {name for name, result in results.items() if not result.kept} == {"a.tif", "b.vrt"}
    run(tmp_path / "in", tmp_path / "anew", formats=formats)
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "anew", records=False)
    assert all(result.kept for result in run(tmp_path / "in", tmp_path / "out", formats=formats).values())


def test_an_image_that_changes_while_it_is_half_done_begins_anew(raster, tmp_path):
    raster("in/big.tif", strewn(300, 700), **PLACE)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out", Spots(fails_after=10))
    raster("in/big.tif", strewn(300, 700, seed=1), **PLACE)
    run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "in", tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def test_images_that_are_gone_are_told_and_left_out_but_their_files_stay(folder, tmp_path):
    run(folder, tmp_path / "out")
    (folder / "z.tif").unlink()
    with pytest.warns(SlicedetWarning, match="1 image with results is no longer there, and left out"):
        results = run(folder, tmp_path / "out")
    assert "z.tif" not in results
    with (tmp_path / "out/summary.csv").open(newline="") as file:
        assert "z.tif" not in [row["image"] for row in csv.DictReader(file)]
    assert (tmp_path / "out/z.geojson").is_file()


def test_a_narrower_pattern_leaves_out_what_it_leaves_out(folder, tmp_path):
    run(folder, tmp_path / "out")
    detector = Spots()
    assert set(run(folder, tmp_path / "out", detector, pattern=["z.*"])) == {"z.tif"}
    assert len(run(folder, tmp_path / "out", detector)) == 5
    assert detector.seen == 0


@pytest.mark.parametrize("lost", ["z.geojson", "z.run.json", "deep/b.csv", "summary.csv", "detections.coco.json"])
def test_a_file_that_was_deleted_is_written_again_without_running(folder, tmp_path, lost):
    run(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / lost).unlink()
    detector = Spots()
    run(folder, tmp_path / "out", detector)
    assert detector.seen == 0
    assert tree(tmp_path / "out") == before


def test_a_result_that_could_not_be_written_is_kept_until_it_can(folder, tmp_path):
    (tmp_path / "out/z.csv").mkdir(parents=True)
    assert "z.csv" in run(folder, tmp_path / "out")["z.tif"].error
    (tmp_path / "out/z.csv").rmdir()
    run(folder, tmp_path / "out")
    run(folder, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


@pytest.mark.parametrize(
    ("settings", "options", "named"),
    [
        (Settings(overlap=0.3), {}, "overlap was 0.25, now 0.3"),
        (Settings(skip_flat=True), {}, "skip_flat was false, now true"),
        (Settings(slice=64), {}, r"slice was \[128, 128\], now \[64, 64\]"),
        (Settings(), {"formats": ["csv"]}, "formats was"),
    ],
)
def test_other_settings_are_refused_by_name(folder, tmp_path, settings, options, named):
    run(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match=named) as caught:
        run(folder, tmp_path / "out", settings=settings, **options)
    assert "--restart" in str(caught.value)
    assert tree(tmp_path / "out") == before


def test_the_same_settings_in_other_words_are_the_same(folder, tmp_path):
    run(folder, tmp_path / "out", settings=Settings(slice=128, overlap="0.25"))
    detector = Spots()
    run(folder, tmp_path / "out", detector, Settings(slice="128x128", overlap=0.25))
    run(folder, tmp_path / "out", detector, Settings())
    assert detector.seen == 0


def test_another_detector_is_other_settings(folder, tmp_path):
    run(folder, tmp_path / "out")
    detector = Spots()
    detector.provenance = {"weights_sha256": "abc"}
    with pytest.raises(OutputError, match="weights_sha256 was not set, now abc"):
        run(folder, tmp_path / "out", detector)


def test_a_changed_region_is_other_settings(raster, tmp_path):
    raster("in/one.tif", spotted(5, 7), crs="EPSG:4326", transform=Affine(1e-5, 0, 10, 0, -1e-5, 50))
    region = tmp_path / "region.geojson"
    shape = '{"type":"Polygon","coordinates":[[[9,49],[%d,49],[11,51],[9,51],[9,49]]]}'
    region.write_text(shape % 11)
    run(tmp_path / "in", tmp_path / "out", settings=Settings(roi=region))
    region.write_text(shape % 12)
    with pytest.raises(OutputError, match="roi was sha256"):
        run(tmp_path / "in", tmp_path / "out", settings=Settings(roi=region))


def test_restart_removes_what_earlier_runs_wrote_and_nothing_else(folder, tmp_path):
    run(folder, tmp_path / "out")
    (tmp_path / "out/deep/notes.txt").write_text("mine")
    run(folder, tmp_path / "out", settings=Settings(overlap=0.3), formats=["csv"], restart=True)
    run(folder, tmp_path / "anew", settings=Settings(overlap=0.3), formats=["csv"])
    assert (tmp_path / "out/deep/notes.txt").read_text() == "mine"
    (tmp_path / "out/deep/notes.txt").unlink()
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "anew", records=False)


def test_results_of_other_images_are_not_gone_on_with(folder, raster, tmp_path):
    run(folder, tmp_path / "out")
    raster("other/z.tif", spotted(9, 9, (60, 60)), **PLACE)
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match="has results of other images"):
        run(tmp_path / "other", tmp_path / "out")
    assert tree(tmp_path / "out") == before
    folder.rename(tmp_path / "moved")
    detector = Spots()
    run(tmp_path / "moved", tmp_path / "out", detector)
    assert detector.seen == 0


def test_results_take_another_name_when_a_second_image_has_the_stem(folder, raster, tmp_path):
    run(folder, tmp_path / "out")
    raster("in/z.img", spotted(2, 2), driver="HFA", **PLACE)
    detector = Spots()
    run(folder, tmp_path / "out", detector, formats=FORMATS)
    assert detector.seen == 1
    run(folder, tmp_path / "anew")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "anew", records=False)


def test_a_style_that_was_there_is_kept_and_one_of_its_own_goes_with_restart(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/z.qml").write_text("adapted")
    run(folder, tmp_path / "out")
    run(folder, tmp_path / "out", restart=True)
    assert (tmp_path / "out/z.qml").read_text() == "adapted"
    assert (tmp_path / "out/big.qml").is_file()


def test_files_of_others_make_only_their_image_fail(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/z.geojson").write_text("mine")
    detector = Spots()
    results = run(folder, tmp_path / "out", detector)
    assert "z.geojson: exists already" in results["z.tif"].error
    assert (tmp_path / "out/z.geojson").read_text() == "mine"
    run(folder, tmp_path / "out", detector, overwrite=True)
    run(folder, tmp_path / "anew")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "anew", records=False)


def test_after_a_power_cut_an_older_file_is_not_taken_for_the_last(folder, tmp_path):
    run(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    database = sqlite3.connect(tmp_path / "out/.slicedet/manifest.sqlite")
    with database:
        database.execute("UPDATE images SET durable = 0")
    database.close()
    # A rename that did not reach the disk leaves the file that was there before.
    (tmp_path / "out/z.csv").write_text("older")
    detector = Spots()
    run(folder, tmp_path / "out", detector)
    assert detector.seen == 0
    assert tree(tmp_path / "out") == before


def test_what_a_killed_run_was_writing_is_cleared_away(folder, tmp_path):
    left = tmp_path / "out/.slicedet/writing/.slicedet-x/z.geojson"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    run(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/.slicedet").iterdir()) == ["manifest.lock", "manifest.sqlite"]


def test_the_second_run_is_told_who_is_at_work(folder, tmp_path):
    told = []

    class Curious(Spots):
        def detect(self, tiles):
            if not told:
                with pytest.raises(OutputError) as caught:
                    run(folder, tmp_path / "out")
                told.append(str(caught.value))
            return super().detect(tiles)

    run(folder, tmp_path / "out", Curious())
    assert f"out: is in use by process {os.getpid()} on {socket.gethostname()} since 20" in told[0]
    run(folder, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


@pytest.mark.parametrize("damage", ["not a database", "cut", "overwritten", "another program's"])
def test_a_damaged_manifest_is_told_in_one_line(folder, tmp_path, damage):
    run(folder, tmp_path / "out")
    manifest = tmp_path / "out/.slicedet/manifest.sqlite"
    content = manifest.read_bytes()
    if damage == "not a database":
        manifest.write_bytes(b"no manifest at all" * 1000)
    elif damage == "cut":
        manifest.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten":
        manifest.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    else:
        database = sqlite3.connect(manifest)
        database.execute("PRAGMA application_id = 7")
        database.close()
    with pytest.raises(CorruptFile, match=r"manifest\.sqlite: is damaged, or not slicedet's.*--restart") as caught:
        run(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match=r"summary\.csv: exists already"):
        run(folder, tmp_path / "out", restart=True)
    results = run(folder, tmp_path / "out", restart=True, overwrite=True)
    assert [name for name, result in results.items() if result.error] == ["broken.tif"]


def test_neither_open_files_nor_records_of_images_pile_up(raster, tmp_path):
    for number in range(150):
        raster(f"in/{number:03}.png", spotted(5, 7, (40, 30)), driver="PNG")
    (tmp_path / "in/010.png").write_bytes(b"no picture")
    raster("in/020.png", np.zeros((4, 30, 40), np.uint8), driver="PNG")  # Read, but found to be empty.
    counts = []
    Batch(tmp_path / "in", tmp_path / "out").run(
        Spots(), Settings(), report=lambda result, total: counts.append(len(os.listdir("/proc/self/fd")))
    )
    assert len(counts) == 150
    assert max(counts[30:]) <= max(counts[:30])


def test_a_name_that_is_no_utf8_fails_alone(folder, tmp_path):
    try:
        (folder / os.fsdecode(b"caf\xe9.tif")).write_bytes((folder / "z.tif").read_bytes())
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    for _ in range(2):
        results = run(folder, tmp_path / "out")
        assert [name for name, result in results.items() if result.error] == ["broken.tif", r"caf\udce9.tif"]
