"""Region of interest: any vector file in any CRS; tiles and centres are checked pixel by pixel."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pandas
import pyproj
import pytest
import shapely
from affine import Affine
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from slicedet import Scene
from slicedet.errors import InvalidRegion, NotGeoreferenced, SlicedetError
from slicedet.raster.region import Region
from slicedet.tiling import TileGrid

WIDTH, HEIGHT = 200, 150
# Turned by 45 degrees, in numbers that floats hold exactly.
PLACE = {"crs": "EPSG:32633", "transform": Affine(2, 2, 400000, 2, -2, 5000000)}


@pytest.fixture
def scene(raster):
    with Scene(raster("scene.tif", np.zeros((HEIGHT, WIDTH), np.uint8), **PLACE)) as opened:
        yield opened


@pytest.fixture
def vector(tmp_path):
    """Writes geometries given in pixels of the scene, in a CRS of choice."""

    def write(name: str, shapes: list, crs: str | None = "EPSG:32633", layer: str | None = None):
        to_map = PLACE["transform"]
        on_map = [shapely.transform(s, lambda p: np.stack(to_map @ (p[:, 0], p[:, 1]), -1)) for s in shapes]
        frame = geopandas.GeoDataFrame({"name": ["a"] * len(shapes)}, geometry=on_map, crs="EPSG:32633")
        frame = frame.to_crs(crs) if crs else frame.set_crs(None, allow_override=True)
        frame.to_file(tmp_path / name, **({"layer": layer} if layer else {}))
        return tmp_path / name

    return write


SHAPES = {
    "one": [Polygon([(20.2, 10.1), (120.3, 30.7), (90.6, 140.4), (40.9, 90.3)])],
    "hole": [box(10, 10, 150, 140).difference(box(50, 50, 100, 100))],
    "multi": [MultiPolygon([box(5, 5, 30, 30), box(150, 100, 180, 140)])],
    "two features": [box(5, 5, 30, 30), box(150, 100, 180, 140)],
    "overlapping": [box(20, 20, 80, 80), box(50, 50, 120, 120)],
    "beyond the edge": [box(-500, 60, 90, 900)],
    "all around": [box(-500, -500, 900, 900)],
    "bow tie": [Polygon([(20.1, 20.3), (120.7, 120), (120.2, 20.9), (20, 120.6)])],
    "with points and lines": [box(20, 20, 80, 80), Point(150, 120), LineString([(100, 0), (100, 149)])],
}


def pixels_inside(shapes: list) -> np.ndarray:
    """Which pixel centres [H, W] lie in any of the polygons, in pixel coordinates."""
    polygons = [shapely.make_valid(s) for s in shapes if s.geom_type.endswith("Polygon")]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return np.any([shapely.contains_xy(polygon, x, y) for polygon in polygons], axis=0)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:3035"])
@pytest.mark.parametrize("name", SHAPES)
def test_centres_are_held_as_the_polygons_say(scene, vector, name, crs):
    expected = pixels_inside(SHAPES[name])
    region = Region(vector("roi.gpkg", SHAPES[name], crs), scene)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].reshape(2, -1)
    # Boxes of different sizes around the same centre: the middle of the pixel.
    half = 0.5 + (x + y) % 7
    boxes = np.stack([x + 0.5 - half, y + 0.5 - half, x + 0.5 + half, y + 0.5 + half], -1).astype(np.float32)
    held = region.holds(boxes).reshape(HEIGHT, WIDTH)
    # A millimetre of reprojection may tip centres that lie on the edge itself.
    assert np.count_nonzero(held != expected) <= (0 if crs == "EPSG:32633" else 4)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("overlap", [0, "9px"])
def test_tiles_touch_the_region_where_they_share_area_with_it(scene, vector, name, overlap):
    shapes = [shapely.make_valid(s) for s in SHAPES[name] if s.geom_type.endswith("Polygon")]
    region = Region(vector("roi.gpkg", SHAPES[name], "EPSG:32633"), scene)
    for tile in TileGrid.cover(WIDTH, HEIGHT, 40, overlap):
        shared = shapely.union_all(shapes).intersection(box(tile.x, tile.y, tile.x + 40, tile.y + 40)).area
        assert region.touches(tile) == (shared > 0), tile


def test_edges_are_straight_in_the_files_own_crs(raster, tmp_path):
    """A parallel of 60 degrees bulges by kilometres in UTM: pixels either side of it are told apart."""
    place = Affine(500, 0, 300000, 0, -500, 6700000)
    path = raster("wide.tif", np.zeros((200, 800), np.uint8), crs="EPSG:32633", transform=place)
    roi = tmp_path / "north.geojson"
    ring = [[11.0, 60.0], [19.0, 60.0], [19.0, 62.0], [11.0, 62.0], [11.0, 60.0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    roi.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    y, x = np.mgrid[0:200:5, 0:800:5].reshape(2, -1) + 0.5
    to_wgs84 = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = to_wgs84.transform(*(place @ (x, y)))
    expected = (lon > 11) & (lon < 19) & (lat > 60) & (lat < 62)
    with Scene(path) as scene:
        held = Region(roi, scene).holds(np.stack([x - 1, y - 1, x + 1, y + 1], -1))
    assert 0.2 < expected.mean() < 0.8
    assert np.mean(held != expected) < 0.002


def test_region_may_reach_far_beyond_what_the_scenes_crs_can_hold(scene, tmp_path):
    world = {"type": "Polygon", "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]]}
    roi = tmp_path / "world.geojson"
    roi.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": world}))
    assert Region(roi, scene).geometry.area == pytest.approx(WIDTH * HEIGHT)


@pytest.mark.parametrize("west", [200, -160, 179.8, -180.2], ids=str)
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:4269"])
def test_longitudes_may_count_from_0_or_from_180(raster, tmp_path, west, crs):
    at = Affine(0.002, 0, west, 0, -0.002, 10)
    path = raster("turned.tif", np.ones((HEIGHT, WIDTH), np.uint8), crs="EPSG:4326", transform=at)
    corner = (west + 180) % 360 - 180
    shape = box(corner + 0.1, 9.8, corner + 0.15, 9.9)
    frame = geopandas.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_crs(crs)
    frame.to_file(tmp_path / "area.gpkg")
    with Scene(path) as scene:
        region = Region(tmp_path / "area.gpkg", scene)
    assert shapely.bounds(region.geometry) == pytest.approx([50, 50, 75, 100], abs=0.1)


@pytest.mark.parametrize("name", ["roi.geojson", "roi.shp", "roi.fgb", "roi.gpkg", "roi.kml"])
def test_any_vector_format(scene, vector, name):
    crs = "EPSG:4326" if name.endswith(("geojson", "kml")) else "EPSG:32633"
    region = Region(vector(name, SHAPES["one"], crs), scene)
    assert region.geometry.area == pytest.approx(SHAPES["one"][0].area, rel=1e-3)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_geoparquet(scene, vector, tmp_path, crs):
    shapes = SHAPES["with points and lines"]
    geopandas.read_file(vector("roi.gpkg", shapes, crs)).to_parquet(tmp_path / "roi.parquet")
    region = Region(tmp_path / "roi.parquet", scene)
    assert region.geometry.area == pytest.approx(3600, rel=1e-3)


@pytest.mark.parametrize("content", ["text", "table"])
def test_parquet_that_is_of_no_use_is_not_said_to_be_missing(scene, tmp_path, content):
    path = tmp_path / "roi.parquet"
    if content == "text":
        path.write_text("no table at all")
    else:
        pandas.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(InvalidRegion, match=r"roi\.parquet: not a GeoParquet file \(") as caught:
        Region(path, scene)
    assert "\n" not in str(caught.value)


def test_folder_is_refused(scene, vector):
    folder = vector("roi.shp", SHAPES["one"]).parent
    with pytest.raises(InvalidRegion, match="a folder; name the vector file in it"):
        Region(folder, scene)


@pytest.mark.parametrize("name", ["roi.gpkg", "roi.parquet", "no/roi.geojson"])
def test_region_that_is_not_there(scene, tmp_path, name):
    with pytest.raises(InvalidRegion, match=rf"{name}: no such file$"):
        Region(tmp_path / name, scene)


def test_rings_that_are_not_closed_are(scene, tmp_path):
    corners = [PLACE["transform"] @ corner for corner in [(20, 20), (120, 20), (120, 90), (20, 90)]]
    lonlat = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    ring = [list(lonlat.transform(*corner)) for corner in corners]
    shapes = [ring, ring[:1]]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [shape]}}
        for shape in shapes
    ]
    (tmp_path / "open.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    region = Region(tmp_path / "open.geojson", scene)
    assert region.geometry.area == pytest.approx(7000, rel=1e-3)


def test_polygons_of_all_layers_count(scene, vector):
    vector("layers.gpkg", [box(0, 0, 20, 20)], layer="north")
    vector("layers.gpkg", [Point(3, 3)], layer="marks")
    region = Region(vector("layers.gpkg", [box(50, 50, 70, 80)], "EPSG:4326", layer="south"), scene)
    assert region.geometry.area == pytest.approx(400 + 600, rel=1e-4)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(
    ("shapes", "crs", "words"),
    [
        ([Point(50, 50)], "EPSG:32633", "no polygon"),
        ([LineString([(0, 0), (90, 90)])], "EPSG:32633", "no polygon"),
        ([box(0, 0, 90, 90)], None, "coordinate reference system"),
        ([box(1000, 1000, 1090, 1090)], "EPSG:32633", "does not touch"),
        ([box(-90, 0, 0, 90)], "EPSG:32633", "does not touch"),
    ],
)
def test_region_that_is_of_no_use_is_refused_by_name(scene, vector, shapes, crs, words):
    path = vector("roi.gpkg", shapes, crs)
    with pytest.raises(InvalidRegion, match=words) as caught:
        Region(path, scene)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a vector file", b'{"type": "FeatureCollection"', b"a,b\n1,2\n"])
def test_file_that_cannot_be_read_is_refused_by_name(scene, tmp_path, content):
    path = tmp_path / "roi.geojson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRegion, match=r"roi\.geojson: ") as caught:
        Region(path, scene)
    assert "\n" not in str(caught.value)


def test_empty_file_of_polygons_is_refused(scene, tmp_path):
    path = tmp_path / "roi.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InvalidRegion, match="no polygon"):
        Region(path, scene)


@pytest.mark.parametrize("profile", [{}, {"transform": Affine(2, 0, 100, 0, -2, 100)}], ids=["no place", "no CRS"])
def test_scene_without_place_or_crs_is_named(raster, vector, profile):
    roi = vector("roi.gpkg", SHAPES["one"])
    path = raster("local.tif", np.zeros((HEIGHT, WIDTH), np.uint8), **profile)
    with Scene(path) as scene, pytest.raises(SlicedetError, match=r"local\.tif") as caught:
        Region(roi, scene)
    assert isinstance(caught.value, InvalidRegion | NotGeoreferenced)
