"""Annotations of other formats to COCO: values known beforehand, real photos written and read back, hostile files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
from dataset_files import load, picture
from pycocotools.coco import COCO

from slicedet.datasets import coco
from slicedet.datasets.convert import convert
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
    done = convert(tmp_path / "source", format, tmp_path / "out", images="link")
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
    with pytest.raises(InvalidDataset, match="no property 'class' but kind"):
        convert(source, "geojson", tmp_path / "out")
    done = convert(source, "geojson", tmp_path / "out", class_property="kind", class_name="other")
    assert rows(tmp_path / "out") == [("a.tif", "roof", 10, 10, 10, 10)]
    assert done.images == {"train": 2}
    assert done.left_out == {"features without a size": 2}


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
        ("voc", {"train_anno_list.txt": "a/b.xml"}, "lists a/b.xml, which is not in"),
        ("labelme", {"0.json": "[]"}, "0.json: is no LabelMe file"),
        ("labelme", {"0.json": labelme("0.jpg", ("car", "rectangle", [[1]]))}, "points of two numbers"),
        ("yolo", {}, "needs data.yaml or classes.txt"),
        ("yolo", {"data.yaml": "!!python/object/apply:os.system [ls]"}, "data.yaml: is no data.yaml"),
        ("yolo", {"data.yaml": "names: [car]\ntrain: nowhere"}, "names nowhere, which is not there"),
        ("yolo", {"data.yaml": "train: images"}, "needs names"),
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


def test_unknown_formats_and_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="expected one of voc"):
        convert(tmp_path, "kitti", tmp_path / "out")
    with pytest.raises(InvalidSetting, match="expected copy or link"):
        convert(tmp_path, "voc", tmp_path / "out", images="move")
