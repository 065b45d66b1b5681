"""Arguments and columns that a read could mistake."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

ONE = "S2A_43PHQ_20240110_L2A"


def columns(con, query):
    """Names of a query's columns, each of which can be read."""
    names = [row[0] for row in con.execute(f"DESCRIBE {query}").fetchall()]
    listed = ", ".join(f'"{name}"' for name in names)
    assert len(con.execute(f"SELECT {listed} FROM ({query}) LIMIT 1").fetchall()[0]) == len(names)
    return names


@pytest.mark.parametrize(
    ("added", "renamed"),
    [
        ("1 AS x, 2 AS record_x", ["record_record_x", "record_x"]),
        ('1 AS "Row"', ["record_Row"]),
        ("'why' AS error", ["record_error"]),
    ],
)
def test_a_record_column_named_like_ours_gets_a_prefix(s2, added, renamed):
    names = columns(
        s2,
        f"""FROM rasteret_pixels('SELECT *, {added.replace("'", "''")} FROM s2',
            bands := ['B04'], on_error := 'report')""",
    )
    assert sorted(n for n in names if n.startswith("record_")) == renamed
    assert names[:8] == ["id", "datetime", "x", "y", "row", "col", "B04", "error"]


def test_a_record_column_named_like_a_band_but_for_case_is_refused(s2):
    with pytest.raises(duckdb.Error, match=r"bands: expected names that are no other column"):
        s2.execute("FROM rasteret_pixels('SELECT *, 1 AS b04 FROM s2', bands := ['B04'])")


@pytest.mark.parametrize("option", ["masked", "all_touched", "scaled"])
def test_a_flag_that_is_text_is_refused(s2, option):
    with pytest.raises(duckdb.Error, match=f"{option}: expected true or false, got 'false'"):
        s2.execute(f"FROM rasteret_pixels('s2', {option} := 'false')")


@pytest.mark.parametrize("area", [[77.985, 13.005, 77.985, 13.005], [77.985, 13.0, 77.985, 13.1]])
def test_a_box_without_area_is_refused(s2, area):
    with pytest.raises(duckdb.Error, match="bbox: expected a box with an area, got"):
        s2.execute("FROM rasteret_plan('s2', bbox := $area)", {"area": area})


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE"])
@pytest.mark.parametrize(
    ("start", "end", "n_records"),
    [("-infinity", "infinity", 6), ("infinity", None, 0), (None, "5000-01-01 (BC)", 0)],
)
def test_a_range_may_end_beyond_the_years_of_python(s2, kind, start, end, n_records):
    s2.execute(f"SET VARIABLE dates = [$start::{kind}, $end::{kind}]", {"start": start, "end": end})
    found = s2.execute(
        "SELECT count(DISTINCT id) FROM rasteret_plan('s2', date_range := getvariable('dates'))"
    )
    assert found.fetchall() == [(n_records,)]


def test_nanoseconds_of_a_range_are_cut(s2):
    found = s2.execute(
        """SELECT count(DISTINCT id) FROM rasteret_plan('s2',
            date_range := [TIMESTAMP_NS '2024-02-09 05:22:11.123456789', NULL])"""
    )
    assert found.fetchall() == [(2,)]


def test_what_a_sum_returns_is_an_integer(s2):
    s2.execute("SET VARIABLE most = (SELECT sum(byte_count) FROM rasteret_plan('s2'))")
    call = "SELECT count(DISTINCT id) FROM rasteret_plan('s2', max_bytes := getvariable('most')"
    assert s2.execute(f"{call})").fetchall() == [(6,)]
    with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most"):
        s2.execute(f"{call} - 1)").fetchall()


def test_ids_may_be_one_text(s2):
    found = s2.execute("SELECT DISTINCT id FROM rasteret_plan('s2', ids := $id)", {"id": ONE})
    assert found.fetchall() == [(ONE,)]


def test_ids_of_another_type_are_refused(s2):
    with pytest.raises(duckdb.Error, match="ids: expected a list of record ids"):
        s2.execute("FROM rasteret_plan('s2', ids := {'a': 1})")


def test_a_collection_without_ids_fails_when_bound(s2):
    with pytest.raises(duckdb.Error, match="expected a column id"):
        s2.execute("EXPLAIN FROM rasteret_pixels('SELECT * EXCLUDE id FROM s2')")


def test_a_query_may_end_in_a_comment(s2):
    found = s2.execute("SELECT count(DISTINCT id) FROM rasteret_plan('FROM s2 -- all of it')")
    assert found.fetchall() == [(6,)]


def test_views_of_our_own_are_not_listed(s2):
    s2.execute("FROM rasteret_plan('s2')").fetchall()
    listed = s2.execute("SELECT name, kind FROM rasteret_collections()").fetchall()
    assert listed == [("s2", "stac")]
    with pytest.raises(duckdb.Error, match=r"\(known: s2\)"):
        s2.execute("FROM rasteret_plan('nope')")


def test_scaled_complex_numbers_keep_both_parts(con, build):
    build(wave=np.full((16, 16), 3 + 4j, np.complex64))
    found = con.execute("SELECT DISTINCT b FROM rasteret_pixels('made', scaled := true)")
    assert found.fetchall() == [({"re": 3.0, "im": 4.0},)]


@pytest.mark.parametrize("on_error", ["null", "report"])
def test_a_raster_without_place_under_an_area_is_one_row_if_errors_may_pass(con, build, on_error):
    build(plain=np.ones((16, 16), np.uint8))
    call = "rasteret_pixels('made', bbox := [0, 0, 1, 1]"
    with pytest.raises(duckdb.Error, match="record plain: expected a raster with a transform"):
        con.execute(f"FROM {call})").fetchall()
    error = "error" if on_error == "report" else "NULL"
    found = con.execute(f"SELECT id, row, b, {error} FROM {call}, on_error := '{on_error}')")
    ((record, row, value, text),) = found.fetchall()
    assert (record, row, value) == ("plain", None, None)
    if on_error == "report":
        assert text.startswith("record plain: expected a raster with a transform")


def test_a_date_range_without_datetime_says_so_in_one_line(s2):
    with pytest.raises(duckdb.Error) as raised:
        s2.execute(
            "FROM rasteret_pixels('SELECT * EXCLUDE datetime FROM s2', "
            "date_range := ['2024', NULL])"
        )
    assert "date_range: expected a column datetime, got" in str(raised.value)
    assert "Python exception" not in str(raised.value)


@pytest.mark.parametrize(
    ("area", "n_records"),
    [([179.9, 13, -179.9, 14], 6), ([-179, 13, -178, 14], 6), ([0, 13, 1, 14], 0)],
)
def test_bounds_of_a_record_may_cross_the_antimeridian(s2, area, n_records):
    moved = (
        "SELECT * REPLACE ({'xmin': 170.0, 'ymin': 13.0, 'xmax': -170.0, 'ymax': 14.0} AS bbox, "
        f"'EPSG:4326' AS crs, {affine()} AS B04_metadata) FROM s2"
    )
    found = s2.execute(
        "SELECT count(DISTINCT id) FROM rasteret_plan($moved, bands := ['B04'], bbox := $area)",
        {"moved": moved, "area": area},
    )
    assert found.fetchall() == [(n_records,)]


def affine():
    """The band's metadata with a grid that reaches from 170 E to 190 E."""
    return "struct_update(B04_metadata, affine := [0.04, 0.0, 170.0, 0.0, -0.01, 15.0]::DOUBLE[])"
