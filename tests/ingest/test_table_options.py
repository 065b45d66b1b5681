"""rasteret_build_table by its options: asset columns of every form, footprints in every CRS."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

UTM = (780_000.0, 1_430_000.0, 790_000.0, 1_440_000.0)


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


@pytest.fixture
def paths(scenes):
    """Paths of two bands of one scene."""
    folder = min(path for path in scenes.iterdir() if path.is_dir())
    return {band: str(folder / f"{band}.tif") for band in ("B04", "B08")}


FORMS = {
    "struct": "{'B04': {'href': $r}, 'B08': {'href': $n, 'band_index': 0}}",
    "struct of text": "{'B04': $r, 'B08': $n}",
    "struct of STAC assets": (
        "{'B04': {'href': $r, 'type': 'image/tiff; application=geotiff', 'roles': ['data']}, "
        "'B08': {'href': $n, 'type': 'image/tiff', 'roles': ['data']}, "
        "'thumbnail': {'href': 't.jpg', 'type': 'image/jpeg', 'roles': ['thumbnail']}}"
    ),
    "map of text": "MAP {'B04': $r, 'B08': $n}",
    "map of struct": "MAP {'B04': {'href': $r}, 'B08': {'href': $n}}",
    "JSON": "json_object('B04', json_object('href', $r), 'B08', json_object('href', $n))",
    "JSON text": "json_object('B04', $r, 'B08', $n)::VARCHAR",
    "JSON list": "json_array(json_object('name', 'B04', 'href', $r), "
    "json_object('name', 'B08', 'href', $n))",
    "list of named structs": "[{'name': 'B04', 'href': $r}, {'name': 'B08', 'href': $n}]",
    "list of entries": "map_entries(MAP {'B04': $r, 'B08': $n})",
}


@pytest.mark.parametrize("form", FORMS)
def test_assets_of_every_form_are_read(rows, paths, form):
    made = f"SELECT 'a' AS id, TIMESTAMP '2024-05-01' AS datetime, {FORMS[form]} AS assets"
    for name, path in zip("rn", paths.values(), strict=True):
        made = made.replace(f"${name}", f"'{path}'")
    query = "FROM rasteret_build_table('t', $source, enrich := true)"
    assert rows(query, {"source": made})[0][3:8] == (1, ["B04", "B08"], 2, 2, 0)
    found = rows("SELECT assets.B04.href, assets.B08.href, assets.B08.band_index FROM t")
    assert found == [(paths["B04"], paths["B08"], 0)]
    pixels = rows("SELECT count(B04) > 0, count(B08) > 0 FROM rasteret_pixels('t')")
    assert pixels == [(True, True)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "bands", "indices"),
    [
        ("href_column := 'url'", ["b1"], [0]),
        ("href_column := 'url', bands := ['red']", ["red"], [0]),
        ("href_column := 'url', band_index_map := MAP {'r': 0, 'g': 1}", ["r", "g"], [0, 1]),
        (
            "href_column := 'url', band_index_map := MAP {'r': 2, 'g': 1}, bands := ['g']",
            ["g"],
            [1],
        ),
    ],
)
def test_plain_hrefs_become_bands(rows, tmp_path, options, bands, indices):
    source = "SELECT 7 AS key, DATE '2024-05-01' AS day, 'https://a.org/x.tif?sig=1' AS url"
    report = rows(
        f"FROM rasteret_build_table('t', $source, {options}, "
        "column_map := MAP {'key': 'id', 'day': 'datetime'}, columns := ['url'], "
        "url_rewrite := MAP {'https://a.org/': 's3://b/'}, data_source := 'mine')",
        {"source": source},
    )[0]
    assert report[4] == bands
    for band, index in zip(bands, indices, strict=True):
        assert rows(f"SELECT id, assets.{band}.href, assets.{band}.band_index FROM t") == [
            ("7", "s3://b/x.tif", index)
        ]
    names = [row[0] for row in rows("DESCRIBE t")]
    assert "url" in names
    assert "day" not in names
    assert rows("SELECT data_source FROM rasteret_collections()") == [("mine",)]


def footprint(how, epsg):
    """A footprint of `UTM` in a column, its CRS said in one place only."""
    shape = shapely.box(*UTM)
    wkb = pa.array([shapely.to_wkb(shape)])
    crs = pyproj.CRS.from_epsg(epsg)
    metadata = {}
    field = pa.field("geometry", pa.binary())
    if how == "geo":
        column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs.to_json_dict()}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        metadata = {"geo": json.dumps(geo)}
    elif how == "geoarrow":
        marks = {
            "ARROW:extension:name": "geoarrow.wkb",
            "ARROW:extension:metadata": json.dumps({"crs": crs.to_json_dict()}),
        }
        field = field.with_metadata(marks)
    elif how == "ewkb":
        wkb = pa.array([shapely.to_wkb(shapely.set_srid(shape, epsg), include_srid=True)])
    table = {"id": ["a"], "datetime": ["2024-05-01"], "url": ["s3://b/a.tif"]}
    columns = [pa.array(values) for values in table.values()]
    schema = pa.schema([*((name, pa.string()) for name in table), field], metadata=metadata)
    return pa.Table.from_arrays([*columns, wkb], schema=schema)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("how", ["geo", "geoarrow", "ewkb", "argument"])
@pytest.mark.parametrize("is_remote", [False, True], ids=["local", "remote"])
def test_footprints_of_any_crs_come_out_in_degrees(rows, tmp_path, server, how, is_remote):
    path = (server.folder if is_remote else tmp_path) / f"{how}.parquet"
    pq.write_table(footprint(how, 32643), path)
    source = server.url("scenes", path.name) if is_remote else str(path)
    option = ", geometry_crs := 'EPSG:32643'" if how == "argument" else ""
    rows(f"FROM rasteret_build_table('t', $s, href_column := 'url'{option})", {"s": source})
    box, wkb = rows("SELECT bbox, ST_AsWKB(geometry) FROM t")[0]
    transformer = pyproj.Transformer.from_crs(32643, "OGC:CRS84", always_xy=True)
    wanted = transformer.transform_bounds(*UTM, densify_pts=50)
    assert np.allclose(list(box.values()), wanted, atol=1e-5)
    assert np.allclose(shapely.from_wkb(bytes(wkb)).bounds, wanted, atol=1e-5)


@pytest.mark.any_duckdb
def test_metres_without_a_crs_name_the_argument(rows, tmp_path):
    path = tmp_path / "plain.parquet"
    pq.write_table(footprint("argument", 32643), path)
    with pytest.raises(duckdb.Error, match=r"geometry_crs"):
        rows(f"FROM rasteret_build_table('t', '{path}', href_column := 'url')")


def test_a_private_relation_takes_the_same_options(rows, con):
    con.register("frame", footprint("argument", 32643))
    rows(
        "FROM rasteret_build_table('t', 'frame', href_column := 'url', bands := ['B04'], "
        "geometry_crs := 32643, \"where\" := 'id = ''a''')"
    )
    assert rows("SELECT bbox.xmin BETWEEN 77 AND 78, bbox.ymin BETWEEN 12 AND 13 FROM t") == [
        (True, True)
    ]


def test_a_partitioned_export_comes_back_with_its_types(rows, tmp_path):
    rows(
        "CREATE TABLE kept AS SELECT i::VARCHAR AS id, TIMESTAMP '2024-05-01' AS datetime, "
        "NULL::BLOB AS geometry, {'B04': {'href': 's3://b/a.tif', 'band_index': 0}} AS assets, "
        "CASE WHEN i < 9 THEN '00' || i END AS tile_id, DATE '2024-05-01' + i::INTEGER AS day, "
        "i % 2 = 0 AS is_even FROM range(10) t(i)"
    )
    target = str(tmp_path / "out")
    keys = ["tile_id", "year", "day", "is_even"]
    query = "FROM rasteret_export('kept', $path, partition_by := $keys)"
    assert len(rows(query, {"path": target, "keys": keys})) == 10
    rows("FROM rasteret_load('loaded', $path)", {"path": target})
    columns = "id, tile_id, day, is_even, typeof(tile_id), typeof(day), typeof(is_even)"
    wanted = rows(f"SELECT {columns}, 2024, 'BIGINT' FROM kept ORDER BY id")
    for source in ("loaded", f"rasteret_records('{target}')", f"rasteret_records('{target}/')"):
        found = f"SELECT {columns}, year, typeof(year) FROM {source} ORDER BY id"
        assert rows(found) == wanted
    plan = "SELECT id FROM rasteret_records('SELECT * FROM loaded WHERE tile_id = ''003''')"
    assert rows(plan) == [("3",)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("partition_by := ['nope']", r"partition_by: expected one of year, month, id, datetime"),
        ("force := 'false'", r"force: expected true or false, got 'false'"),
        ("compression := 'rar'", r"compression: expected one of zstd"),
    ],
)
def test_an_export_refuses_bad_options(rows, tmp_path, options, message):
    rows(
        "CREATE TABLE kept AS SELECT 'a' AS id, TIMESTAMP '2024-05-01' AS datetime, 2024 AS year,"
        " NULL::BLOB AS geometry, {'B04': {'href': 's3://b/a.tif'}} AS assets"
    )
    with pytest.raises(duckdb.Error, match=message) as caught:
        rows(f"FROM rasteret_export('kept', $path, {options})", {"path": str(tmp_path / "out")})
    assert str(caught.value).count("year") <= 1
    with pytest.raises(duckdb.Error, match=r"s3://b/out'?; export to one"):
        rows("FROM rasteret_export('kept', 's3://b/out')")
