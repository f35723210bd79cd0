"""The manifest: what goes in comes out, whatever happens to the file in between is told."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slicedet import Detections
from slicedet import manifest as manifests
from slicedet.errors import CorruptFile, OutputError
from slicedet.locks import exclusive, locked
from slicedet.manifest import DONE, FAILED, FOUND, WAITING, Entry, Manifest, Stamp, decode, encode
from slicedet.pipeline import Strip, TileCount


def detections(count: int, tiled: bool = True, seed: int = 0) -> Detections:
    random = np.random.default_rng(seed)
    corners = random.uniform(-1e5, 1e5, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(0, 100, (count, 2)).astype(np.float32)], 1)
    return Detections(boxes, random.random(count), random.integers(0, 80, count), boxes if tiled else None)


def same(a: Detections, b: Detections) -> bool:
    """Whether two sets are the same to the bit."""
    if (a.tiles is None) != (b.tiles is None):
        return False
    columns = [(a.boxes, b.boxes), (a.scores, b.scores), (a.category_ids, b.category_ids)]
    columns += [] if a.tiles is None or b.tiles is None else [(a.tiles, b.tiles)]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in columns)


def find(manifest: Manifest, name: str, size: tuple[int, int], detections: Detections, run: dict) -> None:
    result = manifest.result(name)
    result.add(detections)
    manifest.found(result, size, run)


def found_in(manifest: Manifest, entry: Entry) -> Detections:
    return Detections.concatenate(list(manifest.detections(entry)))


@pytest.fixture
def manifest(tmp_path):
    with Manifest(tmp_path / "manifest.sqlite") as opened:
        opened.take_list([(0, "a.tif"), (1, "b.tif"), (2, "c.tif")])
        yield opened


FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@given(arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=FLOATS), st.booleans())
def test_detections_come_back_from_bytes_to_the_bit(corners, tiled):
    boxes = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    count = len(boxes)
    found = Detections(boxes, np.linspace(0, 1, count), np.arange(count), boxes if tiled else None)
    data = encode(found)
    assert same(decode(data), found)
    assert len(data) == 8 + count * (40 if tiled else 24)


def test_bytes_are_little_endian():
    found = Detections([[1, 2, 3, 4]], [0.5], [7])
    parts = [np.array([1, 0], "<u4"), np.array([1, 2, 3, 4, 0.5], "<f4"), np.array([7], "<i4")]
    assert encode(found) == b"".join(part.tobytes() for part in parts)


def test_an_image_goes_from_waiting_to_done(manifest, tmp_path):
    assert [(entry.name, entry.position, entry.state) for entry in manifest.entries()] == [
        ("a.tif", 0, WAITING),
        ("b.tif", 1, WAITING),
        ("c.tif", 2, WAITING),
    ]
    manifest.begin("b.tif", Stamp(5, 6))
    find(manifest, "b.tif", (640, 480), detections(3), {"tiles": {}, "text": "ä"})
    entry = manifest.entry("b.tif")
    assert (entry.state, entry.stamp, entry.width, entry.height, entry.detections) == (FOUND, (5, 6), 640, 480, 3)
    assert entry.run == {"tiles": {}, "text": "ä"}
    assert same(found_in(manifest, entry), detections(3, tiled=False))
    manifest.publishing("b.tif", "b", {"b.csv": None, "b.run.json": None})
    assert manifest.entry("b.tif").files == {"b.csv": None, "b.run.json": None}
    manifest.done("b.tif", {"b.csv": (1, 2)}, [tmp_path])
    entry = manifest.entry("b.tif")
    assert (entry.state, entry.stem, entry.files, entry.durable) == (DONE, "b", {"b.csv": (1, 2)}, False)
    manifest.sync(0)
    assert manifest.entry("b.tif").durable
    manifest.failed("c.tif", "c.tif: is bad")
    assert (manifest.entry("c.tif").state, manifest.entry("c.tif").error) == (FAILED, "c.tif: is bad")


def test_all_is_there_after_opening_again(tmp_path):
    path = tmp_path / "manifest.sqlite"
    strip = Strip(detections(4), TileCount(20, 7, 1, 2, 0, ["broken"]))
    with Manifest(path) as manifest:
        manifest.take_list([(0, "a.tif"), (1, "b.tif")])
        manifest.note("conditions", {"b": [1, 2.5, None], "a": "x"})
        manifest.begin("a.tif", Stamp(1, 2))
        manifest.journal("a.tif").put(3, strip)
        manifest.begin("b.tif", Stamp(1, 2))
        find(manifest, "b.tif", (9, 9), detections(2), {})
        before = list(manifest.entries())
    with Manifest(path) as manifest:
        assert list(manifest.entries()) == before
        assert manifest.fact("conditions") == {"b": [1, 2.5, None], "a": "x"}
        assert manifest.fact("nothing") is None
        kept = manifest.journal("a.tif").get(3)
        assert kept.count == strip.count
        assert same(kept.detections, strip.detections)
        assert manifest.journal("a.tif").get(2) is None
        assert manifest.journal("b.tif").get(3) is None


def test_strips_go_with_the_result_and_with_a_change(manifest):
    for name in ("a.tif", "b.tif"):
        manifest.begin(name, Stamp(1, 2))
        manifest.journal(name).put(0, Strip(detections(2), TileCount(20, 5)))
    manifest.begin("a.tif", Stamp(1, 2))
    assert manifest.strips() == 2
    manifest.begin("a.tif", Stamp(1, 3))
    assert manifest.strips() == 1
    manifest.failed("b.tif", "for now")
    assert manifest.strips() == 1
    find(manifest, "b.tif", (9, 9), detections(1), {})
    assert manifest.strips() == 0


def test_a_row_that_is_the_whole_image_is_not_kept(manifest):
    manifest.journal("a.tif").put(0, Strip(detections(2), TileCount(9, 3, 2, 1, 2, ["broken"])))
    assert manifest.strips() == 0
    manifest.journal("a.tif").put(0, Strip(detections(2), TileCount(9, 3, 2, 1, 1, ["broken"])))
    assert manifest.strips() == 1


def test_many_detections_are_kept_in_blobs_of_bounded_size(manifest, tmp_path):
    find(manifest, "a.tif", (9, 9), detections(150_000), {})
    assert same(found_in(manifest, manifest.entry("a.tif")), detections(150_000, tiled=False))
    find(manifest, "b.tif", (9, 9), detections(0), {})
    assert len(found_in(manifest, manifest.entry("b.tif"))) == 0
    manifest.close()
    database = sqlite3.connect(tmp_path / "manifest.sqlite")
    sizes = [size for (size,) in database.execute("SELECT length(data) FROM detections")]
    database.close()
    assert len(sizes) == 3
    assert max(sizes) <= 8 + 24 * manifests.PART
    manifest._db = sqlite3.connect(":memory:")  # The fixture closes it once more.


def test_a_result_that_was_broken_off_leaves_the_earlier_one_and_then_no_trace(manifest, monkeypatch):
    monkeypatch.setattr("slicedet.manifest.PART", 10)
    find(manifest, "a.tif", (9, 9), detections(25), {"first": 1})
    manifest.result("a.tif").add(detections(99, seed=1))
    entry = manifest.entry("a.tif")
    assert (entry.state, entry.run) == (FOUND, {"first": 1})
    assert same(found_in(manifest, entry), detections(25, tiled=False))
    result, whole = manifest.result("a.tif"), detections(31, seed=2)
    for begin, end in ((0, 0), (0, 4), (4, 27), (27, 31)):
        result.add(whole[begin:end])
    manifest.found(result, (9, 9), {"second": 2})
    entry = manifest.entry("a.tif")
    assert [len(part) for part in manifest.detections(entry)] == [10, 10, 10, 1]
    assert same(found_in(manifest, entry), whole.replace(tiles=None))


def test_the_list_may_change(manifest):
    find(manifest, "b.tif", (9, 9), detections(1), {})
    assert manifest.take_list([(0, "0.tif"), (1, "c.tif"), (2, "a.tif")]) == ["b.tif"]
    assert [entry.name for entry in manifest.entries()] == ["0.tif", "c.tif", "a.tif"]
    assert manifest.entry("b.tif").position is None
    assert manifest.take_list([(0, "b.tif")]) == []
    assert manifest.has_results()


def test_a_strip_that_was_damaged_is_as_good_as_none_and_a_result_is_told(tmp_path):
    path = tmp_path / "manifest.sqlite"
    with Manifest(path) as manifest:
        manifest.take_list([(0, "a.tif"), (1, "b.tif")])
        manifest.journal("a.tif").put(0, Strip(detections(3), TileCount(20, 5)))
        manifest.journal("a.tif").put(1, Strip(detections(3), TileCount(20, 5)))
        find(manifest, "b.tif", (9, 9), detections(2), {})
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE strips SET data = zeroblob(length(data)) WHERE row = 0")
        database.execute("""UPDATE strips SET tiles = replace(tiles, '"run": 5', '"run": 6') WHERE row = 1""")
        database.execute("UPDATE detections SET data = zeroblob(length(data))")
    database.close()
    with Manifest(path) as manifest:
        assert manifest.journal("a.tif").get(0) is None
        assert manifest.journal("a.tif").get(1) is None
        with pytest.raises(CorruptFile, match=r"detections of b\.tif"):
            found_in(manifest, manifest.entry("b.tif"))


def test_a_manifest_of_another_version_is_not_touched(tmp_path):
    path = tmp_path / "manifest.sqlite"
    Manifest(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(CorruptFile, match=r"manifest\.sqlite: is damaged, or not slicedet's \(.*version.*delete me"):
        Manifest(path, "delete me")
    assert path.read_bytes() == before


def test_a_place_where_nothing_can_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="unable to open"):
        Manifest(tmp_path / "no-folder/manifest.sqlite")


def test_what_fails_half_way_leaves_nothing(manifest):
    find(manifest, "a.tif", (9, 9), detections(2), {"first": 1})
    with pytest.raises(TypeError):
        find(manifest, "a.tif", (9, 9), detections(5), {"cannot be JSON": object()})
    entry = manifest.entry("a.tif")
    assert entry.run == {"first": 1}
    assert same(found_in(manifest, entry), detections(2, tiled=False))


def test_the_holder_of_a_lock_is_named_and_the_lock_ends_with_the_process(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom slicedet.locks import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'it'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        message = rf"^out: is in use by process {holder.pid} on \S+ since \d{{4}}-"
        with pytest.raises(OutputError, match=message), exclusive(tmp_path / "lock", "out"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with exclusive(tmp_path / "lock", "out"):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_errors_in_the_block_of_a_lock_are_not_taken_for_its_own(tmp_path):
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "lock", "out"):
        (tmp_path / "nothing").read_text()
    message = "out: cannot be locked: No such file"
    with pytest.raises(OutputError, match=message), exclusive(tmp_path / "nowhere/lock", "out"):
        pass


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="out: cannot be locked"), exclusive(tmp_path / "lock", "out"):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET run = x'00'",
        "UPDATE images SET run = ?",
        "UPDATE images SET files = '['",
        """UPDATE images SET files = '{"a.csv": 5}'""",
        "UPDATE images SET files = '[]'",
    ],
)
def test_what_no_run_has_written_is_told_and_not_unpacked(tmp_path, change):
    path = tmp_path / "manifest.sqlite"
    with Manifest(path) as manifest:
        manifest.take_list([(0, "a.tif")])
        find(manifest, "a.tif", (9, 9), detections(2), {"a": 1})
    with sqlite3.connect(path) as database:
        database.execute(change, (zlib.compress(b" " * (1 << 25)),) if "?" in change else ())
    database.close()
    with Manifest(path) as manifest, pytest.raises(CorruptFile, match=r"manifest\.sqlite: is damaged"):
        manifest.entry("a.tif")


def test_a_manifest_that_would_run_something_is_refused(tmp_path):
    path = tmp_path / "manifest.sqlite"
    Manifest(path).close()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TRIGGER t AFTER UPDATE ON images BEGIN DELETE FROM images; END")
        database.execute("UPDATE facts SET value = '{'")
    database.close()
    with pytest.raises(CorruptFile, match=r"manifest\.sqlite: is damaged"):
        Manifest(path)
