"""date_range over datetimes of every type, and over views that change them."""

from __future__ import annotations

import duckdb
import pytest

from rasteret_sql.duck.partition_keys import follow_datetime

ONE = "S2A_43PHQ_20240110_L2A"


def ids(con, collection, start, end):
    found = con.execute(
        "SELECT DISTINCT id FROM rasteret_plan($c, bands := ['B04'], date_range := [$s, $e])",
        {"c": collection, "s": start, "e": end},
    ).fetchall()
    return sorted(row[0] for row in found)


def expected(con, start, end):
    query = f"SELECT id FROM s2 WHERE datetime BETWEEN '{start}' AND '{end}' ORDER BY id"
    return [row[0] for row in con.execute(query).fetchall()]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles"])
@pytest.mark.parametrize(
    "spelled",
    [
        "datetime",
        "datetime::TIMESTAMP_NS",
        "datetime::TIMESTAMP_S",
        "datetime AT TIME ZONE 'UTC'",
    ],
)
def test_a_range_is_in_utc_whatever_the_type_and_the_session(s2, spelled, zone):
    ((start,),) = s2.execute(f"SELECT datetime::VARCHAR FROM s2 WHERE id = '{ONE}'").fetchall()
    s2.execute(f"SET GLOBAL TimeZone = '{zone}'")
    moved = f"SELECT * REPLACE ({spelled} AS datetime) FROM s2"
    same_instant = expected(s2, start, start)
    assert ONE in same_instant
    assert ids(s2, moved, start, start) == same_instant
    later = start[:-1] + str(int(start[-1]) + 1)
    assert ids(s2, moved, later, None) == expected(s2, later, "2999-01-01")


def test_a_date_is_its_first_instant(s2):
    moved = "SELECT * REPLACE (datetime::DATE AS datetime) FROM s2"
    assert ids(s2, moved, "2024-01-10", "2024-01-10") == expected(s2, "2024-01-10", "2024-01-11")
    assert ids(s2, moved, "2024-01-10T00:00:01Z", "2024-01-10") == []


@pytest.mark.parametrize("spelled", ["datetime::VARCHAR", "year(datetime)", "'today'"])
def test_text_and_years_are_refused_with_what_to_type(s2, spelled):
    moved = f"SELECT * REPLACE ({spelled} AS datetime) FROM s2"
    with pytest.raises(duckdb.Error, match="date_range: expected a column datetime of TIMESTAMP"):
        ids(s2, moved, "2024", None)
    cast = f"SELECT * REPLACE (datetime::TIMESTAMPTZ AS datetime) FROM ({moved})"
    if "VARCHAR" in spelled:
        assert ids(s2, cast, "2024-01", "2024-01") == expected(s2, "2024-01-01", "2024-02-01")


@pytest.mark.parametrize("kind", ["query", "view", "view over it", "table", "file"])
def test_old_partition_keys_beside_a_new_datetime_lose_nothing(s2, tmp_path, kind):
    query = "SELECT * REPLACE (datetime + INTERVAL 1 YEAR AS datetime) FROM s2"
    collection = query
    if kind == "file":
        collection = str(tmp_path / "moved.parquet")
        s2.execute(f"COPY ({query}) TO '{collection}'")
    elif kind != "query":
        what = "TABLE" if kind == "table" else "VIEW"
        s2.execute(f"CREATE OR REPLACE {what} moved AS {query}")
        collection = "moved"
    if kind == "view over it":
        s2.execute("CREATE VIEW few AS SELECT * FROM moved WHERE id IS NOT NULL")
        collection = "few"
    assert ids(s2, collection, "2024", "2024") == []
    assert ids(s2, collection, "2025", "2025") == expected(s2, "2024-01-01", "2025-01-01")


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("s2", True),
        ('SELECT * FROM s2 WHERE "eo:cloud_cover" < 10 AND year = 2024 AND month IN (1, 2)', True),
        ("SELECT * FROM s2 WHERE id <> 'datetime' -- and year", True),
        ("FROM s2 ORDER BY datetime", False),
        ("SELECT * REPLACE (now() AS datetime) FROM s2", False),
        ('SELECT * REPLACE (2000 AS "year") FROM s2', False),
        ("SELECT month: 1, * EXCLUDE month FROM s2", False),
        ("FROM 'other.parquet'", False),
    ],
)
def test_when_keys_are_known_to_follow_datetime(s2, text, follows):
    assert follow_datetime(s2, text, is_query=" " in text) is follows


def test_an_export_puts_records_where_their_datetime_is(s2, tmp_path):
    query = "SELECT * REPLACE (datetime + INTERVAL 13 MONTH AS datetime) FROM s2"
    s2.execute("FROM rasteret_export($q, $p)", {"q": query, "p": str(tmp_path / "out")}).fetchall()
    s2.execute("FROM rasteret_load('moved', $p)", {"p": str(tmp_path / "out")}).fetchall()
    months = "SELECT DISTINCT year, month, year(datetime), month(datetime) FROM moved ORDER BY ALL"
    assert s2.execute(months).fetchall() == [(2025, month, 2025, month) for month in (2, 3, 4)]
    assert len(ids(s2, "moved", "2025-02", "2025-02")) == 2
    s2.execute("DROP VIEW moved")


def test_a_build_puts_records_where_their_datetime_is(con, s2, tmp_path):
    path = str(tmp_path / "moved.parquet")
    s2.execute(
        "COPY (SELECT * REPLACE (datetime + INTERVAL 1 YEAR AS datetime) FROM s2) "
        f"TO '{path}' (FORMAT parquet)"
    )
    con.execute("FROM rasteret_build_table('moved', $p)", {"p": path}).fetchall()
    found = con.execute("SELECT DISTINCT year, year(datetime), year_column FROM moved").fetchall()
    assert found == [(2025, 2025, 2024)]
