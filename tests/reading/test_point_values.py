"""`rasteret_value` in joins: rasterio.sample is the oracle."""

from __future__ import annotations

import functools
import math
import subprocess
import sys

import duckdb
import numpy as np
import pyproj
import pytest
import rasterio
from reading.read_oracle import build_files
from reading.test_read import noise, write

from rasteret_sql.reading.tile_store import STORE


@functools.cache
def from_degrees(crs):
    return pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)


def expected(path, lon, lat):
    """rasterio's value at a point; None outside and where there is no data."""
    with rasterio.open(path) as file:
        x, y = from_degrees(file.crs.to_wkt()).transform(lon, lat)
        row, col = (math.floor(place) for place in reversed(~file.transform @ (x, y)))
        if not (0 <= row < file.height and 0 <= col < file.width):
            return None
        (found,) = file.sample([(x, y)], masked=True)
        return None if found.mask[0] else float(found[0])


@pytest.fixture
def pairs(s2):
    """Records and points beside each other, in a table ``pairs``."""
    rng = np.random.default_rng(7)
    ids = [row[0] for row in s2.execute("SELECT id FROM s2 ORDER BY id").fetchall()]
    rows = [
        (ids[rng.integers(len(ids))], rng.uniform(77.97, 78.03), rng.uniform(12.97, 13.04))
        for _ in range(300)
    ]
    s2.execute("CREATE TEMP TABLE pairs (record VARCHAR, lon DOUBLE, lat DOUBLE)")
    s2.executemany("INSERT INTO pairs VALUES (?, ?, ?)", rows)
    return s2


@pytest.mark.parametrize("band", [pytest.param("B04", marks=pytest.mark.any_duckdb), "SCL"])
def test_values_of_a_join_are_those_of_rasterio(pairs, scenes, band):
    rows = pairs.execute(
        f"SELECT p.*, rasteret_value(s, '{band}', [p.lon, p.lat]) "
        "FROM pairs p LEFT JOIN s2 s ON s.id = p.record"
    ).fetchall()
    assert len(rows) == 300
    wanted = [expected(scenes[0] / name / f"{band}.tif", x, y) for name, x, y, _ in rows]
    assert [row[3] for row in rows] == wanted
    assert 20 < sum(value is not None for value in wanted) < 300


def test_forms_of_points(s2):
    forms = [
        "[77.987, 13.007]", "'POINT(77.987 13.007)'", "'POINT(77.987 13.007)'::GEOMETRY",
        "ST_AsWKB('POINT(77.987 13.007)'::GEOMETRY)", "[77.987, 13.007]::DOUBLE[2]",
    ]  # fmt: skip
    found = [
        s2.execute(f"SELECT rasteret_value(s2, 'B04', {form}) FROM s2 ORDER BY id").fetchall()
        for form in forms
    ]
    assert found == [found[0]] * len(forms)
    assert {type(value) for (value,) in found[0]} >= {float}


def test_null_is_null(s2):
    rows = s2.execute(
        "SELECT rasteret_value(s, 'B04', CASE WHEN t.n > 0 THEN [77.987, 13.007] END) "
        "FROM (VALUES (0, 1), (1, 1), (2, 0)) t(n, m) "
        "LEFT JOIN (FROM s2 ORDER BY id LIMIT 1) s ON t.m = 1 ORDER BY t.n"
    ).fetchall()
    assert [value is None for (value,) in rows] == [True, False, True]
    for point in ("NULL", "'POINT EMPTY'", "NULL::DOUBLE[]"):
        rows = s2.execute(f"SELECT rasteret_value(s2, 'B04', {point}) FROM s2").fetchall()
        assert rows == [(None,)] * 6


def test_in_where_and_each_tile_once(pairs, server):
    STORE.clear()
    server.reset()
    query = (
        "SELECT count(*) FROM pairs p JOIN s2 s ON s.id = p.record "
        "WHERE rasteret_value(s, 'B04', [p.lon, p.lat]) {} 1000"
    )
    (above,), (below,) = (pairs.execute(query.format(sign)).fetchall()[0] for sign in (">", "<="))
    asked = [(request["path"], request["range"]) for request in server.requests()]
    assert above + below > 20
    assert 0 < len(asked) <= 6 * 16


def test_errors_are_told(s2, con, tmp_path):
    for band, point, told in (
        ("'B04'", "'POLYGON((0 0, 1 0, 1 1, 0 0))'", "point: expected POINT .* got 'Polygon'"),
        ("'B04'", "[1.0, 2.0, 3.0]", r"point: expected \[lon, lat\]"),
        ("'B04'", "['a', 'b']", r"point: expected \[lon, lat\], got 'no numbers'"),
        ("'B04'", "'here'", "point: expected POINT .* got 'no geometry'"),
        ("'B04'", "1", "point: expected POINT .* got 'int32'"),
        ("'B05'", "[1, 2]", "(?i)B05"),
        ("NULL", "[1, 2]", "rasteret_value: band: expected a name, got NULL"),
    ):
        with pytest.raises(duckdb.Error, match=told):
            s2.execute(f"SELECT rasteret_value(s2, {band}, {point}) FROM s2").fetchall()
    path = write(tmp_path / "a.tif", noise((1, 64, 64)))
    build_files(con, "made", {"a": path})
    path.unlink()
    STORE.clear()
    with pytest.raises(duckdb.Error, match=r"record a, band band: .*a\.tif"):
        con.execute(
            "SELECT rasteret_value(m, 'band', [x, y]) FROM made m, "
            "(SELECT (bbox.xmin + bbox.xmax) / 2 AS x, (bbox.ymin + bbox.ymax) / 2 AS y FROM made)"
        ).fetchall()


SCRIPT = """
import rasteret_sql, sys

con = rasteret_sql.connect(workspace=sys.argv[1])
try:
    con.execute(
        "SELECT rasteret_value(r, 'b1', [x, y]) FROM rasteret_files($1) r, "
        "(SELECT (bbox.xmin + bbox.xmax) / 2 AS x, (bbox.ymin + bbox.ymax) / 2 AS y "
        "FROM rasteret_files($1))", [sys.argv[2]]
    )
except Exception as error:
    print(error)
con.close()
"""


def test_a_failure_leaves_no_connection_behind(tmp_path):
    """DuckDB 2.0 tells at the end of the process which of its objects were kept."""
    path = write(tmp_path / "a.tif", noise((1, 256, 256)), blockxsize=64, blockysize=64)
    data = bytearray(path.read_bytes())
    data[2000:-200] = b"?" * len(data[2000:-200])  # the header stays
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "rasteret_value: record a, band b1: " in done.stdout
    assert done.stderr == ""


@pytest.mark.any_duckdb
def test_rows_of_one_file_and_id_are_told_apart(con, tmp_path):
    pixels = np.stack([np.full((64, 64), 1, "uint8"), np.full((64, 64), 2, "uint8")])
    path = write(tmp_path / "a.tif", pixels)
    build_files(con, "made", {"a": path}, ("p", "q"))
    con.execute(
        "CREATE TABLE pairs AS SELECT 1 AS n, id, {'b': assets.p} AS assets, p_metadata AS "
        "b_metadata, crs FROM made UNION ALL SELECT 2, id, {'b': assets.q}, q_metadata, crs "
        "FROM made"
    )
    found = con.execute(
        "SELECT n, rasteret_value(o, 'b', [x, y]) FROM pairs o, "
        "(SELECT (bbox.xmin + bbox.xmax) / 2 AS x, (bbox.ymin + bbox.ymax) / 2 AS y FROM made) "
        "ORDER BY n"
    ).fetchall()
    assert found == [(1, 1.0), (2, 2.0)]
