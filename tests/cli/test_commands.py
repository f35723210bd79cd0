"""The commands, as a user types them: what they print, write and return."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}


@pytest.fixture
def picture(shared):
    """A small real orthophoto."""
    return shared / "geotiff/colorado_rgb.tif"


@pytest.fixture
def quick(model):
    """The same network on ONNX Runtime, which loads it ten times as fast as OpenVINO."""
    pytest.importorskip("onnxruntime")
    return [*model, "--engine", "onnxruntime"]


def names(folder) -> set[str]:
    """Names of the files in a folder, less what a batch keeps for itself."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".slicedet" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


def test_predict_writes_geojson_here_and_says_so(slicedet, here, picture, model):
    done = slicedet("predict", picture, *model)
    assert (done.code, done.err) == (0, "")
    assert names(here) == {"colorado_rgb.geojson", "colorado_rgb.qml", "colorado_rgb.run.json"}
    first, *written = done.out.splitlines()
    features = json.loads((here / "colorado_rgb.geojson").read_text())["features"]
    assert first.startswith(f"{picture}: {len(features)} object")
    assert {line.strip() for line in written} == names(here)


def test_predict_writes_coco_where_there_is_no_place(slicedet, here, raster, quick):
    photo = raster("photo.png", np.full((3, 100, 120), 90, np.uint8), driver="PNG")
    assert slicedet("predict", photo, *quick).code == 0
    assert names(here) == {"photo.coco.json", "photo.run.json"}


@pytest.mark.parametrize(
    ("options", "files"),
    [
        (["-o", "a.csv"], {"a.csv", "a.run.json"}),
        (["-o", "a.csv", "-o", "b.coco.json"], {"a.csv", "b.coco.json", "a.run.json"}),
        (["-o", "out"], {"out/colorado_rgb.geojson", "out/colorado_rgb.qml", "out/colorado_rgb.run.json"}),
        (["-o", "out", "--format", "csv"], {"out/colorado_rgb.csv", "out/colorado_rgb.run.json"}),
        (["--format", "csv,coco"], {"colorado_rgb.csv", "colorado_rgb.coco.json", "colorado_rgb.run.json"}),
        (
            ["--format", "csv", "--format", "png"],
            {"colorado_rgb.csv", "colorado_rgb.overlay.png", "colorado_rgb.run.json"},
        ),
        (["-o", "a.csv", "--format", "coco"], {"a.csv", "colorado_rgb.coco.json", "a.run.json"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_outputs_are_files_folders_and_formats(slicedet, here, picture, quick, options, files):
    (here / "out").mkdir()
    done = slicedet("predict", picture, *quick, *options)
    assert (done.code, done.err) == (0, "")
    assert names(here) == files


def test_overwrite_replaces_what_is_there(slicedet, here, picture, quick):
    (here / "a.csv").write_text("old")
    assert slicedet("predict", picture, *quick, "-o", "a.csv").code == 1
    assert (here / "a.csv").read_text() == "old"
    assert slicedet("predict", picture, *quick, "-o", "a.csv", "--overwrite").code == 0
    assert (here / "a.csv").read_text() != "old"


def test_one_bad_image_of_several_is_reported_and_the_others_done(slicedet, here, picture, quick, shared, tmp_path):
    done = slicedet("predict", tmp_path / "no.tif", picture, shared / "geotiff/colorado_alpha.tif", *quick)
    assert done.code == 1
    assert done.err == f"Error: {tmp_path}/no.tif: no such file\n"
    assert {"colorado_rgb.geojson", "colorado_alpha.geojson"} <= names(here)


def test_images_whose_results_would_share_a_name_do_not_overwrite_each_other(slicedet, here, raster, quick):
    first = raster("north/scene.tif", np.zeros((3, 64, 64), np.uint8), **PLACE)
    second = raster("south/scene.tif", np.zeros((3, 64, 64), np.uint8), **PLACE)
    for overwrite in ([], ["--overwrite"]):
        done = slicedet("predict", first, second, *quick, *overwrite)
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert str(second) in done.err
        assert json.loads((here / "scene.run.json").read_text())["scene"]["source"] == str(first)


def test_json_is_one_object_and_nothing_else(slicedet, picture, quick, tmp_path):
    done = slicedet("predict", picture, tmp_path / "no.tif", *quick, "--json")
    answer = json.loads(done.out)
    good, bad = answer["images"]
    assert done.code == 1
    assert good["source"] == str(picture)
    assert good["outputs"] == ["colorado_rgb.geojson", "colorado_rgb.qml", "colorado_rgb.run.json"]
    assert good["tiles"]["run"] == good["tiles"]["total"] > 0
    assert good["detector"]["weights"] == "picodet_s_320_coco.onnx"
    assert bad == {"source": f"{tmp_path}/no.tif", "error": f"{tmp_path}/no.tif: no such file"}


def test_quiet_says_nothing(slicedet, here, picture, quick):
    assert slicedet("predict", picture, *quick, "--quiet") == (0, "", "")
    assert "colorado_rgb.geojson" in names(here)


def test_options_reach_the_search_and_are_recorded(slicedet, here, picture, quick):
    done = slicedet(
        "predict", picture, *quick, "--slice", "160x128", "--overlap", "32px", "--merge", "nmm",
        "--match-metric", "iou", "--match-threshold", "0.4", "--class-agnostic", "--classes", "car,truck",
        "--threshold", "0.3", "--threshold", "car=0.2", "--full-image", "--gsd", "0.3", "--bands", "3,2,1",
        "--stretch", "minmax",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    record = json.loads((here / "colorado_rgb.run.json").read_text())
    settings, frame = record["settings"], record["frame"]
    assert settings["merge"] == {
        "method": "nmm",
        "metric": "iou",
        "threshold": 0.4,
        "class_agnostic": True,
        "growth": "cut",
    }
    assert settings["threshold"] == {"*": 0.3, "car": 0.2}
    assert settings["classes"] == ["car", "truck"]
    assert (frame["tile_width"], frame["tile_height"], frame["overlap_x"], frame["overlap_y"]) == (160, 128, 32, 32)
    assert frame["gsd_m"] == pytest.approx([0.3, 0.3], rel=0.01)
    assert record["scene"]["bands"] == [3, 2, 1]
    assert record["scene"]["stretch"]["rule"] == "minmax"


def test_engines_and_models_of_all_layouts_run(slicedet, picture, shared):
    for model, weights in {
        "picodet_s_416_coco": "picodet_s_416_coco.onnx",
        "picodet_xs_320_coco_lcnet": "picodet_xs_320_lcnet_postprocessed.onnx",
    }.items():
        for engine in ("openvino", "onnxruntime"):
            options = ["-m", model, "--weights", shared / "models" / weights, "--engine", engine, "--overwrite"]
            done = slicedet("predict", picture, *options, "--json")
            assert done.code == 0, done.err
            assert json.loads(done.out)["images"][0]["detector"]["engine"] == engine


def test_batch_mirrors_the_folder_and_ends_with_1_for_a_bad_image(slicedet, here, raster, quick, tmp_path):
    raster("in/one.tif", np.zeros((3, 64, 64), np.uint8), **PLACE)
    raster("in/deep/two.tif", np.zeros((3, 64, 64), np.uint8), **PLACE)
    (tmp_path / "in/bad.tif").touch()
    done = slicedet("batch", tmp_path / "in", "-o", "out", *quick, "--format", "csv")
    assert done.code == 1
    assert done.err == f"Error: {tmp_path}/in/bad.tif: empty file (0 bytes)\n"
    assert done.out == "2 of 3 images, 0 objects, results in out\n"
    files = {"summary.csv", "detections.coco.json", "one.csv", "one.run.json", "deep/two.csv", "deep/two.run.json"}
    assert names(here / "out") == files
    other = slicedet("batch", tmp_path / "in", "-o", "out", *quick)
    assert other.code == 1
    assert "format" in other.err
    assert "--restart" in other.err
    again = slicedet("batch", tmp_path / "in", "-o", "out", *quick, "--format", "csv", "--pattern", "o*.tif", "--json")
    assert (again.code, again.err) == (0, "")
    assert json.loads(again.out)["failed"] == 0
    assert [row["image"] for row in json.loads(again.out)["images"]] == ["one.tif"]


@pytest.mark.filterwarnings("always::slicedet.errors.SceneWarning")
def test_info_of_every_real_raster(slicedet, shared):
    for path in sorted((shared / "geotiff").glob("*.tif")):
        done = slicedet("info", path, "--json", "--slice", "256x200", "--overlap", "0.5")
        assert done.code == 0
        assert done.err == "" or done.err.startswith(f"Warning: {path}: pixels of ")
        seen = json.loads(done.out)
        assert seen["all_nodata"] == (path.stem in ("all-nodata", "inverted_lat"))
        with rasterio.open(path) as dataset:
            if not seen["warped_from_gcps"]:
                assert (seen["width"], seen["height"]) == dataset.shape[::-1]
                assert seen["crs"] == (dataset.crs.to_string() if dataset.crs else None)
            assert seen["dtype"] == dataset.dtypes[0]
            assert (seen["stretch"] is None) == (dataset.dtypes[0] == "uint8" or seen["all_nodata"])
        assert seen["tiles"]["total"] == seen["tiles"]["columns"] * seen["tiles"]["rows"] > 0


def test_info_is_lines_of_name_and_value(slicedet, picture):
    done = slicedet("info", picture)
    assert (done.code, done.err) == (0, "")
    lines = dict(line.split(":", 1) for line in done.out.splitlines())
    assert lines["size"].strip() == "383 x 232 px"
    assert lines["CRS"].strip() == "EPSG:26913"
    assert lines["pixel size"].strip().startswith("0.14")
    assert lines["tiles"].strip() == "2 (2 x 1) of 272 x 272 px, overlap 0.25"


@pytest.mark.parametrize("options", [[], ["--slice", "300x200", "--overlap", "0"]])
def test_info_shows_the_tiles_that_predict_cuts(slicedet, shared, raster, options):
    pytest.importorskip("onnxruntime")
    with rasterio.open(shared / "geotiff" / "manila_2048.tif") as dataset:
        path = raster("part.tif", dataset.read()[:, :700, :900], crs=dataset.crs, transform=dataset.transform)
    seen = json.loads(slicedet("info", path, "--json", *options).out)["tiles"]
    run = slicedet("predict", path, "--json", "--format", "csv", "--engine", "onnxruntime", *options)
    (ran,) = json.loads(run.out)["images"]
    assert seen["total"] == ran["tiles"]["total"] > 3
    assert seen["frame"] == [ran["frame"]["width"], ran["frame"]["height"]] != [900, 700]
    assert seen["slice"] == [ran["frame"]["tile_width"], ran["frame"]["tile_height"]]


def test_flat_tiles_are_in_the_summary(slicedet, here, raster, quick):
    pixels = np.full((3, 300, 900), 90, np.uint8)
    pixels[:, :, :300] = np.random.default_rng(0).integers(0, 256, (3, 300, 300))
    path = raster("lake.tif", pixels, **PLACE)
    done = slicedet("predict", path, *quick, "--slice", "300", "--overlap", "0", "--gsd", "native", "--skip-flat")
    assert "in 1 tiles (2 flat left out)" in done.out


def test_line_breaks_in_names(slicedet, here, picture):
    pytest.importorskip("onnxruntime")
    odd = here / "two\nlines.tif"
    shutil.copy(picture, odd)
    done = slicedet("predict", odd, "--engine", "onnxruntime", "--format", "gpkg,fgb,parquet,geojson,csv,tif")
    assert (done.code, done.err) == (0, "")
    made = {path.name for path in here.iterdir()}
    assert made == {odd.name} | {
        f"two\nlines.{suffix}"
        for suffix in ("gpkg", "fgb", "parquet", "geojson", "csv", "overlay.tif", "qml", "run.json")
    }
    tables = [
        (here / name).rename(here / f"plain{Path(name).suffix}") for name in made if name.endswith(("gpkg", "fgb"))
    ]
    found = json.loads((here / "two\nlines.geojson").read_text())["features"]
    assert len(found) > 0
    assert {len(geopandas.read_file(path)) for path in tables} == {len(found)}


def test_info_of_a_crs_that_leads_nowhere_says_so_without_failing(slicedet, raster):
    quarry = 'LOCAL_CS["Quarry grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    path = raster("quarry.tif", np.zeros((90, 90), np.uint8), crs=quarry, transform=PLACE["transform"])
    done = slicedet("info", path)
    assert (done.code, done.err) == (0, "")
    assert "unknown" in done.out


def test_models_lists_the_catalogue(slicedet):
    lines = slicedet("models").out.splitlines()
    listed = json.loads(slicedet("models", "--json").out)["models"]
    assert [line.split()[0] for line in lines] == [model["name"] for model in listed]
    assert "picodet_s_416_coco" in {model["name"] for model in listed}


@pytest.mark.parametrize("command", [[], ["predict"], ["batch"], ["info"], ["models"]])
def test_help_shows_the_usage(slicedet, command):
    done = slicedet(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: slicedet")


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["--version"], ["predict", "--slice", "5"]])
def test_nothing_heavy_is_imported_to_parse_the_command_line(arguments):
    script = (
        "import sys\n"
        "from slicedet.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'rasterio', 'cv2', 'geopandas', 'pandas', 'shapely', 'pyproj', 'openvino', 'onnxruntime',\n"
        "         'paddle', 'sahi', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_installed_program_runs_in_a_process_of_its_own(here, picture, model):
    program = [sys.executable, "-c", "from slicedet.cli import main; main(prog_name='slicedet')"]
    done = subprocess.run([*program, "predict", picture, *model], cwd=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "colorado_rgb.geojson" in names(here)
    failed = subprocess.run(
        [*program, "predict", "no.tif", *model], cwd=here, capture_output=True, text=True, check=False
    )
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "Error: no.tif: no such file\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc for when the network is loaded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(number, shared, model, tmp_path):
    command = [sys.executable, "-c", "from slicedet.cli import main; main()", "predict"]
    command += [shared / "geotiff" / "dateline.tif", *model, "--overlap", "0.95", "-o", tmp_path / "out.gpkg"]
    # As from a terminal: what a script starts in the background ignores Ctrl-C.
    process = subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while "libopenvino_intel_cpu_plugin" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (1, "Error: interrupted; with --resume, it would go on from here\n")
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_with_another_output_keeps_the_record_of_the_first(slicedet, here, picture, quick):
    assert slicedet("predict", picture, *quick, "-o", "a.csv").code == 0
    first = (here / "a.run.json").read_text()
    assert slicedet("predict", picture, *quick, "-o", "a.gpkg", "--overlap", "0.5").code == 0
    assert (here / "a.run.json").read_text() == first
    assert json.loads((here / "a.run-2.json").read_text())["settings"]["overlap"] == "0.5"
