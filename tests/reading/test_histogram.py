"""`rasteret_histogram`: NumPy's histogram over rasterio's valid pixels."""

from __future__ import annotations

import itertools

import duckdb
import numpy as np
import pytest
import shapely
from affine import Affine
from reading.rasters import NORTH_UP, noise, write
from reading.read_oracle import (
    build_files,
    call_of,
    expected_read,
    make_areas,
    opened,
    random_polygon,
    rows_of,
    to_map,
)

from examples import examples
from rasteret_sql.reading.tile_store import STORE

AOI = "POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))"


def histograms(con, collection, **options):
    return rows_of(con, f"FROM {call_of('rasteret_histogram', collection, **options)}")


def assert_same(rows, values, bins, limits=None):
    """Rows of one record and band are NumPy's bins."""
    count, edges = np.histogram(values, bins, limits)
    assert [row["bin"] for row in rows] == list(range(bins))
    assert [row["count"] for row in rows] == count.tolist()
    assert [row["low"] for row in rows] == edges[:-1].tolist()
    assert [row["high"] for row in rows] == edges[1:].tolist()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_bins_are_numpy_s(con, made, dtype):
    pixels = noise((2, 70, 90), dtype)
    if dtype == "float32":
        pixels = pixels / 7
    made(pixels, ("a", "b"), nodata=7)
    for limits, bins in itertools.product((None, [10, 200], [-3.5, 1000.25]), (1, 10, 256)):
        rows = histograms(con, "made", bins=bins, value_range=limits)
        assert [row["band"] for row in rows] == ["a"] * bins + ["b"] * bins
        for number, band in enumerate(("a", "b")):
            own = [row for row in rows if row["band"] == band]
            assert_same(own, pixels[number][pixels[number] != 7].astype(float), bins, limits)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("level", [0, 1])
def test_only_pixels_inside_the_area_count(con, made, level, all_touched):
    path = made(noise((1, 120, 130)), overviews=[2], nodata=0)
    rng = np.random.default_rng(5)
    n_areas = 0
    for _ in range(examples(10, 25)):
        area = random_polygon(rng, 120)
        wanted = expected_read(path, geometry_px=area, level=level, all_touched=all_touched)
        if wanted is None or not wanted.valid.any():
            continue
        rows = histograms(
            con, "made", geometry=to_map(area, NORTH_UP), geometry_crs="EPSG:32643", bins=16,
            level=level, all_touched=all_touched,
        )  # fmt: skip
        assert_same(rows, wanted.pixels[wanted.valid].astype(float), 16)
        n_areas += 1
    assert n_areas > examples(6, 15)


def test_areas_of_a_relation_bring_their_columns(s2, scenes):
    make_areas(s2, "fields", {"a": shapely.from_wkt(AOI),
                              "b": shapely.box(77.99, 13, 78, 13.01)})  # fmt: skip
    rows = histograms(s2, "s2", bands=["B04"], aois="fields", bins=8, value_range=[0, 8000])
    assert len(rows) % 8 == 0
    one = {(row["id"], row["area"]) for row in rows}
    assert {area for _, area in one} == {"a", "b"}
    pixels = s2.execute(
        "SELECT id, area, count(*) FROM rasteret_pixels('s2', bands := ['B04'], "
        "aois := 'fields') WHERE B04 BETWEEN 0 AND 8000 GROUP BY ALL"
    ).fetchall()
    counted = {}
    for row in rows:
        key = row["id"], row["area"]
        counted[key] = counted.get(key, 0) + row["count"]
    assert {key: n for key, n in counted.items() if n} == {(i, a): n for i, a, n in pixels}


def test_sql_adds_records_up(s2, scenes):
    found = s2.execute(
        "SELECT bin, sum(count)::BIGINT FROM rasteret_histogram('s2', bands := ['B08'], "
        "bins := 20, value_range := [0, 10000]) GROUP BY bin ORDER BY bin"
    ).fetchall()
    values = []
    for path in sorted(scenes[0].rglob("B08.tif")):
        with opened(path) as file:
            values.append(file.read(1, masked=True).compressed())
    count, _ = np.histogram(np.concatenate(values), 20, [0, 10000])
    assert found == list(enumerate(count.tolist()))


@pytest.mark.any_duckdb
def test_bands_of_unlike_grid_are_counted_each_on_its_own(con, tmp_path):
    pixels = {"fine": noise((1, 70, 90)), "coarse": noise((1, 35, 45), seed=1)}
    hrefs = []
    for name, scale in (("fine", 1), ("coarse", 2)):
        transform = NORTH_UP @ Affine.scale(scale)
        path = write(tmp_path / f"{name}.tif", pixels[name], transform=transform)
        hrefs.append(f"{name}: {{href: '{path}'}}")
    con.execute(f"CREATE TABLE files AS SELECT 'one' AS id, {{{', '.join(hrefs)}}} AS assets")
    con.execute("FROM rasteret_build_table('two', 'files', enrich := true)").fetchall()
    found = histograms(con, "two", bands=["fine", "coarse"], bins=5)
    for name, values in pixels.items():
        assert_same([r for r in found if r["band"] == name], values.astype(float), 5)
    area = to_map(shapely.box(10, 12, 60, 40), NORTH_UP)
    found = histograms(con, "two", bands=["coarse", "fine"], bins=5, geometry=area,
                       geometry_crs="EPSG:32643")  # fmt: skip
    inside = {"fine": pixels["fine"][:, 12:40, 10:60], "coarse": pixels["coarse"][:, 6:20, 5:30]}
    for name, values in inside.items():
        assert_same([r for r in found if r["band"] == name], values.astype(float), 5)


@pytest.mark.any_duckdb
def test_nothing_to_count_is_rows_of_0(con, made):
    made(np.full((1, 30, 40), 5, "uint8"), nodata=5)
    rows = histograms(con, "made", bins=4)
    assert [(r["bin"], r["low"], r["high"], r["count"]) for r in rows] == [
        (bin_, None, None, 0) for bin_ in range(4)
    ]
    rows = histograms(con, "made", bins=2, value_range=[0, 10])
    assert [(r["low"], r["high"], r["count"]) for r in rows] == [(0, 5, 0), (5, 10, 0)]


@pytest.mark.any_duckdb
def test_nan_and_infinity_are_not_counted(con, made):
    values = noise((1, 30, 40), "float32")
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    made(values)
    assert_same(histograms(con, "made", bins=9), values[np.isfinite(values)].astype(float), 9)


@pytest.mark.any_duckdb
def test_complex_numbers_have_no_order(con, made):
    made(noise((1, 30, 40)).astype("complex64"))
    with pytest.raises(duckdb.Error, match="band band: expected real numbers, got 'complex64'"):
        histograms(con, "made")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("bins := 0", "bins: expected 1 to 65536, got 0"),
        ("bins := 100000000", "bins: expected 1 to 65536, got 100000000"),
        ("value_range := [1]", r"value_range: expected \[low, high\]"),
        ("value_range := [2, 1]", r"value_range: expected \[low, high\], low below high"),
    ],
)
def test_odd_arguments_are_refused(s2, options, told):
    with pytest.raises(duckdb.Error, match=f"rasteret_histogram: {told}"):
        s2.execute(f"FROM rasteret_histogram('s2', {options})")


@pytest.mark.any_duckdb
def test_a_file_that_is_gone_is_one_row_of_null(con, tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.tif", noise((1, 64, 64)))
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in "ab"})
    (tmp_path / "b.tif").unlink()
    STORE.clear()
    with pytest.raises(duckdb.Error, match="record b, band band: "):
        histograms(con, "made")
    rows = histograms(con, "made", on_error="report", bins=3)
    assert [(r["id"], r["bin"], r["count"] is None, r["error"] is None) for r in rows] == [
        ("a", 0, False, True),
        ("a", 1, False, True),
        ("a", 2, False, True),
        ("b", None, True, False),
    ]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("first", [2**53, 2**60 + 129, 2**63 - 5, 2**63, 2**64 - 10])
@pytest.mark.parametrize("spread", [1, 9])
def test_bins_of_integers_beyond_2_to_the_53_hold_them_exactly(con, made, first, spread):
    values = first + np.arange(400, dtype="uint64") % spread
    made(values.reshape(1, 20, 20))
    for bins in (1, 2, 7, 256):
        rows = histograms(con, "made", bins=bins)
        edges = [row["low"] for row in rows] + [rows[-1]["high"]]
        assert [row["high"] for row in rows[:-1]] == edges[1:-1]
        assert (np.diff(edges) > 0).all()
        for row in rows:
            low, high = int(row["low"]), int(row["high"])
            inside = [v for v in values.tolist() if low <= v < high or (v == high == edges[-1])]
            assert row["count"] == len(inside)
        assert sum(row["count"] for row in rows) == 400
    (limited,) = histograms(con, "made", bins=1, value_range=[0, 2**63])
    assert limited["count"] == sum(v <= 2**63 for v in values.tolist())


@pytest.mark.parametrize("bins", [1, 5])
def test_the_least_and_the_greatest_integer_are_counted_though_float64_rounds_them_inwards(
    con, made, bins
):
    least, greatest = -(2**62) - 3, 2**62 + 100
    values = np.array([least, 0, 5, greatest] * 64, "int64").reshape(1, 16, 16)
    assert (float(least) > least, float(greatest) < greatest) == (True, True)
    made(values)
    rows = histograms(con, "made", bins=bins)
    assert sum(row["count"] for row in rows) == 256
    assert (rows[0]["low"] <= least, rows[-1]["high"] >= greatest) == (True, True)
    assert [row["count"] for row in rows] == np.histogram(values, bins)[0].tolist()


@pytest.mark.any_duckdb
def test_a_range_without_bins_follows_on_error(con, tmp_path):
    huge = np.full((1, 20, 20), 1.5e308)
    huge[0, :10] *= -1
    write(tmp_path / "a.tif", huge)
    write(tmp_path / "b.tif", np.ones((1, 20, 20)))
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in "ab"})
    with pytest.raises(duckdb.Error, match="bins of record a, band band: expected a range that"):
        histograms(con, "made", bins=2)
    rows = histograms(con, "made", bins=2, on_error="null")
    assert [(r["id"], r["bin"], r["count"]) for r in rows] == [
        ("a", None, None), ("b", 0, 0), ("b", 1, 400)
    ]  # fmt: skip
    rows = histograms(con, "made", bins=2, on_error="report")
    assert [(r["error"] or "")[:16] for r in rows] == ["bins of record a", "", ""]
    found = con.execute(
        "SELECT sum(count) FROM rasteret_histogram('made', bins := 7, value_range := [-1e300, 2])"
    )
    assert found.fetchall() == [(400,)]
