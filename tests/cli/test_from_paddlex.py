"""The commands of docs/from-paddlex.md, run as they are written there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "from-paddlex.md"
PHOTOS = {"train": {"MOS155.png", "MOS156.png", "MOS157.png"}, "val": {"MunichStreet02-MOS74.png"}}

# One process, as Paddle takes seconds to load; an ONNX file's folded norms are measured on few tiles.
ALL = """
import json, sys
from slicedet.cli import main
from slicedet.training import trainer

trainer.CALIBRATION_TILES = 4
for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.fixture
def workplace(shared: Path, tmp_path: Path) -> Path:
    """A folder with what the page presumes: a dataset (a few real photos, so that it does not take long), one in PASCAL
    VOC, and weights."""
    source, data = shared / "data" / "aerial_vehicles", tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "annotations").mkdir()
    for split, names in PHOTOS.items():
        document = json.loads((source / "annotations" / f"instance_{split}.json").read_text())
        document["images"] = [image for image in document["images"] if image["file_name"] in names]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] in kept]
        (data / "annotations" / f"instance_{split}.json").write_text(json.dumps(document))
        for name in names:
            shutil.copyfile(source / "images" / name, data / "images" / name)
    with Image.open(source / "images" / "DJI_0010.JPG") as photo:
        photo.crop((1000, 800, 2000, 1300)).save(data / "images" / "DJI_0010.JPG")
    shutil.copyfile(shared / "models" / "picodet_s_320_coco.onnx", tmp_path / "picodet_s_320_coco.onnx")
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "images").mkdir()
    shutil.copyfile(data / "images" / "MOS155.png", tmp_path / "voc" / "images" / "MOS155.png")
    (tmp_path / "voc" / "Annotations" / "MOS155.xml").write_text(
        "<annotation><filename>MOS155.png</filename><object><name>car</name><bndbox><xmin>10</xmin><ymin>20</ymin>"
        "<xmax>30</xmax><ymax>50</ymax></bndbox></object></annotation>"
    )
    return tmp_path


def written(page: Path) -> list[list[str]]:
    """The arguments of each slicedet command of a page's only block, as bash reads them; it finds no other program."""
    (block,) = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    told = f"PATH=\nslicedet() {{ printf '%s\\n' \"$@\" ''; }}\n{block}"
    done = subprocess.run(["bash", "-euc", told], capture_output=True, text=True, check=True)
    return [command.splitlines() for command in done.stdout.removesuffix("\n\n").split("\n\n")]


def test_every_command_runs_as_written(workplace: Path) -> None:
    run = [sys.executable, "-c", ALL, json.dumps(written(PAGE))]
    done = subprocess.run(run, cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((workplace / "output" / "check_dataset_result.json").read_text())["check_pass"]
    assert json.loads((workplace / "converted" / "annotations" / "instance_train.json").read_text())["annotations"]
    assert (workplace / "data" / "annotations" / "instance_train.json.bak").is_file()
    assert json.loads((workplace / "output" / "train_result.json").read_text())["done_flag"]
    assert (workplace / "exported" / "inference.json").is_file()
    assert json.loads((workplace / "found.coco.json").read_text())["images"]
    for name in PHOTOS["train"]:
        assert json.loads((workplace / "results" / Path(name).with_suffix(".coco.json")).read_text())["images"]
