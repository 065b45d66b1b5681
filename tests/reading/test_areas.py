"""Many areas in one call: relations of every kind, their columns, shared tiles, coverage."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from reading.rasters import NORTH_UP, noise, write
from reading.read_oracle import (
    assert_same,
    build_files,
    call_of,
    expected_read,
    make_areas,
    opened,
    random_polygon,
    read,
    rows_of,
    to_map,
)

import rasteret_sql
from examples import examples, in_turns
from rasteret_sql.reading.tile_store import STORE

LEFT = shapely.from_wkt("POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))")
RIGHT = shapely.Polygon([(78.003, 13.01), (78.02, 13.012), (78.011, 13.028)])
FIELDS = {"left": LEFT, "right": RIGHT}


@pytest.fixture(scope="module")
def one_by_one(_connected_s2):
    """What a call per area gives: area and id to the band's bytes."""
    return {
        (name, got.row["id"]): got.row["B04"]
        for name, area in FIELDS.items()
        for got in read(_connected_s2, "s2", ["B04"], geometry=area.wkt)
    }


def per_area(con, aois, name="area", **options):
    call = call_of("rasteret_read", "s2", bands=["B04"], aois=aois, **options)
    found = con.execute(f'SELECT "{name}", id, B04 FROM {call}').fetchall()
    assert len({row[:2] for row in found}) == len(found)
    return {row[:2]: row[2] for row in found}


# Where areas may live


def as_frame(kind):
    names, wkb = list(FIELDS), [area.wkb for area in FIELDS.values()]
    if kind == "arrow":
        return pa.table({"area": names, "geom": wkb})
    if kind == "pandas":
        return pd.DataFrame({"area": names, "geom": wkb})
    return pd.DataFrame({"area": names, "geom": [area.wkt for area in FIELDS.values()]})


@pytest.mark.parametrize("kind", ["TABLE", "TEMP TABLE", "VIEW"])
@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_a_table_a_temporary_one_and_a_view(s2, one_by_one, pixels_one_by_one, kind, function):
    make_areas(s2, "kept", FIELDS)
    if kind == "TABLE":
        s2.execute("ALTER TABLE kept RENAME TO fields")
    else:
        s2.execute(f"CREATE {kind} fields AS FROM kept")
    if function == "rasteret_read":
        assert per_area(s2, "fields") == one_by_one
    else:
        assert pixel_counts(s2, aois="fields") == pixels_one_by_one


def typed(con, name, shapes):
    """A table of shapes in metres, whose type says so: a name needs the spatial extension."""
    kind = "GEOMETRY('" + pyproj.CRS(32643).to_wkt().replace("'", "''") + "')"
    con.execute(f"CREATE TABLE {name} (area VARCHAR, geom {kind})")
    own = geopandas.GeoSeries(list(shapes.values()), crs="OGC:CRS84").to_crs(32643)
    con.executemany(
        f"INSERT INTO {name} VALUES ($1, $2)", [*zip(shapes, own.to_wkt(), strict=True)]
    )
    return own


@pytest.mark.parametrize("text", ["fields", "SELECT * FROM fields WHERE area <> 'none'"])
def test_areas_are_in_the_crs_of_their_type(s2, text):
    own = typed(s2, "fields", FIELDS)
    wanted = {
        (name, got.row["id"]): got.row["B04"]
        for name, area in zip(FIELDS, own, strict=True)
        for got in read(s2, "s2", ["B04"], geometry=area.wkt, geometry_crs="EPSG:32643")
    }
    for _ in range(3):  # DuckDB 1.5 gives another CRS in Arrow each time
        assert per_area(s2, text) == wanted


def test_points_are_in_the_crs_of_their_type(s2):
    own = typed(s2, "places", {name: area.centroid for name, area in FIELDS.items()})
    query = "SELECT record_id, area, B04 FROM rasteret_sample_points('s2', {}, bands := ['B04']{})"
    xy = ", ".join(f"('{n}', {p.x!r}, {p.y!r})" for n, p in zip(FIELDS, own, strict=True))
    s2.execute(f"CREATE TABLE numbers AS FROM (VALUES {xy}) AS _(area, x, y)")
    wanted = rows_of(s2, query.format("'numbers'", ", geometry_crs := 'EPSG:32643'"))
    assert len(wanted) > 1
    for _ in range(3):
        assert rows_of(s2, query.format("'places'", "")) == wanted


def test_rows_are_geopandas_in_the_crs_of_their_type(s2):
    own = typed(s2, "fields", FIELDS)
    for _ in range(3):
        frame = rasteret_sql.to_geopandas(s2.sql("FROM fields"))
        assert frame.crs == own.crs
        assert shapely.equals_exact(frame.geometry, own, 1e-6).all()


def pixel_counts(con, **options):
    call = call_of("rasteret_pixels", "s2", bands=["B04"], **options)
    query = f"SELECT area, id, count(*), sum(B04), sum(hash(row, col)) FROM {call} GROUP BY ALL"
    return {row[:2]: row[2:] for row in con.execute(query).fetchall()}


@pytest.fixture(scope="module")
def pixels_one_by_one(_connected_s2):
    """The same of a call per area."""
    found = {}
    for name, area in FIELDS.items():
        call = call_of("rasteret_pixels", "s2", bands=["B04"], geometry=area.wkt)
        query = f"SELECT id, count(*), sum(B04), sum(hash(row, col)) FROM {call} GROUP BY ALL"
        found |= {(name, row[0]): row[1:] for row in _connected_s2.execute(query).fetchall()}
    return found


@pytest.mark.parametrize("kind", ["arrow", "pandas", "text"])
@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_a_registered_frame(s2, one_by_one, pixels_one_by_one, kind, function):
    s2.register("fields", as_frame(kind))
    if function == "rasteret_read":
        assert per_area(s2, "fields") == one_by_one
    else:
        assert pixel_counts(s2, aois="fields") == pixels_one_by_one


def test_rows_that_are_not_committed(s2, one_by_one):
    s2.execute("BEGIN")
    make_areas(s2, "fields", FIELDS)
    assert per_area(s2, "fields") == one_by_one
    s2.execute("ROLLBACK")


def test_a_select_over_a_temporary_table(s2, one_by_one):
    make_areas(s2, "fields", FIELDS, "TEMP TABLE")
    some = per_area(s2, "SELECT * FROM fields WHERE area = 'right'")
    assert some == {key: value for key, value in one_by_one.items() if key[0] == "right"}
    assert some
    assert per_area(s2, "FROM fields") == one_by_one
    assert per_area(s2, "WITH f AS (FROM fields) SELECT * FROM f") == one_by_one


def test_a_qualified_name_and_one_with_odd_characters(s2, one_by_one):
    s2.execute('CREATE SCHEMA "my areas"')
    make_areas(s2, '"my areas"."the ""fields"""', FIELDS)
    assert per_area(s2, '"my areas"."the ""fields"""') == one_by_one


@pytest.mark.parametrize("kind", ["wkb", "geoparquet"])
def test_a_parquet_file(s2, one_by_one, tmp_path, kind):
    path = tmp_path / "fields.parquet"
    if kind == "wkb":
        pq.write_table(as_frame("arrow"), path)
    else:
        frame = geopandas.GeoDataFrame(
            {"area": list(FIELDS)}, geometry=list(FIELDS.values()), crs="OGC:CRS84"
        )
        frame.to_parquet(path)
    assert per_area(s2, str(path)) == one_by_one


@pytest.mark.parametrize("form", ["WKB", "WKT", "GEOMETRY"])
def test_every_form_of_a_geometry(s2, one_by_one, form):
    s2.register("frame", as_frame("arrow" if form == "WKB" else "text"))
    # a column of type GEOMETRY is found whatever its name is
    geometry = "geom::GEOMETRY AS outline" if form == "GEOMETRY" else "geom"
    s2.execute(f"CREATE TABLE fields AS SELECT area, {geometry} FROM frame")
    assert per_area(s2, "fields") == one_by_one


@pytest.mark.parametrize("name", ["geometry", "geom", "wkb_geometry"])
def test_a_geometry_column_is_found_by_its_name(s2, one_by_one, name):
    make_areas(s2, "kept", FIELDS)
    s2.execute(f"CREATE TABLE fields AS SELECT area, geom AS {name} FROM kept")
    assert per_area(s2, "fields") == one_by_one
    call = call_of("rasteret_read", "s2", bands=["B04"], aois="fields")
    columns = {row[0] for row in s2.execute(f"DESCRIBE FROM {call}").fetchall()}
    assert name not in columns


def test_geometry_column_says_which_of_several(s2, one_by_one):
    make_areas(s2, "kept", FIELDS)
    s2.execute(
        "CREATE TABLE fields AS SELECT area, geom AS outline, 'POINT (1 2)' AS geometry FROM kept"
    )
    assert per_area(s2, "fields", geometry_column="outline") == one_by_one
    call = call_of("rasteret_read", "s2", bands=["B04"], aois="fields", geometry_column="outline")
    assert {row["geometry"] for row in rows_of(s2, f"FROM {call}")} == {"POINT (1 2)"}


@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_a_relation_without_a_geometry_column_is_refused(s2, function):
    s2.execute("CREATE TABLE fields AS SELECT 'x' AS area, 1 AS size")
    with pytest.raises(duckdb.Error, match=rf"{function}: aois: expected .*geometry_column"):
        s2.execute(f"EXPLAIN FROM {function}('s2', aois := 'fields')")
    with pytest.raises(duckdb.Error, match=r"geometry_column: .*'outline'"):
        s2.execute(f"EXPLAIN FROM {function}('s2', aois := 'fields', geometry_column := 'outline')")
    with pytest.raises(duckdb.Error, match="no_such_table does not exist"):
        s2.execute(f"EXPLAIN FROM {function}('s2', aois := 'no_such_table')")


@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_one_area_and_a_relation_together_are_refused(s2, function):
    make_areas(s2, "fields", FIELDS)
    for other in ("bbox := [1, 2, 3, 4]", f"geometry := '{LEFT.wkt}'"):
        with pytest.raises(duckdb.Error, match=rf"{function}: .*aois"):
            s2.execute(f"EXPLAIN FROM {function}('s2', aois := 'fields', {other})")


def test_a_row_that_is_no_area_is_an_error_that_shows_it(s2):
    s2.execute("CREATE TABLE fields AS SELECT 'x' AS area, 'POLYGON((1 2' AS geom")
    with pytest.raises(duckdb.Error, match=r"rasteret_read: .*POLYGON\(\(1 2"):
        s2.execute("FROM rasteret_read('s2', aois := 'fields')").fetchall()


# Columns and rows of areas


def test_all_columns_of_areas_come_through_with_their_types(s2):
    s2.execute(
        "CREATE TABLE fields AS SELECT 7::UTINYINT AS crop_code, [1, 2] AS list, "
        "{a: 1.5, b: 'x'} AS facts, DATE '2024-05-06' AS sown, NULL::INTEGER AS nothing, "
        f"'{LEFT.wkt}' AS geom, 'MiXed' AS \"Mixed Case\""
    )
    for function in ("rasteret_read", "rasteret_pixels"):
        call = call_of(function, "s2", bands=["B04"], aois="fields")
        types = dict(row[:2] for row in s2.execute(f"DESCRIBE FROM {call}").fetchall())
        wanted = dict(row[:2] for row in s2.execute("DESCRIBE fields").fetchall())
        wanted.pop("geom")
        assert wanted.items() <= types.items()
        assert "geom" not in types
        listed = ", ".join(f'"{name}"' for name in wanted)
        (found,) = s2.execute(f"SELECT DISTINCT {listed} FROM {call}").fetchall()
        assert [found] == s2.execute(f"SELECT {listed} FROM fields").fetchall()


def test_names_that_clash_get_a_prefix(s2):
    s2.execute(
        "CREATE TABLE fields AS SELECT 'mine' AS id, 1 AS height, 2 AS B04, 3 AS x, "
        f"TIMESTAMP '2000-01-01' AS \"DateTime\", '{LEFT.wkt}' AS geom"
    )
    call = call_of("rasteret_read", "s2", bands=["B04"], aois="fields")
    rows = rows_of(s2, f"FROM {call}")
    assert len(rows) == 6
    for row in rows:
        assert row["id"].startswith("S2A_")
        assert (row["aoi_id"], row["aoi_height"], row["aoi_B04"], row["x"]) == ("mine", 1, 2, 3)
        assert row["aoi_DateTime"].year == 2000
        assert isinstance(row["B04"], bytes)
    call = call_of("rasteret_pixels", "s2", bands=["B04"], aois="fields")
    (row,) = rows_of(s2, f"FROM {call} LIMIT 1")
    assert (row["aoi_id"], row["aoi_B04"], row["aoi_x"], row["height"]) == ("mine", 2, 3, 1)


@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_null_and_empty_geometries_give_no_row(s2, function):
    s2.execute(
        "CREATE TABLE fields AS SELECT * FROM (VALUES ('null', NULL), ('empty', 'POLYGON EMPTY'), "
        f"('far', 'POLYGON((0 0, 1 0, 1 1, 0 0))'), ('here', '{LEFT.wkt}')) AS f(area, geom)"
    )
    call = call_of(function, "s2", bands=["B04"], aois="fields")
    found = s2.execute(f"SELECT DISTINCT area FROM {call}").fetchall()
    assert found == [("here",)]
    none = call_of(function, "s2", aois="SELECT * FROM fields WHERE area <> 'here'")
    assert s2.execute(f"FROM {none}").fetchall() == []


def test_equal_areas_are_rows_of_their_own(s2, one_by_one):
    s2.execute(f"CREATE TABLE fields AS SELECT range AS area, '{LEFT.wkt}' AS geom FROM range(3)")
    found = per_area(s2, "fields")
    assert len(found) == 18
    for (_, record), pixels in found.items():
        assert pixels == one_by_one["left", record]


def test_geometry_crs_is_for_all_of_them(s2, scenes, one_by_one):
    with opened(next(scenes[0].glob("*/B04.tif"))) as file:
        crs = file.crs
    there = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    moved = {
        name: shapely.transform(area.segmentize(1e-4), there.transform, interleaved=False)
        for name, area in FIELDS.items()
    }
    make_areas(s2, "fields", moved)
    found = per_area(s2, "fields", geometry_crs=crs.to_string())
    assert set(found) == set(one_by_one)
    for got in read(s2, "s2", ["B04"], aois="fields", geometry_crs=crs.to_string()):
        path = scenes[0] / got.row["id"] / "B04.tif"
        with opened(path) as file:
            same = file.crs == crs
        if same:
            assert_same(got, expected_read(path, moved[got.row["area"]]))


def test_where_on_a_column_of_areas_gives_the_rows_of_a_table(s2):
    make_areas(s2, "fields", FIELDS)
    for function in ("rasteret_read", "rasteret_pixels"):
        call = call_of(function, "s2", bands=["B04"], aois="fields")
        s2.execute(f"CREATE OR REPLACE TABLE kept AS FROM {call}")
        for condition in ("area = 'left'", "area > 'm' AND id LIKE '%43%'", "area IS NULL"):
            query = "SELECT count(*), sum(hash(id, area, B04)) FROM {} WHERE {}"
            ours = s2.execute(query.format(call, condition)).fetchall()
            assert ours == s2.execute(query.format("kept", condition)).fetchall()


# Tiles that areas share


def ranges(server):
    """Half-open byte ranges per path, as they were requested."""
    found = []
    for request in server.requests():
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", request["range"]).groups()
        found.append((request["path"], int(first), int(last) + 1))
    return found


def assert_no_byte_twice(asked):
    for path in {request[0] for request in asked}:
        spans = sorted(request[1:] for request in asked if request[0] == path)
        for (_, stop), (start, _) in itertools.pairwise(spans):
            assert start >= stop, (path, spans)


@pytest.fixture
def remote(con, server):
    """One file of 8 x 8 tiles of 64 px over HTTP as collection `made`."""
    folder = server.folder / "areas"
    folder.mkdir(exist_ok=True)
    path = write(folder / "a.tif", noise((1, 512, 512)), nodata=7, blockxsize=64, blockysize=64)
    build_files(con, "made", {"one": server.url("scenes", "areas/a.tif")})
    STORE.clear()
    server.reset()
    return path


@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_a_tile_under_several_areas_is_requested_once(con, remote, server, function):
    areas = {str(n): shapely.box(10.3 + n, 12.2, 50.7 + n, 40.4) for n in range(20)}
    make_areas(con, "pieces", areas)
    one = f"FROM {call_of(function, 'made', geometry=areas['0'], geometry_crs='pixel')}"
    con.execute(one).fetchall()
    (alone,) = ranges(server)
    STORE.clear()
    server.reset()
    con.execute(f"FROM {call_of(function, 'made', aois='pieces', geometry_crs='pixel')}").fetchall()
    asked = ranges(server)
    assert_no_byte_twice(asked)
    # areas 14 to 19 reach into a second tile, no more
    assert sum(stop - start for _, start, stop in asked) < 3 * (alone[2] - alone[1])


@pytest.mark.any_duckdb
@pytest.mark.parametrize("function", ["rasteret_read", "rasteret_pixels"])
def test_areas_on_the_scenes_request_no_byte_twice(s2, server, function):
    rng = np.random.default_rng(2)
    areas = {
        str(n): shapely.transform(
            random_polygon(rng, 0.02), lambda xy: xy + np.array([77.985, 13.003])
        )
        for n in range(25)
    }
    make_areas(s2, "fields", areas)
    s2.sql(f"FROM {call_of(function, 's2', aois='fields')}").to_arrow_table()
    asked = ranges(server)
    assert len(asked) >= 18
    assert_no_byte_twice(asked)


@pytest.mark.any_duckdb
def test_thousands_of_areas_in_one_call(con, remote, server):
    """Boxes all over the image, checked in NumPy; each tile is requested once."""
    rng = np.random.default_rng(4)
    n = examples(3_000, 10_000)
    west, north = rng.uniform(-20, 520, (2, n))
    width, height = rng.uniform(0.6, 30, (2, n))
    boxes = shapely.box(west, north, west + width, north + height)
    areas = pa.table({"area": np.arange(n), "geom": shapely.to_wkb(boxes).tolist()})
    con.register("pieces", areas)
    call = call_of(
        "rasteret_read", "made", bands=["band"], aois="pieces", geometry_crs="pixel", valid=True
    )
    query = f"SELECT area, height, width, transform[3], transform[6], band, valid FROM {call}"
    found = con.execute(query).fetchall()
    asked = ranges(server)
    assert_no_byte_twice(asked)
    assert len(asked) <= 64
    with opened(remote) as file:
        image = file.read(1)
    bounds = np.stack([west, west + width, north, north + height], axis=1)
    start = np.maximum(np.floor(bounds[:, ::2]), 0).astype(int)
    stop = np.minimum(np.ceil(bounds[:, 1::2]), 512).astype(int)
    inside = (start < stop).all(axis=1)
    got = {row[0]: row[1:] for row in found}
    assert len(got) == len(found)
    assert set(got) == set(np.nonzero(inside)[0].tolist())
    for number, (rows, cols, x, y, pixels, valid) in got.items():
        (c0, r0), (c1, r1) = start[number], stop[number]
        assert (rows, cols) == (r1 - r0, c1 - c0)
        assert (x, y) == (500_000 + 10 * c0, 4_000_000 - 10 * r0)
        col, row = np.arange(c0, c1) + 0.5, np.arange(r0, r1) + 0.5
        xmin, xmax, ymin, ymax = bounds[number]
        under = ((row > ymin) & (row < ymax))[:, None] & (col > xmin) & (col < xmax)
        part = image[r0:r1, c0:c1]
        seen = under & (part != 7)
        assert valid == seen.astype(np.uint8).tobytes()
        assert pixels == np.where(seen, part, 7).astype("<u2").tobytes()


@pytest.mark.any_duckdb
def test_ten_thousand_areas_as_pixels(con, remote, server):
    rng = np.random.default_rng(5)
    n = 10_000
    west, north = np.floor(rng.uniform(0, 500, (2, n)))
    boxes = shapely.box(west + 0.2, north + 0.2, west + 3.8, north + 2.8)
    areas = pa.table({"area": np.arange(n), "geom": shapely.to_wkb(boxes).tolist()})
    con.register("pieces", areas)
    call = call_of(
        "rasteret_pixels", "made", bands=["band"], aois="pieces", geometry_crs="pixel", masked=False
    )
    query = f"SELECT area, count(*), sum(band) FROM {call} GROUP BY area ORDER BY area"
    found = con.execute(query).fetchnumpy()
    asked = ranges(server)
    assert_no_byte_twice(asked)
    assert len(asked) <= 64
    np.testing.assert_array_equal(found["area"], np.arange(n))
    np.testing.assert_array_equal(found["count_star()"], np.full(n, 12))
    with opened(remote) as file:
        image = file.read(1).astype(np.int64)
    total = np.pad(image, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    r, c = north.astype(int), west.astype(int)
    sums = total[r + 3, c + 4] - total[r, c + 4] - total[r + 3, c] + total[r, c]
    np.testing.assert_array_equal(np.asarray(found["sum(band)"]).astype(np.int64), sums)


# The antimeridian


def strip_across_180():
    """A bbox across 180 degrees and the same area as one polygon of longitudes up to 180.2."""
    return [179.92, -16.6, -179.94, -16.5], shapely.box(179.92, -16.6, 180.06, -16.5)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("kind", ["bbox", "multipolygon", "aois"])
def test_an_area_across_the_antimeridian_in_utm(con, tmp_path, kind, all_touched):
    """A raster of UTM zone 60 that reaches beyond 180 degrees is read on both sides of it."""
    to_utm = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:32760", always_xy=True)
    x, y = to_utm.transform(180.0, -16.55)
    path = write(
        tmp_path / "fiji.tif", noise((1, 160, 240)), nodata=7, crs="EPSG:32760",
        transform=Affine(100, 0, x - 12_000, 0, -100, y + 8000),
    )  # fmt: skip
    build_files(con, "fiji", {"one": path})
    bbox, strip = strip_across_180()
    parts = shapely.MultiPolygon(
        [shapely.box(179.92, -16.6, 180, -16.5), shapely.box(-180, -16.6, -179.94, -16.5)]
    )
    if kind == "aois":
        make_areas(con, "strips", {"strip": parts})
    area = {"bbox": {"bbox": bbox}, "multipolygon": {"geometry": parts}, "aois": {"aois": "strips"}}
    (got,) = read(con, "fiji", ["band"], all_touched=all_touched, valid=True, **area[kind])
    on_map = shapely.transform(strip.segmentize(1e-4), to_utm.transform, interleaved=False)
    wanted = expected_read(path, on_map, all_touched=all_touched)
    assert wanted.valid.sum() > 10_000
    assert_same(got, wanted)


@pytest.mark.any_duckdb
def test_an_area_across_the_antimeridian_on_longitudes_to_360(con, tmp_path):
    path = write(
        tmp_path / "pacific.tif", noise((1, 80, 120)), nodata=7, crs="EPSG:4326",
        transform=Affine(0.005, 0, 179.7, 0, -0.005, -16.3),
    )  # fmt: skip
    build_files(con, "pacific", {"one": path})
    (got,) = read(con, "pacific", ["band"], bbox=[179.9213, -16.6012, -179.9431, -16.5023])
    wanted = expected_read(path, shapely.box(179.9213, -16.6012, 180.0569, -16.5023))
    assert_same(got, wanted)


@pytest.mark.any_duckdb
def test_an_area_across_the_antimeridian_on_a_map_of_the_world(con, tmp_path):
    """Two parts at both sides of the image: one window over all longitudes, as rasterio's."""
    path = write(
        tmp_path / "world.tif", noise((1, 180, 360), "uint8"), nodata=7, crs="EPSG:4326",
        transform=Affine(1, 0, -180, 0, -1, 90),
    )  # fmt: skip
    build_files(con, "world", {"one": path})
    bbox = [170.3, -20.2, -171.6, -3.7]
    parts = shapely.MultiPolygon(
        [shapely.box(170.3, -20.2, 180, -3.7), shapely.box(-180, -20.2, -171.6, -3.7)]
    )
    (got,) = read(con, "world", ["band"], bbox=bbox, valid=True)
    assert_same(got, expected_read(path, parts))
    found = con.execute(
        f"SELECT min(col), max(col), count(*) FROM rasteret_pixels('world', bbox := {bbox})"
    ).fetchall()
    assert found == [(0, 359, int(_inside(path, parts).sum()))]


def _inside(path, area, *, all_touched=False):
    with opened(path) as file:
        return rasterio.features.geometry_mask(
            [area], file.shape, file.transform, all_touched=all_touched, invert=True
        )


# Pixels: lonlat, coverage, level


GRIDS = {
    "north-up": (NORTH_UP, "EPSG:32643"),
    "south-up": (Affine(30, 0, 300_000, 0, 30, 8_000_000), "EPSG:32701"),
    "rotated": (Affine(8, 3, 500_000, 3.5, -9, 4_000_000), "EPSG:3035"),
    "degrees": (Affine(0.01, 0, 12.5, 0, -0.01, 41.25), "EPSG:4326"),
}


@pytest.fixture(scope="module", params=list(GRIDS))
def grid(request, tmp_path_factory):
    """A connection with collection `made` of one file; its path, transform and CRS."""
    folder, (transform, crs) = tmp_path_factory.mktemp("grid"), GRIDS[request.param]
    path = write(
        folder / "a.tif", noise((2, 70, 90)), transform=transform, crs=crs, nodata=7,
        overviews=[2, 4],
    )  # fmt: skip
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    build_files(con, "made", {"one": path}, ("a", "b"))
    yield con, path, transform, crs
    con.close()


@pytest.mark.any_duckdb
def test_lonlat_adds_the_degrees_of_pixel_centres(grid):
    con, _, transform, crs = grid
    found = con.execute("SELECT * FROM rasteret_pixels('made', lonlat := true)").fetchnumpy()
    assert len(found["row"]) == 70 * 90
    x, y = transform @ (found["col"] + 0.5, found["row"] + 0.5)
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    np.testing.assert_allclose(found["lon"], lon, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["lat"], lat, rtol=0, atol=1e-9)
    plain = con.execute("DESCRIBE FROM rasteret_pixels('made')").fetchall()
    with_both = con.execute(
        "DESCRIBE FROM rasteret_pixels('made', lonlat := true, coverage := true)"
    ).fetchall()
    types = dict(row[:2] for row in with_both)
    assert {"lon", "lat", "coverage"} & {row[0] for row in plain} == set()
    assert (types["lon"], types["lat"]) == ("DOUBLE", "DOUBLE")
    assert types["coverage"] in ("DOUBLE", "FLOAT")


@pytest.mark.any_duckdb
def test_lonlat_of_the_scenes(s2, scenes):
    call = call_of("rasteret_pixels", "s2", bands=["B04"], geometry=LEFT.wkt, lonlat=True)
    found = s2.execute(f"SELECT min(lon), max(lon), min(lat), max(lat) FROM {call}").fetchall()
    np.testing.assert_allclose(found[0], [77.984, 77.997, 13.002, 13.030], atol=2e-4)


@pytest.mark.any_duckdb
def test_lonlat_of_a_raster_without_crs_is_an_error_that_says_so(con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 20, 20)), crs=None)
    build_files(con, "bare", {"one": path})
    with pytest.raises(duckdb.Error, match=r"rasteret_pixels: .*CRS"):
        con.execute("FROM rasteret_pixels('bare', lonlat := true)").fetchall()


def shares(area_px, height, width):
    """Share of every pixel that an area covers, by shapely."""
    col, row = np.meshgrid(np.arange(width), np.arange(height))
    return shapely.area(shapely.intersection(shapely.box(col, row, col + 1, row + 1), area_px))


@pytest.mark.any_duckdb
def test_coverage_is_the_share_of_each_touched_pixel(grid):
    con, path, transform, crs = grid
    rng = np.random.default_rng(6)
    areas = {str(n): random_polygon(rng, size) for n, size in enumerate([100, 60, 30, 5, 2, 0.4])}
    placed = {name: to_map(area, transform) for name, area in areas.items()}
    make_areas(con, "pieces", placed)
    call = call_of(
        "rasteret_pixels", "made", aois="pieces", geometry_crs=crs, coverage=True, masked=False
    )
    found = con.execute(f"FROM {call}").fetchnumpy()
    with opened(path) as file:
        image = file.read()
    of = np.asarray(found["area"]).astype(str)
    for name, area in areas.items():
        mine = of == name
        row, col = found["row"][mine], found["col"][mine]
        wanted = shares(area, 70, 90)
        there = np.zeros(wanted.shape, bool)
        there[row, col] = True
        assert there.sum() == len(row), "a pixel came twice"
        assert there[wanted > 1e-6].all()
        near = shapely.buffer(area, 1e-6)
        cols, rows = np.meshgrid(np.arange(90), np.arange(70))
        assert not there[
            ~shapely.intersects(near, shapely.box(cols, rows, cols + 1, rows + 1))
        ].any()
        got = np.asarray(found["coverage"][mine], float)
        np.testing.assert_allclose(got, wanted[row, col], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(found["a"][mine], image[0][row, col])
        inside = shapely.intersection(area, shapely.box(0, 0, 90, 70)).area
        np.testing.assert_allclose(got.sum(), inside, rtol=1e-4, atol=1e-4)


@pytest.mark.any_duckdb
def test_coverage_hides_nodata_as_other_reads_do(grid):
    con, path, transform, crs = grid
    area = to_map(shapely.Polygon([(3.3, 4.2), (70.4, 9.9), (33.3, 66.1)]), transform)
    call = call_of("rasteret_pixels", "made", geometry=area, geometry_crs=crs, coverage=True)
    found = con.execute(f"FROM {call}").fetchnumpy()
    with opened(path) as file:
        seen = file.read_masks(1) != 0
    valid = ~np.ma.getmaskarray(np.ma.asarray(found["a"]))
    np.testing.assert_array_equal(valid, seen[found["row"], found["col"]])


@pytest.mark.any_duckdb
def test_coverage_without_an_area_is_one(grid):
    found = (
        grid[0]
        .execute(
            "SELECT count(*), min(coverage), max(coverage) FROM rasteret_pixels('made', "
            "coverage := true)"
        )
        .fetchall()
    )
    assert found == [(6300, 1.0, 1.0)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(("level", "all_touched"), in_turns([1, 2], [False, True]))
def test_pixels_of_a_level_are_the_overviews(grid, level, all_touched):
    con, path, transform, crs = grid
    rng = np.random.default_rng(7)
    areas = {str(n): random_polygon(rng, size) for n, size in enumerate((100, 60, 30))}
    placed = {name: to_map(area, transform) for name, area in areas.items()}
    make_areas(con, "pieces", placed)
    call = call_of(
        "rasteret_pixels", "made", aois="pieces", geometry_crs=crs, level=level,
        all_touched=all_touched,
    )  # fmt: skip
    found = con.execute(f"FROM {call}").fetchnumpy()
    of = np.asarray(found["area"]).astype(str)
    with opened(path, level) as file:
        image, masks, affine, shape = (
            file.read(),
            file.read_masks() != 0,
            file.transform,
            file.shape,
        )
        for name, area in placed.items():
            mine = of == name
            row, col = found["row"][mine], found["col"][mine]
            inside = rasterio.features.geometry_mask(
                [area], shape, affine, all_touched=all_touched, invert=True
            )
            there = np.zeros(shape, bool)
            there[row, col] = True
            assert there.sum() == len(row)
            np.testing.assert_array_equal(there, inside)
            x, y = affine @ (col + 0.5, row + 0.5)
            np.testing.assert_allclose(found["x"][mine], x, rtol=1e-12)
            np.testing.assert_allclose(found["y"][mine], y, rtol=1e-12)
            for number, band in enumerate("ab"):
                value = np.ma.asarray(found[band])[mine]
                valid = ~np.ma.getmaskarray(value)
                np.testing.assert_array_equal(valid, masks[number][row, col])
                np.testing.assert_array_equal(
                    np.ma.getdata(value)[valid], image[number][row, col][valid]
                )


@pytest.mark.any_duckdb
def test_a_zonal_mean_by_coverage_is_plain_sql(grid):
    con, path, transform, crs = grid
    areas = {"one": shapely.Polygon([(3.3, 4.2), (70.4, 9.9), (33.3, 66.1)])}
    make_areas(con, "pieces", {name: to_map(area, transform) for name, area in areas.items()})
    call = call_of("rasteret_pixels", "made", aois="pieces", geometry_crs=crs, coverage=True)
    mean_by_share = "sum(a * coverage) / sum(coverage) FILTER (a IS NOT NULL)"
    ((_, mean),) = con.execute(f"SELECT area, {mean_by_share} FROM {call} GROUP BY 1").fetchall()
    share = shares(areas["one"], 70, 90)
    with opened(path) as file:
        values = file.read(1, masked=True)
    weights = np.where(np.ma.getmaskarray(values), 0, share)
    assert math.isclose(mean, (np.ma.getdata(values) * weights).sum() / weights.sum(), rel_tol=1e-5)


@pytest.mark.any_duckdb
def test_an_area_outside_every_scene_gives_no_row(s2, server):
    areas = {str(n): shapely.box(10 + n, 50, 11 + n, 51) for n in range(5)}
    make_areas(s2, "fields", areas)
    for function in ("rasteret_read", "rasteret_pixels"):
        call = call_of(function, "s2", aois="fields")
        assert s2.execute(f"FROM {call}").fetchall() == []
    assert server.requests() == []


@pytest.mark.any_duckdb
def test_an_area_whose_bounds_alone_overlap_a_raster_gives_no_row(con, tmp_path):
    """An L around the image touches no pixel of it."""
    path = write(tmp_path / "a.tif", noise((1, 40, 40)))
    build_files(con, "made", {"one": path})
    around = shapely.Polygon([(-9, -9), (60, -9), (60, -3), (-3, -3), (-3, 60), (-9, 60)])
    for how in ({}, {"all_touched": True}):
        assert read(con, "made", ["band"], geometry=around, geometry_crs="pixel", **how) == []


@pytest.mark.any_duckdb
def test_an_area_between_pixel_centres_is_a_row_without_data(con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 40, 40)))
    build_files(con, "made", {"one": path})
    sliver = shapely.box(3.1, 3.1, 3.2, 30.2)
    (got,) = read(con, "made", ["band"], geometry=sliver, geometry_crs="pixel", valid=True)
    assert not got.valid.any()
    assert_same(got, expected_read(path, geometry_px=sliver))
    (got,) = read(con, "made", ["band"], geometry=sliver, geometry_crs="pixel", all_touched=True)
    assert_same(got, expected_read(path, geometry_px=sliver, all_touched=True))


@pytest.mark.any_duckdb
def test_each_record_gets_the_areas_that_touch_it(con, tmp_path):
    """Many records and areas: the pairs that come are those that overlap."""
    paths = {}
    for number in range(8):
        transform = Affine(10, 0, 500_000 + 300 * number, 0, -10, 4_000_000)
        pixels = noise((1, 40, 40), seed=number)
        paths[f"r{number:02}"] = write(tmp_path / f"{number}.tif", pixels, transform=transform)
    build_files(con, "made", paths)
    rng = np.random.default_rng(8)
    areas = {
        str(n): to_map(random_polygon(rng, 15), Affine(10, 0, 500_000 + x, 0, -10, 4_000_000 - y))
        for n, (x, y) in enumerate(rng.uniform([0, -200], [3000, 600], (40, 2)))
    }
    make_areas(con, "pieces", areas)
    rows = read(con, "made", ["band"], aois="pieces", geometry_crs="EPSG:32643")
    got = {(row.row["id"], row.row["area"]): row for row in rows}
    assert len(got) == len(rows)
    n_pairs = Counter()
    for record, path in paths.items():
        with opened(path) as file:
            image = shapely.box(*file.bounds)
        for name, area in areas.items():
            overlaps = image.intersection(area).area > 0
            assert not overlaps or (record, name) in got
            if (record, name) in got:
                wanted = expected_read(path, area)
                assert_same(got[record, name], wanted)
                assert overlaps or not wanted.valid.any()
            n_pairs[overlaps] += 1
    assert n_pairs[True] > 30
