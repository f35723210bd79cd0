"""GeoJSON files against RFC 7946, checked with the json module, pyproj and shapely, and read with GDAL."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from slicedet.errors import UntransformableCRS
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

BOXES = [[10, 20, 30, 45], [100.25, 50.5, 112.75, 61], [0, 0, 300, 200], [299, 199, 300, 200]]
MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]


def write(prediction: Prediction, path: Path) -> dict[str, Any]:
    """The file, after checking all that RFC 7946 asks of every file."""
    prediction.save(path)
    text = path.read_text("utf-8")
    collection: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert collection["type"] == "FeatureCollection"
    assert "crs" not in collection
    coordinates = re.findall(r'"(?:bbox|coordinates)":([-\[\]0-9.,e]+)', text)
    assert not re.search(r"\.\d{8,}", "".join(coordinates))
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        points = []
        for ring in rings_of(feature):
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert shapely.is_ccw(shapely.LinearRing(ring))
            points += ring
        lons, lats = zip(*points, strict=True)
        assert -180 <= min(lons) <= max(lons) <= 180
        assert -90 <= min(lats) <= max(lats) <= 90
        west, south, east, north = feature["bbox"]
        assert (south, north) == (min(lats), max(lats))
        if feature["geometry"]["type"] == "Polygon":
            assert (west, east) == (min(lons), max(lons))
        else:
            assert west > east
    return collection


def rings_of(feature: dict[str, Any]) -> list[list[list[float]]]:
    geometry = feature["geometry"]
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    assert all(len(polygon) == 1 for polygon in polygons)
    return [polygon[0] for polygon in polygons]


def test_corners_lie_where_pyproj_puts_the_pixel_edges(
    grid: tuple[Affine, str], make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    transform, crs = grid
    prediction = make_prediction(make_scene(transform=transform, crs=crs), BOXES)
    features = write(prediction, tmp_path / "out.geojson")["features"]
    to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    for feature, (x1, y1, x2, y2) in zip(features, BOXES, strict=True):
        corners = [
            to_lonlat.transform(
                transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f
            )
            for x, y in ((x1, y1), (x1, y2), (x2, y1), (x2, y2))
        ]
        written = [point for ring in rings_of(feature) for point in ring]
        for corner in corners:
            assert min(math.dist(corner, point) for point in written) < 1e-7


def test_properties_and_order(
    columns: list[str], make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    scene = make_scene("mit Leer & Umlaut ü.tif", transform=Affine(0.5, 0, 400000, 0, -0.5, 5e6), crs="EPSG:32633")
    collection = write(make_prediction(scene, BOXES), tmp_path / "naïve name.geojson")
    for number, feature in enumerate(collection["features"], 1):
        assert list(feature["properties"]) == columns
        assert feature["id"] == feature["properties"]["id"] == number
    first = collection["features"][1]["properties"]
    assert (first["class"], first["class_id"], first["score"]) == ('truck, "big"', 1, 0.7)
    assert [first[name] for name in ("x_min", "y_min", "x_max", "y_max")] == [100.25, 50.5, 112.75, 61.0]
    assert (first["source"], first["model"]) == ("mit Leer & Umlaut ü.tif", "picodet_s_416_coco")
    assert isinstance(first["class_id"], int)
    frame = pyogrio.read_dataframe(tmp_path / "naïve name.geojson")
    assert frame.crs.to_epsg() == 4326
    assert list(frame.columns) == [*columns, "geometry"]
    assert [frame[name].dtype.kind for name in ("id", "class_id", "score", "area_m2")] == ["i", "i", "f", "f"]


def test_no_detections(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(transform=Affine(0.5, 0, 400000, 0, -0.5, 5e6), crs="EPSG:32633")
    collection = write(make_prediction(scene, []), tmp_path / "out.geojson")
    assert collection == {"type": "FeatureCollection", "features": []}
    assert len(pyogrio.read_dataframe(tmp_path / "out.geojson")) == 0


def test_split_at_the_antimeridian(shared: Path, make_prediction: MakePrediction, tmp_path: Path) -> None:
    with Scene(shared / "geotiff" / "dateline.tif") as scene:
        # 180 degrees runs through columns 1250 to 1350.
        boxes = [[100, 100, 140, 150], [1200, 1000, 1500, 1020], [2000, 2000, 2040, 2050]]
        features = write(make_prediction(scene, boxes), tmp_path / "out.geojson")["features"]
    assert [feature["geometry"]["type"] for feature in features] == ["Polygon", "MultiPolygon", "Polygon"]
    west, east = (np.array(ring) for ring in rings_of(features[1]))
    assert west[:, 0].max() == 180
    assert east[:, 0].min() == -180
    assert features[1]["bbox"][::2] == [west[:, 0].min(), east[:, 0].max()]
    # The parts meet on the meridian.
    assert set(west[west[:, 0] == 180, 1]) == set(east[east[:, 0] == -180, 1])


def degrees(west: float, north: float, pixel: float = 1.0) -> dict[str, Any]:
    return {"transform": Affine(pixel, 0, west, 0, -pixel, north), "crs": "EPSG:4326"}


def test_bbox_of_boxes_on_both_sides_of_the_antimeridian(
    make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    scene = make_scene(**degrees(177, -16, 0.1))
    boxes = [[0, 0, 10, 10], [40, 30, 50, 40]]
    collection = write(make_prediction(scene, boxes), tmp_path / "fiji.geojson")
    assert collection["bbox"] == [177.0, -20.0, -178.0, -16.0]
    assert [feature["bbox"][0] for feature in collection["features"]] == [177.0, -179.0]


@pytest.mark.parametrize(
    ("west", "boxes", "bbox"),
    [
        (0, [[190, 10, 191, 12]], [-170.0, 78.0, -169.0, 80.0]),
        (0, [[170, 10, 180, 12]], [170.0, 78.0, 180.0, 80.0]),
        (0, [[180, 10, 185, 12]], [-180.0, 78.0, -175.0, 80.0]),
        (-180, [[0, 10, 299, 12]], [-180.0, 78.0, 119.0, 80.0]),
        (-180, [[0, 10, 5, 12], [290, 0, 300, 1]], [110.0, 78.0, -175.0, 90.0]),
        (-20, [[0, 10, 10, 12], [290, 10, 300, 12]], [-90.0, 78.0, -10.0, 80.0]),
        (-20, [[0, 10, 160, 12], [150, 10, 300, 12]], [-20.0, 78.0, -80.0, 80.0]),
    ],
)
def test_longitudes_beyond_180(
    west: float,
    boxes: list[list[float]],
    bbox: list[float],
    make_scene: MakeScene,
    make_prediction: MakePrediction,
    tmp_path: Path,
) -> None:
    scene = make_scene(width=310, height=90, **degrees(west, 90))
    collection = write(make_prediction(scene, boxes), tmp_path / "out.geojson")
    assert collection["bbox"] == bbox
    area = sum(shapely.Polygon(ring).area for feature in collection["features"] for ring in rings_of(feature))
    assert area == pytest.approx(sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes))


def test_around_the_whole_earth(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(width=360, height=180, **degrees(-180, 90))
    collection = write(make_prediction(scene, [[0, 0, 360, 180]]), tmp_path / "out.geojson")
    assert collection["bbox"] == collection["features"][0]["bbox"] == [-180.0, -90.0, 180.0, 90.0]


def test_around_a_pole(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(transform=Affine(1000, 0, -150e3, 0, -1000, 100e3), crs="EPSG:3031")
    prediction = make_prediction(scene, [[130, 80, 165, 120]])
    prediction.save(tmp_path / "out.geojson")
    feature = json.loads((tmp_path / "out.geojson").read_text())["features"][0]
    assert feature["bbox"][:3] == [-180.0, -90.0, 180.0]
    rings = rings_of(feature)
    assert all(shapely.is_ccw(shapely.LinearRing(ring)) for ring in rings)
    assert max(abs(lon) for ring in rings for lon, _ in ring) == 180
    # From every side of the pole, a point inside the box lies inside one of the parts.
    to_lonlat = Transformer.from_crs("EPSG:3031", "EPSG:4326", always_xy=True)
    parts = shapely.union_all([shapely.Polygon(ring) for ring in rings])
    for x, y in ((10e3, 15e3), (-15e3, 10e3), (-15e3, -15e3), (10e3, -10e3)):
        assert parts.covers(shapely.Point(to_lonlat.transform(x, y)))


def test_corners_off_the_earth(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    """A satellite's full disk has no longitude and latitude in its corners."""
    scene = make_scene(
        transform=Affine(40e3, 0, -6e6, 0, -60e3, 6e6), crs="+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80"
    )
    write(make_prediction(scene, [[140, 90, 160, 110]]), tmp_path / "inside.geojson")
    with pytest.raises(UntransformableCRS, match=r"1 of the first 2 boxes .* write \.gpkg"):
        make_prediction(scene, [[140, 90, 160, 110], [0, 0, 5, 5]]).save(tmp_path / "outside.geojson")
    assert [path.name for path in tmp_path.glob("outside*")] == []
