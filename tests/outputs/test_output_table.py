"""The shared columns: sizes against pyproj's geodesics, and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from pyproj import Geod, Transformer

from slicedet.outputs.table import table
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]


def table_of(prediction: Prediction) -> dict[str, Any]:
    return table(prediction.layer, prediction.detections)


@pytest.mark.parametrize("size", [4, 40, 130])
def test_sizes_agree_with_geodesics(
    size: float, grid: tuple[Affine, str], make_scene: MakeScene, make_prediction: MakePrediction
) -> None:
    transform, crs = grid
    x, y = 100.0, 60.0
    prediction = make_prediction(make_scene(transform=transform, crs=crs), [[x, y, x + size, y + size]])
    to_lonlat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    corners = [transform @ corner for corner in ((x, y), (x + size, y), (x + size, y + size), (x, y + size))]
    lons, lats = to_lonlat.transform(*zip(*corners, strict=True))
    geod = Geod(ellps="WGS84")
    columns = table_of(prediction)
    assert columns["area_m2"][0] == pytest.approx(abs(geod.polygon_area_perimeter(lons, lats)[0]), rel=1e-3)
    sides = [geod.inv(lons[i], lats[i], lons[i - 1], lats[i - 1])[2] for i in range(4)]
    assert columns["width_m"][0] == pytest.approx((sides[1] + sides[3]) / 2, rel=1e-3)
    assert columns["height_m"][0] == pytest.approx((sides[0] + sides[2]) / 2, rel=1e-3)


def test_sizes_of_tiny_objects(make_scene: MakeScene, make_prediction: MakePrediction) -> None:
    """Seeds of half a millimetre, photographed in a greenhouse."""
    scene = make_scene(transform=Affine(1e-4, 0, 500000, 0, -1e-4, 5e6), crs="EPSG:32633")
    columns = table_of(make_prediction(scene, [[10, 10, 15, 17]]))
    # The scale of UTM on its central meridian is 0.9996.
    assert columns["width_m"][0] == pytest.approx(5e-4 / 0.9996, rel=1e-3)
    assert columns["area_m2"][0] == pytest.approx(35e-8 / 0.9996**2, rel=1e-3)


def test_sizes_are_unknown_without_georeference(make_scene: MakeScene, make_prediction: MakePrediction) -> None:
    columns = table_of(make_prediction(make_scene(), [[10, 10, 15, 17]]))
    assert np.isnan([columns[name][0] for name in ("area_m2", "width_m", "height_m")]).all()


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv(columns: list[str], make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene("ein, Bild.tif", transform=Affine(0.5, 0, 400000, 0, -0.5, 5e6), crs="EPSG:32633")
    prediction = make_prediction(scene, [[10, 20, 30, 45], [100.25, 50.5, 112.75, 61], [1, 2, 3, 4], [5, 6, 7, 8]])
    assert prediction.save(tmp_path / "out.csv") == [tmp_path / "out.csv"]
    rows = read(tmp_path / "out.csv")
    assert list(rows[0]) == [*columns, "lon", "lat"]
    assert [row["class"] for row in rows] == ["car", 'truck, "big"', "Straßen & <Bahn>", "l'été"]
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["source"] for row in rows} == {"ein, Bild.tif"}
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(400010, 5e6 - 16.25)
    assert (float(rows[0]["lon"]), float(rows[0]["lat"])) == pytest.approx((lon, lat), abs=1e-7)


def test_csv_of_a_photo(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    make_prediction(make_scene(), [[10, 20, 30, 45]]).save(tmp_path / "out.csv")
    (row,) = read(tmp_path / "out.csv")
    assert [row[name] for name in ("area_m2", "width_m", "height_m", "lon", "lat")] == [""] * 5
    assert [row[name] for name in ("x_min", "y_min", "x_max", "y_max")] == ["10.0", "20.0", "30.0", "45.0"]


def test_csv_without_detections(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    make_prediction(make_scene(), []).save(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("id,class,class_id,score,")
    assert read(tmp_path / "out.csv") == []


def test_csv_longitudes_beyond_180(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(transform=Affine(1, 0, 0, 0, -1, 90), crs="EPSG:4326")
    make_prediction(scene, [[190, 10, 192, 12], [170, 10, 172, 12]]).save(tmp_path / "out.csv")
    assert [row["lon"] for row in read(tmp_path / "out.csv")] == ["-169.0", "171.0"]
