"""Areas and their windows: columns that come through, CRSs, and what is made only once."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import crs_of, is_same
from rasteret_sql.grid.reproject import reproject_all
from rasteret_sql.reading import footprints as footprints_module
from rasteret_sql.reading import targets as targets_module
from rasteret_sql.reading.footprints import Footprints
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.targets import Targets, find_geometry_column, parse_targets
from rasteret_sql.units import Affine, Window

pytestmark = pytest.mark.any_duckdb

UTM = "EPSG:32633"
BOX = shapely.box(0, 0, 5, 5)


def table(shapes, **columns):
    wkb = [None if shape is None else shapely.to_wkb(shape) for shape in shapes]
    return pa.table({"geometry": pa.array(wkb, pa.binary()), **columns})


def grid(width=100, height=80, affine=None, crs=UTM, **full):
    full = {"full_width": width, "full_height": height} | full
    return Grid(width, height, affine or Affine(10, 0, 1000, 0, -10, 2000), crs, **full)


def test_null_and_empty_areas_are_left_out_with_their_columns():
    shapes = [BOX, None, shapely.Polygon(), shapely.box(1, 1, 2, 2)]
    got = parse_targets(table(shapes, name=["a", "b", "c", "d"]), None, UTM)
    assert len(got) == 2
    assert got.columns.to_pydict() == {"name": ["a", "d"]}
    assert got.crs == crs_of(UTM)


def test_without_rows_there_are_no_targets():
    got = parse_targets(table([], name=pa.array([], pa.string())), None, UTM)
    assert len(got) == 0
    assert got.columns.num_rows == 0
    assert got.lonlat_boxes() == []
    pairs, errors = Footprints(got).pairs([grid()], np.array([0]))
    assert len(pairs.grid) == 0
    assert errors == {}


def test_the_crs_is_longitude_and_latitude_by_default():
    assert parse_targets(table([BOX]), None, None).crs == crs_of("OGC:CRS84")


def test_pixel_areas_have_no_crs():
    got = parse_targets(table([BOX]), None, "pixel")
    assert got.crs is None
    assert got.lonlat_boxes() == []


@pytest.mark.parametrize(
    ("shape", "text"),
    [(shapely.Point(1, 1), "aois, row 2"), (shapely.LineString([(0, 0), (1, 1)]), "aois, row 2")],
)
def test_what_is_no_area_is_named_by_row(shape, text):
    with pytest.raises(InputError, match=text):
        parse_targets(table([BOX, shape]), None, UTM)


def test_rows_are_counted_with_those_that_have_no_area():
    with pytest.raises(InputError, match="aois, row 4: geometry: expected a Polygon"):
        parse_targets(table([None, shapely.Polygon(), BOX, shapely.Point(1, 1)]), None, UTM)


@pytest.mark.parametrize(
    "empty",
    ['{"type": "Polygon", "coordinates": []}', '{"type": "Feature", "geometry": null}',
     "SRID=4326;POLYGON EMPTY"],
)  # fmt: skip
def test_texts_of_empty_areas_are_left_out(empty):
    shapes = pa.table({"geometry": [empty, shapely.to_geojson(shapely.box(1, 1, 2, 2))]})
    assert len(parse_targets(shapes, None, None)) == 1


def test_geometries_of_several_crss_are_refused():
    texts = [f"SRID={srid};{BOX.wkt}" for srid in (32643, 32644)]
    told = "aois: column geometry: geometry: expected geometries of one CRS, got 'SRID 32643, SRID"
    for crs in (None, 32643):
        with pytest.raises(InputError, match=told):
            parse_targets(pa.table({"geometry": texts}), None, crs)


@pytest.mark.parametrize(
    ("name", "crs"),
    [("urn:ogc:def:crs:EPSG::32643", 32643), ("urn:ogc:def:crs:OGC:1.3:CRS84", "OGC:CRS84")],
)
def test_the_crs_of_geojson_counts(name, crs):
    document = json.loads(shapely.to_geojson(BOX)) | {"crs": {"properties": {"name": name}}}
    shapes = pa.table({"geometry": [json.dumps(document)]})
    assert is_same(parse_targets(shapes, None, None).crs, crs_of(crs))


def test_a_struct_of_decimals_is_geojson():
    ring = [[Decimal(x), Decimal(y)] for x, y in [(0, 0), (1, 0), (1, 1), (0, 0)]]
    shapes = pa.table({"geometry": [{"type": "Polygon", "coordinates": [ring]}]})
    assert parse_targets(shapes, None, None).areas[0].area == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("LINESTRING(0 0, NaN 0)", "a coordinate is not finite"),
        ("POLYGON((0 0, 1 NaN, 1 1, 0 0))", "a coordinate is not finite"),
        ("POINT(NaN 5)", "expected finite coordinates"),
    ],
)
@pytest.mark.parametrize("is_text", [True, False])
def test_what_cannot_be_drawn_is_named_by_row(text, told, is_text):
    shapes = [BOX.wkt, text]
    if not is_text:
        with np.errstate(invalid="ignore"):
            shapes = [shapely.from_wkt(shape).wkb for shape in shapes]
    with pytest.raises(InputError, match=f"row 2: geometry: .*{told}"):
        parse_targets(pa.table({"geometry": shapes}), None, UTM)


def test_curves_are_refused():
    curve = pa.table({"geometry": ["CURVEPOLYGON(CIRCULARSTRING(0 0, 4 0, 4 4, 0 4, 0 0))"]})
    with pytest.raises(InputError, match=r"row 1: geometry: .*; it has curves: draw them"):
        parse_targets(curve, None, UTM)


def test_a_malformed_geometry_is_named_by_row():
    bad = pa.table({"geometry": pa.array([shapely.to_wkb(BOX), b"\x01nonsense"])})
    with pytest.raises(InputError, match="aois: column geometry, row 2"):
        parse_targets(bad, None, UTM)


def test_the_column_of_geometries_is_found_by_name():
    schema = pa.schema([("a", pa.int32()), ("GEOM", pa.binary())])
    assert find_geometry_column(schema, None, "aois") == "GEOM"
    assert find_geometry_column(schema, "a", "aois") == "a"
    with pytest.raises(InputError, match="geometry_column: expected one of a, GEOM, got"):
        find_geometry_column(schema, "b", "aois")
    with pytest.raises(InputError, match="aois: expected a column of geometries"):
        find_geometry_column(pa.schema([("a", pa.int32())]), None, "aois")


def test_boxes_of_areas_on_both_sides_of_the_antimeridian_are_narrow():
    areas = [shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]
    boxes = Targets(areas, crs_of("OGC:CRS84")).lonlat_boxes()
    width = sum((box.xmax - box.xmin) % 360 for box in boxes)
    assert width <= 2.1


def test_areas_are_transformed_once_for_a_crs():
    targets = Targets([shapely.box(15, 50, 15.1, 50.1)] * 3, crs_of("EPSG:4326"))
    assert targets.in_crs(UTM) is targets.in_crs(UTM)
    assert targets.in_crs(UTM).bounds.shape == (3, 4)


def test_one_large_area_makes_others_neither_large_nor_slow(monkeypatch):
    boxes = [shapely.box(x, 5_000_000, x + 100, 5_000_100) for x in range(400_000, 500_000, 100)]
    targets = Targets([*boxes, shapely.box(-3e7, -3e7, 3e7, 3e7)], crs_of(UTM))
    asked = []
    boxes_of = targets_module.Aoi.lonlat_boxes
    monkeypatch.setattr(
        targets_module.Aoi, "lonlat_boxes", lambda self: asked.append(1) or boxes_of(self)
    )
    assert np.flatnonzero(targets.is_large).tolist() == [1000]
    assert len(asked) == 1


# windows


@st.composite
def grids(draw):
    scale = draw(st.sampled_from([(10, -10), (10, 10), (-5, -5), (0.5, -2.0)]))
    shift = draw(st.tuples(st.integers(-500, 500), st.integers(-500, 500)))
    return grid(
        draw(st.integers(1, 90)),
        draw(st.integers(1, 90)),
        Affine(scale[0], 0, shift[0], 0, scale[1], shift[1]),
    )


corners = st.tuples(*[st.integers(-900, 900)] * 2)


@settings(max_examples=examples(60, 150), deadline=None)
@given(
    places=st.lists(grids(), min_size=1, max_size=4),
    ends=st.lists(st.tuples(corners, corners), min_size=1, max_size=6),
)
def test_windows_of_all_pairs_are_those_of_each(places, ends):
    """The rectilinear way for all pairs gives what one area and one grid do."""
    areas = [
        shapely.box(min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]) + 3.7, max(a[1], b[1]) + 3.1)
        for a, b in ends
    ]
    areas += [shapely.Polygon([(0, 0), (301.3, 7.7), (13.1, 211.9)])]
    places = list(dict.fromkeys(places))
    targets = Targets(areas, crs_of(UTM))
    footprints = Footprints(targets)
    pairs, errors = footprints.pairs(places, np.arange(len(places)))
    assert errors == {}
    assert (np.diff(pairs.grid) >= 0).all()
    found = dict(
        zip(
            zip(pairs.grid.tolist(), pairs.target.tolist(), strict=True),
            zip(pairs.window.tolist(), pairs.is_whole.tolist(), strict=True),
            strict=True,
        )
    )
    for number, place in enumerate(places):
        one = footprints._one_by_one(place, targets)
        expected = dict(
            zip(
                ((number, target) for target in one.target.tolist()),
                zip(one.window.tolist(), one.is_whole.tolist(), strict=True),
                strict=True,
            )
        )
        own = {pair: value for pair, value in found.items() if pair[0] == number}
        assert own == expected
        for (_, target), (window, is_whole) in own.items():
            inside = footprints.inside(place, target, Window(*window), is_whole=False)
            assert not is_whole or inside.mask is None


def test_a_mask_is_made_once_and_says_its_pixels():
    footprints = Footprints(Targets([shapely.Polygon([(0, 0), (8.2, 0.3), (0.4, 8.1)])], None))
    window = Window(0, 9, 0, 9)
    first = footprints.inside(grid(), 0, window, is_whole=False)
    assert footprints.inside(grid(), 0, window, is_whole=False) is first
    assert first.n_pixels == first.mask.sum() == len(first.flat)
    assert 0 < first.n_pixels < 81


def test_masks_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(footprints_module, "_KEPT_BYTES", 10_000)
    footprints = Footprints(None)
    for number in range(50):
        footprints.once((number,), lambda: np.zeros(1000, "uint8"))
    assert footprints._kept_bytes <= 10_000
    assert len(footprints._kept) == 10_000 // (1000 + footprints_module._ENTRY_BYTES) == 6
    footprints.once(("large",), lambda: np.zeros(9000, "uint8"))
    assert ("large",) not in footprints._kept
    for number in range(100):  # without an array, as windows of rasters
        footprints.once(("window", number), lambda: Window(0, 9, 0, 9))
    assert len(footprints._kept) == 10_000 // footprints_module._ENTRY_BYTES


def test_geometries_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(footprints_module, "_KEPT_GEOMETRIES", 10)
    areas = [shapely.Polygon([(n, 0), (n + 8, 1), (n, 9)]) for n in range(50)]
    footprints = Footprints(Targets(areas, None))
    box = np.array([[0, 0, 20.5, 20]])
    met = [bool(footprints.touched(grid(), n, box)[0]) for n in range(50)]
    assert met == [n <= 20 for n in range(50)]
    assert len(footprints._geometries) <= 11
    assert len(footprints._prepared) <= 11


def test_pixels_of_an_overview_are_scaled():
    footprints = Footprints(Targets([shapely.box(10.2, 20.2, 29.8, 39.8)], None))
    half = grid(50, 40, full_width=100, full_height=80)
    pairs, _ = footprints.pairs([half], np.array([0]))
    assert pairs.window.tolist() == [[10, 20, 5, 15]]


def test_a_raster_without_a_place_is_an_error_of_its_grid():
    targets = Targets([shapely.box(15, 50, 15.1, 50.1)], crs_of("EPSG:4326"))
    places = [grid(), Grid(10, 10, None, UTM, 10, 10), grid(crs=None)]
    _, errors = Footprints(targets).pairs(places, np.arange(3))
    assert {number: "transform" in str(e) for number, e in errors.items()} == {1: True, 2: False}


def test_a_box_touches_by_its_edge():
    footprints = Footprints(Targets([shapely.box(0, 0, 16, 16)], None))
    boxes = np.array([[0, 0, 16, 16], [16, 0, 32, 16], [17, 0, 32, 16]], float)
    assert footprints.touched(grid(), 0, boxes).tolist() == [True, True, False]


def test_a_geometry_that_threads_share_is_never_prepared():
    """GEOS ends the process where two threads ask one prepared geometry for the first time."""
    footprints = Footprints(Targets([shapely.box(0, 0, 16, 16)], None))
    footprints.touched(grid(), 0, np.array([[15.0, 15.0, 20.0, 20.0]]))
    assert not shapely.is_prepared(footprints.geometry(grid(), 0))
    with footprints.prepared(grid(), 0) as geometry:
        assert shapely.is_prepared(geometry)
        assert shapely.equals(geometry, footprints.geometry(grid(), 0))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), crs=st.sampled_from([UTM, None, "EPSG:4326"]))
def test_boxes_of_many_targets_are_touched_as_those_of_each(seed, crs):
    rng = np.random.default_rng(seed)
    areas = [shapely.Point(*rng.uniform(0, 90, 2)).buffer(rng.uniform(1, 30), 3) for _ in range(6)]
    place = grid()
    if crs is not None:
        areas = [shapely.transform(one, lambda xy: xy * [10, -10] + [1000, 2000]) for one in areas]
        areas = list(reproject_all(np.array(areas, object), crs_of(UTM), crs_of(crs)))
    footprints = Footprints(Targets(areas, None if crs is None else crs_of(crs)))
    targets = rng.choice(6, 60, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    corner = rng.uniform(0, 90, (60, 2))
    boxes = np.column_stack([corner, corner + rng.uniform(1, 20, (60, 2))])
    alone = [
        footprints.touched(place, int(n), box[None])[0]
        for n, box in zip(targets, boxes, strict=True)
    ]
    assert footprints.each_touched(place, targets, boxes).tolist() == alone
    for one, other in zip(footprints.geometries(place, np.arange(6)), range(6), strict=True):
        assert shapely.equals_exact(one, footprints.geometry(place, other))


def test_windows_of_many_targets_do_not_depend_on_how_many_are_found_at_once(monkeypatch):
    rng = np.random.default_rng(4)
    corners = rng.uniform(-200, 1200, (50, 2)) * [1, -1] + [1000, 2000]
    areas = [shapely.box(x, y, x + 90, y + 70) for x, y in corners]
    places = [grid(), grid(50, 40, Affine(20, 0, 1000, 0, -20, 2000))]
    whole, _ = Footprints(Targets(areas, crs_of(UTM))).pairs(places, np.arange(2))
    monkeypatch.setattr(footprints_module, "_PAIRS_AT_ONCE", 7)
    some, _ = Footprints(Targets(areas, crs_of(UTM))).pairs(places, np.arange(2))
    assert 20 < len(whole.target) < 100
    for one, other in zip(whole, some, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_that_are_parsed_some_at_a_time_keep_their_order_and_numbers(monkeypatch):
    monkeypatch.setattr(targets_module, "_ROWS_AT_ONCE", 2)
    shapes = [shapely.box(n, 0, n + 1, 1) for n in range(7)]
    high = shapely.force_3d(shapely.box(7, 0, 8, 1), 5.0)
    got = parse_targets(table([*shapes, high]), None, UTM)
    assert [one.bounds[0] for one in got.areas] == list(range(8))
    assert not shapely.has_z(got.areas).any()
    broken = pa.table({"geometry": ["POINT(1 1)", "POINT(2 2)", "POLYGON((", None]})
    with pytest.raises(InputError, match="row 3"):
        parse_targets(broken, None, UTM, areas_only=False)
