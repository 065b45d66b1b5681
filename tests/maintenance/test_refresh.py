"""Refreshes: what is new comes in, what is not costs nothing, readers see one or the other."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from examples import examples

NAMES = ("kind", "path", "records", "bands", "assets", "enriched", "failed", "partitions")


def headers(asked):
    return {path for method, path in asked if method == "GET"}


def heads(asked):
    return {path for method, path in asked if method == "HEAD"}


@pytest.mark.any_duckdb
def test_twice_in_a_row_is_a_no_op(built, refresh, version, rows):
    before = version()
    for _ in range(2):
        report = refresh()
        assert {name: report[name] for name in NAMES if name != "path"} == {
            "kind": "stac",
            "records": 4,
            "bands": ["B04", "B08"],
            "assets": 0,
            "enriched": 0,
            "failed": 0,
            "partitions": 2,
        }
        asked = built.asked()
        assert headers(asked) == set()
        assert len(heads(asked)) == 8
        assert report["requests"] == 8
    assert version() == before
    assert refresh(", check_remote := false")["requests"] == 0
    assert built.asked() == Counter()
    assert rows("SELECT count(*) FROM s2") == [(4,)]


def test_new_items_are_added_and_only_their_headers_read(built, refresh, version, rows):
    before = {path.name: path.stat().st_ino for path in version().rglob("*.parquet")}
    old = rows("SELECT * EXCLUDE (year, month) FROM s2 ORDER BY id")
    built.add(4)
    built.add(5)
    report = refresh()
    assert (report["records"], report["assets"], report["enriched"]) == (6, 4, 4)
    assert report["partitions"] == 3
    assert len(headers(built.asked())) == 4
    assert rows("SELECT count(*), count(DISTINCT id), count(B08_metadata) FROM s2") == [(6, 6, 6)]
    # partitions that did not change hold the files they held, under their names
    after = {path.stat().st_ino for path in version().rglob("*.parquet")}
    assert set(before.values()) < after
    kept = ", ".join(f"'{item['id']}'" for item in built.items[:4])
    assert rows(f"SELECT * EXCLUDE (year, month) FROM s2 WHERE id IN ({kept}) ORDER BY id") == old
    assert refresh()["enriched"] == 0


@pytest.mark.any_duckdb
def test_a_late_item_into_an_old_month_is_found(built, refresh, version, rows):
    names = {path.name for path in version().rglob("*.parquet")}
    built.add(0, "late")
    report = refresh()
    assert (report["records"], report["enriched"], report["partitions"]) == (5, 2, 2)
    month = {path.name for path in version().glob("year=2024/month=1/*.parquet")}
    assert len(month) == 2
    assert not month & names
    assert rows("SELECT count(*) FROM s2 WHERE month = 1") == [(3,)]


@pytest.mark.any_duckdb
def test_a_changed_item_replaces_its_record_without_a_request_for_its_headers(built, refresh, rows):
    before = rows("SELECT B04_metadata FROM s2 ORDER BY id")
    built.items[1]["properties"]["eo:cloud_cover"] = 99.5
    built.items[1]["properties"]["updated"] = "2026-01-01T00:00:00Z"
    built.write()
    report = refresh()
    assert (report["records"], report["assets"], report["enriched"]) == (4, 0, 0)
    assert headers(built.asked()) == set()
    assert rows('SELECT count(*) FROM s2 WHERE "eo:cloud_cover" = 99.5') == [(1,)]
    assert rows("SELECT B04_metadata FROM s2 ORDER BY id") == before
    assert refresh()["enriched"] == 0
    assert rows("SELECT count(*), count(DISTINCT id), count(crs) FROM s2") == [(4, 4, 4)]


@pytest.mark.any_duckdb
def test_an_item_with_a_new_href_or_another_month_moves(built, refresh, rows):
    item = built.items[0]
    item["assets"]["B04"]["href"] = built.href(built.all[5]["id"], "B04")
    item["properties"]["datetime"] = "2025-07-01T00:00:00Z"
    built.write()
    report = refresh()
    assert (report["records"], report["assets"], report["enriched"]) == (4, 1, 1)
    assert headers(built.asked()) == {f"{built.all[5]['id']}/B04.tif"}
    assert rows("SELECT year, month FROM s2 WHERE id = $i", {"i": item["id"]}) == [(2025, 7)]
    assert rows("SELECT count(*), count(B04_metadata), count(B08_metadata) FROM s2") == [(4, 4, 4)]


@pytest.mark.any_duckdb
def test_a_changed_file_is_read_again(built, refresh, rows):
    built.touch(2, "B08")
    name = built.all[2]["id"]
    before = rows("SELECT B08_metadata.file_size FROM s2 WHERE id = $i", {"i": name})[0][0]
    report = refresh()
    assert (report["records"], report["assets"], report["enriched"]) == (4, 1, 1)
    assert headers(built.asked()) == {f"{name}/B08.tif"}
    after = rows("SELECT B08_metadata.file_size FROM s2 WHERE id = $i", {"i": name})[0][0]
    assert after == before + 1
    built.touch(2, "B08")
    assert refresh(", check_remote := false")["enriched"] == 0
    assert refresh()["enriched"] == 1
    assert refresh()["enriched"] == 0


@pytest.mark.any_duckdb
def test_what_the_item_says_of_values_is_kept_and_renewed(built, refresh, rows):
    rows("FROM rasteret_drop('s2')")
    for item in built.items:
        item["assets"]["B04"]["raster:bands"] = [{"scale": 0.5, "offset": -1.0, "nodata": 7}]
    built.write()
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(built.path)})
    values = "SELECT DISTINCT B04_metadata.scale, B04_metadata.offset, B04_metadata.nodata FROM s2"
    assert rows(values) == [(0.5, -1.0, 7.0)]
    assert refresh()["assets"] == 0
    built.touch(0, "B04")
    extra = built.add(4)
    extra["assets"]["B04"]["raster:bands"] = [{"scale": 0.5, "offset": -1.0, "nodata": 7}]
    built.write()
    assert refresh()["enriched"] == 3
    assert rows(values) == [(0.5, -1.0, 7.0)]
    for item in built.items:
        item["assets"]["B04"]["raster:bands"][0]["scale"] = 0.25
    built.write()
    built.asked()
    assert (refresh()["enriched"], len(headers(built.asked()))) == (5, 5)
    assert rows(values) == [(0.25, -1.0, 7.0)]
    assert refresh()["enriched"] == 0


@pytest.mark.any_duckdb
def test_a_file_that_changed_into_no_raster_loses_its_header(built, refresh, rows):
    path = built.folder / built.all[2]["id"] / "B08.tif"
    whole = path.read_bytes()
    path.write_bytes(b"gone bad" * 100)
    report = refresh()
    assert (report["assets"], report["enriched"], report["failed"]) == (1, 0, 1)
    assert rows("SELECT count(B08_metadata) FROM s2") == [(3,)]
    assert "expected a TIFF" in rows("SELECT error FROM rasteret_errors('s2')")[0][0]
    again = refresh()
    assert (again["enriched"], again["failed"]) == (0, 1)
    path.write_bytes(whole)
    assert refresh()["enriched"] == 1
    assert rows("SELECT count(B08_metadata) FROM s2") == [(4,)]
    assert rows("FROM rasteret_errors('s2')") == []


@pytest.mark.any_duckdb
def test_a_file_that_is_gone_keeps_its_header_and_is_told(built, refresh, rows, version):
    path = built.folder / built.all[1]["id"] / "B04.tif"
    path.rename(path.with_suffix(".away"))
    report = refresh()
    assert (report["records"], report["failed"]) == (4, 1)
    errors = rows("FROM rasteret_errors('s2')")
    assert [row[:2] for row in errors] == [(built.all[1]["id"], "B04")]
    assert "404" in errors[0][3]
    assert rows("SELECT count(B04_metadata) FROM s2") == [(4,)]
    before = version()
    refresh()
    assert version() == before
    with pytest.raises(duckdb.Error, match=r"rasteret_refresh: record \S+, band B04: .*404"):
        refresh(", on_error := 'error'")
    path.with_suffix(".away").rename(path)
    assert refresh()["failed"] == 0
    assert rows("FROM rasteret_errors('s2')") == []


@pytest.mark.any_duckdb
def test_assets_that_failed_are_tried_again(rows, upstream, refresh, version):
    path = upstream.folder / upstream.all[0]["id"] / "B04.tif"
    path.rename(path.with_suffix(".away"))
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(upstream.path)})
    assert rows("SELECT count(B04_metadata) FROM s2") == [(3,)]
    before = version()
    assert (refresh()["enriched"], version()) == (0, before)
    assert len(rows("FROM rasteret_errors('s2')")) == 1
    path.with_suffix(".away").rename(path)
    upstream.asked()
    report = refresh()
    assert (report["assets"], report["enriched"], report["failed"]) == (1, 1, 0)
    assert len(headers(upstream.asked())) == 1
    assert rows("SELECT count(B04_metadata) FROM s2") == [(4,)]
    assert rows("FROM rasteret_errors('s2')") == []


@pytest.mark.any_duckdb
def test_an_item_that_is_gone_upstream_stays(built, refresh, rows):
    del built.items[0]
    built.write()
    assert refresh()["records"] == 4
    built.items.clear()
    built.add(5)
    assert refresh()["records"] == 5
    assert rows("SELECT count(DISTINCT id) FROM s2") == [(5,)]


@pytest.mark.any_duckdb
def test_an_item_that_comes_twice_is_one_record(built, refresh, rows):
    built.items.append(copy.deepcopy(built.items[0]))
    built.add(4)
    built.items.append(copy.deepcopy(built.items[-1]))
    built.write()
    assert refresh()["records"] == 5
    assert rows("SELECT count(*), count(DISTINCT id) FROM s2") == [(5, 5)]


def test_new_columns_wider_types_and_new_bands_come_into_all_files(built, refresh, rows, version):
    rows("FROM rasteret_drop('s2')")
    for number, item in enumerate(built.items):
        item["properties"] |= {"count": number, "when": "soon", "shape": {"a": 1}, "nothing": None}
    built.write()
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(built.path)})
    built.asked()
    types = 'SELECT typeof(count), typeof("when"), typeof(shape), typeof(nothing) FROM s2 LIMIT 1'
    assert rows(types) == [("BIGINT", "VARCHAR", "STRUCT(a BIGINT)", "VARCHAR")]
    new = {"count": 1.5, "when": 7, "shape": {"a": 2, "b": "x"}, "nothing": 3, "fresh": True}
    built.add(4, bands=("B04", "B08", "SCL"), **new)
    report = refresh()
    assert (report["records"], report["bands"], report["enriched"]) == (5, ["B04", "B08", "SCL"], 3)
    assert len(headers(built.asked())) == 3
    assert rows(types) == [("DOUBLE", "VARCHAR", "STRUCT(a BIGINT, b VARCHAR)", "BIGINT")]
    found = rows(
        'SELECT count, "when", shape.a, shape.b, nothing, fresh, assets.SCL.href IS NOT NULL, '
        "SCL_metadata IS NOT NULL FROM s2 ORDER BY count, fresh NULLS FIRST"
    )
    assert found == [
        (0.0, '"soon"', 1, None, None, None, False, False),
        (1.0, '"soon"', 1, None, None, None, False, False),
        (1.5, "7", 2, "x", 3, True, True, True),
        (2.0, '"soon"', 1, None, None, None, False, False),
        (3.0, '"soon"', 1, None, None, None, False, False),
    ]
    schemas = {str(pq.read_schema(p).remove_metadata()) for p in version().rglob("*.parquet")}
    assert len(schemas) == 1
    assert refresh()["records"] == 5
    pixels = "rasteret_pixels('SELECT * FROM s2 WHERE SCL_metadata IS NOT NULL', bands := ['SCL'])"
    assert rows(f"SELECT count(*) > 0 FROM {pixels}") == [(True,)]


def without_nulls(value):
    if isinstance(value, dict):
        inner = {key: without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in inner.items() if item not in (None, {})}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def by_id(con, name):
    """Records by id, absent values left out, so that columns may differ."""
    table = con.sql(f"FROM {name}").to_arrow_table()
    return {row["id"]: without_nulls(row) for row in table.to_pylist()}


def changed_at_random(upstream, dice, number):
    """Some new items, and changes of every kind to some that there are."""
    for _ in range(dice.randrange(3)):
        upstream.add(dice.randrange(6), f"new{number}-{len(upstream.items)}")
    for item in dice.sample(upstream.items, 4):
        properties, assets = item["properties"], item["assets"]
        kind = dice.randrange(8)
        if kind == 0:
            properties[f"only:{dice.randrange(3)}"] = dice.choice([1, 2.5])
        elif kind == 1:
            properties["datetime"] = f"202{dice.randrange(5)}-0{dice.randrange(1, 4)}-01T00:00:00Z"
        elif kind == 2:
            properties |= {"datetime": None, "start_datetime": None, "end_datetime": None}
        elif kind == 3:
            assets["B04"]["href"] = upstream.href(dice.choice(upstream.all)["id"], "B04")
        elif kind == 4:
            assets.pop("B08", None)
        elif kind == 5:
            scene = dice.choice(upstream.all)
            assets["SCL"] = scene["assets"]["SCL"] | {"href": upstream.href(scene["id"], "SCL")}
        elif kind == 6:
            upstream.items.remove(item)
        else:
            upstream.touch(dice.randrange(6), dice.choice(["B04", "B08"]))
    upstream.write()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("seed", range(examples(1, 3)))
def test_many_refreshes_come_to_what_one_build_gives(con, upstream, refresh, rows, seed):
    """Seed 0 makes changes of every kind."""
    dice = random.Random(seed)
    for number in range(4):
        upstream.add(number, f"second{number}")
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(upstream.path)})
    for number in range(6):
        before = by_id(con, "s2")
        changed_at_random(upstream, dice, number)
        refresh()
        rows(
            "FROM rasteret_build_stac('fresh', stac_api := $p, force := true)",
            {"p": str(upstream.path)},
        )
        found, fresh = by_id(con, "s2"), by_id(con, "fresh")
        assert found.keys() == before.keys() | fresh.keys()
        assert {name: found[name] for name in fresh} == fresh
        assert rows("SELECT count(*) FROM s2") == [(len(found),)]
        assert refresh()["enriched"] == 0


@pytest.mark.any_duckdb
def test_footers_and_the_list_stay_right(built, refresh, rows, version):
    created = rows("SELECT created FROM rasteret_collections()")
    built.add(5)
    refresh()
    assert rows("SELECT created FROM rasteret_collections()") == created
    assert rows("SELECT records, start_datetime, end_datetime FROM rasteret_collections()") == rows(
        "SELECT count(*), min(datetime), max(datetime) FROM s2"
    )
    assert rows("SELECT bbox.xmin, bbox.ymax FROM rasteret_collections()") == rows(
        "SELECT min(bbox.xmin), max(bbox.ymax) FROM s2"
    )
    for path in version().rglob("*.parquet"):
        geo = json.loads(pq.read_metadata(path).metadata[b"geo"])["columns"]["geometry"]
        boxes = pq.read_table(path)["bbox"].to_pylist()
        assert geo["bbox"][0] == min(box["xmin"] for box in boxes)
    facts = json.loads((version() / "_build.json").read_text())
    assert facts["report"]["records"] == 5
    assert rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": str(built.path)})[0][3] == 5


@pytest.mark.any_duckdb
def test_many_refreshes_do_not_leave_many_files(built, refresh, rows, version):
    for number in range(10):
        built.add(0, f"late{number}")
        refresh(", check_remote := false")
    month = list(version().glob("year=2024/month=1/*.parquet"))
    assert len(month) <= 8
    assert rows("SELECT count(*), count(DISTINCT id), count(B04_metadata) FROM s2") == [
        (14, 14, 14)
    ]


@pytest.mark.any_duckdb
def test_since_leaves_older_records_alone(built, refresh):
    built.items[0]["properties"]["eo:cloud_cover"] = 99.5
    built.touch(0, "B04")
    built.touch(3, "B04")
    built.add(5)
    built.add(1, "late")
    report = refresh(", since := '2024-02-01'")
    assert (report["records"], report["enriched"]) == (5, 3)
    assert len(heads(built.asked())) == 4
    report = refresh()
    assert (report["records"], report["enriched"]) == (6, 3)


@pytest.mark.any_duckdb
def test_a_build_without_headers_is_refreshed_without_them(upstream, rows, refresh):
    rows(
        "FROM rasteret_build_stac('s2', stac_api := $p, enrich := false)", {"p": str(upstream.path)}
    )
    upstream.asked()
    upstream.add(4)
    upstream.items[0]["properties"]["eo:cloud_cover"] = 99.5
    upstream.write()
    assert (refresh()["records"], refresh()["assets"]) == (5, 0)
    assert upstream.asked() == Counter()
    assert rows('SELECT count(*) FROM s2 WHERE "eo:cloud_cover" = 99.5') == [(1,)]


@pytest.mark.any_duckdb
def test_a_signed_address_is_asked_for_again(upstream, rows, refresh):
    (upstream.folder / "items.json").write_text(upstream.path.read_text())
    url = upstream.server.url("scenes", f"{upstream.folder.name}/items.json", fault="private")
    signed = f"{url}?sig=good"
    rows("FROM rasteret_build_stac('s2', stac_api := $p)", {"p": signed})
    with pytest.raises(duckdb.Error, match=r"rasteret_refresh: stac_api: expected the signed"):
        refresh()
    upstream.add(4)
    (upstream.folder / "items.json").write_text(upstream.path.read_text())
    assert refresh(", stac_api := $p", parameters={"p": signed})["records"] == 5


@pytest.mark.any_duckdb
def test_every_search_option_is_run_again(upstream, rows, refresh):
    rows(
        "FROM rasteret_build_stac('s2', stac_api := $p, bands := ['red'], "
        "band_map := MAP {'red': 'B04'}, date_range := [DATE '2024-01-01', NULL], "
        "bbox := [70, 10, 80, 20], query := {'eo:cloud_cover': {'lte': 100}}, "
        "collection := 'sentinel-2-l2a')",
        {"p": str(upstream.path)},
    )
    upstream.add(4)
    upstream.add(5, "far", datetime="2023-12-31T00:00:00Z")
    report = refresh()
    assert (report["records"], report["bands"], report["enriched"]) == (5, ["red"], 1)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("kind", ["wkb", "wkt"])
def test_an_area_is_searched_again(upstream, rows, refresh, kind):
    area = shapely.box(70, 10, 80, 20)
    rows(
        "FROM rasteret_build_stac('s2', stac_api := $p, intersects := $a)",
        {"p": str(upstream.path), "a": getattr(area, kind)},
    )
    upstream.add(4)
    far = upstream.add(5, "far")
    del far["bbox"]
    far["geometry"] = shapely.geometry.mapping(shapely.box(0, 0, 1, 1))
    upstream.write()
    assert (refresh()["records"], refresh()["assets"]) == (5, 0)


def test_a_data_set_is_refreshed(upstream, rows, refresh, tmp_path, monkeypatch):
    monkeypatch.setenv("RASTERET_DATASETS", str(tmp_path / "sets.json"))
    rows(
        "FROM rasteret_register_dataset('mine/s2', stac_api := $p, "
        "band_map := MAP {'red': 'B04', 'other': 'B99'})",
        {"p": str(upstream.path)},
    )
    rows("FROM rasteret_build('mine/s2')")
    upstream.add(4)
    report = refresh(name="mine_s2")
    assert (report["records"], report["bands"], report["enriched"]) == (5, ["red"], 1)
    assert refresh(name="mine_s2")["enriched"] == 0
    assert rows("SELECT data_source FROM rasteret_collections()") == [("mine/s2",)]


@pytest.mark.parametrize("kind", ["name", "query", "path", "temp"])
def test_tables_of_every_kind_are_refreshed(con, rows, scenes, refresh, tmp_path, kind):
    path = str(next(scenes.glob("*/B04.tif")))
    table = "TEMP TABLE" if kind == "temp" else "TABLE"
    rows(
        f"CREATE {table} mine AS SELECT 'a' AS scene, DATE '2024-05-01' AS taken, $p AS url, "
        "1 AS n",
        {"p": path},
    )
    parquet = tmp_path / "mine.parquet"

    def save():
        rows(f"COPY (FROM mine) TO '{parquet}'")

    save()
    source = {"query": "SELECT * FROM mine", "path": str(parquet)}.get(kind, "mine")
    rows(
        "FROM rasteret_build_table('t', $s, column_map := MAP {'scene': 'id', "
        "'taken': 'datetime'}, href_column := 'url', bands := ['B04'], "
        "enrich := true, \"where\" := 'n < 3')",
        {"s": source},
    )
    assert refresh(name="t")["enriched"] == 0
    rows("INSERT INTO mine SELECT 'b', DATE '2024-05-02', url, 2 FROM mine")
    rows("INSERT INTO mine SELECT 'c', DATE '2024-05-02', url, 3 FROM mine LIMIT 1")
    rows("UPDATE mine SET n = 0 WHERE scene = 'a'")
    save()
    report = refresh(name="t")
    assert (report["records"], report["assets"], report["enriched"]) == (2, 1, 1)
    assert rows("SELECT id, n, B04_metadata IS NULL FROM t ORDER BY id") == [
        ("a", 0, False),
        ("b", 2, False),
    ]
    assert refresh(name="t")["enriched"] == 0
    with pytest.raises(duckdb.Error, match="since: expected NULL for a table"):
        refresh(", since := '2024-01-01'", name="t")
    with pytest.raises(duckdb.Error, match="stac_api: expected NULL"):
        refresh(", stac_api := 'x'", name="t")


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("18446744073709551615::UBIGINT", "-1::BIGINT", "DECIMAL(20,0)"),
        ("9223372036854775807::BIGINT", "0.5::DECIMAL(5, 1)", "DECIMAL(20,1)"),
        ("1.25::DECIMAL(5, 2)", "7::TINYINT", "DECIMAL(5,2)"),
        ("0.25::DECIMAL(5, 2)", "0.5::FLOAT", "DOUBLE"),
        ("1e37::DECIMAL(38, 0)", "0.5::DECIMAL(5, 1)", "DOUBLE"),
    ],
)
def test_numbers_of_two_types_meet_in_one_that_holds_both(
    rows, scenes, refresh, before, after, kind
):
    path = str(next(scenes.glob("*/B04.tif")))
    for table, value in (("one", before), ("two", after)):
        rows(f"CREATE TABLE {table} AS SELECT '{table}' AS id, '{path}' AS url, {value} AS n")
    rows("CREATE VIEW source AS FROM one")
    rows("FROM rasteret_build_table('t', 'source', href_column := 'url')")
    rows("CREATE OR REPLACE VIEW source AS FROM two")
    assert refresh(name="t")["records"] == 2
    assert rows("SELECT DISTINCT typeof(n) FROM t") == [(kind,)]
    expected = rows(f"SELECT n::{kind} FROM one UNION ALL SELECT n::{kind} FROM two")
    assert rows("SELECT n FROM t ORDER BY id") == expected


def test_explain_and_prepare_refresh_nothing(built, rows):
    built.add(4)
    rows("EXPLAIN FROM rasteret_refresh('s2')")
    rows("PREPARE p AS FROM rasteret_refresh('s2')")
    assert rows("SELECT count(*) FROM s2") == [(4,)]
    rows("EXECUTE p")
    assert rows("SELECT count(*) FROM s2") == [(5,)]


@pytest.mark.any_duckdb
def test_what_cannot_be_refreshed_is_said(rows, refresh, tmp_path, built):
    with pytest.raises(duckdb.Error, match=r"name: expected a collection of .*s2.*got 's3'"):
        refresh(name="s3")
    folder = tmp_path / "workspace" / "old_stac"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["a"]}), folder / "part-0.parquet")
    with pytest.raises(duckdb.Error, match="old: expected a collection that tells how it was"):
        refresh(name="old")
    built.path.unlink()
    with pytest.raises(duckdb.Error, match=r"rasteret_refresh: .*items\.json"):
        refresh()
    assert rows("SELECT count(*) FROM s2") == [(4,)]
