"""`rasteret_composite`: NumPy over GDAL's warped inputs is the oracle."""

from __future__ import annotations

import duckdb
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from affine import Affine
from reading.read_oracle import build_files, call_of, numpy_type, rows_of, warped

from examples import in_turns
from rasteret_sql.reading.outputs import composites
from rasteret_sql.reading.outputs.combining import METHODS, Combined
from rasteret_sql.reading.outputs.composites import parse_period
from rasteret_sql.units import Window

CLOUDS = [3, 8, 9, 10]
AOI = "POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))"


def expected(method, layers):
    """NumPy's own masked functions over (values, validity) in order of time."""
    stack = np.ma.masked_array(
        [values for values, _ in layers], mask=[~valid for _, valid in layers]
    )
    if method in ("mean", "median"):
        stack = stack.astype(np.float64)
    if method == "count":
        return np.ma.masked_array(stack.count(axis=0))
    if method in ("first", "last"):
        found = np.ma.masked_all(stack.shape[1:], stack.dtype)
        for layer in stack if method == "last" else stack[::-1]:
            found = np.ma.where(layer.mask, found, layer)
        return found
    return getattr(np.ma, method)(stack, axis=0)


def arrays(row, bands):
    shape = row["height"], row["width"]
    valid = np.frombuffer(row["valid"], np.uint8).reshape(len(bands), *shape).astype(bool)
    return {
        band: (np.frombuffer(row[band], numpy_type(dtype)).reshape(shape), valid[number])
        for number, (band, dtype) in enumerate(zip(bands, row["dtypes"], strict=True))
    }


def inside(row, aoi=None):
    area = rasterio.warp.transform_geom("OGC:CRS84", row["crs"], AREA if aoi is None else aoi)
    shape = row["height"], row["width"]
    return rasterio.features.geometry_mask([area], shape, Affine(*row["transform"]), invert=True)


AREA = shapely.from_wkt(AOI).segmentize(1e-4).__geo_interface__


def dates(con):
    found = con.execute("SELECT id, datetime, crs FROM s2 ORDER BY datetime, id").fetchall()
    return {name: (moment, crs) for name, moment, crs in found}


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("case", "grid"),
    in_turns(
        [
            ("median", None),
            ("median", "45 days"),
            ("mean", "1 month"),
            ("min", "2 months"),
            ("max", None),
            ("first", None),
            ("last", "2 months"),
            ("count", "45 days"),
        ],
        [{}, {"crs": 3857, "resolution": 13}],
    ),
)
def test_composites_equal_numpy_over_warped_inputs(s2, scenes, case, grid):
    method, period = case
    bands = ["B04", "B08"]
    options = {
        "bands": bands, "method": method, "period": period, "mask_band": "SCL",
        "mask_values": CLOUDS, "geometry": AOI, "valid": True,
    }  # fmt: skip
    n_compared = 0
    rows = rows_of(s2, f"FROM {call_of('rasteret_composite', 's2', **options, **grid)}")
    known = dates(s2)
    starts = {name: start_of(s2, moment, period) for name, (moment, _) in known.items()}
    assert {row["period"] for row in rows} == set(starts.values())
    for row in rows:
        assert row["crs"] == ("EPSG:3857" if grid else "EPSG:32643")
        own = [name for name, start in starts.items() if start == row["period"]]
        mask = inside(row)
        got = arrays(row, bands)
        clear = {}
        for name in own:
            classes, known_class = warped(scenes[0] / name / "SCL.tif", row)
            clear[name] = known_class & ~np.isin(classes, CLOUDS) & mask
        for band in bands:
            layers = []
            for name in own:
                values, valid = warped(scenes[0] / name / f"{band}.tif", row)
                layers.append((values, valid & clear[name]))
            wanted = expected(method, layers)
            values, there = got[band]
            assert np.array_equal(there, ~np.ma.getmaskarray(wanted))
            if method in ("mean", "median"):
                assert values.dtype == np.float64
                np.testing.assert_allclose(values[there], wanted.compressed(), rtol=1e-13)
                assert np.isnan(values[~there]).all()
            else:
                assert np.array_equal(values[there], wanted.compressed())
                assert not values[~there].any()
            n_compared += int(there.sum())
        assert row["n_records"] == len(own)
    assert n_compared > 2500


def start_of(con, moment, period):
    """The start of a period, by DuckDB."""
    if period is None:
        return None
    query = f"SELECT time_bucket(INTERVAL '{period}', ?::TIMESTAMP)::TIMESTAMP"
    return con.execute(query, [moment]).fetchall()[0][0]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    "period", ["1 day", "10 days", "1 week", "3 weeks", "1 month", "5 months", "quarter", "2 years"]
)
def test_periods_begin_as_those_of_time_bucket(period):
    con = duckdb.connect()
    rng = np.random.default_rng(1)
    moments = rng.integers(-(10**15), 3 * 10**15, 500)
    ours = parse_period("period", period).starts(moments)
    interval = period if period[0].isdigit() else f"1 {period}"
    theirs = con.execute(
        f"SELECT list_transform(?::BIGINT[], lambda m: epoch_us(time_bucket(INTERVAL '{interval}', "
        "make_timestamp(m))))",
        [moments.tolist()],
    ).fetchall()
    assert theirs == [(ours.tolist(),)]
    con.close()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("n_scenes", [1, 2, 5, 8, 37])
def test_combining_equals_numpys_masked_functions(dtype, n_scenes):
    rng = np.random.default_rng(n_scenes)
    values = (rng.random((n_scenes, 30, 40)) * 250).astype(dtype)
    used = rng.random(values.shape) < 0.6
    layers = list(zip(values, used, strict=True))
    for method in METHODS:
        combined = Combined(method, values.dtype, values.shape[1:], n_scenes)
        for layer in layers:
            combined.add(*layer, Window(0, 30, 0, 40))
        found, there = combined.result()
        wanted = expected(method, layers)
        assert np.array_equal(there, ~np.ma.getmaskarray(wanted)), method
        np.testing.assert_allclose(found[there], wanted.compressed(), rtol=1e-12)
        if method in ("min", "max", "first", "last"):
            assert found.dtype == values.dtype


def test_lists_have_null_for_no_data(s2):
    options = {
        "bands": ["B04"], "geometry": AOI, "method": "max", "mask_band": "SCL",
        "mask_values": CLOUDS,
    }  # fmt: skip
    (blob,) = rows_of(s2, f"FROM {call_of('rasteret_composite', 's2', **options, valid=True)}")
    (row,) = rows_of(s2, f"FROM {call_of('rasteret_composite', 's2', **options, format='list')}")
    values, valid = arrays(blob, ["B04"])["B04"]
    assert row["B04"] == [
        v if there else None
        for v, there in zip(values.ravel().tolist(), valid.ravel(), strict=True)
    ]
    assert None in row["B04"]


@pytest.mark.any_duckdb
def test_blocks_of_all_periods_fall_together(con, tmp_path):
    """Two scenes side by side and one over both; more than one block each."""
    rng = np.random.default_rng(5)
    files = {}
    for name, x, width in (("left", 0, 1500), ("right", 1500, 700), ("both", 700, 1300)):
        path = tmp_path / f"{name}.tif"
        data = rng.integers(1, 250, (1300, width)).astype("uint8")
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=1300, width=width, dtype="uint8",
            crs="EPSG:32643", transform=Affine(10, 0, 500_000 + 10 * x, 0, -10, 3_000_000),
            tiled=True, blockxsize=256, blockysize=256, compress="deflate", nodata=0,
        ) as file:  # fmt: skip
            file.write(data, 1)
        files[name] = path
    build_files(con, "made", files)
    call = call_of("rasteret_composite", "made", method="count", valid=True)
    whole = np.zeros((1300, 2200), np.int32)
    for row in rows_of(con, f"FROM {call}"):
        assert row["period"] is None
        rows = slice(row["row_off"], row["row_off"] + row["height"])
        cols = slice(row["col_off"], row["col_off"] + row["width"])
        assert row["height"] <= 1024
        assert row["width"] <= 1024
        assert row["transform"][2] == 500_000 + 10 * row["col_off"]
        assert not whole[rows, cols].any()
        whole[rows, cols] = np.frombuffer(row["band"], "<i4").reshape(row["height"], row["width"])
    wanted = np.zeros_like(whole)
    wanted[:, :1500] += 1
    wanted[:, 1500:] += 1
    wanted[:, 700:2000] += 1
    assert np.array_equal(whole, wanted)


def test_a_record_that_cannot_be_read_is_left_out_and_told(con, tmp_path):
    files = {}
    for name, value in (("good", 5), ("bad", 9)):
        files[name] = tmp_path / f"{name}.tif"
        with rasterio.open(
            files[name], "w", driver="GTiff", count=1, height=64, width=64, dtype="uint8",
            crs="EPSG:32643", transform=Affine(10, 0, 500_000, 0, -10, 3_000_000),
            compress="deflate",
        ) as file:  # fmt: skip
            file.write(np.full((1, 64, 64), value, "uint8"))
    build_files(con, "made", files)
    content = bytearray(files["bad"].read_bytes())
    content[-80:] = bytes(80)
    files["bad"].write_bytes(bytes(content))
    with pytest.raises(duckdb.Error, match="record bad, band band"):
        con.execute("FROM rasteret_composite('made')").fetchall()
    (row,) = rows_of(con, "FROM rasteret_composite('made', on_error := 'report', method := 'max')")
    assert "band: " in row["error"]
    assert set(row["band"]) == {5}


@pytest.mark.any_duckdb
def test_each_file_that_cannot_be_read_is_named(con, tmp_path):
    files = {name: tmp_path / f"{name}.tif" for name in ("good", "bad", "worse")}
    for path in files.values():
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=64, width=64, dtype="uint8",
            crs="EPSG:32643", transform=Affine(10, 0, 500_000, 0, -10, 3_000_000),
            compress="deflate",
        ) as file:  # fmt: skip
            file.write(np.full((1, 64, 64), 5, "uint8"))
    build_files(con, "each", files)
    for name in ("bad", "worse"):
        content = bytearray(files[name].read_bytes())
        content[-70:] = bytes(70)
        files[name].write_bytes(bytes(content))
    (row,) = rows_of(con, "FROM rasteret_composite('each', on_error := 'report')")
    for name in ("bad", "worse"):
        assert f"record {name}: band: {files[name]}: block: expected " in row["error"]
    assert "good" not in row["error"].replace(str(tmp_path), "")
    with pytest.raises(duckdb.Error, match=r"record bad, band band: .*bad.tif: block: expected"):
        con.execute("FROM rasteret_composite('each')").fetchall()
    con.execute(
        "CREATE TABLE bare AS SELECT * REPLACE "
        "(CASE WHEN id = 'good' THEN band_metadata END AS band_metadata) FROM each"
    )
    told = [
        r["error"] for r in rows_of(con, "FROM rasteret_composite('bare', on_error := 'report')")
    ]
    assert told == ["record bad: band: no header; record worse: band: no header", None]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("period := 'soon'", "period: expected a number of days, weeks, months"),
        ("period := '0 days'", "period: expected a number of days, weeks, months"),
        ("method := 'mode'", "method: expected 'median', 'mean'"),
        ("mask_band := 'SCL'", "mask_values: expected a value, as mask_band has one"),
        ("mask_values := [3]", "mask_band: expected a value, as mask_values has one"),
        ("mask_band := 'QA', mask_values := [3]", "bands: expected"),
        ("max_bytes := 100", "max_bytes: expected a read of at most 100 bytes"),
    ],
)
def test_what_makes_no_composite_is_refused(s2, options, message):
    with pytest.raises(duckdb.Error, match=message):
        s2.execute(f"FROM rasteret_composite('s2', bands := ['B04'], {options})").fetchall()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("kind", ["INTEGER", "BIGINT", "DOUBLE"])
@pytest.mark.parametrize(
    "call",
    ["rasteret_composite($records)", "rasteret_chips($records, size := 64, stack := 'time')"],
)
def test_years_are_no_times(s2, kind, call):
    records = f"SELECT * REPLACE (2024::{kind} AS datetime) FROM s2"
    with pytest.raises(duckdb.Error, match="expected a column datetime of TIMESTAMP, TIMESTAMPTZ"):
        s2.execute(f"FROM {call}", {"records": records}).fetchall()


def test_only_wanted_bands_and_periods_are_read(n_requests):
    call = "rasteret_composite('s2', bands := ['B04', 'B08'], period := '1 month', geometry := $aoi"
    both, found = n_requests(f"SELECT B04, B08 FROM {call})", {"aoi": AOI})
    one, same = n_requests(f"SELECT B04 FROM {call})", {"aoi": AOI})
    assert (2 * one, len(same)) == (both, len(found))
    some, _ = n_requests(
        f"SELECT B04 FROM {call}, date_range := ['2024-02-01', '2024-02-28'])", {"aoi": AOI}
    )
    assert 0 < some < one


@pytest.mark.any_duckdb
def test_the_crs_is_that_of_most_records_and_its_pixels_are_multiples(s2):
    rows = rows_of(s2, "FROM rasteret_composite('s2', bands := ['B04'], method := 'first')")
    assert {row["crs"] for row in rows} == {"EPSG:32643"}
    for row in rows:
        assert pyproj.CRS(row["crs"]).axis_info[0].unit_name == "metre"
        assert row["transform"][0] == 10
        assert row["transform"][2] % 10 == 0


def test_rows_are_the_same_whatever_is_selected(s2, monkeypatch):
    """Blocks are as small as all bands of a call need them."""
    monkeypatch.setattr(composites, "_BLOCKS", ((400, 400), (100, 100)))
    monkeypatch.setattr(composites, "_STACK_BYTES", 400 * 400 * 40)
    for method, n_rows in (("median", 36), ("max", 4)):
        call = call_of("rasteret_composite", "s2", bands=["B04", "B08"], method=method)
        place = "row_off, col_off, height, width"
        every = s2.execute(f"SELECT {place}, B04, B08 FROM {call}").fetchall()
        assert len(every) >= n_rows
        for selected in ("", ", B08"):
            found = s2.execute(f"SELECT {place} {selected} FROM {call}").fetchall()
            assert [row[:4] for row in found] == [row[:4] for row in every]
        assert s2.execute(f"SELECT count(*) FROM {call}").fetchall() == [(len(every),)]
