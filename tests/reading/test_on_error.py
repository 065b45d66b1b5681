"""A record that can't be read, in a plan and in the sum of `max_bytes`."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import tifffile

AREA = "bbox := [77.984, 13.004, 77.99, 13.01]"
ONE = "S2A_43PHQ_20240110_L2A"
WITHOUT_CRS = f"""SELECT * REPLACE (
    CASE WHEN id = '{ONE}' THEN NULL ELSE crs END AS crs,
    CASE WHEN id = '{ONE}' THEN NULL ELSE "proj:epsg" END AS "proj:epsg") FROM s2"""
LOCAL = 'LOCAL_CS["site",UNIT["metre",1]]'
ELSEWHERE = f"SELECT * REPLACE (CASE WHEN id = '{ONE}' THEN '{LOCAL}' ELSE crs END AS crs) FROM s2"
WITHOUT_HEADER = (
    f"SELECT * REPLACE (CASE WHEN id <> '{ONE}' THEN B04_metadata END AS B04_metadata) FROM s2"
)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (WITHOUT_CRS, "expected a raster with a CRS"),
        (ELSEWHERE, "expected a CRS that the area can be transformed to"),
        (WITHOUT_HEADER, "expected a cached header"),
    ],
)
def test_a_plan_treats_what_cannot_be_read_as_a_read_does(s2, records, message):
    ours = {"records": records}
    call = f"rasteret_plan($records, bands := ['B04'], {AREA}"
    with pytest.raises(duckdb.Error, match=f"^.*rasteret_plan: record {ONE}.*{message}"):
        s2.execute(f"FROM {call})", ours).fetchall()
    n_others = s2.execute(
        f"SELECT count(*) FROM rasteret_plan('s2', bands := ['B04'], {AREA}) WHERE id <> '{ONE}'"
    ).fetchall()[0][0]
    for on_error in ("null", "report"):
        listed = "id, band, tile_row, byte_count" + ", error" * (on_error == "report")
        query = f"SELECT {listed} FROM {call}, on_error := '{on_error}')"
        found = s2.execute(query, ours).fetchall()
        (lost,) = [row for row in found if row[2] is None]
        assert lost[:4] == (ONE, "B04", None, None)
        assert len(found) == n_others + 1
        if on_error == "report":
            assert message in lost[4]
            assert {row[4] for row in found if row[2] is not None} == {None}


@pytest.mark.parametrize("records", [WITHOUT_CRS, WITHOUT_HEADER])
@pytest.mark.parametrize("function", ["rasteret_pixels", "rasteret_read_tiles", "rasteret_plan"])
def test_max_bytes_passes_over_a_record_that_is_null(s2, records, function):
    call = f"{function}($records, bands := ['B04'], {AREA}, on_error := 'null', max_bytes := "
    found = s2.execute(f"SELECT DISTINCT id FROM {call} 10_000_000)", {"records": records})
    assert (ONE,) in found.fetchall()
    with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most 9 bytes"):
        s2.execute(f"SELECT count(*) FROM {call} 9)", {"records": records}).fetchall()


def test_max_bytes_counts_what_is_selected(s2):
    query = "SELECT sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'])"
    (one_band,) = s2.execute(query).fetchall()[0]
    (one_scene,) = s2.execute(f"{query} WHERE id = '{ONE}'").fetchall()[0]
    call = "rasteret_pixels('s2', bands := ['B04', 'B08'], max_bytes := $most)"
    s2.execute(f"SELECT max(B04) FROM {call}", {"most": one_band}).fetchall()
    s2.execute(f"SELECT max(B04) FROM {call} WHERE id = '{ONE}'", {"most": one_scene}).fetchall()
    with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most"):
        s2.execute(f"SELECT max(B04), max(B08) FROM {call}", {"most": one_band}).fetchall()


def test_max_bytes_counts_a_tile_that_bands_share_once(con, tmp_path):
    path = tmp_path / "rgb.tif"
    values = np.zeros((16, 16, 3), np.uint8)
    tifffile.imwrite(path, values, tile=(16, 16), photometric="rgb", metadata=None)
    con.execute(
        "FROM rasteret_build_table('rgb', $source, href_column := 'href', "
        "band_index_map := MAP {'r': 0, 'g': 1, 'b': 2}, enrich := true)",
        {"source": f"SELECT 'one' AS id, '{path}' AS href"},
    ).fetchall()
    call = "rasteret_pixels('rgb', masked := false, max_bytes := $most)"
    found = con.execute(f"SELECT sum(r + g + b) FROM {call}", {"most": values.nbytes})
    assert found.fetchall() == [(0,)]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("function", "more"),
    [
        ("rasteret_histogram", f"{AREA}, bins := 2"),
        ("rasteret_read", f"{AREA}, align := 'band'"),
        ("rasteret_pixels", "resolution := 40, crs := 32643"),
        ("rasteret_pixels", "resolution := 1000"),
        ("rasteret_read", "resolution := 40"),
    ],
)
@pytest.mark.parametrize("bands", [["B04"], ["B04", "SCL"]])
def test_a_record_without_a_place_is_one_row(s2, function, more, bands):
    call = f"{function}($records, bands := {bands}, {more}, on_error := "
    ours = {"records": WITHOUT_CRS}
    value = "count" if function == "rasteret_histogram" else bands[0]
    query = f"SELECT {value}, * FROM {call}"
    ((found, *_),) = s2.execute(f"{query} 'null') WHERE id = '{ONE}'", ours).fetchall()
    assert found is None
    told = s2.execute(f"SELECT id, error, * FROM {call} 'report') WHERE error IS NOT NULL", ours)
    ((record, error, *_),) = told.fetchall()
    assert record == ONE
    assert "expected a raster with a CRS" in error
