"""Which formats there are, what is checked before inference, and what happens when writing fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from slicedet import outputs
from slicedet.errors import InvalidSetting, NotGeoreferenced, OutputError, UntransformableCRS
from slicedet.outputs.files import staged
from slicedet.outputs.provenance import save_provenance
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]

UTM = {"transform": Affine(0.5, 0, 400000, 0, -0.5, 5e6), "crs": "EPSG:32633"}
ALL = [outputs.default_name("out", name) for name in outputs.FORMATS]


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("a.geojson", "geojson"),
        ("A.GeoJSON", "geojson"),
        ("dir.csv/a.b.gpkg", "gpkg"),
        ("a.fgb", "fgb"),
        ("a.parquet", "parquet"),
        ("a.csv", "csv"),
        ("a.coco.json", "coco"),
        ("a.jpeg", "jpg"),
        ("a.JPG", "jpg"),
        ("a.png", "png"),
        ("a.tiff", "tif"),
        ("a.tif", "tif"),
    ],
)
def test_format_of(path: str, format: str) -> None:
    assert outputs.format_of(path) == format


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.json", r"a\.json: write \.geojson or \.coco\.json"),
        ("coco.json", r"write \.geojson or \.coco\.json"),
        ("a.shp", r"a\.shp: no format has this suffix; there are \.geojson, \.gpkg, "),
        (".geojson", "no format"),
        ("geojson", "no format"),
    ],
)
def test_unknown_suffix(path: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        outputs.format_of(path)


def test_default_names() -> None:
    assert [outputs.default_name("big", name) for name in ("geojson", "coco", "jpg", "tif")] == [
        "big.geojson",
        "big.coco.json",
        "big.overlay.jpg",
        "big.overlay.tif",
    ]
    with pytest.raises(InvalidSetting, match=r"'shp'.*geojson, gpkg"):
        outputs.default_name("big", "shp")
    for name in outputs.FORMATS:
        assert outputs.format_of(outputs.default_name("big", name)) == name


def test_default_format(make_scene: MakeScene) -> None:
    local = 'LOCAL_CS["building site",UNIT["metre",1]]'
    assert outputs.default_format(make_scene("a.tif", **UTM)) == "geojson"
    assert outputs.default_format(make_scene("b.tif")) == "coco"
    assert outputs.default_format(make_scene("c.tif", transform=UTM["transform"])) == "coco"
    assert outputs.default_format(make_scene("d.tif", transform=UTM["transform"], crs=local)) == "coco"


def test_check_of_georeference(make_scene: MakeScene, tmp_path: Path) -> None:
    photo, placed = make_scene("photo.tif"), make_scene("placed.tif", transform=UTM["transform"])
    local = make_scene("local.tif", transform=UTM["transform"], crs='LOCAL_CS["building site",UNIT["metre",1]]')
    with pytest.raises(NotGeoreferenced, match=r"photo\.tif: .*\.geojson needs; write \.coco\.json"):
        outputs.check(photo, tmp_path / "out.geojson")
    with pytest.raises(NotGeoreferenced, match=r"placed\.tif: .*no coordinate reference system.*write \.gpkg"):
        outputs.check(placed, tmp_path / "out.geojson")
    with pytest.raises(UntransformableCRS, match=r"local\.tif: .*write \.gpkg"):
        outputs.check(local, tmp_path / "out.geojson")
    for name in ("out.gpkg", "out.fgb", "out.parquet"):
        with pytest.raises(NotGeoreferenced, match=r"photo\.tif"):
            outputs.check(photo, tmp_path / name)
        outputs.check(placed, tmp_path / name)
        outputs.check(local, tmp_path / name)
    for name in ("out.csv", "out.coco.json", "out.jpg", "out.png", "out.tif"):
        outputs.check(photo, tmp_path / name)


def test_check_of_targets(make_scene: MakeScene, tmp_path: Path) -> None:
    scene = make_scene("image.tif", **UTM)
    (tmp_path / "there.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "image.tif")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    for name, message in {
        "missing/out.csv": "does not exist",
        "there.csv/out.csv": "is not a folder",
        "folder.csv": "is a folder",
        "there.csv": "exists already",
        "dangling.csv": "exists already",
        "image.tif": "is the image itself",
        "link.tif": "is the image itself",
    }.items():
        with pytest.raises(OutputError, match=message) as caught:
            outputs.check(scene, tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    outputs.check(scene, tmp_path / "there.csv", overwrite=True)
    for name in ("image.tif", "link.tif"):
        with pytest.raises(OutputError, match="is the image itself"):
            outputs.check(scene, tmp_path / name, overwrite=True)


@pytest.mark.parametrize("name", ["GTIFF_DIR:1:{}", "file://{}", "over.vrt", "over_over.vrt"])
def test_the_image_is_known_by_whatever_name_it_was_opened(name: str, make_scene: MakeScene, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    make_scene(image.name, **UTM)
    with rasterio.open(image) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "over.vrt", driver="VRT")
    with rasterio.open(tmp_path / "over.vrt") as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "over_over.vrt", driver="VRT")
    source = name.format(image) if "{}" in name else tmp_path / name
    with Scene(source) as scene, pytest.raises(OutputError, match=r"image\.tif: is the image itself"):
        outputs.check(scene, image, overwrite=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_check_of_a_folder_that_is_not_writable(make_scene: MakeScene, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="not writable"):
        outputs.check(make_scene(**UTM), folder / "out.csv")


@pytest.mark.parametrize("error", [OSError(28, "x"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_everything_as_it_was(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    expected = OutputError if isinstance(error, OSError) else type(error)

    def fail() -> None:
        with staged(target, overwrite=True) as path:
            path.write_text("half a")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    if expected is OutputError:
        assert str(caught.value) == f"{target}: cannot be written: No space left on device"


def test_a_file_that_appears_in_the_meantime_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"

    def race() -> None:
        with staged(target, overwrite=False) as path:
            path.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert target.read_text() == "theirs"


@pytest.mark.parametrize("name", ALL)
def test_overwriting(name: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    prediction = make_prediction(make_scene(**UTM), [[1, 2, 30, 40]])
    (tmp_path / name).write_text("before")
    with pytest.raises(OutputError, match="exists already"):
        prediction.save(tmp_path / name)
    assert (tmp_path / name).read_text() == "before"
    prediction.save(tmp_path / name, overwrite=True)
    assert (tmp_path / name).stat().st_size > 100
    assert (tmp_path / name).stat().st_mode & 0o777 == (tmp_path / "scene.tif").stat().st_mode & 0o777
    assert list(tmp_path.glob(".slicedet-*")) == []


def test_relative_paths(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = make_prediction(make_scene(**UTM), [[1, 2, 30, 40]])
    monkeypatch.chdir(tmp_path)
    assert prediction.save("out.geojson") == [Path("out.geojson"), Path("out.qml")]
    assert (tmp_path / "out.geojson").exists()


_SAVE_UNDER_LIMIT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from slicedet.detections import Detections
from slicedet.errors import OutputError
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

image, folder, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
low = np.random.default_rng(0).uniform(0, 500, (2000, 2))
detections = Detections(np.concatenate([low, low + 8], axis=1), np.full(2000, 0.5), np.zeros(2000))
answers = []
with Scene(image) as scene:
    prediction = Prediction(detections, ("car",), scene, "m", {})
    for name in names:
        prediction.save(folder / name)
        whole = (folder / name).stat().st_size
        before = (folder / name).read_bytes()
        (folder / "out.qml").unlink(missing_ok=True)
        for limit in (0, 1000, whole // 2, whole - 5000, whole - 100, whole - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                prediction.save(folder / name, overwrite=True)
                message = None
            except OutputError as error:
                message = str(error)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            untouched = (folder / name).read_bytes() == before
            left = sorted(path.name for path in folder.iterdir())
            answers.append([name, limit - whole, message, untouched, left])
        (folder / name).unlink()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def noisy_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that does not compress."""
    import numpy as np
    import rasterio

    path = tmp_path_factory.mktemp("noise") / "noise.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (3, 600, 600), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": 600, "height": 600, "count": 3, "dtype": "uint8", **UTM}
    with rasterio.open(path, "w", photometric="rgb", **profile) as file:
        file.write(pixels)
    return path


def test_files_that_may_not_grow_any_further(noisy_image: Path, tmp_path: Path) -> None:
    """As on a full disk: whatever the byte at which it ends, the file before stays, and nothing else does."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", _SAVE_UNDER_LIMIT, str(noisy_image), str(tmp_path), *ALL]
    answers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(answers) == 6 * len(ALL)
    for name, missing, message, untouched, left in answers:
        assert message is not None, f"{name} was written {-missing} bytes short"
        assert message.startswith(f"{tmp_path / name}: cannot be written: ")
        assert "\n" not in message
        assert untouched
        assert left == [name]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that mounts an empty file system of so many bytes."""
    with ExitStack() as stack:

        def make(size: int) -> Path:
            folder = Path(tempfile.mkdtemp(prefix="disk-", dir=tmp_path))
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            try:
                subprocess.run(mount, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("a small file system cannot be mounted here")
            stack.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield make


@pytest.mark.parametrize("missing", ["nearly all", "a few kilobytes"])
def test_full_disk(
    missing: str,
    noisy_image: Path,
    make_disk: Callable[[int], Path],
    make_prediction: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy as np

    monkeypatch.setattr("slicedet.outputs.pieces.PIECE", 299)
    low = np.random.default_rng(0).uniform(0, 500, (3000, 2))
    with Scene(noisy_image) as scene:
        prediction = make_prediction(scene, np.concatenate([low, low + 8], axis=1))
        for name in ALL:
            prediction.save(tmp_path / name, overwrite=True)
            disk = make_disk(100_000 if missing == "nearly all" else (tmp_path / name).stat().st_size - 10_000)
            with pytest.raises(OutputError) as caught:
                prediction.save(disk / name)
            assert str(caught.value).startswith(f"{disk / name}: cannot be written: ")
            # A GeoTIFF's draft may fit, and GDAL's words for what came after are told with the space that is left.
            assert re.search(r"No space left on device|\(0\.\d MB free\)", str(caught.value))
            assert list(disk.iterdir()) == []


def test_provenance(tmp_path: Path) -> None:
    run = {"version": "0.1", "image": "ü.tif", "sizes": [1, 2.5, None]}
    path = save_provenance(run, tmp_path / "big.run.json")
    assert json.loads(path.read_text(encoding="utf-8")) == run
    with pytest.raises(OutputError, match="exists already"):
        save_provenance(run, path)
    save_provenance({}, path, overwrite=True)
    assert json.loads(path.read_text()) == {}


def test_import_is_light() -> None:
    code = (
        "import sys, slicedet.outputs; print(*{'numpy', 'rasterio', 'geopandas', 'PIL', 'pandas'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == ""
