import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rasteret_sql.errors import InputError
from rasteret_sql.grid.aoi import Aoi, parse_aoi, zone_of
from rasteret_sql.grid.crs import LONLAT, crs_of
from rasteret_sql.grid.windows import to_pixels, window_of
from rasteret_sql.units import Affine, BBox, Window

TRIANGLE = shapely.Polygon([(10, 20), (12, 20), (11, 22), (10, 20)])
GEOJSON = json.loads(shapely.to_geojson(TRIANGLE))
FEATURE = {"type": "Feature", "properties": {}, "geometry": GEOJSON}
EWKB = shapely.to_wkb(shapely.set_srid(TRIANGLE, 4326), include_srid=True)
FORMS = {
    "wkt": TRIANGLE.wkt,
    "padded wkt": f"\n {TRIANGLE.wkt} ",
    "ewkt": f"SRID=4326;{TRIANGLE.wkt}",
    "wkb": TRIANGLE.wkb,
    "big-endian wkb": shapely.to_wkb(TRIANGLE, byte_order=0),
    "ewkb": EWKB,
    "bytearray": bytearray(TRIANGLE.wkb),
    "memoryview": memoryview(TRIANGLE.wkb),
    "hex": TRIANGLE.wkb_hex,
    "geojson": json.dumps(GEOJSON),
    "feature": json.dumps(FEATURE),
    "collection": json.dumps({"type": "FeatureCollection", "features": [FEATURE, FEATURE]}),
    "dict": GEOJSON,
    "shapely": TRIANGLE,
    "with heights": "POLYGON Z ((10 20 1, 12 20 1, 11 22 1, 10 20 1))",
    "geometry collection": f"GEOMETRYCOLLECTION (POINT (1 1), {TRIANGLE.wkt})",
}


@pytest.mark.parametrize("geometry", FORMS.values(), ids=FORMS)
def test_every_form_of_a_geometry_gives_the_same_area(geometry):
    aoi = parse_aoi(geometry=geometry)
    assert shapely.equals(aoi.geometry, TRIANGLE)
    assert not aoi.geometry.has_z
    assert aoi.to_crs("EPSG:4326") is aoi.geometry


def test_no_argument_is_no_area():
    assert parse_aoi() is None


def test_features_are_joined():
    other = {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shapely.box(0, 0, 1, 1)))}
    collection = {
        "type": "FeatureCollection",
        "features": [FEATURE, other, {**other, "geometry": None}],
    }
    aoi = parse_aoi(geometry=json.dumps(collection))
    assert aoi.geometry.area == pytest.approx(TRIANGLE.area + 1)


REFUSED = {
    "both": ({"bbox": [0, 0, 1, 1], "geometry": TRIANGLE}, "expected bbox or geometry"),
    "three numbers": ({"bbox": [0, 0, 1]}, "expected 4 finite numbers, got [0, 0, 1]"),
    "nan": ({"bbox": [0, 0, 1, float("nan")]}, "expected 4 finite numbers"),
    "text": ({"bbox": "0,0,1,1"}, "got '0,0,1,1'"),
    "a number": ({"bbox": 5}, "expected 4 finite numbers, got 5"),
    "nulls": ({"bbox": [None, 0, 1, 1]}, "expected 4 finite numbers"),
    "upside down": ({"bbox": [0, 5, 1, 3]}, "expected south <= north, got [0, 5, 1, 3]"),
    "metres": ({"bbox": [5e5, 3e6, 6e5, 4e6]}, "geometry_crs := 'EPSG:n'"),
    "far": ({"bbox": [-400, 0, 0, 1]}, "longitudes in -360..360"),
    "point": ({"geometry": "POINT (1 1)"}, "got Point; use rasteret_sample_points for points"),
    "points": ({"geometry": "MULTIPOINT (1 1, 2 2)"}, "got MultiPoint; use rasteret_sample"),
    "line": ({"geometry": "LINESTRING (1 1, 2 2)"}, "got LineString"),
    "empty": ({"geometry": "POLYGON EMPTY"}, "got an empty Polygon"),
    "flat": ({"geometry": "POLYGON ((0 0, 1 1, 0 0))"}, "geometry: expected"),
    "flatter": ({"geometry": "POLYGON ((0 0, 1 1, 2 2, 0 0))"}, "Polygon without area"),
    "no features": (
        {"geometry": '{"type": "FeatureCollection", "features": []}'},
        "got a collection without any",
    ),
    "cut off": ({"geometry": "POLYGON ((0 0, 1 1"}, "got 'POLYGON ((0 0, 1 1'"),
    "open ring": ({"geometry": "POLYGON ((0 0, 1 0, 1 1))"}, "closed"),
    "word": ({"geometry": "hello"}, "expected WKT, WKB, GeoJSON or a GEOMETRY, got 'hello'"),
    "no text": ({"geometry": ""}, "got ''"),
    "bytes": ({"geometry": b"\x01\x03abc"}, "got '5 bytes'"),
    "json": ({"geometry": '{"type": "Polygon",'}, "it is no JSON"),
    "no type": ({"geometry": '{"a": 1}'}, "'type' is missing"),
    "no coordinates": ({"geometry": '{"type": "Polygon"}'}, "got 'GeoJSON Polygon'"),
    "features is no list": ({"geometry": '{"type": "FeatureCollection", "features": 5}'}, "got"),
    "another type": ({"geometry": 5}, "got 'int'"),
    "nan vertex": ({"geometry": "POLYGON ((0 0, 1 0, 1 nan, 0 0))"}, "not finite"),
    "infinite vertex": ({"geometry": "POLYGON ((0 0, 1 0, 1 -inf, 0 0))"}, "not finite"),
    "two crs": (
        {"geometry": f"SRID=32643;{TRIANGLE.wkt}", "geometry_crs": 4326},
        "expected 32643 as the geometry says, got 4326",
    ),
    "no crs": ({"bbox": [0, 0, 1, 1], "geometry_crs": "foo"}, "geometry_crs: expected"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_a_malformed_argument_is_refused_in_one_line_that_says_what_it_got(arguments, message):
    with pytest.raises(InputError) as caught:
        parse_aoi(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_west_beyond_east_is_refused_where_there_is_no_antimeridian():
    for crs in (32643, "pixel"):
        with pytest.raises(InputError) as caught:
            parse_aoi(bbox=[10, 0, 5, 1], geometry_crs=crs)
        assert str(caught.value) == (
            "bbox: expected west < east, got [10, 0, 5, 1]; the order is west, south, east, north"
        )


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(InputError) as caught:
        parse_aoi(geometry="POLYGON ((" + "1 1, " * 10_000)
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_garbage_breaks_the_parser(garbage):
    try:
        aoi = parse_aoi(geometry=garbage)
    except InputError:
        return
    assert aoi.geometry.area > 0


def test_a_bow_tie_keeps_its_area():
    aoi = parse_aoi(geometry="POLYGON ((0 0, 2 2, 2 0, 0 2, 0 0))")
    assert aoi.geometry.is_valid
    assert aoi.geometry.area == 2


def test_a_box_with_heights_is_flat():
    assert parse_aoi(bbox=[1, 2, 0, 3, 4, 9]).geometry.bounds == (1, 2, 3, 4)
    assert parse_aoi(bbox=(np.float32(1), 2, 3, 4)).geometry.bounds == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("named", "epsg"), [("SRID=32643;", 32643), ("", None)], ids=["ewkt", "plain"]
)
def test_the_crs_is_the_one_that_the_geometry_names_else_lonlat(named, epsg):
    aoi = parse_aoi(geometry=named + TRIANGLE.wkt)
    assert aoi.crs == crs_of(epsg or LONLAT)


def test_the_crs_member_of_geojson_is_heeded():
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32643"}}
    assert parse_aoi(geometry={**GEOJSON, "crs": crs}).crs.to_epsg() == 32643


def test_pixel_coordinates_stay_as_they_are():
    aoi = parse_aoi(bbox=[100, 200, 612, 712], geometry_crs="pixel")
    assert aoi.is_pixel
    assert aoi.lonlat_boxes() == []
    assert window_of(aoi.geometry, 1000, 1000) == Window(200, 712, 100, 612)
    with pytest.raises(InputError, match="pixel coordinates belong to no map"):
        aoi.to_crs(32643)


def test_a_box_in_the_crs_of_the_raster_is_not_changed_at_all():
    aoi = parse_aoi(bbox=[499980, 4000020, 509980, 4010020], geometry_crs="EPSG:32643")
    bounds = BBox(499980, 3990240, 609780, 4100040)
    assert aoi.to_crs(crs_of(32643).to_wkt(), bounds) is aoi.geometry
    assert shapely.get_num_coordinates(aoi.geometry) == 5


def test_a_transformed_area_is_made_once_per_crs():
    aoi = parse_aoi(bbox=[74, 30, 75, 31])
    assert aoi.to_crs(32643) is aoi.to_crs("EPSG:32643", BBox(0, 0, 9e5, 9e6))
    assert aoi.to_crs(32643) is not aoi.to_crs(32644)


@given(west=st.floats(-180, 180), east=st.floats(-180, 180), south=st.floats(-90, 89))
def test_boxes_hold_the_bbox_and_are_split_at_the_antimeridian(west, east, south):
    boxes = parse_aoi(bbox=[west, south, east, south + 1]).lonlat_boxes()
    assert all(-180 <= box.xmin <= box.xmax <= 180 for box in boxes)
    assert all((box.ymin, box.ymax) == (south, south + 1) for box in boxes)
    span = east - west if west <= east else east - west + 360
    assert sum(box.xmax - box.xmin for box in boxes) == pytest.approx(span, abs=1e-9)
    assert span > 359.999 or west == 180 or boxes[0].xmin == pytest.approx(west)
    assert len(boxes) <= 2


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([170, -20, -170, -10], [BBox(170, -20, 180, -10), BBox(-180, -20, -170, -10)]),
        ([170, -20, 190, -10], [BBox(170, -20, 180, -10), BBox(-180, -20, -170, -10)]),
        ([190, -20, 200, -10], [BBox(-170, -20, -160, -10)]),
        ([-190, -20, -175, -10], [BBox(170, -20, 180, -10), BBox(-180, -20, -175, -10)]),
        ([0, -90, 360, 90], [BBox(-180, -90, 180, 90)]),
        ([-180, -90, 180, 90], [BBox(-180, -90, 180, 90)]),
        ([170, 0, 180, 1], [BBox(170, 0, 180, 1)]),
        ([200, 0, -190, 1], [BBox(-160, 0, 170, 1)]),
    ],
)
def test_longitudes_may_be_written_in_any_turn(bbox, expected):
    assert parse_aoi(bbox=bbox).lonlat_boxes() == expected


INSIDE = {"Fiji": (178, -17.8), "Russia": (100, 60), "Kenya": (37, 0.5)}


@pytest.mark.parametrize("name", INSIDE)
def test_the_boxes_of_a_country_hold_every_vertex(vectors, name):
    inside = shapely.Point(INSIDE[name])
    areas = [area for area in vectors("data/duckdb/countries.parquet") if area is not None]
    country = min(areas, key=lambda area: area.distance(inside))
    boxes = [shapely.box(*box) for box in parse_aoi(geometry=country).lonlat_boxes()]
    assert shapely.covers(shapely.union_all(boxes), country)
    assert len(boxes) == (1 if name == "Kenya" else 2)
    if name == "Fiji":
        assert sum(box.area for box in boxes) < 30  # not once around the earth


def test_an_area_on_pixel_edges_reads_the_same_window_in_its_own_crs():
    affine = Affine(10, 0, 499980, 0, -10, 4100040)
    aoi = parse_aoi(bbox=[500000, 4099000, 500500, 4099500], geometry_crs=32643)
    window = window_of(to_pixels(aoi.to_crs(32643), affine), 10980, 10980)
    assert window == Window(54, 104, 2, 52)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("LINESTRING (0 0, 1 1)", "LINESTRING (0 0, 1 1)"),
        ("LINESTRING (170 0, 190 5)", "MULTILINESTRING ((-180 2.5, -170 5), (170 0, 180 2.5))"),
        ("POINT (190 1)", "POINT (-170 1)"),
        ("MULTIPOINT ((1 1), (2 2))", "MULTIPOINT ((1 1), (2 2))"),
        ("LINESTRING (1 1, 1 1)", "POINT (1 1)"),
        ("GEOMETRYCOLLECTION (POINT (3 3), LINESTRING (0 0, 1 1))", "LINESTRING (0 0, 1 1)"),
        (
            "GEOMETRYCOLLECTION (LINESTRING (0 0, 1 1), POLYGON ((0 0, 1 0, 1 1, 0 0)))",
            "POLYGON ((0 0, 1 0, 1 1, 0 0))",
        ),
    ],
)
def test_a_zone_is_polygons_else_lines_else_points(shape, expected):
    got = zone_of(shapely.from_wkt(shape), crs_of(LONLAT))
    assert shapely.equals(got, shapely.from_wkt(expected))
    assert got.geom_type == shapely.from_wkt(expected).geom_type


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ("POINT (nan 1)", "finite coordinates"),
        ("LINESTRING (0 0, 0 91)", "latitudes"),
        ("GEOMETRYCOLLECTION EMPTY", "without area"),
    ],
)
def test_what_is_no_zone_is_refused(shape, told):
    with pytest.raises(InputError, match=told):
        zone_of(shapely.from_wkt(shape), crs_of(LONLAT))


@pytest.mark.parametrize("shape", ["POINT (800000 1400000)", "LINESTRING (8e5 14e5, 9e5 14e5)"])
def test_the_box_of_a_line_or_point_in_another_crs_holds_it(shape):
    zone, crs = shapely.from_wkt(shape), crs_of("EPSG:32643")
    (box,) = Aoi(zone, crs).lonlat_boxes()
    moved = Aoi(zone, crs).to_crs(LONLAT)
    assert moved.geom_type == zone.geom_type
    assert shapely.covers(shapely.box(*box), moved)
    assert box.xmax - box.xmin < 1
    assert box.ymax - box.ymin < 0.1
