"""Bad input: one line on stderr that names the file and what to do, an exit code, and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

PLACE = {"crs": "EPSG:32633", "transform": Affine(0.2, 0, 400000, 0, -0.2, 5000000)}
QUARRY = 'LOCAL_CS["Quarry grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
# Errors that must come before any weights are read are provoked with weights that do not exist.
UNUSED = ["-m", "picodet_s_320_coco", "--weights", "never-read.onnx"]


@pytest.fixture
def picture(raster):
    """A placed raster of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 100, 120), dtype=np.uint8)
    return raster("big.tif", noise, **PLACE)


@pytest.fixture
def photo(raster):
    return raster("photo.png", np.full((3, 100, 120), 90, np.uint8), driver="PNG")


def one_line(outcome, code: int = 1) -> str:
    """The one line of an error, without its "Error: "."""
    assert (outcome.code, outcome.out) == (code, ""), outcome
    if code == 2:  # click shows how the command is used first.
        usage, _, line = outcome.err.rpartition("\nError: ")
        assert usage.startswith("Usage: slicedet ")
        line = f"Error: {line}"
    else:
        line = outcome.err
    assert line.startswith("Error: ")
    assert line.count("\n") == 1, line
    assert line.endswith("\n")
    return line.removeprefix("Error: ").strip()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "0 bytes"), (b"some text", "not an image"), (b"\x89PNG\r\n\x1a\n", "not an image")],
    ids=["missing", "zero bytes", "text", "a PNG's first bytes"],
)
def test_files_that_are_no_images(slicedet, unchanged, tmp_path, content, words):
    path = tmp_path / "big.tif"
    if content is not None:
        path.write_bytes(content)
    unchanged()
    line = one_line(slicedet("predict", path, *UNUSED))
    assert line.startswith(f"{path}: ")
    assert words in line
    assert unchanged()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("long" * 100, f"{'long' * 100}: file name too long"),
        ("bad\udcff.tif", "bad\\udcff.tif: its name is not UTF-8; rename it"),
        ("", "'': no such file"),
        ("no.tif/inside.tif", "no.tif/inside.tif: no such file"),
    ],
    ids=["long", "not UTF-8", "empty", "below a file"],
)
def test_names_that_no_image_can_have_fail_alone(slicedet, picture, here, name, said):
    (here / "no.tif").touch()
    done = slicedet("predict", name, picture, "--json", "--format", "csv")
    assert (done.code, done.err) == (1, f"Error: {said}\n")
    first, second = json.loads(done.out)["images"]
    assert first["error"] == said
    assert second["outputs"] == ["big.csv", "big.run.json"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_image_in_a_closed_folder_fails_alone(slicedet, picture, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert one_line(slicedet("predict", closed / "a.tif", *UNUSED)) == f"{closed}/a.tif: no permission to read it"


@pytest.mark.parametrize("more", [[], ["--resume"]], ids=["at once", "resumably"])
@pytest.mark.parametrize("link", [False, True], ids=["itself", "through a link"])
def test_region_of_interest_is_never_overwritten(slicedet, unchanged, picture, here, link, more):
    region = here / "area.geojson"
    shape = shapely.box(400000, 4999985, 400010, 5000000)
    geopandas.GeoDataFrame(geometry=[shape], crs=PLACE["crs"]).to_file(region)
    output = region
    if link:
        output = here / "link.geojson"
        output.symlink_to(region)
    unchanged()
    line = one_line(slicedet("predict", picture, *UNUSED, "--roi", region, "-o", output, "--overwrite", *more))
    assert line == f"{output}: is the region of interest itself; choose another name"
    assert unchanged()


@pytest.mark.parametrize("metres", ["1e-9", "0.0001"])
def test_enlarging_beyond_all_sense_is_refused(slicedet, unchanged, picture, model, metres):
    unchanged()
    line = one_line(slicedet("predict", picture, *model, "--gsd", metres))
    assert line.startswith(f"{picture}: gsd {float(metres):g} m would enlarge its pixels of 0.2 m ")
    assert line.endswith("; 64 times is the most")
    assert unchanged()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-m", "mine.onnx"], "mine.onnx: a weights file; name a configuration with -m"),
        (["-m", "nowhere/"], "nowhere/: no such file or folder"),
        (["-m", "nowhere/model"], "nowhere/model: no such file or folder"),
    ],
)
def test_models_that_are_no_models(slicedet, picture, options, said):
    assert one_line(slicedet("predict", picture, *options)).startswith(said)


@pytest.mark.parametrize("command", ["predict", "info"])
def test_failures_are_in_the_json_too(slicedet, here, command):
    done = slicedet(command, "no.tif", "--json")
    assert (done.code, done.err) == (1, "Error: no.tif: no such file\n")
    answer = json.loads(done.out)
    assert "no.tif: no such file" in (answer.get("error"), *(each["error"] for each in answer.get("images", ())))


def test_folder_is_for_batch(slicedet, unchanged, tmp_path):
    unchanged()
    line = one_line(slicedet("predict", tmp_path, *UNUSED))
    assert line.startswith(f"{tmp_path}: ")
    assert "slicedet batch" in line
    assert unchanged()


def test_raster_without_bands(slicedet, unchanged, tmp_path):
    path = tmp_path / "none.vrt"
    path.write_text('<VRTDataset rasterXSize="20" rasterYSize="20"></VRTDataset>')
    unchanged()
    assert one_line(slicedet("predict", path, *UNUSED)).startswith(f"{path}: ")
    assert unchanged()


def test_band_that_is_not_there(slicedet, unchanged, picture):
    unchanged()
    assert one_line(slicedet("predict", picture, *UNUSED, "--bands", "1,2,7")) == (
        f"{picture}: no band 7; its bands are 1 to 3"
    )
    assert unchanged()


def test_geojson_of_an_image_without_place_is_refused_before_inference(slicedet, unchanged, photo):
    unchanged()
    line = one_line(slicedet("predict", photo, *UNUSED, "-o", "photo.geojson"))
    assert line.startswith(f"{photo}: ")
    assert ".coco.json" in line
    assert unchanged()


@pytest.mark.parametrize("format", ["gpkg", "fgb", "parquet"])
def test_map_formats_of_an_image_without_place_are_refused_before_inference(slicedet, unchanged, photo, format):
    unchanged()
    assert one_line(slicedet("predict", photo, *UNUSED, "--format", format)).startswith(f"{photo}: ")
    assert unchanged()


def test_crs_that_cannot_be_transformed_is_said_before_inference(slicedet, unchanged, raster):
    path = raster("quarry.tif", np.zeros((90, 90), np.uint8), crs=QUARRY, transform=PLACE["transform"])
    unchanged()
    line = one_line(slicedet("predict", path, *UNUSED, "-o", "quarry.geojson"))
    assert line.startswith(f"{path}: ")
    assert "Quarry grid" in line
    assert unchanged()


@pytest.mark.parametrize("output", ["nowhere/big.geojson", "nowhere/"])
def test_output_folder_that_does_not_exist(slicedet, unchanged, picture, output):
    unchanged()
    line = one_line(slicedet("predict", picture, *UNUSED, "-o", output))
    assert "nowhere" in line
    assert "does not exist" in line
    assert unchanged()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_output_folder_that_cannot_be_written(slicedet, picture, here):
    (here / "locked").mkdir(mode=0o500)
    assert "locked" in one_line(slicedet("predict", picture, *UNUSED, "-o", "locked/big.geojson"))


@pytest.mark.parametrize("link", [False, True], ids=["itself", "through a link"])
def test_output_that_is_the_image_itself_is_refused_even_when_overwriting(slicedet, unchanged, picture, here, link):
    output = picture
    if link:
        output = here / "link.tif"
        output.symlink_to(picture)
    unchanged()
    line = one_line(slicedet("predict", picture, *UNUSED, "-o", output, "--overwrite"))
    assert line.startswith(f"{output}: ")
    assert "image itself" in line
    assert unchanged()


def test_files_that_are_there_are_not_overwritten(slicedet, unchanged, picture, here):
    (here / "big.geojson").write_text("precious")
    unchanged()
    line = one_line(slicedet("predict", picture, *UNUSED))
    assert line.startswith("big.geojson: exists already")
    assert "--overwrite" in line
    assert unchanged()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["-m", "no-such-model"], "no-such-model"),
        (["-m", "nowhere.yaml"], "nowhere.yaml"),
        (["-m", "picodet_s_320_coco", "--weights", "nowhere.onnx"], "nowhere.onnx"),
        (["-m", "sahi:no-such-type:weights.pt"], "no-such-type"),
    ],
)
def test_models_and_weights_that_are_not_there(slicedet, unchanged, picture, options, named):
    unchanged()
    assert named in one_line(slicedet("predict", picture, *options))
    assert unchanged()


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_bad_model_is_said_once_for_many_images(slicedet, picture, photo, resume):
    assert "no-such-model" in one_line(slicedet("predict", picture, photo, "-m", "no-such-model", *resume))


@pytest.mark.parametrize(
    "options",
    [
        ["--overlap", "1"], ["--overlap", "-0.1"], ["--overlap", "lots"], ["--slice", "31"], ["--slice", "huge"],
        ["--slice", "64", "--overlap", "64px"], ["--gsd", "0"], ["--gsd", "fine"], ["--bands", "red"], ["--bands", ""],
        ["--stretch", "best"], ["--merge", "best"], ["--match-metric", "best"], ["--match-threshold", "0"],
        ["--match-threshold", "x"], ["--threshold", "1.5"], ["--threshold", "high"], ["--threshold", "car="],
        ["--threshold", "=0.3"], ["--engine", "warp"], ["--precision", "int8"], ["--slice", "1000000000000"],
        ["--format", "xyz"], ["-o", "big.xyz"], ["-o", "big.json"], ["-o", ".", "-o", "./"], ["--no-such-option"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_exit_code_2_and_one_line(slicedet, unchanged, picture, options):
    unchanged()
    one_line(slicedet("predict", picture, *UNUSED, *options), code=2)
    assert unchanged()


@pytest.mark.parametrize("options", [["--slice", "31"], ["--overlap", "1"], ["--slice", "64", "--overlap", "64px"]])
def test_wrong_usage_of_info(slicedet, picture, options):
    one_line(slicedet("info", picture, *options), code=2)


@pytest.mark.parametrize("arguments", [["predict"], ["batch"], ["info"], ["no-such-command"]])
def test_missing_arguments_are_exit_code_2(slicedet, unchanged, arguments):
    unchanged()
    one_line(slicedet(*arguments), code=2)
    assert unchanged()


def test_a_file_for_two_images_is_wrong_usage(slicedet, unchanged, picture, photo):
    unchanged()
    assert "both.csv" in one_line(slicedet("predict", picture, photo, *UNUSED, "-o", "both.csv"), code=2)
    assert unchanged()


@pytest.mark.parametrize("option", [["--classes", "car,unicorn"], ["--threshold", "unicorn=0.4"]])
def test_unknown_class(slicedet, unchanged, picture, model, option):
    unchanged()
    assert "'unicorn'" in one_line(slicedet("predict", picture, *model, *option))
    assert unchanged()


def test_unknown_device(slicedet, unchanged, picture, model):
    unchanged()
    assert "'tpu'" in one_line(slicedet("predict", picture, *model, "--device", "tpu"))
    assert unchanged()


def test_corrupt_blocks(slicedet, unchanged, model, shared):
    path = shared / "geotiff/corrupt.tif"
    unchanged()
    line = one_line(slicedet("predict", path, *model))
    assert line.startswith(f"{path}: the block at columns ")
    assert unchanged()


def test_corrupt_blocks_are_left_out_when_asked(slicedet, here, model, shared):
    done = slicedet("predict", shared / "geotiff/corrupt.tif", *model, "--skip-unreadable")
    assert (done.code, done.err) == (0, "")
    assert "unreadable left out" in done.out
    assert (here / "corrupt.geojson").is_file()


@pytest.mark.parametrize("name", ["all-nodata", "inverted_lat"])
def test_all_nodata(slicedet, unchanged, model, shared, name):
    path = shared / f"geotiff/{name}.tif"
    unchanged()
    line = one_line(slicedet("predict", path, *model))
    assert line.startswith(f"{path}: ")
    assert "nodata" in line
    assert unchanged()


@pytest.mark.parametrize("case", ["missing", "not a vector", "elsewhere", "points"])
def test_region_that_is_of_no_use(slicedet, unchanged, picture, model, tmp_path, case):
    roi = tmp_path / "roi.gpkg"
    if case == "not a vector":
        roi.write_text("not a vector file")
    elif case != "missing":
        shape = shapely.box(0, 0, 9, 9) if case == "elsewhere" else shapely.Point(400010, 4999990)
        geopandas.GeoDataFrame(geometry=[shape], crs=PLACE["crs"]).to_file(roi)
    unchanged()
    assert one_line(slicedet("predict", picture, *model, "--roi", roi)).startswith(f"{roi}: ")
    assert unchanged()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_weights_that_do_not_fit_their_model_say_what_differs(slicedet, unchanged, picture, shared, engine):
    weights = shared / "models/picodet_s_320_coco.onnx"
    unchanged()
    line = one_line(slicedet("predict", picture, "-m", "picodet_s_416_coco", "--weights", weights, "--engine", engine))
    assert line.startswith(f"{weights}: ")
    assert "320" in line
    assert "416" in line
    assert unchanged()


def test_weights_that_are_no_network(slicedet, unchanged, picture, photo, shared):
    unchanged()
    line = one_line(slicedet("predict", picture, "-m", "picodet_s_320_coco", "--weights", photo))
    assert line.startswith(f"{photo}: ")
    assert unchanged()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX's")
def test_disk_that_is_full_leaves_nothing(picture, here, model, unchanged):
    """A limit on the size of files stands in for the disk."""
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "from slicedet.cli import main; main(sys.argv[1:])"
    )
    unchanged()
    command = [sys.executable, "-c", script, "predict", picture, *model, "--threshold", "0.01"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: big.geojson: cannot be written: ")
    assert done.stderr.count("\n") == 1
    assert unchanged()


def test_verbose_shows_the_traceback_before_the_line(slicedet, tmp_path):
    for command in (["predict", tmp_path / "no.tif", *UNUSED], ["info", tmp_path / "no.tif"]):
        failed = slicedet(*command, "--verbose")
        assert failed.code == 1
        assert failed.err.startswith("Traceback (most recent call last):")
        assert failed.err.splitlines()[-1] == f"Error: {tmp_path}/no.tif: no such file"


def test_errors_are_said_even_when_quiet(slicedet, tmp_path):
    assert one_line(slicedet("predict", tmp_path / "no.tif", *UNUSED, "--quiet")).endswith("no such file")


@pytest.mark.parametrize("options", [["-m", "no-such-model"], ["--format", "xyz"], ["--classes", "unicorn"]])
def test_batch_that_cannot_work_makes_no_folder(slicedet, unchanged, picture, model, tmp_path, options):
    unchanged()
    failed = slicedet("batch", tmp_path, "-o", "results", *model, *options)
    assert options[1].strip("'") in one_line(failed, code=2 if "--format" in options else 1)
    assert unchanged()


def test_batch_of_no_folder(slicedet, unchanged, tmp_path):
    unchanged()
    assert one_line(slicedet("batch", tmp_path / "no", "-o", "results", *UNUSED)) == f"{tmp_path}/no: no such folder"
    assert unchanged()


@pytest.mark.parametrize("name", ["a\x1b[31m.tif", "a\x9b2J.tif", "a\rError: fake.tif"])
def test_names_do_not_rule_the_terminal(slicedet, picture, model, here, name):
    missing = slicedet("predict", name, *UNUSED)
    assert missing.code == 1
    (here / name).write_bytes(picture.read_bytes())
    found = slicedet("predict", name, *model)
    assert found.code == 0
    for text in (missing.err, found.out, found.err):
        assert all(each.isprintable() for each in text.replace("\n", ""))


def test_more_tiles_than_anybody_can_search_are_refused(slicedet, model, here):
    edge = 2**31 - 1
    (here / "endless.vrt").write_text(
        f'<VRTDataset rasterXSize="{edge}" rasterYSize="{edge}"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    outcome = slicedet("predict", "endless.vrt", *model, "-o", "found.csv", "--slice", "64")
    assert "tiles of 64 x 64 pixels are more than can be searched" in one_line(outcome)
