"""Shards: each image in one of them, and joined, what one run over all images leaves."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from spots import Spots, spotted, strewn, tree

from slicedet.batch import Batch, Shard, collect
from slicedet.errors import CorruptFile, InvalidSetting, OutputError
from slicedet.locks import exclusive
from slicedet.pipeline import Settings

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}


@pytest.fixture
def folder(raster, tmp_path) -> Path:
    """Six images in an order that is not that of their paths as texts, one of them bad."""
    for number, name in enumerate(["a/one.tif", "a-b/two.tif", "a/b/three.tif", "four.tif"]):
        raster(f"in/{name}", spotted(5 + number, 7), **PLACE)
    raster("in/big.tif", strewn(300, 400), **PLACE)
    (tmp_path / "in/bad.tif").write_bytes(b"no picture")
    return tmp_path / "in"


def run(folder: Path, output: Path, shard: str | None = None, **options):
    settings = options.pop("settings", Settings())
    part = None if shard is None else Shard.parse(shard)
    return Batch(folder, output, formats=["geojson", "csv"], shard=part, **options).run(Spots(), settings)


def test_every_image_is_in_one_shard(folder, tmp_path):
    everything = [item.name for item in Batch(folder, tmp_path / "out").items]
    parts = [[item.name for item in Batch(folder, tmp_path / "out", shard=Shard(i, 4)).items] for i in (1, 2, 3, 4)]
    assert parts == [everything[0::4], everything[1::4], everything[2::4], everything[3::4]]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InvalidSetting, match="such as 2/5"):
        Shard.parse(text)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("place", ["one folder", "folders"])
def test_collected_shards_are_what_one_run_leaves(folder, tmp_path, count, place):
    run(folder, tmp_path / "unbroken")
    outputs = []
    for index in range(1, count + 1):
        output = tmp_path / ("joined" if place == "one folder" else f"part{index}")
        run(folder, output, f"{index}/{count}")
        outputs.append(output)
    if count == 1:
        assert tree(outputs[0], records=False) == tree(tmp_path / "unbroken", records=False)
        return
    assert not any((output / "summary.csv").exists() for output in outputs)
    heard = []
    results = collect(
        list(dict.fromkeys(outputs)), tmp_path / "joined", report=lambda result, total: heard.append((result, total))
    )
    assert len(heard) == 6
    assert {total for _, total in heard} == {6}
    assert [result.image for result in results] == [item.name for item in Batch(folder, tmp_path / "x").items]
    assert [result.image for result in results if result.error] == ["bad.tif"]
    assert tree(tmp_path / "joined", records=False) == tree(tmp_path / "unbroken", records=False)


def test_a_collected_folder_is_gone_on_with_by_one_run(folder, raster, tmp_path):
    for index in (1, 2):
        run(folder, tmp_path / f"part{index}", f"{index}/2")
    collect([tmp_path / "part1", tmp_path / "part2"], tmp_path / "out")
    raster("in/new.tif", spotted(3, 3), **PLACE)
    results = run(folder, tmp_path / "out")
    assert [result.image for result in results if not result.kept] == ["bad.tif", "new.tif"]


def test_collecting_again_takes_what_is_new(folder, raster, tmp_path):
    for index in (1, 2):
        run(folder, tmp_path / f"part{index}", f"{index}/2")
    collect([tmp_path / "part1", tmp_path / "part2"], tmp_path / "out")
    raster("in/bad.tif", spotted(3, 3), **PLACE)
    raster("in/four.tif", spotted(33, 3), **PLACE)
    for index in (1, 2):
        run(folder, tmp_path / f"part{index}", f"{index}/2")
    results = collect([tmp_path / "part1", tmp_path / "part2"], tmp_path / "out")
    assert not any(result.error for result in results)
    run(folder, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def test_a_broken_off_collection_is_gone_on_with(folder, tmp_path):
    for index in (1, 2):
        run(folder, tmp_path / f"part{index}", f"{index}/2")
    whole = [tmp_path / "part1", tmp_path / "part2"]

    def stop(result, total):
        if result.image == "big.tif":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(whole, tmp_path / "out", report=stop)
    collect(whole, tmp_path / "out")
    run(folder, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def halves(folder: Path, tmp_path: Path) -> list[Path]:
    """Both halves of a batch, done."""
    return [tmp_path / f"part{index}" for index in (1, 2) if run(folder, tmp_path / f"part{index}", f"{index}/2")]


@pytest.mark.parametrize(
    "case",
    ["missing", "no shard", "twice", "other count", "settings", "list", "unfinished", "at work", "gone", "in the way"],
)
def test_what_cannot_be_joined_is_said(folder, raster, tmp_path, case):
    first, second = halves(folder, tmp_path)
    shards, message = [first, second], ""
    if case == "missing":
        shards, message = [first], "shard 2/2 is missing; run it, or name its folder"
    elif case == "no shard":
        shards, message = [first, folder], "in: no shard in it"
    elif case == "twice":
        shutil.copytree(second, tmp_path / "copy")
        shards, message = [first, second, tmp_path / "copy"], "copy: has shard 2/2, and so has"
    elif case == "other count":
        run(folder, tmp_path / "part3", "3/3")
        shards, message = [first, second, tmp_path / "part3"], "shards of 2 and of 3 parts cannot be joined"
    elif case == "settings":
        run(folder, second, "2/2", settings=Settings(overlap=0.5), restart=True)
        message = r"part2, shard 2/2: has other settings than shard 1/2 \(overlap was 0.25, now 0.5\)"
    elif case == "list":
        raster("in/zz.tif", spotted(3, 3), **PLACE)
        run(folder, second, "2/2")
        message = r"part2, shard 2/2: was run on other images than shard 1/2 \(7, there 6\)"
    elif case == "unfinished":
        database = sqlite3.connect(second / ".slicedet/manifest-2-of-2.sqlite")
        with database:
            database.execute("UPDATE images SET state = 'waiting' WHERE name = 'four.tif'")
        database.close()
        message = r"part2, shard 2/2: 1 of its 3 images are not done; run it again"
    elif case == "gone":
        (second / "a/one.csv").unlink()
        message = r"part2/a/one\.csv: is gone; run shard 2/2 again"
    elif case == "in the way":
        (tmp_path / "out").mkdir()
        (tmp_path / "out/four.csv").write_text("mine")
        message = r"out/four\.csv: exists already"
    if case == "at work":
        lock = second / ".slicedet/manifest-2-of-2.lock"
        with exclusive(lock, "x"), pytest.raises(OutputError, match="part2, shard 2/2: is in use by process"):
            collect(shards, tmp_path / "out")
        return
    with pytest.raises(OutputError, match=message) as caught:
        collect(shards, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/summary.csv").exists()


def test_shards_in_one_folder_are_not_removed_by_a_restart_and_must_be_whole(folder, tmp_path):
    for index in (1, 2):
        run(folder, tmp_path / "out", f"{index}/2")
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match="which --restart would remove"):
        collect([tmp_path / "out"], tmp_path / "out", restart=True)
    assert tree(tmp_path / "out") == before
    (tmp_path / "out/four.geojson").unlink()
    with pytest.raises(OutputError, match=r"four\.geojson: is gone; run shard 2/2 again"):
        collect([tmp_path / "out"], tmp_path / "out")


def test_names_that_lead_out_of_the_folder_are_not_followed(folder, tmp_path):
    first, second = halves(folder, tmp_path)
    database = sqlite3.connect(second / ".slicedet/manifest-2-of-2.sqlite")
    with database:
        database.execute("""UPDATE images SET files = '{"../../in/four.tif": [1, 1]}' WHERE name = 'four.tif'""")
    database.close()
    before = tree(folder)
    with pytest.raises(CorruptFile, match="is not a name for an output"):
        collect([first, second], tmp_path / "out")
    run(folder, second, "2/2", restart=True)
    assert tree(folder) == before


def test_links_that_lead_out_of_the_folder_are_not_followed(folder, tmp_path):
    first, second = halves(folder, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    shutil.rmtree(second / ".slicedet/writing-2-of-2", ignore_errors=True)
    (second / ".slicedet/writing-2-of-2").symlink_to(tmp_path / "mine")
    (second / "sub").symlink_to(tmp_path / "mine")
    with sqlite3.connect(second / ".slicedet/manifest-2-of-2.sqlite") as database:
        database.execute("""UPDATE images SET files = '{"sub/thesis.txt": [1, 1]}' WHERE name = 'four.tif'""")
    database.close()
    with pytest.raises(OutputError, match=r"thesis\.txt: is gone"):
        collect([first, second], tmp_path / "out")
    run(folder, second, "2/2", restart=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["thesis.txt"]


def test_runs_of_different_shards_share_a_folder_at_the_same_time(folder, tmp_path):
    class Other(Spots):
        """Runs the other shard while it is at work on its own."""

        def detect(self, tiles):
            if not (tmp_path / "out/.slicedet/manifest-2-of-2.sqlite").exists():
                run(folder, tmp_path / "out", "2/2")
            return super().detect(tiles)

    Batch(folder, tmp_path / "out", formats=["geojson", "csv"], shard=Shard(1, 2)).run(Other(), Settings())
    collect([tmp_path / "out"], tmp_path / "out")
    run(folder, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def test_a_shard_of_empty_images_only_is_joined_too(raster, tmp_path):
    raster("in/a.tif", spotted(5, 7), **PLACE)
    raster("in/b.tif", np.zeros((3, 50, 50), np.uint8), nodata=0, **PLACE)
    outputs = halves(tmp_path / "in", tmp_path)
    assert [bool(result.error) for result in collect(outputs, tmp_path / "out")] == [False, True]
