"""Annotations of other formats to COCO: values known beforehand, real photos written and read back, hostile files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from dataset_files import load, picture
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from slicedet.batch import Batch
from slicedet.datasets import coco
from slicedet.datasets.check import check
from slicedet.datasets.convert import convert
from slicedet.datasets.synthetic import SceneSettings, write_scene
from slicedet.datasets.writing import place_image
from slicedet.detections import Detections
from slicedet.errors import InvalidDataset, InvalidSetting, SlicedetError, UnsafeFile
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

Row = tuple[str, str, float, float, float, float]


def rows(root: Path, split: str = "train") -> list[Row]:
    """File, category and box x, y, width, height of each annotation, as pycocotools reads them."""
    reference = COCO(root / "annotations" / f"instance_{split}.json")
    return [
        (
            reference.imgs[entry["image_id"]]["file_name"],
            reference.cats[entry["category_id"]]["name"],
            *entry["bbox"],
        )
        for entry in reference.anns.values()
    ]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def voc(name: str, *objects: tuple[str, float, float, float, float], size: tuple[int, int] = (60, 40)) -> str:
    things = "".join(
        f"<object><name>{escape(kind)}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for kind, x1, y1, x2, y2 in objects
    )
    return (
        f"<annotation><filename>{escape(name)}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"</size>{things}</annotation>"
    )


def labelme(name: str, *shapes: tuple[str, str, list[list[float]]]) -> str:
    content = [{"label": kind, "shape_type": form, "points": points} for kind, form, points in shapes]
    return json.dumps({"imagePath": name, "imageWidth": 60, "imageHeight": 40, "shapes": content, "imageData": None})


@pytest.fixture
def real(shared: Path) -> coco.CocoDataset:
    return coco.read(shared / "data/aerial_vehicles/annotations/instance_val.json")


Writer = Callable[[Path, Path, coco.CocoDataset], None]


def write_voc(root: Path, images: Path, dataset: coco.CocoDataset) -> None:
    for image, things in contents(dataset):
        objects = [(name, *box) for name, box in things]
        size = (image.width, image.height)
        write(root / "Annotations" / f"{Path(image.file_name).stem}.xml", voc(image.file_name, *objects, size=size))
    link(root / "JPEGImages", images, dataset)


def write_labelme(root: Path, images: Path, dataset: coco.CocoDataset) -> None:
    for image, (_, things) in zip(dataset.images, contents(dataset), strict=True):
        shapes = [(name, "rectangle", [[b[2], b[1]], [b[0], b[3]]]) for name, b in things]
        content = json.loads(labelme(f"..\\images\\{image.file_name}", *shapes))
        content |= {"imageWidth": image.width, "imageHeight": image.height}
        write(root / "annotations" / f"{Path(image.file_name).stem}.json", json.dumps(content))
    link(root / "images", images, dataset)


def write_yolo(root: Path, images: Path, dataset: coco.CocoDataset) -> None:
    for image, things in contents(dataset):
        lines = []
        for name, (x1, y1, x2, y2) in things:
            parts = ((x1 + x2) / 2 / image.width, (y1 + y2) / 2 / image.height)
            parts += ((x2 - x1) / image.width, (y2 - y1) / image.height)
            lines.append(f"{dataset.categories.index(name)} " + " ".join(f"{part:.9f}" for part in parts))
        write(root / "labels" / "train" / f"{Path(image.file_name).stem}.txt", "\n".join(lines))
    link(root / "images" / "train", images, dataset)
    write(root / "data.yaml", f"path: .\ntrain: images/train\nnames: {list(dataset.categories)}\n")


def write_dota(root: Path, images: Path, dataset: coco.CocoDataset) -> None:
    for image, things in contents(dataset):
        lines = ["imagesource:GoogleEarth", "gsd:0.15"]
        for name, (x1, y1, x2, y2) in things:
            middle, centre = (x1 + x2) / 2, (y1 + y2) / 2
            # A rhombus that touches all sides of its box.
            lines.append(f"{middle} {y1} {x2} {centre} {middle} {y2} {x1} {centre} {name} 0")
        write(root / "train" / "labelTxt" / f"{Path(image.file_name).stem}.txt", "\n".join(lines))
    link(root / "train" / "images", images, dataset)


def write_visdrone(root: Path, images: Path, dataset: coco.CocoDataset) -> None:
    numbers = {"car": 4, "truck": 6, "bus": 9, "minibus": 5}
    for image, things in contents(dataset):
        lines = [f"{x1},{y1},{x2 - x1},{y2 - y1},1,{numbers[name]},0,0," for name, (x1, y1, x2, y2) in things]
        write(root / "annotations" / f"{Path(image.file_name).stem}.txt", "\n".join(lines))
    link(root / "images", images, dataset)


def contents(dataset: coco.CocoDataset) -> list[tuple[coco.ImageRecord, list[tuple[str, list[float]]]]]:
    found = []
    for index, image in enumerate(dataset.images):
        part = dataset.of_image(index)
        names = [dataset.categories[number] for number in dataset.category_ids[part]]
        found.append((image, list(zip(names, dataset.boxes[part].tolist(), strict=True))))
    return found


def link(folder: Path, images: Path, dataset: coco.CocoDataset) -> None:
    folder.mkdir(parents=True)
    for image in dataset.images:
        (folder / image.file_name).symlink_to(images / image.file_name)


@pytest.mark.parametrize(
    ("format", "writer"),
    [("VOC", write_voc), ("LabelMe", write_labelme), ("YOLO", write_yolo), ("DOTA", write_dota),
     ("VisDrone", write_visdrone)],
)  # fmt: skip
def test_real_boxes_survive_the_way_there_and_back(
    shared: Path, tmp_path: Path, real: coco.CocoDataset, format: str, writer: Writer
) -> None:
    writer(tmp_path / "source", shared / "data/aerial_vehicles/images", real)
    done = convert(tmp_path / "source", format, tmp_path / "out", image_mode="link")
    assert done.images == {"train": len(real.images)}
    allowed = {"parts of boxes outside the image"}
    assert set(done.left_out) <= allowed
    found: dict[str, list[Any]] = {}
    for name, kind, x, y, width, height in rows(tmp_path / "out"):
        found.setdefault(Path(name).name, []).append((kind, x, y, x + width, y + height))
    renamed = {"minibus": "van"} if format == "VisDrone" else {}
    for image, things in contents(real):
        here = found[image.file_name]
        assert [kind for kind, *_ in here] == [renamed.get(name, name) for name, _ in things]
        assert np.abs(np.array([box for _, *box in here]) - [box for _, box in things]).max() < 2e-3
    assert len(coco.read(tmp_path / "out" / "annotations" / "instance_train.json").images) == len(real.images)


def test_voc_by_the_lists_of_paddlex(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.jpg", seed=number)
        text = voc(f"{number}.png", ("bus" if number else "car", 30, 4, 10.5, 24), ("car", 50, 30, 90, 60))
        write(tmp_path / "annotations" / f"{number}.xml", text)
    write(tmp_path / "train_anno_list.txt", "images/2.jpg annotations/2.xml\nannotations/0.xml\n")
    write(tmp_path / "val_anno_list.txt", "annotations/1.xml\n")
    done = convert(tmp_path, "voc", tmp_path / "out")
    assert done.images == {"train": 2, "val": 1}
    assert done.categories == ("bus", "car")
    assert done.left_out == {"parts of boxes outside the image": 3}
    assert rows(tmp_path / "out") == [
        ("2.jpg", "bus", 10.5, 4, 19.5, 20), ("2.jpg", "car", 50, 30, 10, 10),
        ("0.jpg", "car", 10.5, 4, 19.5, 20), ("0.jpg", "car", 50, 30, 10, 10),
    ]  # fmt: skip
    assert [entry["id"] for entry in load(tmp_path / "out", "val")["annotations"]] == [5, 6]
    assert [entry["id"] for entry in load(tmp_path / "out", "val")["images"]] == [3]
    assert (tmp_path / "out/images/1.jpg").read_bytes() == (tmp_path / "images/1.jpg").read_bytes()


@pytest.mark.parametrize("format", ["VOCWithUnlabeled", "LabelMeWithUnlabeled"])
def test_unlabeled_images_are_kept_but_not_listed(tmp_path: Path, format: str) -> None:
    for number in range(2):
        picture(tmp_path / "images" / f"{number}.jpg", seed=number)
    write(tmp_path / "annotations" / "0.xml", voc("0.jpg", ("car", 1, 2, 3, 4)))
    write(tmp_path / "annotations" / "0.json", labelme("0.jpg", ("car", "rectangle", [[1, 2], [3, 4]])))
    with pytest.raises(InvalidDataset, match=r"unlabeled\.txt: is missing"):
        convert(tmp_path, format, tmp_path / "out")
    write(tmp_path / "unlabeled.txt", "images/1.jpg\n")
    done = convert(tmp_path, format, tmp_path / "out")
    assert (done.images, done.unlabeled) == ({"train": 1}, 1)
    assert (tmp_path / "out/annotations/unlabeled.txt").read_text() == "1.jpg\n"
    assert (tmp_path / "out/images/1.jpg").is_file()


def test_labelme_shapes(tmp_path: Path) -> None:
    picture(tmp_path / "0.jpg")
    write(tmp_path / "0.json", labelme(
        "0.jpg", ("car", "polygon", [[1, 2], [9, 4], [5, 12]]), ("pond", "circle", [[20, 20], [23, 24]]),
        ("car", "point", [[3, 3]]), ("car", "rectangle", [[30, 20], [10, 5]]),
    ))  # fmt: skip
    done = convert(tmp_path, "labelme", tmp_path / "out")
    assert rows(tmp_path / "out") == [
        ("0.jpg", "car", 1, 2, 8, 10), ("0.jpg", "pond", 15, 15, 10, 10), ("0.jpg", "car", 10, 5, 20, 15)
    ]  # fmt: skip
    assert done.left_out == {"shapes that are a point": 1}
    assert done.categories == ("car", "pond")


def test_yolo_in_all_its_forms(tmp_path: Path) -> None:
    root = tmp_path / "yolo"
    for number, part in enumerate(("train", "train", "valid")):
        picture(root / part / "images" / f"{number}.jpg", seed=number)
    write(root / "train/labels/0.txt", "1 0.5 0.5 0.5 0.25\n\n0 0.1 0.1 0.3 0.1 0.2 0.4\n")
    write(root / "valid/labels/2.txt", "0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4\n")
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnames: {0: car, 1: bus, 2: tram}\n")
    done = convert(root, "yolo", tmp_path / "out")
    assert done.images == {"train": 2, "val": 1}
    assert done.categories == ("car", "bus", "tram")
    assert rows(tmp_path / "out") == [("0.jpg", "bus", 15, 15, 30, 10), ("0.jpg", "car", 6, 4, 12, 12)]
    assert rows(tmp_path / "out", "val") == [("2.jpg", "car", 6, 8, 12, 8)]


def test_yolo_without_a_configuration(tmp_path: Path) -> None:
    picture(tmp_path / "yolo/images/val/0.jpg")
    picture(tmp_path / "yolo/images/1.jpg")
    write(tmp_path / "yolo/labels/val/0.txt", "0 0.5 0.5 1 1")
    write(tmp_path / "yolo/classes.txt", "car\n")
    done = convert(tmp_path / "yolo", "yolo", tmp_path / "out")
    assert done.images == {"train": 1, "val": 1}
    assert rows(tmp_path / "out", "val") == [("val/0.jpg", "car", 0, 0, 60, 40)]


def test_dota(tmp_path: Path) -> None:
    picture(tmp_path / "dota/images/P1.png")
    picture(tmp_path / "dota/images/P2.png")
    write(tmp_path / "dota/labelTxt/P1.txt", "imagesource:X\ngsd:0.2\n10 5 20 2 23 11 13 14 small-vehicle 1\n")
    done = convert(tmp_path / "dota", "dota", tmp_path / "out")
    assert rows(tmp_path / "out") == [("P1.png", "small-vehicle", 10, 2, 13, 12)]
    assert load(tmp_path / "out", "train")["images"][0]["gsd"] == 0.2
    assert done.left_out == {"images without a label file": 1}


def test_visdrone_regions_are_crowds_of_all_categories(tmp_path: Path) -> None:
    for split in ("train", "val"):
        root = tmp_path / f"drone/VisDrone2019-DET-{split}"
        picture(root / "images/a.jpg" if split == "train" else root / "images/b.jpg")
        name = "a" if split == "train" else "b"
        write(root / f"annotations/{name}.txt", "1,2,10,12,1,4,0,0\n30,20,10,10,0,0,0,0\n5,5,3,3,0,11,0,0,\n")
    done = convert(tmp_path / "drone", "visdrone", tmp_path / "out")
    assert done.images == {"train": 1, "val": 1}
    assert done.boxes == {"train": 1, "val": 1}
    assert done.crowd == {"train": 20, "val": 20}
    assert done.categories[3] == "car"
    assert len(done.categories) == 10
    entries = load(tmp_path / "out", "val")["annotations"]
    assert [entry["category_id"] for entry in entries if not entry["iscrowd"]] == [4]
    for box in ([30, 20, 10, 10], [5, 5, 3, 3]):
        assert [entry["category_id"] for entry in entries if entry["bbox"] == box] == list(range(1, 11))


def test_classes_are_chosen_and_ordered(tmp_path: Path) -> None:
    picture(tmp_path / "images/0.jpg")
    write(tmp_path / "Annotations/0.xml", voc("0.jpg", *((kind, 1, 2, 9, 8) for kind in ("a", "b", "c"))))
    done = convert(tmp_path, "voc", tmp_path / "out", classes=["c", "a"])
    assert [(entry["id"], entry["name"]) for entry in load(tmp_path / "out", "train")["categories"]] == [
        (1, "c"), (2, "a")
    ]  # fmt: skip
    assert [row[1] for row in rows(tmp_path / "out")] == ["a", "c"]
    assert done.left_out == {"boxes of other classes": 1}


@pytest.mark.parametrize("name", ["colorado_rgb", "rotated_crs", "dateline", "inverted_lat"])
def test_geojson_of_detections_comes_back_to_its_pixels(shared: Path, tmp_path: Path, raster: Any, name: str) -> None:
    path = shared / "geotiff" / f"{name}.tif"
    if name == "rotated_crs":
        transform = (
            rasterio.Affine.translation(500000, 5e6) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(0.2, -0.2)
        )
        path = raster("rotated_crs.tif", np.full((3, 300, 400), 80, np.uint8), crs="EPSG:32633", transform=transform)
    with rasterio.open(path) as dataset:
        width, height = dataset.width, dataset.height
    low = np.random.default_rng(3).uniform(0, 0.85, (20, 2)) * [width, height]
    boxes = np.concatenate([low, low + np.array([0.1, 0.12]) * [width, height]], axis=1).astype(np.float32)

    detections = Detections(boxes, np.full(20, 0.9, np.float32), np.arange(20, dtype=np.int32) % 2)
    source = tmp_path / "found.geojson"
    with Scene(path) as scene:
        Prediction(detections, ("car", "bus"), scene, "none", {}).save(source)
    convert(source, "geojson", tmp_path / "out", rasters=path)
    found = rows(tmp_path / "out")
    assert [kind for _, kind, *_ in found] == ["car", "bus"] * 10
    corners = np.array([(x, y, x + w, y + h) for _, _, x, y, w, h in found])
    expected = np.clip(boxes, 0, [width, height, width, height])
    # The seven decimals of GeoJSON are a centimetre, and boxes across the antimeridian were cut there.
    assert np.abs(corners - expected).max() < 0.15


def test_geojson_needs_to_know_the_class(raster: Any, tmp_path: Path) -> None:
    transform = rasterio.Affine(1, 0, 500000, 0, -1, 5e6)
    path = raster("maps/a.tif", np.zeros((3, 40, 60), np.uint8), crs="EPSG:32633", transform=transform)
    raster("maps/b.tif", np.zeros((3, 40, 60), np.uint8), crs="EPSG:32633",
           transform=rasterio.Affine(1, 0, 600000, 0, -1, 5e6))  # fmt: skip
    ring = [[500010, 4999980], [500020, 4999980], [500020, 4999990], [500010, 4999980]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    features = [
        {"type": "Feature", "properties": {"kind": "roof"}, "geometry": {"type": "Polygon", "coordinates": [ring]}},
        {"type": "Feature", "properties": {"kind": None}, "geometry": {"type": "Point", "coordinates": ring[0]}},
    ]
    source = write(
        path.parent / "roofs.geojson", json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    )
    with pytest.raises(InvalidDataset, match="no property 'class' or 'category' but kind"):
        convert(source, "geojson", tmp_path / "out")
    done = convert(source, "geojson", tmp_path / "out", class_property="kind", class_name="other")
    assert rows(tmp_path / "out") == [("a.tif", "roof", 10, 10, 10, 10)]
    assert done.images == {"train": 2}
    assert done.left_out == {"features without a size": 1}


def test_side_files_of_rasters_come_along(raster: Any, tmp_path: Path) -> None:
    path = raster("dota/images/P1.tif", np.zeros((3, 40, 60), np.uint8))
    write(path.with_suffix(".tfw"), "1\n0\n0\n-1\n500000.5\n4999999.5\n")
    write(tmp_path / "dota/labelTxt/P1.txt", "1 1 9 1 9 9 1 9 car 0")
    convert(tmp_path / "dota", "dota", tmp_path / "out")
    with rasterio.open(tmp_path / "out/images/P1.tif") as dataset:
        assert dataset.transform == rasterio.Affine(1, 0, 500000, 0, -1, 5000000)


BILLION = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]><annotation><filename>&y;</filename></annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'


@pytest.mark.parametrize("text", [BILLION, OUTSIDE])
def test_xml_entities_are_refused(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "images/0.jpg")
    write(tmp_path / "Annotations/0.xml", text)
    with pytest.raises(UnsafeFile, match=r"0\.xml: declares XML entities"):
        convert(tmp_path, "voc", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "files", "said"),
    [
        ("voc", {}, "holds no .xml files"),
        ("voc", {"Annotations/0.xml": "<annotation>"}, "0.xml: is not valid XML"),
        ("voc", {"Annotations/0.xml": voc("0.jpg", ("car", 1, 2, 3, "x"))}, "<ymax> in <bndbox> is no number"),
        ("voc", {"Annotations/0.xml": voc("9.jpg", ("car", 1, 2, 3, 4)).replace("9", "8")}, None),
        ("voc", {"Annotations/7.xml": voc("9.jpg")}, "no image could be converted: 1 images that are not there"),
        ("voc", {"train_anno_list.txt": "a/b.xml"}, "a/b.xml, which is not there"),
        ("labelme", {"0.json": "[]"}, "0.json: is no LabelMe file"),
        ("labelme", {"0.json": labelme("0.jpg", ("car", "rectangle", [[1]]))}, "points of two numbers"),
        ("labelme", {"0.json": labelme("0.jpg", ("car", "rectangle", [[1, 2]])).replace('"car"', "null")},
         "0.json: the label of a shape is None"),
        ("yolo", {}, "needs data.yaml or classes.txt"),
        ("yolo", {"data.yaml": "!!python/object/apply:os.system [ls]"}, "data.yaml: not a readable YAML file"),
        ("yolo", {"data.yaml": "names: [car]\ntrain: nowhere"}, "names nowhere, which is not there"),
        ("yolo", {"data.yaml": "train: images"}, "needs names"),
        ("yolo", {"data.yaml": "names: [car, null]\ntrain: images"}, "needs names"),
        ("yolo", {"data.yaml": "names: [car]\npath: 5\ntrain: 5"}, "data.yaml: names 5, which is not there"),
        ("yolo", {"data.yaml": "names: [car]\npath: [a]"}, "data.yaml: path is to be one folder, not ['a']"),
        ("yolo", {"data.yaml": "names: [car]\ntrain: {a: b}"}, "train is to be a folder or file, or a list of them"),
        ("yolo", {"data.yaml": "names: [car]\nvalid: [[a]]"}, "valid is to be a folder or file, or a list of them"),
        ("yolo", {"obj.data": "train = images"}, "obj.data: needs names"),
        ("yolo", {"classes.txt": "\n\n"}, "classes.txt: is empty"),
        ("yolo", {"classes.txt": "car", "labels/0.txt": "3 0.5 0.5 1 1"}, "line 1: class 3, but there are 1 names"),
        ("yolo", {"classes.txt": "car", "labels/0.txt": "0 0.5 nan 1 1"}, "line 1: expected numbers"),
        ("yolo", {"classes.txt": "car", "labels/0.txt": "0 0.5"}, "line 1: expected a class and a box"),
        ("dota", {}, "needs a folder labelTxt"),
        ("dota", {"labelTxt/0.txt": "1 2 3"}, "line 1: expected eight numbers"),
        ("visdrone", {"annotations/0.txt": "1,2,3,4,1,17,0,0"}, "line 1: expected x,y,width"),
        ("geojson", {}, "holds no raster with a vector file"),
        ("geojson", {"0.geojson": "{"}, "0.geojson: is no vector file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, format: str, files: dict[str, str], said: str | None
) -> None:
    picture(tmp_path / "source/images/0.jpg")
    for name, text in files.items():
        write(tmp_path / "source" / name, text)
    if said is None:  # The image is found by the name of the XML file.
        assert convert(tmp_path / "source", format, tmp_path / "out").images == {"train": 1}
        return
    with pytest.raises(SlicedetError) as caught:
        convert(tmp_path / "source", format, tmp_path / "out")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def voc_of(root: Path, name: str, seed: int, kind: str = "car") -> None:
    """An image with its XML file beside it."""
    picture(root / f"{name}.jpg", seed=seed)
    write(root / f"{name}.xml", voc(f"{name}.jpg", (kind, 1, 2, 11, 8)))


def test_voc_as_roboflow_exports_it(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        voc_of(tmp_path / "source" / split, "one", seed)
    done = convert(tmp_path / "source", "voc", tmp_path / "out")
    assert done.images == done.boxes == {"train": 1, "val": 1, "test": 1}
    assert rows(tmp_path / "out", "val") == [("valid/one.jpg", "car", 1, 2, 10, 6)]
    for split in ("train", "valid", "test"):
        name = f"{split}/one.jpg"
        assert (tmp_path / "out/images" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    checked = check(tmp_path / "out")
    assert [part.split.name for part in checked.splits] == ["train", "val", "test"]
    assert checked.passed


@pytest.mark.parametrize(
    ("sets", "images"),
    [
        ({"train": "0\n2\n", "val": "1\n", "trainval": "0\n1\n2\n", "test": "3\n", "car_train": "3 1"},
         {"train": ["0.jpg", "2.jpg"], "val": ["1.jpg"], "test": ["3.jpg"]}),
        ({"trainval": "1\n0\n", "test": "3\n"}, {"train": ["1.jpg", "0.jpg"], "test": ["3.jpg"]}),
        ({"default": "0\n"}, {"train": ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]}),
    ],
)  # fmt: skip
def test_voc_by_its_image_sets(tmp_path: Path, sets: dict[str, str], images: dict[str, list[str]]) -> None:
    for number in range(4):
        picture(tmp_path / "source/JPEGImages" / f"{number}.jpg", seed=number)
        write(tmp_path / "source/Annotations" / f"{number}.xml", voc(f"{number}.jpg", ("car", 1, 2, 11, 8)))
    for name, text in sets.items():
        write(tmp_path / "source/ImageSets/Main" / f"{name}.txt", text)
    convert(tmp_path / "source", "voc", tmp_path / "out")
    found = {
        split: [image["file_name"] for image in load(tmp_path / "out", split)["images"]]
        for split in ("train", "val", "test")
        if (tmp_path / "out/annotations" / f"instance_{split}.json").is_file()
    }
    assert found == images


def test_voc_files_that_state_one_image_are_of_those_named_like_them(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "source/images" / f"{number}.jpg", seed=number)
        write(tmp_path / "source/Annotations" / f"{number}.xml", voc("0.jpg", ("car", number, 2, 11, 8)))
    convert(tmp_path / "source", "voc", tmp_path / "out")
    assert rows(tmp_path / "out") == [("0.jpg", "car", 0, 2, 11, 6), ("1.jpg", "car", 1, 2, 10, 6)]
    (tmp_path / "source/images/1.jpg").unlink()
    with pytest.raises(InvalidDataset, match=r"0\.jpg: is annotated twice, by .*0\.xml and by .*1\.xml"):
        convert(tmp_path / "source", "voc", tmp_path / "again")


def test_labelme_in_folders_keeps_them(tmp_path: Path) -> None:
    for seed, flight in enumerate(("one", "two")):
        picture(tmp_path / "source" / flight / "DJI_0001.jpg", seed=seed)
        text = labelme("DJI_0001.jpg", ("car", "rectangle", [[1, 2], [3 + seed, 4]]))
        write(tmp_path / "source" / flight / "DJI_0001.json", text)
    convert(tmp_path / "source", "labelme", tmp_path / "out")
    assert rows(tmp_path / "out") == [("one/DJI_0001.jpg", "car", 1, 2, 2, 2), ("two/DJI_0001.jpg", "car", 1, 2, 3, 2)]


@pytest.mark.parametrize(("format", "labels"), [("yolo", "labels"), ("dota", "labelTxt"), ("visdrone", "annotations")])
def test_images_of_one_name_are_kept_apart(tmp_path: Path, format: str, labels: str) -> None:
    text = {"yolo": "0 0.5 0.5 0.5 0.5", "dota": "1 1 9 1 9 9 1 9 car 0", "visdrone": "1,2,3,4,1,4,0,0"}[format]
    for seed, split in enumerate(("train", "val")):
        picture(tmp_path / "source" / split / "images/1.jpg", seed=seed)
        write(tmp_path / "source" / split / labels / "1.txt", text)
    write(tmp_path / "source/data.yaml", "train: train/images\nval: val/images\nnames: [car]\n")
    done = convert(tmp_path / "source", format, tmp_path / "out")
    assert done.boxes == {"train": 1, "val": 1}
    assert [row[0] for split in ("train", "val") for row in rows(tmp_path / "out", split)] == [
        "1.jpg", "val/images/1.jpg"
    ]  # fmt: skip
    for name, split in (("1.jpg", "train"), ("val/images/1.jpg", "val")):
        original = tmp_path / "source" / split / "images/1.jpg"
        assert (tmp_path / "out/images" / name).read_bytes() == original.read_bytes()


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_unlabeled_images_replace_no_others(tmp_path: Path, mode: str) -> None:
    for seed, name in enumerate(("images/1.jpg", "images/new/1.jpg", "new/1.jpg")):
        picture(tmp_path / "source" / name, seed=seed)
    write(tmp_path / "source/Annotations/1.xml", voc("1.jpg", ("car", 1, 2, 3, 4)))
    write(tmp_path / "source/unlabeled.txt", "new/1.jpg\nimages/new/1.jpg\n")
    done = convert(tmp_path / "source", "VOCWithUnlabeled", tmp_path / "out", image_mode=mode)
    assert done.unlabeled == 2
    names = (tmp_path / "out/annotations/unlabeled.txt").read_text().split()
    assert names == ["new/1.jpg", "images/new/1.jpg"]
    for name, source in (("1.jpg", "images/1.jpg"), (names[0], "new/1.jpg"), (names[1], "images/new/1.jpg")):
        assert (tmp_path / "out/images" / name).read_bytes() == (tmp_path / "source" / source).read_bytes()


@pytest.mark.parametrize("format", ["dota", "visdrone"])
def test_a_split_is_a_whole_word_of_a_folders_name(tmp_path: Path, format: str) -> None:
    labels, text = ("labelTxt", "1 1 9 1 9 9 1 9 car 0") if format == "dota" else ("annotations", "1,2,3,4,1,4,0,0")
    for seed, part in enumerate(("set-trainval", "TEST_dev", "interval")):
        picture(tmp_path / "source" / part / f"images/{seed}.jpg", seed=seed)
        write(tmp_path / "source" / part / labels / f"{seed}.txt", text)
    assert convert(tmp_path / "source", format, tmp_path / "out").images == {"train": 1, "test": 1}
    picture(tmp_path / "source/train/images/0.jpg")
    with pytest.raises(InvalidDataset, match="has set-trainval beside train, which is a part of it"):
        convert(tmp_path / "source", format, tmp_path / "again")
    shutil.rmtree(tmp_path / "source/set-trainval")
    (tmp_path / "source/train").rename(tmp_path / "source/train-val")
    with pytest.raises(InvalidDataset, match="the folder train-val says train and val; name it for one"):
        convert(tmp_path / "source", format, tmp_path / "again")


def test_a_test_set_without_labels_is_left_out(tmp_path: Path) -> None:
    for seed, part in enumerate(("train", "test")):
        picture(tmp_path / "source" / part / f"images/{seed}.jpg", seed=seed)
    write(tmp_path / "source/train/labelTxt/0.txt", "1 1 9 1 9 9 1 9 car 0")
    write(tmp_path / "source/data.yaml", "train: train/images\ntest: test/images\nnames: [car]")
    write(tmp_path / "source/train/labels/0.txt", "0 0.5 0.5 0.5 0.5")
    done = convert(tmp_path / "source", "dota", tmp_path / "dota")
    assert (done.images, done.left_out) == ({"train": 1}, {"images without a label file": 1})
    done = convert(tmp_path / "source", "yolo", tmp_path / "yolo")
    assert (done.images, done.left_out) == ({"train": 1}, {"images of test without a label file": 1})


@pytest.mark.parametrize("format", ["voc", "labelme"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_the_stored_image_are_turned_with_it(tmp_path: Path, format: str, orientation: int) -> None:
    # A white rectangle where the box is, as stored, in an image that EXIF shows upright.
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[6:16, 5:25] = 255
    tags = Image.Exif()
    tags[274] = orientation
    (tmp_path / "source/images").mkdir(parents=True)
    for name in ("stored", "shown", "other"):
        Image.fromarray(pixels).save(tmp_path / f"source/images/{name}.png", exif=tags)
    corners = [[5.0, 6.0], [25.0, 16.0]]
    for name, size in (("stored", (60, 40)), ("shown", (40, 60)), ("other", (30, 20))):
        text = voc(f"{name}.png", ("car", 5, 6, 25, 16), size=size)
        if format == "labelme":
            content = json.loads(labelme(f"{name}.png", ("car", "rectangle", corners)))
            text = json.dumps(content | {"imageWidth": size[0], "imageHeight": size[1]})
        write(tmp_path / f"source/annotations/{name}.{'xml' if format == 'voc' else 'json'}", text)
    if format == "voc":
        (tmp_path / "source/annotations").rename(tmp_path / "source/Annotations")
    done = convert(tmp_path / "source", format, tmp_path / "out")
    assert done.turned == 1
    assert done.other_sizes == ("other.png: 40 x 60, stated 30 x 20",)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "source/images/stored.png")))[..., 0]
    rows_of, columns = np.nonzero(shown)
    found = {name: box for name, _, *box in rows(tmp_path / "out")}
    x, y, width, height = found["stored.png"]
    assert (x, y, x + width, y + height) == (columns.min(), rows_of.min(), columns.max() + 1, rows_of.max() + 1)
    assert found["shown.png"] == found["other.png"] == [5, 6, 20, 10]


def test_yolo_as_cvat_exports_it(tmp_path: Path) -> None:
    root = tmp_path / "source"
    for seed, (part, listed) in enumerate((("train", "train"), ("valid", "valid"), ("test", "test"))):
        picture(root / f"obj_{part}_data/{seed}.jpg", seed=seed)
        write(root / f"obj_{part}_data/{seed}.txt", f"{seed % 2} 0.5 0.5 0.5 0.25")
        write(root / f"{listed}.txt", f"data/obj_{part}_data/{seed}.jpg\n")
    write(root / "obj.names", "car\nbus\n\n")
    lists = "".join(f"{part} = data/{part}.txt\n" for part in ("train", "valid", "test"))
    write(root / "obj.data", f"classes = 2\n{lists}names = data/obj.names\nbackup = backup/\n")
    for number, source in enumerate((root, root / "obj.data")):
        out = tmp_path / f"out{number}"
        done = convert(source, "yolo", out)
        assert done.categories == ("car", "bus")
        assert [rows(out, split) for split in ("train", "val", "test")] == [
            [("obj_train_data/0.jpg", "car", 15, 15, 30, 10)],
            [("obj_valid_data/1.jpg", "bus", 15, 15, 30, 10)],
            [("obj_test_data/2.jpg", "car", 15, 15, 30, 10)],
        ]


def test_yolo_poses_are_their_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "source/images/0.jpg")
    write(tmp_path / "source/labels/0.txt", "0 0.5 0.5 0.5 0.25 0.4 0.45 2 0.6 0.55 1\n")
    write(tmp_path / "source/data.yaml", "train: images\nkpt_shape: [2, 3]\nnames: [car]\n")
    convert(tmp_path / "source", "yolo", tmp_path / "out")
    assert rows(tmp_path / "out") == [("0.jpg", "car", 15, 15, 30, 10)]


def test_yolo_names_are_texts(tmp_path: Path) -> None:
    picture(tmp_path / "source/images/0.jpg")
    write(tmp_path / "source/labels/0.txt", "1 0.5 0.5 0.5 0.25\n")
    write(tmp_path / "source/data.yaml", "path:\ntrain: images\nval: null\nnames: {0: no, 1: 1e3, 2: 2024-01-01}\n")
    assert convert(tmp_path / "source", "yolo", tmp_path / "out").categories == ("no", "1e3", "2024-01-01")
    assert [row[1] for row in rows(tmp_path / "out")] == ["1e3"]


def test_a_class_is_the_number_of_its_line(tmp_path: Path) -> None:
    picture(tmp_path / "source/images/0.jpg")
    write(tmp_path / "source/labels/0.txt", "1 0.5 0.5 0.5 0.25\n")
    write(tmp_path / "source/classes.txt", "\ufeffcar\r\nbus\r\n\r\n  \n")
    assert convert(tmp_path / "source", "yolo", tmp_path / "out").categories == ("car", "bus")
    write(tmp_path / "source/classes.txt", "car\n\nbus\n")
    with pytest.raises(InvalidDataset, match=r"classes\.txt: line 2 is blank"):
        convert(tmp_path / "source", "yolo", tmp_path / "again")


def test_labelme_masks_are_the_boxes_of_their_corners(tmp_path: Path) -> None:
    picture(tmp_path / "0.jpg")
    write(tmp_path / "0.json", labelme("0.jpg", ("car", "mask", [[4, 6], [14, 12]])))
    assert convert(tmp_path, "labelme", tmp_path / "out").left_out == {}
    assert rows(tmp_path / "out") == [("0.jpg", "car", 4, 6, 10, 6)]


@pytest.mark.parametrize("gsd", ["nan", "1e999", "-1", "null", ""])
def test_a_gsd_that_is_no_length_is_passed_over(tmp_path: Path, gsd: str) -> None:
    picture(tmp_path / "dota/images/0.png")
    write(tmp_path / "dota/labelTxt/0.txt", f"imagesource:X\ngsd:{gsd}\n1 1 9 1 9 9 1 9 car 0\n")
    convert(tmp_path / "dota", "dota", tmp_path / "out")
    assert "gsd" not in load(tmp_path / "out", "train")["images"][0]


def test_classes_that_no_box_has_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images/0.jpg")
    write(tmp_path / "Annotations/0.xml", voc("0.jpg", *((kind, 1, 2, 9, 8) for kind in ("car", "van"))))
    with pytest.raises(InvalidDataset, match="no box is of bus, tram; there are car, van"):
        convert(tmp_path, "voc", tmp_path / "out", classes=["bus", "tram"])
    assert convert(tmp_path, "voc", tmp_path / "out", classes=["bus", "van"]).boxes == {"train": 1}


PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 500000, 0, -1, 5e6)}


def features(path: Path, *corners: tuple[float, float], crs: str = "EPSG:32633", **options: Any) -> Path:
    """Writes squares of 10 m (or degrees), told by their west and north, with geopandas."""
    import geopandas
    import shapely

    shapes = [shapely.box(x, y - 10, x + 10, y) for x, y in corners]
    frame = geopandas.GeoDataFrame({"class": ["car"] * len(shapes)}, geometry=shapes, crs=crs)
    frame.to_file(path, **options)
    return path


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_geojson_in_metres_without_a_crs_is_said(raster: Any, tmp_path: Path) -> None:
    path = raster("a.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
    source = features(tmp_path / "cars.geojson", (500010, 4999990))
    convert(source, "geojson", tmp_path / "out", rasters=path)
    assert rows(tmp_path / "out") == [("a.tif", "car", 10, 10, 10, 10)]
    content = json.loads(source.read_text())
    del content["crs"]
    write(source, json.dumps(content))
    with pytest.raises(InvalidDataset, match=r"such as 500020, 49999\d0 are no longitude and latitude"):
        convert(source, "geojson", tmp_path / "again", rasters=path)


def test_tables_without_geometry_are_passed_over(raster: Any, tmp_path: Path) -> None:
    # As QGIS keeps the style of a layer.
    import pandas as pd
    import pyogrio

    path = raster("a.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
    source = features(tmp_path / "cars.gpkg", (500010, 4999990), layer="cars")
    pyogrio.write_dataframe(pd.DataFrame({"styleName": ["red"]}), source, layer="layer_styles", append=True)
    convert(source, "geojson", tmp_path / "out", rasters=path)
    assert rows(tmp_path / "out") == [("a.tif", "car", 10, 10, 10, 10)]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_features_outside_every_raster_are_counted(raster: Any, tmp_path: Path) -> None:
    for number in range(2):
        transform = rasterio.Affine(1, 0, 500000 + 60 * number, 0, -1, 5e6)
        raster(f"maps/{number}.tif", np.zeros((3, 40, 60), np.uint8), **{**PLACE, "transform": transform})
    source = features(tmp_path / "cars.gpkg", (500010, 4999990), (500100, 4999990), (500200, 4999990), (1e9, 9e8))
    done = convert(source, "geojson", tmp_path / "out", rasters=tmp_path / "maps")
    assert rows(tmp_path / "out") == [("0.tif", "car", 10, 10, 10, 10), ("1.tif", "car", 40, 10, 10, 10)]
    assert done.left_out == {"features outside every raster": 2}
    near, antipodal = ((500200, 4999990), "EPSG:32633"), ((-165, 10), "EPSG:4326")
    for number, (corner, crs) in enumerate((near, antipodal)):
        source = features(tmp_path / f"far{number}.geojson", corner, crs=crs)
        with pytest.raises(InvalidDataset, match=r"far\d\.geojson: no feature could be .*1 features outside every"):
            convert(source, "geojson", tmp_path / "again", rasters=tmp_path / "maps")
    assert not (tmp_path / "again").exists()


def test_geojson_in_folders_keeps_them_apart(raster: Any, tmp_path: Path) -> None:
    for number, day in enumerate(("day1", "day2")):
        transform = rasterio.Affine(1, 0, 500000 + 100 * number, 0, -1, 5e6)
        raster(f"source/{day}/site.tif", np.zeros((3, 40, 60), np.uint8), **{**PLACE, "transform": transform})
        features(tmp_path / f"source/{day}/site.geojson", (500010 + 100 * number, 4999990))
    features(tmp_path / "source/day1/other.geojson", (500010, 4999990))
    done = convert(tmp_path / "source", "geojson", tmp_path / "out")
    assert rows(tmp_path / "out") == [
        ("day1/site.tif", "car", 10, 10, 10, 10), ("day2/site.tif", "car", 10, 10, 10, 10)
    ]  # fmt: skip
    assert done.left_out == {"vector files without a raster named alike": 1}
    features(tmp_path / "source/day2/site.gpkg", (500010, 4999990))
    with pytest.raises(InvalidDataset, match=r"site\.geojson and site\.gpkg: are both named like .*site\.tif"):
        convert(tmp_path / "source", "geojson", tmp_path / "again")


def test_geojson_and_rasters_in_folders_of_their_own(raster: Any, tmp_path: Path) -> None:
    for name in ("maps/a", "maps/old/b", "b"):
        raster(f"source/{name}.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
    for name in ("a", "b"):
        (tmp_path / "source/labels").mkdir(exist_ok=True)
        features(tmp_path / f"source/labels/{name}.geojson", (500010, 4999990))
    convert(tmp_path / "source", "geojson", tmp_path / "out")
    assert sorted(row[0] for row in rows(tmp_path / "out")) == ["b.tif", "maps/a.tif", "maps/old/b.tif"]


def test_a_vector_file_without_features_means_no_objects(raster: Any, tmp_path: Path) -> None:
    """As `slicedet predict` writes it for an image in which it finds nothing, in any format."""
    for name, suffix in (("a", "geojson"), ("b", "geojson"), ("c", "gpkg")):
        path = raster(f"source/{name}.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
        found = Detections([[10, 10, 20, 20]], [0.9], [0]) if name == "a" else Detections.empty()
        with Scene(path) as scene:
            Prediction(found, ("car",), scene, "none", {}).save(path.with_suffix(f".{suffix}"))
    done = convert(tmp_path / "source", "geojson", tmp_path / "out")
    assert (done.images, done.boxes, done.left_out) == ({"train": 3}, {"train": 1}, {})
    write(tmp_path / "source/b.geojson", '{"type": "FeatureCollection", "features": []}')
    assert convert(tmp_path / "source", "geojson", tmp_path / "again").images == {"train": 3}


@pytest.mark.parametrize("format", ["geojson", "yolo"])
def test_images_are_those_that_batch_takes(raster: Any, tmp_path: Path, format: str) -> None:
    pixels = np.zeros((3, 40, 60), np.uint8)
    names = ("images/a.tif", "images/a.overlay.jpg", "images/a.Overlay.tif", "images/.hidden/b.tif", "images/._a.tif")
    for name in (*names, "images/results/c.tif"):
        raster(f"source/{name}", pixels, driver="JPEG" if name.endswith("jpg") else "GTiff", **PLACE)
    (tmp_path / "source/images/results/.slicedet").mkdir()
    features(tmp_path / "source/cars.geojson", (500010, 4999990))
    write(tmp_path / "source/classes.txt", "car")
    source = tmp_path / ("source/cars.geojson" if format == "geojson" else "source")
    done = convert(source, format, tmp_path / "out")
    assert done.images == {"train": 1}
    assert [item.name for item in Batch(tmp_path / "source", tmp_path / "results").items] == ["images/a.tif"]


def test_geojson_of_a_painted_scene_needs_no_option(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", SceneSettings(width=400, height=300, seed=3))
    convert(tmp_path / "scene.truth.geojson", "geojson", tmp_path / "out", rasters=tmp_path / "scene.tif")
    expected = COCO(tmp_path / "scene.truth.coco.json")
    found = {(kind, *np.rint(box)) for _, kind, *box in rows(tmp_path / "out")}
    assert found
    assert found == {(expected.cats[a["category_id"]]["name"], *a["bbox"]) for a in expected.anns.values()}


def test_labelme_images_are_where_their_path_says(tmp_path: Path) -> None:
    shapes = ("car", "rectangle", [[1, 2], [3, 4]])
    for seed, name in enumerate(("source/images/1.png", "source/json/1.png", "pics/1.png", "elsewhere/deep/3.png")):
        picture(tmp_path / name, seed=seed)
    picture(tmp_path / "source/images/2.png", seed=8)
    for name, path in (("1", "1.png"), ("2", "C:\\photos\\2.png"), ("other", "..\\..\\pics\\1.png")):
        write(tmp_path / f"source/json/{name}.json", labelme(path, shapes))
    write(tmp_path / "source/json/3.json", labelme(str(tmp_path.parent / "3.png"), shapes))
    picture(tmp_path.parent / "3.png", seed=9)
    done = convert(tmp_path / "source", "labelme", tmp_path / "out")
    assert done.left_out == {"images that are not there": 1}
    assert {row[0] for row in rows(tmp_path / "out")} == {"json/1.png", "2.png", "pics/1.png"}
    for name, source in (("json/1.png", "source/json/1.png"), ("pics/1.png", "pics/1.png")):
        assert (tmp_path / "out/images" / name).read_bytes() == (tmp_path / source).read_bytes()


@pytest.mark.parametrize("name", ["", "..", "../../../../../../../../etc/passwd", "a\0.png", "a" * 5000, "/dev/zero"])
def test_labelme_paths_that_lead_nowhere_are_counted(tmp_path: Path, name: str) -> None:
    write(tmp_path / "source/0.json", labelme(name, ("car", "rectangle", [[1, 2], [3, 4]])))
    with pytest.raises(InvalidDataset, match="1 images that are not there"):
        convert(tmp_path / "source", "labelme", tmp_path / "out")


@pytest.mark.parametrize("classes", [["car", ""], ["car", " "], ["car", "bus", "car"]])
def test_classes_without_a_name_or_there_twice_are_refused(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(InvalidSetting, match=r"^classes 'car.*': one of them"):
        convert(tmp_path, "voc", tmp_path / "out", classes=classes)


def test_difficult_objects_are_not_judged(tmp_path: Path) -> None:
    picture(tmp_path / "voc/images/0.jpg")
    text = voc("0.jpg", ("car", 1, 2, 9, 8), ("car", 11, 12, 19, 18))
    write(tmp_path / "voc/Annotations/0.xml", text.replace("</bndbox>", "</bndbox><difficult>1</difficult>", 1))
    picture(tmp_path / "dota/images/0.png")
    lines = ("1 1 9 1 9 9 1 9 car 1", "11 1 19 1 19 9 11 9 car 0", "21 1 29 1 29 9 21 9 car")
    write(tmp_path / "dota/labelTxt/0.txt", "\n".join(lines))
    for format, crowd in (("voc", [1, 0]), ("dota", [1, 0, 0])):
        done = convert(tmp_path / format, format, tmp_path / f"out {format}")
        assert [entry["iscrowd"] for entry in load(tmp_path / f"out {format}", "train")["annotations"]] == crowd
        assert done.crowd == {"train": 1}


def test_virtual_rasters_and_img_files_are_images(raster: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 60), np.uint8)
    raster("source/images/a.img", pixels, driver="HFA", **PLACE)
    part = raster("source/parts/b.tif", pixels, **PLACE)
    rasterio.shutil.copy(part, tmp_path / "source/images/b.vrt", driver="VRT")
    virtual = (tmp_path / "source/images/b.vrt").read_text()
    relative = '<SourceFilename relativeToVRT="1">../parts/b.tif</SourceFilename>'
    write(tmp_path / "source/images/b.vrt", re.sub("<SourceFilename.*</SourceFilename>", relative, virtual))
    for name in ("a", "b"):
        write(tmp_path / f"source/labels/{name}.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path / "source/classes.txt", "car")
    for mode in ("copy", "link"):
        convert(tmp_path / "source", "yolo", tmp_path / mode, image_mode=mode)
        assert [row[0] for row in rows(tmp_path / mode)] == ["a.img", "b.vrt"]
        for name in ("a.img", "b.vrt"):
            with rasterio.open(tmp_path / mode / "images" / name) as dataset:
                assert (dataset.read() == pixels).all()
                assert dataset.transform == PLACE["transform"]


def instances(names: dict[str, int], categories: dict[str, int], box: list[float], **more: Any) -> dict[str, Any]:
    """A COCO document with one box of each category on each image."""
    images = [{"id": i, "file_name": name, "width": 60, "height": 40} for name, i in names.items()]
    annotations = [
        {"id": 10 * i + kind, "image_id": i, "category_id": kind, "bbox": box, "area": 7.5, "iscrowd": 0, **more}
        for i in names.values()
        for kind in categories.values()
    ]
    kinds = [{"id": kind, "name": name, "supercategory": "none"} for name, kind in categories.items()]
    return {"images": images, "annotations": annotations, "categories": kinds, "licenses": ["CC"]}


@pytest.mark.parametrize("place", ["{0}2017", "images/{0}2017", "images"])
def test_coco_as_it_is_published(tmp_path: Path, place: str) -> None:
    root = tmp_path / "source"
    for seed, split in enumerate(("train", "val", "test")):
        picture(root / place.format(split) / f"{seed}.jpg", seed=seed)
        content = instances({f"{seed}.jpg": 7}, {"bus": 9, "car": 4} if seed else {"car": 3, "tram": 90}, [1, 2, 10, 6])
        name = "image_info" if split == "test" else "instances"
        write(root / f"annotations/{name}_{split}2017.json", json.dumps(content))
        write(root / f"annotations/captions_{split}2017.json", json.dumps({**content, "categories": []}))
    done = convert(root, "COCO", tmp_path / "out")
    assert (done.images, done.boxes) == ({"train": 1, "val": 1}, {"train": 2, "val": 2})
    assert (done.categories, done.left_out) == (("car", "tram", "bus"), {})
    folder = "" if place == "images" else "{0}2017/"
    for seed, (split, kinds) in enumerate((("train", ("car", "tram")), ("val", ("car", "bus")))):
        name = folder.format(split) + f"{seed}.jpg"
        assert sorted(rows(tmp_path / "out", split)) == sorted((name, kind, 1, 2, 10, 6) for kind in kinds)
        original = root / place.format(split) / f"{seed}.jpg"
        assert (tmp_path / "out/images" / name).read_bytes() == original.read_bytes()
        assert {entry["area"] for entry in load(tmp_path / "out", split)["annotations"]} == {7.5}
    numbers = [entry["id"] for split in ("train", "val") for entry in load(tmp_path / "out", split)["annotations"]]
    assert numbers == [1, 2, 3, 4]
    assert check(tmp_path / "out").passed
    one = convert(root / "annotations/instances_val2017.json", "coco", tmp_path / "one", image_mode="link")
    assert (one.images, one.categories) == ({"val": 1}, ("car", "bus"))


def test_coco_as_roboflow_exports_it(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / "source" / split / "a.jpg", seed=seed)
        content = instances({"a.jpg": 0}, {"car": 1}, [1, 2, 10, 6], **({"iscrowd": 1} if split == "test" else {}))
        write(tmp_path / "source" / split / "_annotations.coco.json", json.dumps(content))
    done = convert(tmp_path / "source", "coco", tmp_path / "out")
    assert done.images == {"train": 1, "val": 1, "test": 1}
    assert done.crowd == {"train": 0, "val": 0, "test": 1}
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert rows(tmp_path / "out", split) == [(f"{folder}/a.jpg", "car", 1, 2, 10, 6)]
        original = tmp_path / "source" / folder / "a.jpg"
        assert (tmp_path / "out/images" / folder / "a.jpg").read_bytes() == original.read_bytes()
    assert [part.split.name for part in check(tmp_path / "out").splits] == ["train", "val", "test"]


def test_coco_with_faults_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    picture(tmp_path / "source/a.jpg")
    content = instances({"a.jpg": 1, "C:\\photos\\..\\..": 2, "../../b.jpg": 3}, {"car": 1}, [1, 2, 10, 6])
    boxes = ([1, 2, 10, 0], [float("nan"), 2, 3, 4], [50, 30, 30, 30])
    for number, box in enumerate(boxes):
        entry = {"id": 90 + number, "image_id": 1, "category_id": 1, "bbox": box, "area": 50.0}
        content["annotations"].append(entry)
    content["annotations"].append({"id": 99, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]})
    source = write(tmp_path / "source/mine.json", json.dumps(content))
    done = convert(source, "coco", tmp_path / "out")
    assert rows(tmp_path / "out") == [("a.jpg", "car", 1, 2, 10, 6), ("a.jpg", "car", 50, 30, 10, 10)]
    assert [entry["area"] for entry in load(tmp_path / "out", "train")["annotations"]] == [7.5, 5.556]
    assert sorted(done.left_out.values()) == [1, 1, 1, 1, 1]
    assert done.left_out["images that are not there"] == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no COCO file"),
        ({"mine.json": "{}"}, "mine.json: holds no images or no categories"),
        ({"mine.json": "[]"}, "mine.json: "),
        ({"train/_annotations.coco.json": "{"}, "_annotations.coco.json: is not valid JSON"),
        (
            {"mine.json": '{"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]}'},
            "holds no images or no cat",
        ),
    ],
)
def test_what_is_no_coco_is_said(tmp_path: Path, files: dict[str, str], said: str) -> None:
    (tmp_path / "source").mkdir()
    for name, text in files.items():
        write(tmp_path / "source" / name, text)
    with pytest.raises(InvalidDataset, match=said):
        convert(tmp_path / "source", "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_formats_and_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="expected one of voc"):
        convert(tmp_path, "kitti", tmp_path / "out")
    with pytest.raises(InvalidSetting, match="expected copy or link"):
        convert(tmp_path, "voc", tmp_path / "out", image_mode="move")


def test_files_that_an_image_only_names_are_not_copied(tmp_path: Path) -> None:
    key = write(tmp_path / "keys/id_rsa", "secret")
    write(
        tmp_path / "source/images/id.tif",
        f"""<VRTDataset rasterXSize="2" rasterYSize="1">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{key}</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>
<LineOffset>2</LineOffset></VRTRasterBand></VRTDataset>""",
    )
    place_image(tmp_path / "source/images/id.tif", tmp_path / "placed/id.tif", "copy")
    assert [path.name for path in (tmp_path / "placed").iterdir()] == ["id.tif"]


def test_only_side_files_of_the_own_folder_are_taken(raster: Any, tmp_path: Path) -> None:
    path = raster("images/a.tif", np.zeros((3, 40, 60), np.uint8))
    for name in ("a.tfw", "a.tif.aux.xml", "a.tab", "a.txt", "a.tif.key"):
        write(path.with_name(name), "1\n0\n0\n-1\n0\n0\n" if name == "a.tfw" else "<PAMDataset></PAMDataset>")
    place_image(path, tmp_path / "placed/b.tif", "copy")
    assert {"b.tif", "b.tfw"} <= {found.name for found in (tmp_path / "placed").iterdir()} <= {
        "b.tif", "b.tfw", "b.tif.aux.xml", "b.tab"
    }  # fmt: skip


def drawn(path: Path, *things: tuple[Any, Any]) -> Path:
    """A GeoJSON of polygons by their rings, in metres, with their class."""
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    listed = [
        {"type": "Feature", "properties": {"class": name}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for name, ring in things
    ]
    return write(path, json.dumps({"type": "FeatureCollection", "crs": crs, "features": listed}))


RING = [[500010, 4999980], [500020, 4999980], [500020, 4999990], [500010, 4999990]]


@pytest.mark.filterwarnings("error")
def test_open_rings_are_closed_and_rings_of_a_point_counted(raster: Any, tmp_path: Path) -> None:
    path = raster("a.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
    source = drawn(tmp_path / "roofs.geojson", ("roof", RING), ("roof", RING[:1]))
    done = convert(source, "geojson", tmp_path / "out", rasters=path)
    assert rows(tmp_path / "out") == [("a.tif", "roof", 10, 10, 10, 10)]
    assert done.left_out == {"features whose shape cannot be read": 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (["roof", "tile"], r"roofs\.geojson: feature number 1: its 'class' is \['roof' 'tile'\], not one class"),
        ("", r"roofs\.geojson: 1 features have no 'class'; --class-name gives them one"),
        ("  ", r"roofs\.geojson: 1 features have no 'class'"),
    ],
)
def test_classes_that_name_none_are_said(raster: Any, tmp_path: Path, name: Any, said: str) -> None:
    path = raster("a.tif", np.zeros((3, 40, 60), np.uint8), **PLACE)
    source = drawn(tmp_path / "roofs.geojson", (name, [*RING, RING[0]]))
    with pytest.raises(InvalidDataset, match=said):
        convert(source, "geojson", tmp_path / "out", rasters=path)


@pytest.mark.parametrize(
    ("label", "number", "said"), [("car", int("9" * 400), "points of two numbers"), ("\ud800", 3, "names no class")]
)
def test_labelme_shapes_beyond_numbers_and_letters(tmp_path: Path, label: str, number: int, said: str) -> None:
    picture(tmp_path / "source/0.jpg")
    write(tmp_path / "source/0.json", labelme("0.jpg", (label, "rectangle", [[1, 2], [number, 4]])))
    with pytest.raises(InvalidDataset, match=rf"0\.json: .*{said}"):
        convert(tmp_path / "source", "labelme", tmp_path / "out")


@pytest.mark.parametrize(
    ("format", "name", "text", "said"),
    [
        ("labelme", "train_anno_list.txt", "n" * 300 + ".json", r"train_anno_list\.txt: lists "),
        ("voc", "ImageSets/Main/train.txt", "n" * 300, r"train\.txt: lists "),
        ("yolo", "data.yaml", "names: [car]\ntrain: " + "n" * 300, r"data\.yaml: names n+, which is not there"),
        ("yolo", "data.yaml", "names: [car]\ntrain: [data.txt]", "1 images that are not there"),
        ("yolo", "data.yaml", 'names: ["\\ud800"]\ntrain: [data.txt]', "needs names"),
    ],
)
def test_names_that_no_file_can_have_are_said(tmp_path: Path, format: str, name: str, text: str, said: str) -> None:
    write(tmp_path / "source" / name, text)
    write(tmp_path / "source/data.txt", "n" * 300 + ".png")
    with pytest.raises(InvalidDataset, match=said):
        convert(tmp_path / "source", format, tmp_path / "out")
