"""Pixel edges land where an independent computation says: affine by hand, then PROJ and its geodesics."""

from __future__ import annotations

import itertools

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import GCPTransformer

from slicedet import Scene
from slicedet.errors import NotGeoreferenced, UntransformableCRS
from slicedet.raster.georeference import Georeference, transformer

GEOD = pyproj.Geod(ellps="WGS84")

RASTERS = {
    "plain": ("EPSG:25833", Affine(0.1, 0, 390000, 0, -0.1, 5820000)),
    "utm south": ("EPSG:32750", Affine(0.35, 0, 297463.3, 0, -0.35, 9050677)),
    "rotated": ("EPSG:32632", Affine.translation(5e5, 5e6) @ Affine.rotation(33) @ Affine.scale(0.2, -0.2)),
    "sheared": ("EPSG:32632", Affine(0.2, 0.05, 5e5, -0.03, -0.15, 5e6)),
    "south-up": ("EPSG:32632", Affine(0.2, 0, 5e5, 0, 0.2, 5e6)),
    "mirrored": ("EPSG:32632", Affine(-0.2, 0, 5e5, 0, -0.2, 5e6)),
    "not square": ("EPSG:32632", Affine(0.2, 0, 5e5, 0, -0.5, 5e6)),
    "feet": ("EPSG:2263", Affine(0.5, 0, 985000, 0, -0.5, 195000)),
    "degrees": ("EPSG:4326", Affine(1e-6, 0, 13.4, 0, -1e-6, 52.5)),
    "degrees south-up": ("EPSG:4326", Affine(1e-6, 0, 151.2, 0, 1e-6, -33.9)),
    "web mercator": ("EPSG:3857", Affine(0.15, 0, 1.5e6, 0, -0.15, 6.9e6)),
    "near the pole": ("EPSG:3031", Affine(0.25, 0, 60, 0, -0.25, -40)),
    "around the pole": ("EPSG:3031", Affine(0.25, 0, -125, 0, -0.25, 125)),
    "antimeridian": ("EPSG:32660", Affine(1, 0, 806000, 0, -1, 5e6)),
    "antimeridian in degrees": ("EPSG:4326", Affine(1e-5, 0, 179.995, 0, -1e-5, -16)),
}

pixels = st.floats(0, 1000)


@pytest.fixture(params=RASTERS)
def place(request) -> Georeference:
    crs, transform = RASTERS[request.param]
    return Georeference(transform, CRS.from_user_input(crs))


def by_hand(place: Georeference, x: float, y: float) -> tuple[float, float]:
    t = place.transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def lonlat_by_hand(place: Georeference, x: float, y: float) -> tuple[float, float]:
    to_wgs84 = pyproj.Transformer.from_crs(place.crs.to_wkt(), "EPSG:4326", always_xy=True)
    return to_wgs84.transform(*by_hand(place, x, y))


def outline(box: tuple[float, ...], steps: int) -> list[tuple[float, float]]:
    """The box's edge in pixels, `steps` points a side."""
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
    sides = [np.linspace(a, b, steps, endpoint=False) for a, b in itertools.pairwise(corners)]
    return [tuple(point) for point in np.concatenate(sides)]


def area_by_geodesics(place: Georeference, box: tuple[float, ...], steps: int = 1) -> float:
    ring = [lonlat_by_hand(place, x, y) for x, y in outline(box, steps)]
    return abs(GEOD.geometry_area_perimeter(shapely.Polygon(ring))[0])


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (123, 45, 167, 99), (0.25, 0.5, 999.75, 999.5)])
def test_corners_are_the_pixel_edges_by_the_affine_transform(place, box):
    x1, y1, x2, y2 = box
    expected = [by_hand(place, *corner) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    corners = place.corners(np.array([box], np.float32))
    degrees = place.crs.is_geographic
    assert corners[0] == pytest.approx(np.array(expected), rel=0, abs=1e-10 if degrees else 1e-4)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (123, 45, 167, 99), (0.25, 0.5, 999.75, 999.5)])
def test_corners_land_on_longitudes_and_latitudes_to_a_ten_millionth_degree(place, box):
    x1, y1, x2, y2 = box
    expected = [lonlat_by_hand(place, *corner) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))]
    found = place.to_lonlat(place.corners(np.array([box])))[0]
    assert found == pytest.approx(np.array(expected), rel=0, abs=1e-8)


@pytest.mark.parametrize("box", [(500, 500, 540, 530), (10, 20, 40, 90), (450, 450, 560, 555), (0, 0, 1000, 1000)])
def test_area_is_that_of_geodesic_polygons(place, box):
    # The geodesic sum itself rounds to some square centimetres.
    assert place.areas_m2(np.array([box]))[0] == pytest.approx(area_by_geodesics(place, box, 8), rel=5e-4, abs=3e-4)


@pytest.mark.parametrize("size", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:25833"])
def test_area_of_boxes_of_centimetres_is_width_times_height(crs, size):
    place = Georeference(Affine(size, 0, 500000, 0, -size, 5e6), CRS.from_user_input(crs))
    scale = 0.9996**2  # On the central meridian, UTM shrinks lengths by 0.9996.
    boxes = np.array([[x, y, x + 1, y + 1] for x in (0, 999) for y in (0, 5000)], float)
    assert place.areas_m2(boxes) == pytest.approx(size**2 / scale, rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "transform", "box"),
    [
        ("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90), (20, 40, 30, 50)),
        ("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90), (20, 0, 30, 10)),
        ("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90), (20, 40, 100, 100)),
        ("EPSG:3857", Affine(5000, 0, 1e6, 0, -5000, 8e6), (0, 0, 300, 300)),
        ("EPSG:32632", Affine(100, 0, 5e5, 0, -100, 5e6), (0, 0, 3000, 3000)),
        ("EPSG:3031", Affine(1000, 0, -1e6, 0, -1000, 1e6), (0, 0, 2000, 2000)),
    ],
)
def test_area_of_boxes_of_hundreds_of_kilometres_follows_the_earth(crs, transform, box):
    place = Georeference(transform, CRS.from_user_input(crs))
    assert place.areas_m2(np.array([box]))[0] == pytest.approx(area_by_geodesics(place, box, 200), rel=1e-3)


@settings(max_examples=20)
@given(x=pixels, y=pixels, width=st.floats(0.5, 300), height=st.floats(0.5, 300))
def test_width_and_height_are_geodesics_between_the_middles_of_the_sides(x, y, width, height):
    for crs, transform in RASTERS.values():
        place = Georeference(transform, CRS.from_user_input(crs))
        across, down = place.sizes_m(np.array([[x, y, x + width, y + height]]))
        left, right = (lonlat_by_hand(place, column, y + height / 2) for column in (x, x + width))
        top, bottom = (lonlat_by_hand(place, x + width / 2, row) for row in (y, y + height))
        assert across[0] == pytest.approx(GEOD.inv(*left, *right)[2], rel=1e-6, abs=1e-6)
        assert down[0] == pytest.approx(GEOD.inv(*top, *bottom)[2], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("plain", 0.1, 0.1),
        ("rotated", 0.2, 0.2),
        ("sheared", np.hypot(0.2, 0.03), np.hypot(0.05, 0.15)),
        ("not square", 0.2, 0.5),
        ("feet", 0.5 * 1200 / 3937, 0.5 * 1200 / 3937),
        ("degrees", 1e-6 * 111319.49 * np.cos(np.radians(52.5)) * 1.0021, 1e-6 * 111269),
        # Mercator stretches by 1 / cos(latitude), here 52.6 degrees.
        ("web mercator", 0.15 * 0.609, 0.15 * 0.609),
    ],
)
def test_pixel_size_is_in_metres_on_the_ground(raster, name, width, height):
    crs, transform = RASTERS[name]
    path = raster("place.tif", np.zeros((1000, 1000), np.uint8), crs=crs, transform=transform)
    with Scene(path) as scene:
        assert scene.pixel_size_m == pytest.approx((width, height), rel=4e-3)


def test_scene_takes_transform_and_crs_of_the_file(raster):
    for name, (crs, transform) in RASTERS.items():
        path = raster(f"{name}.tif", np.zeros((50, 70), np.uint8), crs=crs, transform=transform)
        with Scene(path) as scene:
            assert scene.georeference.transform.almost_equals(transform)
            assert scene.georeference.crs == CRS.from_user_input(crs)
            assert not scene.from_gcps


def test_file_without_place_has_no_georeference(raster):
    with Scene(raster("nowhere.tif", np.zeros((50, 70), np.uint8))) as scene:
        assert scene.georeference is None
        assert scene.pixel_size_m is None


def test_map_coordinates_of_no_known_system_have_corners_but_no_longitudes(raster):
    transform = Affine(2, 0.5, 100, 0.5, -2, 200)
    with Scene(raster("local.tif", np.zeros((50, 70), np.uint8), transform=transform)) as scene:
        assert scene.pixel_size_m is None
        assert scene.georeference.corners(np.array([[0, 0, 10, 10]]))[0, 2] == pytest.approx(transform @ (10, 10))
        with pytest.raises(NotGeoreferenced):
            scene.georeference.to_lonlat(np.zeros((1, 2)))


QUARRY = CRS.from_wkt('LOCAL_CS["Quarry grid",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]')


def test_crs_that_leads_nowhere_is_said_in_one_line():
    with pytest.raises(UntransformableCRS, match="Quarry grid") as caught:
        transformer(QUARRY, "EPSG:4326")
    assert "\n" not in str(caught.value)


def test_scene_in_a_crs_that_leads_nowhere_has_corners_but_no_pixel_size(raster):
    transform = Affine(2, 0, 100, 0, -2, 200)
    with Scene(raster("quarry.tif", np.zeros((50, 70), np.uint8), crs=QUARRY, transform=transform)) as scene:
        assert scene.pixel_size_m is None
        assert scene.georeference.corners(np.array([[1, 2, 3, 4]]))[0, 0].tolist() == [102, 196]


def gcp_raster(raster, mark: tuple[int, int]) -> tuple:
    """A photo of 300 x 200 with a white spot around pixel `mark`, placed by points on a slightly bent plane."""
    pixels = np.full((1, 200, 300), 40, np.uint8)
    column, row = mark
    pixels[0, row - 4 : row + 4, column - 4 : column + 4] = 250
    points = [
        GroundControlPoint(row=y, col=x, x=5e5 + 0.5 * x + 0.1 * y + 1e-5 * x * y, y=5e6 - 0.5 * y + 0.08 * x)
        for x in range(0, 301, 60)
        for y in range(0, 201, 50)
    ]
    return raster("points.tif", pixels, gcps=points, crs="EPSG:32632"), points


@pytest.mark.parametrize("mark", [(20, 30), (150, 100), (270, 180)])
def test_ground_control_points_put_pixels_where_rasterio_does(raster, mark):
    path, points = gcp_raster(raster, mark)
    with Scene(path) as scene:
        assert scene.from_gcps
        assert scene.georeference.crs.to_epsg() == 32632
        seen, valid = scene.read_masked((0, 0, scene.width, scene.height))
        rows, columns = np.nonzero(seen[..., 0] > 145)
        middle = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
        found = scene.georeference.from_pixels(middle)
    with GCPTransformer(points) as to_map:
        expected = to_map.xy(mark[1], mark[0], offset="ul")
    assert found == pytest.approx(np.array(expected), abs=0.5)
    assert valid is not None, "the corners of a turned view are no data"
    assert 0.5 < valid.mean() < 1


@pytest.mark.parametrize("internal", [True, False], ids=["mask inside", "mask beside"])
def test_ground_control_points_and_a_mask(raster, internal):
    plain, points = gcp_raster(raster, (150, 100))
    with Scene(plain) as scene:
        _, inside = scene.read_masked((0, 0, scene.width, scene.height))
    mask = np.ones((200, 300), bool)
    mask[80:120, 100:200] = False
    pixels = np.full((1, 200, 300), 40, np.uint8)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = raster("masked.tif", pixels, mask=mask, gcps=points, crs="EPSG:32632")
    with Scene(path) as scene:
        _, valid = scene.read_masked((0, 0, scene.width, scene.height))
        hole = scene.georeference.transform
    assert not valid[~inside].any(), "what lies off the photo is no data"
    assert (inside & ~valid).sum() == pytest.approx(4000 * 0.25 / abs(hole.a * hole.e), rel=0.1)


def test_real_raster_with_control_points(shared):
    path = shared / "geotiff/gcps.tif"
    with rasterio.open(path) as dataset, Scene(path) as scene:
        points, _ = dataset.gcps
        deep = dataset.read(1)
        to_pixels = ~scene.georeference.transform
        with GCPTransformer(points) as to_map:
            for column, row in [(300, 200), (640, 400), (1000, 600)]:
                x, y = to_pixels @ to_map.xy(row, column, offset="ul")
                back = scene.georeference.from_pixels(np.array([x, y]))
                assert back == pytest.approx(to_map.xy(row, column, offset="ul"), abs=1e-9)
                # What lies around the point is the same, up to the turn and bilinear smoothing.
                here = deep[row - 15 : row + 15, column - 15 : column + 15].mean()
                there = scene.read((round(x) - 15, round(y) - 15, 30, 30))[..., 0].mean()
                low, high = scene.stretch.low[0], scene.stretch.high[0]
                assert there == pytest.approx(np.clip((here - low) / (high - low), 0, 1) * 255, abs=20)


@pytest.mark.parametrize("name", ["dateline", "inverted_lat", "manila_2048", "RGBA_uint16", "pix4d_alpha_nodata"])
def test_real_rasters_lie_where_pyproj_says(shared, name):
    with rasterio.open(shared / f"geotiff/{name}.tif") as dataset, Scene(dataset.name) as scene:
        box = (dataset.width // 3, dataset.height // 3, dataset.width // 2, dataset.height // 2)
        place = Georeference(dataset.transform, dataset.crs)
        assert scene.georeference == place
        expected = [lonlat_by_hand(place, x, y) for x, y in outline(box, 1)]
        assert scene.georeference.to_lonlat(scene.georeference.corners(np.array([box])))[0] == pytest.approx(
            np.array(expected), rel=0, abs=1e-8
        )
        assert scene.georeference.areas_m2(np.array([box]))[0] == pytest.approx(
            area_by_geodesics(place, box, 200), rel=1e-3
        )
