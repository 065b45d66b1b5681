"""Builds: what comes in, what stands afterwards, and what goes wrong in one clear line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rasteret_sql
from rasteret_sql import errors
from rasteret_sql.collections.workspace import Workspace

BUILD = "FROM rasteret_build_stac($name, stac_api := $items)"


def build(con, items, name="s2", options=""):
    query = f"FROM rasteret_build_stac($name, stac_api := $items{options})"
    return con.execute(query, {"name": name, "items": items}).fetchall()[0]


@pytest.mark.any_duckdb
def test_a_build_reads_each_header_once(con, rows, served_items, server):
    path = served_items()
    server.reset()
    report = build(con, path)
    assert report[:2] == ("s2", "stac")
    assert report[3:9] == (6, ["B04", "B08", "SCL"], 18, 18, 0, 3)
    requests = server.requests()
    assert report[10] == len(requests) <= 2 * 18
    assert sum(one["range"] == "bytes=0-16383" for one in requests) == 18
    assert rows("SELECT count(*), count(B04_metadata), count(DISTINCT id) FROM s2") == [(6, 6, 6)]
    assert rows("SELECT DISTINCT year, month FROM s2 ORDER BY month") == [
        (2024, 1),
        (2024, 2),
        (2024, 3),
    ]
    assert rows("SELECT typeof(geometry) FROM s2 LIMIT 1")[0][0].upper().startswith("GEOMETRY")


@pytest.mark.any_duckdb
def test_all_properties_of_all_items_are_kept_and_typed(con, rows, items, write_items, scenes):
    for number, item in enumerate(items["features"]):
        item["properties"][f"only:{number}"] = number
        item["properties"]["mixed"] = number if number % 2 else float(number)
        for asset in item["assets"].values():
            asset["href"] = str(scenes / asset["href"])
    build(con, write_items(items))
    assert rows('SELECT sum("only:5"), typeof(any_value("only:5")) FROM s2') == [(5, "BIGINT")]
    assert rows("SELECT typeof(mixed) FROM s2 LIMIT 1") == [("DOUBLE",)]


def test_the_view_is_read_without_us(con, rows, served_items, tmp_path):
    database = tmp_path / "mine.duckdb"
    path = served_items()
    own = rasteret_sql.connect(database, workspace=tmp_path / "ws")
    build(own, path)
    own.close()
    code = (
        "import duckdb, sys; assert 'rasteret_sql' not in sys.modules; "
        f"print(duckdb.connect({str(database)!r}).sql('SELECT count(*) FROM s2').fetchall())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[(6,)]"


@pytest.mark.any_duckdb
def test_a_second_build_is_a_no_op_and_other_options_need_force(con, rows, served_items, server):
    path = served_items()
    build(con, path)
    server.reset()
    assert build(con, path)[3] == 6
    assert server.requests() == []
    with pytest.raises(duckdb.Error, match=r"force := true"):
        build(con, path, options=", bands := ['B04']")
    assert build(con, path, options=", bands := ['B04'], force := true")[4] == ["B04"]
    assert rows("SELECT count(*) FROM s2") == [(6,)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("fault", ["404", "html", "403"])
def test_a_bad_asset_does_not_lose_the_build(con, rows, served_items, fault):
    report = build(con, served_items(fault))
    assert report[5:8] == (18, 17, 1)
    found = rows("FROM rasteret_errors('s2')")
    assert len(found) == 1
    assert found[0][1] == "B08"
    wanted = {"404": "404", "html": "expected a TIFF", "403": "403"}[fault]
    assert wanted in found[0][3]
    assert rows("SELECT count(*) FROM s2 WHERE B08_metadata IS NULL") == [(1,)]
    bad = found[0][0]
    with pytest.raises(duckdb.Error, match=r"expected a cached header, got 'NULL'"):
        rows(f"SELECT sum(B08) FROM rasteret_pixels('s2', ids := ['{bad}'])")
    assert rows(
        f"SELECT count(*) > 0, count(B08), count(B04) > 0 FROM rasteret_pixels('s2', "
        f"ids := ['{bad}'], on_error := 'null')"
    ) == [(True, 0, True)]
    reported = rows(
        f"SELECT DISTINCT error FROM rasteret_pixels('s2', ids := ['{bad}'], "
        "bands := ['B08'], on_error := 'report')"
    )
    assert reported == [("B08: no header",)]
    tiles = rows(
        f"SELECT band, tile_row, pixels, error FROM rasteret_read_tiles('s2', ids := ['{bad}'], "
        "bands := ['B08'], on_error := 'report')"
    )
    assert [row[:3] for row in tiles] == [("B08", None, None)]
    assert "expected a cached header" in tiles[0][3]
    assert rows(
        f"SELECT count(*) FROM rasteret_read_tiles('s2', ids := ['{bad}'], bands := ['B08'], "
        "on_error := 'null') WHERE tile_row = 0"
    ) == [(0,)]


@pytest.mark.any_duckdb
def test_on_error_error_ends_the_build_and_leaves_nothing(con, rows, served_items, tmp_path):
    with pytest.raises(duckdb.Error, match=r"record \S+, band B08: .*404"):
        build(con, served_items("404"), options=", on_error := 'error'")
    assert rows("FROM rasteret_collections()") == []


@pytest.mark.any_duckdb
def test_no_token_reaches_the_collection(con, rows, items, write_items, server, tmp_path):
    secret = "?sig=SECRET&X-Amz-Signature=SECRET"
    for item in items["features"]:
        for band, asset in item["assets"].items():
            asset["href"] = server.url("scenes", f"built/{item['id']}/{band}.tif") + secret
    items["features"][0]["assets"]["B08"]["href"] = server.url("nowhere", "x.tif") + secret
    build(con, write_items(items))
    text = json.dumps(rows("SELECT assets::VARCHAR FROM s2") + rows("FROM rasteret_errors('s2')"))
    assert "SECRET" not in text
    for path in (tmp_path / "workspace").rglob("*"):
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path
    with pytest.raises(duckdb.Error) as caught:
        build(con, server.url("nowhere", "items.json") + secret, name="other")
    assert "SECRET" not in str(caught.value)


@pytest.mark.any_duckdb
def test_a_remote_catalog_may_not_name_local_files(con, rows, items, scenes, server):
    for item in items["features"]:
        item["assets"]["B04"]["href"] = "/etc/hostname"
        item["assets"]["B08"]["href"] = "file:///etc/hostname"
        item["assets"]["SCL"]["href"] = server.url("scenes", f"built/{item['id']}/SCL.tif")
    (scenes / "hostile.json").write_text(json.dumps(items))
    report = build(con, server.url("scenes", "built/hostile.json"))
    assert report[3] == 6
    found = rows("SELECT DISTINCT band, error FROM rasteret_errors('s2') WHERE band <> 'SCL'")
    assert {band for band, _ in found} == {"B04", "B08"}
    assert all("local" in error for _, error in found)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("name", ["../up", "a/b", 'quo"te', "it's", "", ".hidden", "x" * 101])
def test_hostile_names_are_refused(cursor, served_items, name):
    with pytest.raises(duckdb.Error, match=r"rasteret_build_stac: name: expected 1 to 100 letters"):
        build(cursor, served_items(), name=name)


def test_a_name_that_is_a_table_or_view_is_refused(con, rows, served_items):
    path = served_items()
    rows("CREATE TABLE taken AS SELECT 1 AS a")
    rows("CREATE VIEW seen AS SELECT 1 AS a")
    for name in ("taken", "seen"):
        with pytest.raises(duckdb.Error, match=r"name: expected a name that is free"):
            build(con, path, name=name)
    assert rows("FROM taken") == [(1,)]


def test_force_replaces_a_collection_of_the_other_kind(con, rows, served_items, scenes):
    build(con, served_items())
    source = next(scenes.rglob("B04.tif"))
    table = (
        "SELECT kind, records FROM rasteret_build_table('s2', "
        f"'SELECT ''one'' AS id, ''{source}'' AS href', href_column := 'href', force := {{}})"
    )
    with pytest.raises(duckdb.Error, match=r"pass force := true to replace it"):
        rows(table.format("false"))
    assert rows(table.format("true")) == [("records", 1)]
    assert rows("SELECT id FROM s2") == [("one",)]
    assert rows("SELECT name, kind FROM rasteret_collections()") == [("s2", "records")]
    build(con, served_items(), options=", force := true")
    assert rows("SELECT count(*) FROM s2") == [(6,)]


@pytest.mark.any_duckdb
def test_what_another_process_dropped_is_told_and_can_be_built_again(
    con, rows, served_items, tmp_path
):
    build(con, served_items())
    Workspace(tmp_path / "workspace").drop("s2")
    with pytest.raises(duckdb.Error, match=r"no such folder: .* build the collection again"):
        rows("FROM rasteret_pixels('s2')")
    assert build(con, served_items())[3] == 6
    assert rows("SELECT count(*) FROM s2") == [(6,)]


def test_a_missing_source_is_one_line(cursor, tmp_path):
    with pytest.raises(duckdb.Error) as caught:
        build(cursor, str(tmp_path / "nothing.json"))
    assert "nothing.json" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.any_duckdb
@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="needs /proc")
def test_a_workspace_that_cannot_be_written_is_one_line(served_items):
    con = rasteret_sql.connect(workspace="/proc/nowhere")
    with pytest.raises(duckdb.Error, match=r"rasteret_build_stac: .*/proc"):
        build(con, served_items())
    con.close()


@pytest.mark.any_duckdb
def test_sources_of_every_kind_give_the_same_records(
    con, rows, items, write_items, scenes, tmp_path
):
    for item in items["features"]:
        for asset in item["assets"].values():
            asset["href"] = str((scenes / asset["href"]).resolve())
    collection = write_items(items)
    lines = tmp_path / "items.ndjson"
    lines.write_text("\n".join(json.dumps(item) for item in items["features"]))
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    links = []
    for item in items["features"]:
        (catalog / f"{item['id']}.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{item['id']}.json"})
    (catalog / "catalog.json").write_text(
        json.dumps(
            {
                "type": "Catalog",
                "id": "c",
                "stac_version": "1.0.0",
                "description": "d",
                "links": links,
            }
        )
    )
    rustac = pytest.importorskip("rustac")
    parquet = tmp_path / "items.parquet"

    async def write():
        await rustac.write(str(parquet), items)

    asyncio.run(write())
    sources = [collection, str(lines), str(catalog / "catalog.json"), str(parquet)]
    found = []
    for number, source in enumerate(sources):
        assert build(con, source, name=f"c{number}")[3:8] == (6, ["B04", "B08", "SCL"], 18, 18, 0)
        found.append(
            rows(f'SELECT id, datetime, "proj:epsg", "eo:cloud_cover" FROM c{number} ORDER BY id')
        )
    assert all(one == found[0] for one in found)


@pytest.mark.any_duckdb
def test_bbox_dates_and_band_map_select(con, rows, items, write_items, scenes):
    for item in items["features"]:
        item["assets"] = {
            "red": {**item["assets"]["B04"], "href": str(scenes / item["id"] / "B04.tif")},
            "nir": {**item["assets"]["B08"], "href": str(scenes / item["id"] / "B08.tif")},
        }
    path = write_items(items)
    report = build(
        con,
        path,
        options=", band_map := MAP {'B04': 'red', 'B08': 'nir'}, "
        "date_range := ['2024-01-01', '2024-01-31']",
    )
    assert report[3:5] == (2, ["B04", "B08"])
    with pytest.raises(duckdb.Error, match=r"at least one record"):
        build(con, path, name="far", options=", bbox := [10, 50, 11, 51]")


def test_a_build_of_nothing_tells_why(con, write_items):
    path = write_items({"type": "Collection", "id": "c", "links": []})
    with pytest.raises(duckdb.Error, match=r"got 'none'; check it.*links no item"):
        build(con, path)


def test_tables_of_every_kind(con, rows, scenes, tmp_path):
    path = str(next(scenes.glob("*/B04.tif")))
    rows(
        "CREATE TABLE kept AS SELECT 'a' AS scene, DATE '2024-05-01' AS taken, $p AS url",
        {"p": path},
    )
    rows("CREATE TEMP TABLE private AS FROM kept")
    con.register("frame", pa.table({"scene": ["a"], "taken": ["2024-05-01"], "url": [path]}))
    pq.write_table(
        pa.table({"scene": ["a"], "taken": ["2024-05-01"], "url": [path]}), tmp_path / "t.parquet"
    )
    sources = [
        "kept",
        "private",
        "frame",
        "SELECT * FROM kept",
        "SELECT * FROM private",
        str(tmp_path / "t.parquet"),
    ]
    for number, source in enumerate(sources):
        report = rows(
            "FROM rasteret_build_table($name, $source, column_map := MAP {'scene': 'id', "
            "'taken': 'datetime'}, href_column := 'url', bands := ['B04'], enrich := true)",
            {"name": f"t{number}", "source": source},
        )[0]
        assert report[1] == "records", source
        assert report[3:8] == (1, ["B04"], 1, 1, 0), source
        assert rows(f"SELECT id, year, month, count(*) FROM t{number}, range(1) GROUP BY ALL") == [
            ("a", 2024, 5, 1)
        ]
        assert rows(f"SELECT count(B04) > 0 FROM rasteret_pixels('t{number}')") == [(True,)]


def test_enrich_streams_over_what_only_the_connection_sees(con, rows, scenes):
    path = str(next(scenes.glob("*/B04.tif")))
    rows(
        "CREATE TEMP TABLE private AS SELECT i AS id, $p AS url FROM range(3000) t(i)", {"p": path}
    )
    found = rows(
        "SELECT count(*), count(B04_metadata), any_value(crs), count(DISTINCT id) FROM "
        "rasteret_enrich('private', bands := ['B04'], href_column := 'url')"
    )
    assert found[0][:2] == (3000, 3000)
    assert found[0][2].startswith("EPSG:3264")
    assert found[0][3] == 3000
    rows(
        "CREATE TABLE done AS FROM rasteret_enrich("
        "'private', bands := ['B04'], href_column := 'url')"
    )
    assert rows("SELECT count(*) FROM done") == [(3000,)]


def test_export_load_describe_and_drop(con, rows, served_items, tmp_path):
    build(con, served_items())
    target = tmp_path / "out"
    files = rows("FROM rasteret_export('SELECT * FROM s2 WHERE month = 1', $t)", {"t": str(target)})
    assert [row[1] for row in files] == [2]
    described = rows("FROM rasteret_load('january', $t)", {"t": str(target)})[0]
    assert described[:4] == ("january", 2, ["B04", "B08", "SCL"], [32643, 32644])
    assert rows("SELECT count(*) > 0 FROM rasteret_pixels('january', bands := ['B04'])") == [
        (True,)
    ]
    with pytest.raises(duckdb.Error, match=r"rasteret_export: .*force"):
        rows("FROM rasteret_export('s2', $t)", {"t": str(target)})
    assert rows("SELECT name FROM rasteret_drop('s2')") == [("s2",)]
    assert rows("SELECT name FROM rasteret_collections() WHERE kind <> 'view'") == []
    with pytest.raises(duckdb.CatalogException):
        rows("FROM s2")


def test_a_description_leaves_out_times_that_no_calendar_has(con, rows, served_items):
    build(con, served_items())
    rows(
        "CREATE TABLE odd AS SELECT * REPLACE (CASE id WHEN (SELECT min(id) FROM s2) "
        "THEN 'infinity' ELSE datetime END::TIMESTAMP AS datetime) FROM s2"
    )
    described = "SELECT records, start_datetime, end_datetime FROM rasteret_describe('odd')"
    finite = "SELECT min(datetime), max(datetime) FROM odd WHERE isfinite(datetime)"
    assert rows(described)[0][1:] == rows(finite)[0]
    rows("CREATE TABLE ever AS SELECT * REPLACE ('infinity'::TIMESTAMP AS datetime) FROM s2")
    assert rows("SELECT start_datetime FROM rasteret_describe('ever')") == [(None,)]


def test_a_transaction_sees_the_view_after_it_ends(con, rows, served_items):
    path = served_items()
    rows("BEGIN")
    build(con, path)
    rows("COMMIT")
    assert rows("SELECT count(*) FROM s2") == [(6,)]


def test_explain_and_prepare_build_nothing(con, rows, served_items):
    path = served_items()
    rows(f"EXPLAIN FROM rasteret_build_stac('s2', stac_api := '{path}')")
    rows(f"PREPARE p AS FROM rasteret_build_stac('s2', stac_api := '{path}')")
    assert rows("FROM rasteret_collections()") == []
    rows("EXECUTE p")
    assert rows("SELECT count(*) FROM s2") == [(6,)]


def test_read_only_database(tmp_path, served_items):
    database = tmp_path / "db.duckdb"
    duckdb.connect(str(database)).close()
    con = rasteret_sql.connect(workspace=tmp_path / "ws")
    build(con, served_items())
    con.close()
    con = rasteret_sql.connect(database, tmp_path / "ws", read_only=True)
    assert con.execute("SELECT count(*) FROM rasteret_pixels('s2', bands := ['B04'])").fetchall()
    assert con.execute("SELECT count(*) FROM s2").fetchall() == [(6,)]
    con.close()


def test_python_errors_keep_their_class(con, served_items):
    build(con, served_items())
    with pytest.raises(errors.UnknownBandError, match=r"one of B04, B08, SCL, got 'b4'"):
        rasteret_sql.sql(con, "FROM rasteret_pixels('s2', bands := ['b4'])")
    with pytest.raises(errors.UnknownCollectionError, match=r"known: s2"):
        rasteret_sql.sql(con, "FROM rasteret_pixels('nothing')")


@pytest.fixture(scope="module")
def with_s2(scenes, tmp_path_factory):
    """A connection with the collection s2."""
    with rasteret_sql.connect(workspace=tmp_path_factory.mktemp("built")) as con:
        build(con, str(scenes / "items.json"))
        yield con


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bands := ['b4']", "bands: expected one of B04, B08, SCL, got 'b4'"),
        ("bands := []", "bands: expected a list of band names"),
        ("geometry := 'POLYGON((1 2'", "geometry: expected"),
        ("geometry := 'POINT(78 13)'", "expected a Polygon or MultiPolygon"),
        ("bbox := [1, 2, 3]", "bbox: expected"),
        ("bbox := [1, 5, 3, 2]", "bbox: expected"),
        ("bbox := [1, 2, 3, 4], geometry := 'POLYGON((0 0,1 1,1 0,0 0))'", "geometry"),
        ("date_range := ['yesterday', NULL]", "date_range: expected"),
        ("on_error := 'ignore'", "on_error: expected 'error', 'null' or 'report'"),
    ],
)
def test_bad_arguments_are_one_line_at_bind(with_s2, arguments, message):
    with pytest.raises(duckdb.Error) as caught:
        with_s2.execute(f"EXPLAIN FROM rasteret_pixels('s2', {arguments})")
    text = str(caught.value)
    assert f"rasteret_pixels: {message}" in text or message in text
    assert "Traceback" not in text


@pytest.mark.parametrize("kind", ["connection", "cursor", "registered cursor"])
def test_every_connection_knows_the_functions_and_after_a_use_too(con, rows, served_items, kind):
    build(con, served_items())
    rows("CREATE SCHEMA other")
    rows("CREATE VIEW pixels AS FROM rasteret_pixels('memory.main.s2', bands := ['B04'])")
    used = con if kind == "connection" else con.cursor()
    if kind == "registered cursor":
        rasteret_sql.register(used)
    query = "SELECT count(*) > 0 FROM {}rasteret_pixels('memory.main.s2', bands := ['B04'])"
    assert used.execute(query.format("")).fetchall() == [(True,)]
    assert used.execute("SELECT count(*) > 0 FROM pixels").fetchall() == [(True,)]
    used.execute("USE other")
    if kind == "cursor":
        with pytest.raises(duckdb.CatalogException, match=r"mean \"rasteret\.rasteret_pixels\""):
            used.execute(query.format(""))
    else:
        assert used.execute(query.format("")).fetchall() == [(True,)]
        assert used.execute("SELECT count(*) > 0 FROM memory.main.pixels").fetchall() == [(True,)]
    assert used.execute(query.format("rasteret.")).fetchall() == [(True,)]
    if used is not con:
        used.close()


def test_a_cursor_reads_and_writes_where_the_connection_starts(tmp_path):
    with rasteret_sql.connect(tmp_path / "it's a.b.duckdb", tmp_path / "ws") as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS x")
        cursor = con.cursor()
        cursor.execute("CREATE TABLE u AS FROM t")
        assert cursor.execute("SELECT rasteret_ndvi(1000, 3000)").fetchall() == [(0.5,)]
        assert sorted(cursor.execute("SHOW TABLES").fetchall()) == [("t",), ("u",)]
        assert con.execute("FROM u").fetchall() == [(1,)]


def test_a_cursor_of_a_database_with_locked_settings_knows_the_functions(con):
    con.execute("SET lock_configuration = true")
    assert con.cursor().execute("FROM rasteret_collections()").fetchall() == []


def test_closing_the_connection_frees_the_database_file(tmp_path, served_items):
    database = tmp_path / "db.duckdb"
    con = rasteret_sql.connect(database, tmp_path / "ws")
    build(con, served_items())
    con.execute("SELECT count(*) FROM rasteret_pixels('s2', bands := ['B04'])").fetchall()
    con.close()
    code = f"import duckdb; duckdb.connect({str(database)!r}).execute('CREATE TABLE t AS SELECT 1')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
