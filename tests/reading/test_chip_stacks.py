"""`rasteret_chips` on a grid of one's own, and stacked by time; GDAL's warp is the oracle."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import datetime

import duckdb
import numpy as np
import pytest
import shapely
from affine import Affine
from reading.rasters import noise, write
from reading.read_oracle import build_files, call_of, make_areas, numpy_type, rows_of, warped

import rasteret_sql
from rasteret_sql.errors import InputError
from rasteret_sql.reading.tile_store import STORE

BOX = [77.984, 13.004, 77.99, 13.01]


def arrays(row, bands):
    """Values and validity of each band, of shape (records, height, width)."""
    shape = len(row["record_ids"]), row["height"], row["width"]
    valid = np.frombuffer(row["valid"], np.uint8).reshape(len(bands), *shape).astype(bool)
    return {
        band: (np.frombuffer(row[band], numpy_type(dtype)).reshape(shape), valid[number])
        for number, (band, dtype) in enumerate(zip(bands, row["dtypes"], strict=True))
    }


def stacks(con, collection, bands, **options):
    options |= {"stack": "time"}
    return rows_of(con, f"FROM {call_of('rasteret_chips', collection, bands=bands, **options)}")


@pytest.mark.parametrize("options", [{}, {"crs": 3857, "resolution": 12}], ids=["own", "3857"])
def test_a_stack_holds_all_records_of_a_square_in_order_of_time(s2, scenes, options):
    bands = ["B04", "SCL"]
    rows = stacks(s2, "s2", bands, size=40, stride=30, valid=True, bbox=BOX, **options)
    moments = dict(s2.execute("SELECT id, datetime FROM s2").fetchall())
    assert len(rows) > 3
    n_layers = 0
    for row in rows:
        assert row["datetimes"] == sorted(row["datetimes"])
        assert [moments[name] for name in row["record_ids"]] == row["datetimes"]
        assert len(set(row["record_ids"])) == len(row["record_ids"])
        x, y = row["transform"][2], row["transform"][5]
        step = 30 * row["transform"][0]
        assert abs(x / step - round(x / step)) < 1e-9 > abs(y / step - round(y / step))
        for band, (values, valid) in arrays(row, bands).items():
            for layer, name in enumerate(row["record_ids"]):
                expected, there = warped(scenes[0] / name / f"{band}.tif", row)
                np.testing.assert_array_equal(valid[layer], there)
                np.testing.assert_array_equal(values[layer][there], expected[there])
                n_layers += 1
    assert n_layers > 50
    assert len({row["crs"] for row in rows}) == 1


@pytest.mark.any_duckdb
def test_stacks_are_arrays_with_their_records_before_rows_and_columns(s2):
    pytest.importorskip("xarray")
    bands = ["B04", "SCL"]
    call = call_of("rasteret_chips", "s2", bands=bands, size=40, stack="time", valid=True, bbox=BOX)
    rows = rows_of(s2, f"FROM {call} ORDER BY chip_id")
    n_records = {len(row["record_ids"]) for row in rows}
    assert n_records == {3}
    relation = s2.sql(f"FROM {call} ORDER BY chip_id")
    stacked = rasteret_sql.to_numpy(relation)
    listed = rasteret_sql.to_numpy(relation, stack=False)
    for number, row in enumerate(rows):
        expected = arrays(row, bands)
        for place, band in enumerate(bands):
            for found in (stacked, listed):
                np.testing.assert_array_equal(found[band][number], expected[band][0])
                np.testing.assert_array_equal(found["valid"][number][place], expected[band][1])
    with pytest.raises(InputError, match="expected a record in a row, got 'stacks of records'"):
        rasteret_sql.to_xarray(relation)
    none = rasteret_sql.to_numpy(s2.sql(f"FROM {call} WHERE false"))
    assert {name: array.ndim for name, array in none.items()} == {"B04": 4, "SCL": 4, "valid": 5}


@pytest.mark.any_duckdb
def test_scaled_stacks_say_that_no_data_is_nan(s2):
    for stack in ({"stack": "time"}, {}):
        call = call_of(
            "rasteret_chips", "s2", bands=["B04"], size=40, bbox=BOX, scaled=True, **stack
        )
        found = s2.execute(f"SELECT dtypes, nodata FROM {call} LIMIT 1").fetchall()
        assert [(kinds, np.isnan(value)) for kinds, (value,) in found] == [(["float64"], True)]


@pytest.mark.any_duckdb
def test_stacks_cover_every_square_that_a_record_covers(con, tmp_path):
    """Three rasters on one lattice, the second in part over the first, the third elsewhere."""
    for number, (name, left, top) in enumerate(
        [("a", 0, 0), ("b", 32, 16), ("c", 200, 0)], start=1
    ):
        transform = Affine(10, 0, 600_000 + 10 * left, 0, -10, 1_440_000 - 10 * top)
        write(tmp_path / f"{name}.tif", np.full((1, 64, 64), number, "uint8"), transform=transform)
    build_files(con, "made", {name: tmp_path / f"{name}.tif" for name in "abc"})
    found = stacks(con, "made", ["band"], size=16)
    x0, y0 = 600_000 // 160, 1_440_000 // 160
    covers = defaultdict(list)
    for name, left, top in [("a", 0, 0), ("b", 32, 16), ("c", 200, 0)]:
        square = shapely.box(left, top, left + 64, top + 64)
        for row in range(-2, 8):
            for col in range(-2, 24):
                if (
                    shapely.box(col * 16, row * 16, col * 16 + 16, row * 16 + 16)
                    .intersection(square)
                    .area
                ):
                    covers[row, col].append(name)
    places = {}
    for row in found:
        _, _, x, _, _, y = row["transform"]
        places[round(y0 - y / 160), round(x / 160 - x0)] = row["record_ids"]
        assert (row["height"], row["width"]) == (16, 16)
        values = np.frombuffer(row["band"], np.uint8).reshape(-1, 16, 16)
        for layer, name in zip(values, row["record_ids"], strict=True):
            assert set(np.unique(layer)) <= {0, "abc".index(name) + 1}
    inside = {at: names for at, names in covers.items() if at in places}
    assert {at: sorted(names) for at, names in places.items()} == inside
    # squares that would leave the grid over all rasters are left out
    assert set(covers) - set(places) == {at for at in covers if at[1] == 16}


@pytest.mark.any_duckdb
def test_min_valid_leaves_records_out(con, tmp_path):
    pixels = noise((1, 64, 64), "uint8", low=1)
    write(tmp_path / "full.tif", pixels, nodata=0)
    pixels[:, :, :24] = 0
    write(tmp_path / "part.tif", pixels, nodata=0)
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in ("full", "part")})
    found = {}
    for least in (0, 0.5, 0.6, 1):
        rows = stacks(con, "made", ["band"], size=16, resolution=10, min_valid=least)
        found[least] = sorted(len(row["record_ids"]) for row in rows)
    counts = {least: sum(numbers) for least, numbers in found.items()}
    assert counts[0] > counts[0.5] > counts[0.6] == counts[1]
    assert min(found[1]) == 1


def test_areas_bring_their_columns(s2):
    make_areas(s2, "fields", {"a": shapely.box(77.984, 13.004, 77.99, 13.01),
                              "b": shapely.box(77.986, 13.006, 77.987, 13.007)})  # fmt: skip
    call = call_of("rasteret_chips", "s2", bands=["B04"], size=32, aois="fields", stack="time")
    rows = rows_of(s2, f"SELECT area, chip_id, B04 FROM {call}")
    of = {name: {r["chip_id"]: r["B04"] for r in rows if r["area"] == name} for name in "ab"}
    assert len(of["a"]) > len(of["b"]) >= 1
    assert all(of["a"][chip] == blob for chip, blob in of["b"].items())


@pytest.mark.any_duckdb
def test_each_tile_is_fetched_once(s2, server):
    STORE.clear()
    server.reset()
    rows = stacks(s2, "s2", ["B04"], size=16, bbox=BOX, crs=32643, resolution=10)
    assert len(rows) > 20
    asked = [(request["path"], request["range"]) for request in server.requests()]
    assert len(asked) == len(set(asked)) > 0


def test_a_column_that_is_not_selected_is_not_fetched(n_requests):
    call = call_of("rasteret_chips", "s2", bands=["B04", "B08"], size=64, stack="time", bbox=BOX)
    both, rows = n_requests(f"SELECT B04, B08 FROM {call}")
    one, some = n_requests(f"SELECT chip_id, B08 FROM {call}")
    none, counted = n_requests(f"SELECT count(*) FROM {call}")
    assert both == 2 * one > 0 == none
    assert counted == [(len(rows),)]
    assert len(some) == len(rows)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32644", "EPSG:4326"])
def test_chips_on_a_grid_of_one_s_own(s2, scenes, crs):
    resolution = 0.0001 if crs == "EPSG:4326" else 15
    call = call_of("rasteret_chips", "s2", bands=["B04"], size=24, stride=20, crs=crs,
                   resolution=resolution, valid=True)  # fmt: skip
    rows = rows_of(s2, f"FROM {call}")
    assert len(rows) > 6 * 20
    (n_rows,) = s2.execute(f"SELECT count(*) FROM {call}").fetchone()
    assert n_rows == len(rows)
    assert {row["crs"] for row in rows} == {crs}
    for row in rows[:: len(rows) // 20]:
        x, y = row["transform"][2], row["transform"][5]
        step = 20 * resolution
        assert abs(x / step - round(x / step)) < 1e-6 > abs(y / step - round(y / step))
        expected, there = warped(scenes[0] / row["record_id"] / "B04.tif", row)
        values = np.frombuffer(row["B04"], "<u2").reshape(24, 24)
        valid = np.frombuffer(row["valid"], np.uint8).reshape(24, 24).astype(bool)
        np.testing.assert_array_equal(valid, there)
        np.testing.assert_array_equal(values[there], expected[there])


@pytest.mark.any_duckdb
def test_a_record_that_can_t_be_read_is_told(con, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", noise((1, 64, 64), low=1), nodata=0)
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in ("a", "b")})
    (tmp_path / "b.tif").unlink()
    STORE.clear()
    with pytest.raises(duckdb.Error, match="rasteret_chips: record b, band band: "):
        stacks(con, "made", ["band"], size=16)
    rows = stacks(con, "made", ["band"], size=16, on_error="report", valid=True)
    for row in rows:
        assert "b.tif" in row["error"]
        _, valid = arrays(row, ["band"])["band"]
        missing = row["record_ids"].index("b")
        assert not valid[missing].any()
        assert valid[1 - missing].any()
    assert len(rows) > 1


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stack": "band"}, "stack: expected 'time', got 'band'"),
        ({"stack": "time", "level": 1}, "level: expected 0 with stack, got 1"),
        ({"stack": "time", "record_columns": ["id"]}, "record_columns: expected none with stack"),
        ({"stack": "time", "size": 1 << 15, "stride": 1 << 14, "resolution": 0.001},
         "size: expected stacks of at most 1073741824 bytes"),
    ],
)  # fmt: skip
def test_odd_arguments_are_refused(s2, options, told):
    call = call_of("rasteret_chips", "s2", bands=["B04"], bbox=BOX, **options)
    with pytest.raises(duckdb.Error, match=re.escape(f"rasteret_chips: {told}")):
        s2.execute(f"FROM {call}").fetchall()


def test_columns(s2):
    described = s2.execute(
        "DESCRIBE FROM rasteret_chips('s2', bands := ['B04'], stack := 'time')"
    ).fetchall()
    kinds = {row[0]: row[1] for row in described}
    assert kinds["record_ids"] == "VARCHAR[]"
    assert kinds["datetimes"] == "TIMESTAMP[]"
    assert kinds["B04"] == "BLOB"
    (moments,) = s2.execute(
        "SELECT datetimes FROM rasteret_chips('s2', bands := ['B04'], stack := 'time') LIMIT 1"
    ).fetchone()
    assert all(isinstance(moment, datetime) for moment in moments)


@pytest.mark.any_duckdb
def test_rasters_far_apart_need_no_more_than_their_own_squares(con, tmp_path):
    for number, name in enumerate("ab"):
        left = 600_000 + 200_000 * number
        write(tmp_path / f"{name}.tif", noise((1, 64, 64)),
              transform=Affine(10, 0, left, 0, -10, 1_440_000 + left))  # fmt: skip
    build_files(con, "made", {name: tmp_path / f"{name}.tif" for name in "ab"})
    found = stacks(con, "made", ["band"], size=16)
    assert {tuple(row["record_ids"]) for row in found} == {("a",), ("b",)}
    assert len(found) == 32


@pytest.mark.any_duckdb
@pytest.mark.parametrize("function", ["rasteret_chips", "rasteret_composite"])
def test_a_record_without_a_header_is_told(con, tmp_path, function):
    for name in "ab":
        write(tmp_path / f"{name}.tif", noise((1, 64, 64)))
    build_files(con, "made", {name: tmp_path / f"{name}.tif" for name in "ab"})
    con.execute(
        "CREATE TABLE half AS SELECT * REPLACE (CASE WHEN id = 'a' THEN band_metadata END "
        "AS band_metadata) FROM made"
    )
    (tmp_path / "b.tif").unlink()
    options = {"stack": "time", "size": 32} if function == "rasteret_chips" else {}
    call = call_of(function, "half", bands=["band"], on_error="report", **options)
    rows = rows_of(con, f"FROM {call}")
    told = [row["error"] for row in rows if row["error"] is not None]
    assert len(told) == 1
    assert "record b" in told[0] or "band: " in told[0]
    assert len(rows) > 1
    (count,) = con.execute(f"SELECT count(*) FROM {call}").fetchone()
    assert count == len(rows)
