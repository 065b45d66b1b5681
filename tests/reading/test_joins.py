"""Joins with reads: which side is kept in memory, and that all rows come."""

from __future__ import annotations

import json
import re

import pytest

AREA = "bbox := [77.984, 13.004, 78.0, 13.02]"


@pytest.fixture
def joined(s2):
    """Names of the operators below the two sides of a statement's join: read past, and kept."""

    def names(node):
        yield node["name"]
        for child in node["children"]:
            yield from names(child)

    def find(node):
        if "JOIN" in node["name"]:
            return node
        return next(filter(None, map(find, node["children"])), None)

    def run(query):
        text = s2.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()[0][1]
        return [set(names(side)) for side in find(json.loads(text)[0])["children"]]

    return run


@pytest.fixture
def classes(s2):
    s2.execute("CREATE TABLE classes AS SELECT range AS value, 'x' AS name FROM range(12)")


def is_scan_of_ours(names):
    return any("ARROW_SCAN" in name for name in names)


def test_few_pixels_are_kept_beside_a_large_table(s2, joined):
    s2.execute("CREATE TABLE large AS SELECT range AS value FROM range(100000)")
    some = "bands := ['SCL'], bbox := [77.985, 13.005, 77.986, 13.006]"
    (found,) = s2.execute(f"SELECT count(*) FROM rasteret_pixels('s2', {some})").fetchall()[0]
    assert 0 < found < 10_000
    pixels = f"rasteret_pixels('s2', {some})"
    _, kept = joined(f"SELECT count(*) FROM {pixels} JOIN large ON SCL = value")
    assert is_scan_of_ours(kept)


def test_the_rows_are_those_of_the_scan(s2, classes):
    query = f"FROM rasteret_pixels('s2', bands := ['SCL', 'B04'], lonlat := true, {AREA})"
    plain = s2.execute(f"SELECT count(*), sum(B04), sum(row), max(lon) {query}").fetchall()
    s2.execute(f"CREATE TABLE kept AS {query}")
    assert s2.execute("SELECT count(*), sum(B04), sum(row), max(lon) FROM kept").fetchall() == plain
    joined = f"{query} JOIN classes ON SCL = value"
    assert s2.execute(f"SELECT count(*), sum(B04), sum(row), max(lon) {joined}").fetchall() == plain
    ordered = s2.sql(f"SELECT id, row, col {query}").to_arrow_table()
    assert ordered == s2.sql("SELECT id, row, col FROM kept").to_arrow_table()


def test_a_predicate_on_a_band_reaches_the_scan(s2):
    text = s2.execute("EXPLAIN FROM rasteret_pixels('s2') WHERE B04 > 4000").fetchall()[0][1]
    assert re.search(r'Filters: *("B04" > 4000|B04>4000)', text)


@pytest.mark.parametrize(
    "query",
    [
        "FROM {read} JOIN (FROM notes WHERE quality = 'good') USING (id)",
        'FROM {read} WHERE id IN (SELECT id FROM s2 WHERE "eo:cloud_cover" < 20)',
        "FROM {read} WHERE x IN (SELECT x FROM {read} WHERE B04 < 600)",
        "FROM {read} LEFT JOIN (FROM notes WHERE quality = 'good') USING (id)",
        "FROM {read} WHERE NOT EXISTS (FROM notes n WHERE n.id = \"read\".id AND quality = 'good')",
    ],
)
def test_a_join_with_a_few_rows_of_another_relation(s2, query):
    """DuckDB 1.5 made a Bloom filter of them, where it knew that many pixels come: no Arrow source
    takes one."""
    read = "rasteret_pixels('s2', bands := ['B04'], bbox := [77.985, 13.005, 77.99, 13.02])"
    s2.execute(
        "CREATE TABLE notes AS SELECT id, 'good' AS quality FROM s2 "
        'WHERE "eo:cloud_cover" < 20 '
        "UNION ALL SELECT 'other' || range, 'bad' FROM range(50)"
    )
    s2.execute(f"CREATE TABLE kept AS FROM {read}")
    counted = "SELECT count(*), sum(B04), sum(row) "
    wanted = s2.execute(counted + query.format(read="kept AS read")).fetchall()
    assert wanted[0][0] > 0
    assert s2.execute(counted + query.format(read=f"{read} AS read")).fetchall() == wanted


def test_the_relation_written_last_is_kept_where_duckdb_does_not_choose(s2, joined, classes):
    """What docs/reading.md advises."""
    s2.execute("SET disabled_optimizers = 'build_side_probe_side'")
    query = "rasteret_pixels('s2', bands := ['SCL']) JOIN classes ON SCL = value"
    read_past, kept = joined(f"SELECT count(*) FROM {query}")
    assert is_scan_of_ours(read_past)
    assert not is_scan_of_ours(kept)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum((SELECT max(B04) FROM {pixels} p WHERE p.row = c.value)) FROM classes c",
        "SELECT count(*) FROM classes c WHERE EXISTS (FROM {pixels} p WHERE p.row = c.value)",
        "SELECT sum(n) FROM classes, LATERAL (SELECT count(*) n FROM {pixels} p WHERE row = value)",
    ],
)
def test_correlated_subqueries_over_a_read(s2, classes, query):
    pixels = "rasteret_pixels('s2', bands := ['B04'], bbox := [77.985, 13.005, 77.99, 13.02])"
    s2.execute(f"CREATE TABLE kept AS FROM {pixels}")
    s2.execute("INSERT INTO classes SELECT row, 'y' FROM kept ORDER BY row LIMIT 40")
    wanted = s2.execute(query.format(pixels="kept")).fetchall()
    assert wanted[0][0] > 0
    assert s2.execute(query.format(pixels=pixels)).fetchall() == wanted


def test_a_record_column_of_type_union(s2):
    s2.execute("CREATE TABLE tagged AS SELECT *, union_value(k := 1) AS tag FROM s2")
    rows = s2.execute("SELECT DISTINCT tag FROM rasteret_pixels('tagged', bands := ['SCL'])")
    assert rows.fetchall() == [(1,)]
