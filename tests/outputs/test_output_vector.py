"""GeoPackage, FlatGeobuf and GeoParquet, read back with GDAL and pyarrow; QGIS styles."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as xml

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from affine import Affine

from slicedet.errors import NotGeoreferenced
from slicedet.outputs.palette import COLOURS
from slicedet.prediction import Prediction
from slicedet.raster.scene import Scene

BOXES = [[10, 20, 30, 45], [100.25, 50.5, 112.75, 61], [0, 0, 300, 200], [299, 199, 300, 200]]
TYPES = ["int32", "text", "int32", *["float64"] * 8, "text", "text"]
MakeScene = Callable[..., Scene]
MakePrediction = Callable[..., Prediction]

formats = pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])


def read(path: Path) -> geopandas.GeoDataFrame:
    """The only layer of a file, by id, without any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = geopandas.read_parquet(path) if path.suffix == ".parquet" else pyogrio.read_dataframe(path)
    return frame.sort_values("id", ignore_index=True)


@formats
def test_corners_lie_on_pixel_edges(
    suffix: str, grid: tuple[Affine, str], make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    transform, crs = grid
    make_prediction(make_scene(transform=transform, crs=crs), BOXES).save(tmp_path / f"out{suffix}")
    frame = read(tmp_path / f"out{suffix}")
    assert frame.crs == crs
    tolerance = 1e-9 if crs == "EPSG:4326" else 1e-3
    for polygon, (x1, y1, x2, y2) in zip(frame.geometry, BOXES, strict=True):
        expected = [transform @ corner for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
        assert polygon.normalize().equals_exact(shapely.Polygon(expected).normalize(), tolerance)
        assert polygon.exterior.is_ccw


@formats
@pytest.mark.parametrize("boxes", [BOXES, []], ids=["some", "none"])
def test_columns_and_types(
    suffix: str,
    boxes: list[list[float]],
    columns: list[str],
    make_scene: MakeScene,
    make_prediction: MakePrediction,
    tmp_path: Path,
) -> None:
    scene = make_scene("ein Bild.tif", transform=Affine(0.5, 0, 400000, 0, -0.5, 5e6), crs="EPSG:32633")
    make_prediction(scene, boxes).save(tmp_path / f"ä b{suffix}")
    frame = read(tmp_path / f"ä b{suffix}")
    assert list(frame.columns) == [*columns, "geometry"]
    types = ["text" if str(kind) in ("str", "object", "string") else str(kind) for kind in frame.dtypes[columns]]
    assert types == TYPES
    assert frame.crs.to_epsg() == 32633
    assert len(frame) == len(boxes)
    if boxes:
        assert frame["class"].tolist() == ["car", 'truck, "big"', "Straßen & <Bahn>", "l'été"]
        assert frame["score"].tolist() == [0.9, 0.7, 0.5, 0.3]
        assert frame["source"].unique().tolist() == ["ein Bild.tif"]
    if suffix == ".parquet":
        schema = pyarrow.parquet.read_schema(tmp_path / "ä b.parquet")
        assert {str(schema.field(name).type).removeprefix("large_") for name in ("class", "source")} == {"string"}
    else:
        info = pyogrio.read_info(tmp_path / f"ä b{suffix}")
        assert info["geometry_type"] == "Polygon"
        assert [str(kind) for kind in info["dtypes"]] == [kind.replace("text", "object") for kind in TYPES]
        assert pyogrio.list_layers(tmp_path / f"ä b{suffix}").tolist() == [[info["layer_name"], "Polygon"]]


@formats
def test_map_coordinates_without_crs(
    suffix: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    scene = make_scene(transform=Affine(17, 5, 100, 10, -9, 200))
    make_prediction(scene, BOXES).save(tmp_path / f"out{suffix}")
    frame = read(tmp_path / f"out{suffix}")
    assert frame.crs is None
    assert frame[["area_m2", "width_m", "height_m"]].isna().all(axis=None)
    assert np.allclose(frame.geometry[2].bounds, (100, -1600, 6200, 3200))


def test_geoparquet_metadata(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(transform=Affine(1, 0, 0, 0, -1, 0))
    make_prediction(scene, BOXES).save(tmp_path / "out.parquet")
    geo = json.loads(pyarrow.parquet.read_metadata(tmp_path / "out.parquet").metadata[b"geo"])
    # Absent would mean longitude and latitude; null means unknown.
    assert geo["columns"]["geometry"]["crs"] is None
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert geo["columns"]["geometry"]["bbox"] == read(tmp_path / "out.parquet").total_bounds.tolist()


def test_gpkg_is_a_sound_database(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    scene = make_scene(transform=Affine(1, 0, 0, 0, -1, 0), crs="EPSG:32633")
    make_prediction(scene, BOXES).save(tmp_path / "out.gpkg")
    database = sqlite3.connect(tmp_path / "out.gpkg")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall() == [
        ("detections", "features")
    ]
    # No date of today, so that files can be compared.
    assert database.execute("SELECT last_change FROM gpkg_contents").fetchall() == [("1970-01-01T00:00:00.000Z",)]
    database.close()


def test_to_geopandas(make_scene: MakeScene, make_prediction: MakePrediction) -> None:
    frame = make_prediction(make_scene(transform=Affine(1, 0, 5, 0, -1, 9), crs="EPSG:32633"), BOXES).to_geopandas()
    assert frame.crs.to_epsg() == 32633
    assert frame.geometry[0].bounds == (15, -36, 35, -11)
    with pytest.raises(NotGeoreferenced, match=r"photo\.tif"):
        make_prediction(make_scene("photo.tif"), BOXES).to_geopandas()


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb", ".parquet"])
def test_style_names_each_class_found(
    suffix: str, make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path
) -> None:
    scene = make_scene(transform=Affine(1, 0, 5, 0, -1, 9), crs="EPSG:32633")
    written = make_prediction(scene, BOXES[:3]).save(tmp_path / f"out{suffix}")
    assert written == [tmp_path / f"out{suffix}", tmp_path / "out.qml"]
    root = xml.parse(tmp_path / "out.qml").getroot()
    assert root.tag == "qgis"
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    symbols = {symbol.get("name"): symbol for symbol in renderer.iterfind("symbols/symbol")}
    colours = {}
    for category in renderer.iterfind("categories/category"):
        layer = symbols[category.get("symbol")].find("layer")
        assert layer is not None
        assert layer.get("class") == "SimpleLine"
        line = layer.find("Option/Option[@name='line_color']")
        assert line is not None
        colours[category.get("value")] = line.get("value")
    names = ["car", 'truck, "big"', "Straßen & <Bahn>"]
    expected = {name: ",".join(map(str, (*rgb, 255))) for name, rgb in zip(names, COLOURS, strict=False)}
    assert colours == {**expected, "": "255,255,255,255"}
    text = root.find("labeling/settings/text-style")
    assert text is not None
    assert '"class"' in str(text.get("fieldName"))


def test_a_style_of_the_users_own_stays(make_scene: MakeScene, make_prediction: MakePrediction, tmp_path: Path) -> None:
    prediction = make_prediction(make_scene(transform=Affine(1, 0, 5, 0, -1, 9), crs="EPSG:32633"), BOXES)
    (tmp_path / "out.qml").write_text("mine")
    assert prediction.save(tmp_path / "out.gpkg") == [tmp_path / "out.gpkg"]
    assert (tmp_path / "out.qml").read_text() == "mine"
    prediction.save(tmp_path / "out.gpkg", overwrite=True)
    assert (tmp_path / "out.qml").read_text().startswith("<!DOCTYPE qgis")
