"""The commands of docs/from-paddlex.md, run as they are written there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "from-paddlex.md"


@pytest.fixture
def workplace(shared: Path, tmp_path: Path) -> Path:
    """A folder with what the page presumes: a dataset (a few real photos, so that it does not take long), one in PASCAL
    VOC, and weights."""
    source, data = shared / "data" / "aerial_vehicles", tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "annotations").mkdir()
    for split, wanted in (("train", "MOS15"), ("val", "MunichStreet02-MOS7")):
        document = json.loads((source / "annotations" / f"instance_{split}.json").read_text())
        document["images"] = [image for image in document["images"] if image["file_name"].startswith(wanted)]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [box for box in document["annotations"] if box["image_id"] in kept]
        (data / "annotations" / f"instance_{split}.json").write_text(json.dumps(document))
        for image in document["images"]:
            shutil.copyfile(source / "images" / image["file_name"], data / "images" / image["file_name"])
    shutil.copyfile(source / "images" / "DJI_0010.JPG", data / "images" / "DJI_0010.JPG")
    shutil.copyfile(shared / "models" / "picodet_s_320_coco.onnx", tmp_path / "picodet_s_320_coco.onnx")
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "images").mkdir()
    shutil.copyfile(tmp_path / "data" / "images" / "MOS155.png", tmp_path / "voc" / "images" / "MOS155.png")
    (tmp_path / "voc" / "Annotations" / "MOS155.xml").write_text(
        "<annotation><filename>MOS155.png</filename><object><name>car</name><bndbox><xmin>10</xmin><ymin>20</ymin>"
        "<xmax>30</xmax><ymax>50</ymax></bndbox></object></annotation>"
    )
    return tmp_path


def test_every_command_runs_as_written(workplace: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    run = "import sys; from slicedet.cli import main; main(sys.argv[1:])"
    commands = f'slicedet() {{ {shlex.quote(sys.executable)} -c {shlex.quote(run)} "$@"; }}\n{block}'
    done = subprocess.run(["bash", "-euc", commands], cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((workplace / "output" / "check_dataset_result.json").read_text())["check_pass"]
    assert json.loads((workplace / "converted" / "annotations" / "instance_train.json").read_text())["annotations"]
    assert (workplace / "data" / "annotations" / "instance_train.json.bak").is_file()
    assert json.loads((workplace / "output" / "train_result.json").read_text())["done_flag"]
    assert (workplace / "exported" / "inference.json").is_file()
    assert json.loads((workplace / "found.coco.json").read_text())["images"]
    assert len(list((workplace / "results").glob("MOS15*.json"))) >= 5
