"""One image with --resume: finished rows are not run again, nothing is left once all is written."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from affine import Affine
from spots import Spots, strewn, tree

from slicedet import Scene
from slicedet.errors import CorruptFile, OutputError
from slicedet.locks import exclusive
from slicedet.outputs.targets import Targets
from slicedet.pipeline import Settings
from slicedet.predicting import predict_into
from slicedet.resuming import predict_resumably

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
ROW, WINDOW = 3, 8
"""Tiles in a row, and tiles that a detector without a stream takes at once."""


@pytest.fixture
def big(raster) -> Path:
    """A picture of eleven rows of tiles."""
    return raster("big.tif", strewn(300, 1000), **PLACE)


def predict(big: Path, output: Path, detector: Spots, **options):
    """Runs the picture into two files in a folder."""
    output.mkdir(exist_ok=True)
    settings, overwrite = options.pop("settings", Settings()), options.pop("overwrite", False)
    targets = Targets([output / "big.geojson", output / "big.gpkg"], overwrite=overwrite)
    with Scene(big) as scene:
        return predict_resumably(scene, targets, lambda: detector, settings, **options)[1]


def broken_off(big: Path, output: Path, tiles: int, **options) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(big, output, Spots(fails_after=tiles), **options)


def plainly(big: Path, output: Path) -> int:
    """Runs the picture without keeping anything; gives the number of tiles."""
    output.mkdir()
    targets, detector = Targets([output / "big.geojson", output / "big.gpkg"]), Spots()
    with Scene(big) as scene:
        predict_into(scene, targets, lambda: detector, Settings())
    return detector.seen


def journal(output: Path) -> Path:
    return output / ".big.geojson.slicedet-resume"


@pytest.mark.parametrize("tiles", [0, 9, 21])
def test_after_interruptions_the_rest_is_run_and_nothing_is_left(big, tmp_path, tiles):
    everything = plainly(big, tmp_path / "unbroken")
    broken_off(big, tmp_path / "out", tiles)
    assert journal(tmp_path / "out").is_dir() == (tiles > 0)
    detector = Spots()
    written = predict(big, tmp_path / "out", detector)
    assert everything - tiles <= detector.seen <= everything - tiles + ROW + WINDOW
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)
    assert sorted(path.name for path in written) == sorted(tree(tmp_path / "out"))


def test_progress_begins_where_the_last_run_ended(big, tmp_path):
    broken_off(big, tmp_path / "out", 17)
    told = []
    predict(big, tmp_path / "out", Spots(), progress=lambda done, total: told.append((done, total)))
    assert told[0] == (3, 33)
    assert told[-1] == (33, 33)


def test_other_settings_are_refused_and_do_no_harm(big, tmp_path):
    broken_off(big, tmp_path / "out", 17)
    with pytest.raises(OutputError, match=r"big\.geojson: was begun with other settings \(overlap was 0.25, now 0.5\)"):
        predict(big, tmp_path / "out", Spots(), settings=Settings(overlap=0.5))
    with pytest.raises(OutputError, match=r"scene.bands was not set, now \[3, 2, 1\]"):
        predict(big, tmp_path / "out", Spots(), scene_options={"bands": (3, 2, 1)})
    detector = Spots()
    predict(big, tmp_path / "out", detector)
    assert detector.seen < 33


def test_an_image_that_has_changed_begins_anew(big, raster, tmp_path):
    broken_off(big, tmp_path / "out", 17)
    raster("big.tif", strewn(300, 1000, seed=1), **PLACE)
    predict(big, tmp_path / "out", Spots())
    plainly(big, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


def test_outputs_that_are_there_already_are_not_overwritten(big, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/big.gpkg").write_text("mine")
    detector = Spots()
    with pytest.raises(OutputError, match=r"big\.gpkg: exists already"):
        predict(big, tmp_path / "out", detector)
    assert tree(tmp_path / "out") == {"big.gpkg": b"mine"}
    assert detector.seen == 0
    predict(big, tmp_path / "out", detector, overwrite=True)
    assert detector.seen == 33


@pytest.mark.parametrize("at", [0, 1])
def test_a_file_of_somebody_else_is_not_taken_for_one_of_the_run(big, tmp_path, monkeypatch, at):
    import slicedet.resuming

    moved, move = [], slicedet.resuming.move

    def stop(written, target):
        if len(moved) == at:
            raise KeyboardInterrupt
        moved.append(target)
        move(written, target)

    with monkeypatch.context() as patch:
        patch.setattr(slicedet.resuming, "move", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(big, tmp_path / "out", Spots())
    assert len(moved) == at
    (tmp_path / "out/big.geojson").write_text("mine")
    with pytest.raises(OutputError, match=r"big\.geojson: exists already"):
        predict(big, tmp_path / "out", Spots())
    assert (tmp_path / "out/big.geojson").read_text() == "mine"
    (tmp_path / "out/big.geojson").unlink()
    predict(big, tmp_path / "out", Spots())
    plainly(big, tmp_path / "unbroken")
    assert tree(tmp_path / "out", records=False) == tree(tmp_path / "unbroken", records=False)


@pytest.mark.parametrize("published", ["{}", [], 5, {"{}": [8, 5]}, {"{}": "x"}], ids=str)
def test_a_journal_never_has_a_file_removed_that_the_run_would_not_write(big, tmp_path, published):
    broken_off(big, tmp_path / "out", 17)
    mine = tmp_path / "out/mine.txt"
    mine.write_text("precious")
    os.utime(mine, ns=(5, 5))
    text = json.dumps(published).replace("{}", str(mine)) if published != "{}" else "{"
    with sqlite3.connect(journal(tmp_path / "out") / "journal.sqlite") as database:
        database.execute("INSERT OR REPLACE INTO facts VALUES ('published', ?)", (text,))
    database.close()
    with suppress(CorruptFile):
        predict(big, tmp_path / "out", Spots())
    assert mine.read_text() == "precious"


def test_what_could_not_be_written_is_written_without_running_again(big, tmp_path, monkeypatch):
    import slicedet.outputs.vector

    def fail(layer, pieces, path):
        raise OSError(28, "No space left on device")

    (tmp_path / "out").mkdir()
    (tmp_path / "out/big.run.json").write_text("of another run")
    (tmp_path / "out/big.running.json").write_text("of nobody's concern")
    with monkeypatch.context() as patch:
        patch.setattr(slicedet.outputs.vector, "write_gpkg", fail)
        with pytest.raises(OutputError, match=rf"^{tmp_path}/out/big\.gpkg: cannot be written: No space left"):
            predict(big, tmp_path / "out", Spots())
    assert set(tree(tmp_path / "out")) >= {"big.run.json", ".big.geojson.slicedet-resume/journal.sqlite"}
    assert "big.geojson" not in tree(tmp_path / "out")
    detector = Spots()
    predict(big, tmp_path / "out", detector)
    assert detector.seen == 0
    plainly(big, tmp_path / "unbroken")
    found, wanted = tree(tmp_path / "out"), tree(tmp_path / "unbroken")
    assert found.pop("big.run.json") == b"of another run"
    assert found.pop("big.running.json") == b"of nobody's concern"
    found.pop("big.run-2.json")
    wanted.pop("big.run.json")
    assert found == wanted


def test_nothing_is_left_of_a_run_that_could_not_begin(raster, tmp_path):
    import numpy as np

    empty = raster("big.tif", np.zeros((3, 50, 50), np.uint8), nodata=0, **PLACE)
    with pytest.raises(Exception, match="every pixel searched is nodata"):
        predict(empty, tmp_path / "out", Spots())
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_run_and_a_damaged_journal_are_told(big, tmp_path):
    broken_off(big, tmp_path / "out", 17)
    lock, message = journal(tmp_path / "out") / "lock", r"big\.geojson: is in use"
    with exclusive(lock, "x"), pytest.raises(OutputError, match=message):
        predict(big, tmp_path / "out", Spots())
    (journal(tmp_path / "out") / "journal.sqlite").write_bytes(b"nothing of the kind" * 500)
    with pytest.raises(CorruptFile, match=r"delete the folder .*\.big\.geojson\.slicedet-resume$"):
        predict(big, tmp_path / "out", Spots())
