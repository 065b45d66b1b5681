"""Points: equal to rasterio.sample; matching equal to NumPy; each tile requested once."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from reading.rasters import NORTH_UP, noise, write
from reading.read_oracle import LOSSY, build_files, call_of, opened, rows_of

import rasteret_sql
from examples import examples
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.reading.point_plans import PointPlanner
from rasteret_sql.reading.points import Points
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.tile_store import STORE
from rasteret_sql.units import Affine as SixNumbers


def build_items(con, folder, name, items):
    """A collection of records: id to moment and files by band."""
    listed = []
    for record, (moment, files) in items.items():
        with opened(next(iter(files.values()))) as file:
            box = rasterio.warp.transform_bounds(file.crs, 4326, *file.bounds)
        assets = {
            band: {"href": str(path), "type": "image/tiff; application=geotiff"}
            for band, path in files.items()
        }
        listed.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": record, "collection": name,
                "bbox": list(box), "geometry": shapely.geometry.mapping(shapely.box(*box)),
                "properties": {"datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}, "links": [],
                "assets": assets,
            }
        )  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed}))
    con.execute(
        f"FROM rasteret_build_stac('{name}', stac_api := $path, allow_local := true)",
        {"path": str(path)},
    ).fetchall()
    return name


def make_points(con, name="pts", kind="TABLE", **columns):
    con.register("_points", pa.table(columns))
    con.execute(f"CREATE OR REPLACE {kind} {name} AS FROM _points")
    con.unregister("_points")
    return name


def sample(con, collection, points="pts", **options):
    return rows_of(
        con, f"FROM {call_of('rasteret_sample_points', collection, points=points, **options)}"
    )


def scattered(transform, height, width, n=300, seed=1):
    """Random points in and around a raster, in its CRS."""
    rng = np.random.default_rng(seed)
    cols, rows = rng.uniform(-0.2, 1.2, n) * width, rng.uniform(-0.2, 1.2, n) * height
    a, b, c, d, e, f = transform[:6]
    return a * cols + b * rows + c, d * cols + e * rows + f


def inside(file, x, y):
    """Which points lie in a file, and their rows and columns, as rasterio says."""
    rows, cols = rasterio.transform.rowcol(file.transform, x, y)
    rows, cols = np.asarray(rows).astype(int), np.asarray(cols).astype(int)
    return (rows >= 0) & (rows < file.height) & (cols >= 0) & (cols < file.width), rows, cols


def expected_sample(path, x, y):
    """Which points lie in a file, their rows, columns and values by `rasterio.sample`."""
    with opened(path) as file:
        there, rows, cols = inside(file, x, y)
        wanted = list(file.sample(zip(x[there], y[there], strict=True), masked=True))
    return there, rows, cols, wanted


def assert_equals_sample(found, path, x, y, bands):
    """Rows of one record equal `rasterio.sample`, NULL where it masks."""
    there, rows, cols, wanted = expected_sample(path, x, y)
    found = sorted(found, key=lambda row: row["n"])  # they come tile by tile
    assert [row["n"] for row in found] == np.flatnonzero(there).tolist()
    assert [row["row"] for row in found] == rows[there].tolist()
    assert [row["col"] for row in found] == cols[there].tolist()
    for position, band in enumerate(bands):
        values = np.ma.stack(wanted)[:, position] if wanted else np.ma.array([])
        null = np.ma.getmaskarray(values)
        assert [row[band] is None for row in found] == null.tolist()
        got = np.array([row[band] for row in found if row[band] is not None])
        np.testing.assert_array_equal(got, values.compressed())
    return int(there.sum())


def real_files(data):
    """Georeferenced files of the shared data that rasterio reads, of moderate size."""
    truth = json.loads((data / "truth.json").read_text())["files"]
    for path, entry in sorted(truth.items()):
        if not path.startswith("geotiff/") or not path.endswith(".tif") or entry.get("error"):
            continue
        is_plain = entry["crs_present"] and not entry["transform_is_identity"]
        is_small = entry["width"] * entry["height"] < 4_000_000 and entry["count"] <= 4
        odd = entry["dtype"][:7] in ("complex", "int64", "uint64") or entry.get("nbits")
        if odd or not (is_plain and is_small) or entry["gcps"] or entry["compression"] in LOSSY:
            continue
        is_broken = not entry["bands"] or any(band.get("error") for band in entry["bands"])
        if not is_broken and (data / path).stat().st_size <= 3_000_000:
            yield data / path


@pytest.fixture(params=["one plan", "plans of 100 points"])
def plan_size(request, monkeypatch):
    """As they are, and so small that the points of one scene are of several plans."""
    if request.param != "one plan":
        monkeypatch.setitem(PointPlanner.__init__.__kwdefaults__, "at_once", 100)
        return 100
    return None


@pytest.mark.any_duckdb
def test_real_files_equal_rasterio_sample(con, data):
    n_files = n_points = 0
    for path in list(real_files(data))[:: examples(8, 5)]:
        with opened(path) as file:
            transform, height, width, count = file.transform, file.height, file.width, file.count
            crs, has_alpha = file.crs.to_string(), "alpha" in [c.name for c in file.colorinterp]
        if has_alpha:  # test_alpha_and_masks
            continue
        bands = [f"b{n}" for n in range(1, count + 1)]
        build_files(con, "one", {"one": path}, bands)
        x, y = scattered(transform, height, width, seed=n_files)
        make_points(con, n=np.arange(len(x)), x=x, y=y)
        found = sample(con, "one", bands=bands, geometry_crs=crs)
        n_points += assert_equals_sample(found, path, x, y, bands)
        n_files += 1
    assert n_files > examples(18, 30)
    assert n_points > 100 * n_files


@pytest.mark.any_duckdb
@pytest.mark.usefixtures("plan_size")
@pytest.mark.parametrize("kind", ["mask", "alpha", "nodata", "strips", "planes", "plain"])
def test_masks_and_layouts_equal_rasterio_sample(con, tmp_path, kind):
    options = {
        "alpha": {"photometric": "rgb", "alpha": "yes"},
        "nodata": {"nodata": 7},
        "strips": {"tiled": False, "blockxsize": 200, "blockysize": 8},
        "planes": {"interleave": "band"},
        "plain": {"compress": "none", "blockxsize": 64},
    }.get(kind, {})
    count = 4 if kind == "alpha" else 3
    pixels = noise((count, 150, 200), "uint8", high=12)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "a.tif", pixels, **options)
        if kind == "mask":
            with rasterio.open(path, "r+") as file:
                file.write_mask(noise((150, 200), "uint8", high=2).astype(bool))
    build_files(con, "one", {"one": path}, ["r", "g", "b"])
    x, y = scattered(NORTH_UP, 150, 200, n=800)
    make_points(con, n=np.arange(len(x)), x=x, y=y)
    found = sample(con, "one", geometry_crs=32643)
    assert assert_equals_sample(found, path, x, y, ["r", "g", "b"]) > 350


@pytest.mark.any_duckdb
def test_points_of_another_crs(con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 150, 200)))
    build_files(con, "one", {"one": path})
    x, y = scattered(NORTH_UP, 150, 200, n=1000)
    lon, lat = pyproj.Transformer.from_crs(32643, 4326, always_xy=True).transform(x, y)
    back = pyproj.Transformer.from_crs(4326, 32643, always_xy=True).transform(lon, lat)
    make_points(con, n=np.arange(len(x)), lon=lon, lat=lat)
    found = sample(con, "one")
    assert assert_equals_sample(found, path, *map(np.asarray, back), ["band"]) > 500
    row = min(found, key=lambda row: row["n"])
    assert (row["point_x"], row["point_y"]) == (row["lon"], row["lat"])
    assert (row["point_crs"], row["raster_crs"]) == ("OGC:CRS84", "EPSG:32643")
    assert row["record_id"] == "one"
    assert row["distance_px"] == 0


@pytest.mark.any_duckdb
def test_top_and_left_are_inside_right_and_bottom_outside(con, tmp_path):
    path = write(tmp_path / "a.tif", np.arange(12, dtype="uint8").reshape(1, 3, 4))
    build_files(con, "one", {"one": path})
    left, top = 500_000.0, 4_000_000.0
    x = [left, left + 10, left + 39.999, left + 40, left - 0.001, left, left]
    y = [top, top - 10, top - 29.999, top, top, top - 30, top + 0.001]
    make_points(con, n=range(7), x=x, y=y)
    found = {row["n"]: (row["row"], row["col"], row["band"])
             for row in sample(con, "one", geometry_crs=32643)}  # fmt: skip
    assert found == {0: (0, 0, 0), 1: (1, 1, 5), 2: (2, 3, 11)}


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("pixel", "origin"), [(0.1, 10.5), (0.05, -180.0), (1 / 120, 60.0), (0.6, 100.2)]
)
def test_points_on_edges_of_pixels_that_are_rounded_are_those_of_rasterio(
    con, tmp_path, pixel, origin
):
    transform = Affine(pixel, 0, origin, 0, -pixel, 50)
    path = write(tmp_path / "a.tif", noise((1, 20, 60)), transform=transform, crs="EPSG:4326")
    build_files(con, "one", {"one": path})
    cols, rows = (part.ravel() for part in np.meshgrid(np.arange(61), np.arange(21)))
    x, y = origin + cols * pixel, 50 - rows * pixel
    make_points(con, n=np.arange(len(x)), lon=x, lat=y)
    assert assert_equals_sample(sample(con, "one"), path, x, y, ["band"]) > 1100


@pytest.mark.any_duckdb
def test_pixels_as_coordinates_and_a_level(con, tmp_path):
    pixels = noise((1, 128, 160))
    path = write(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.nearest)
    build_files(con, "one", {"one": path})
    make_points(con, n=range(3), x=[0.5, 159.9, 160], y=[0.5, 127.9, 1])
    full = sample(con, "one", geometry_crs="pixel")
    assert sorted((row["n"], row["band"]) for row in full) == [
        (0, pixels[0, 0, 0]), (1, pixels[0, 127, 159]),
    ]  # fmt: skip
    half = sample(con, "one", geometry_crs="pixel", level=1)
    assert sorted((row["row"], row["col"]) for row in half) == [(0, 0), (63, 79)]
    assert {row["point_crs"] for row in half} == {"pixel"}


@pytest.mark.any_duckdb
def test_longitudes_from_0_to_360(con, tmp_path):
    pixels = noise((1, 18, 36), "int16")
    path = write(
        tmp_path / "a.tif", pixels, transform=Affine(10, 0, 0, 0, -10, 90), crs="EPSG:4326",
        blockxsize=16, blockysize=16,
    )  # fmt: skip
    build_files(con, "world", {"one": path})
    make_points(con, n=range(3), lon=[-175.0, 5.0, 179.9], lat=[5.0, 5.0, -85.0])
    found = {row["n"]: row["band"] for row in sample(con, "world")}
    assert found == {0: pixels[0, 8, 18], 1: pixels[0, 8, 0], 2: pixels[0, 17, 17]}


@pytest.mark.any_duckdb
@pytest.mark.usefixtures("plan_size")
def test_bands_of_unlike_grids_are_read_each_on_its_own(con, tmp_path):
    fine, coarse = noise((1, 120, 120)), noise((1, 50, 50), "uint8")
    files = {
        "fine": write(tmp_path / "fine.tif", fine),
        "coarse": write(
            tmp_path / "coarse.tif", coarse, transform=Affine(20, 0, 500_000, 0, -20, 4_000_000)
        ),
    }
    build_items(con, tmp_path, "two", {"one": (datetime(2024, 1, 1, tzinfo=UTC), files)})
    x, y = scattered(NORTH_UP, 120, 120, n=800)
    make_points(con, n=np.arange(len(x)), x=x, y=y)
    found = sample(con, "two", bands=["fine", "coarse"], geometry_crs=32643)
    assert len(found) > 300
    for row in found:
        assert row["fine"] == fine[0, row["row"], row["col"]]
        down, across = row["row"] // 2, row["col"] // 2
        assert row["coarse"] == (coarse[0, down, across] if max(down, across) < 50 else None)


# What points may be, and what comes through


def some_points(con, kind="TABLE", name="pts"):
    return make_points(
        con, name, kind, id=["a", "b", "c"], lon=[77.99, 78.0, 78.01], lat=[13.01, 13.012, 13.02],
        datetime=[datetime(2024, 2, 10)] * 3,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["TABLE", "TEMP TABLE", "VIEW", "registered", "query", "wkt"])
def test_relations_of_points(s2, kind):
    some_points(s2, name="kept")
    points = "pts"
    query = "SELECT record_id, lon, B04, row, col FROM rasteret_sample_points('s2', 'kept')"
    wanted = sorted(s2.execute(query).fetchall())
    assert len(wanted) > 9
    if kind == "registered":
        s2.register("pts", s2.sql("FROM kept").to_arrow_table())
    elif kind == "query":
        points = "SELECT * FROM kept WHERE lon < 100"
    elif kind == "wkt":
        s2.execute(
            "CREATE TABLE pts AS SELECT 'POINT(' || lon || ' ' || lat || ')' AS geom, lon FROM kept"
        )
    else:
        s2.execute(f"CREATE {kind} pts AS FROM kept")
    query = "SELECT record_id, lon, B04, row, col FROM rasteret_sample_points('s2', $points)"
    assert sorted(s2.execute(query, {"points": points}).fetchall()) == wanted


def test_columns(s2):
    some_points(s2)
    query = "FROM rasteret_sample_points('s2', 'pts', bands := ['B04'])"
    names = s2.sql(query).columns
    assert names == [
        "id", "lon", "lat", "point_datetime", "point_x", "point_y", "point_crs", "record_id",
        "datetime", "raster_crs", "row", "col", "distance_px", "B04",
    ]  # fmt: skip
    more = s2.sql(query.replace(")", ", record_columns := ['crs'])")).columns
    assert set(more) - set(names) == {"crs"}


def test_a_where_gives_the_same_rows(s2):
    some_points(s2)
    call = "rasteret_sample_points('s2', 'pts')"
    everything = s2.execute(f"SELECT id, record_id, B04 FROM {call}").fetchall()
    one = everything[0][1]
    found = s2.execute(
        f"SELECT id, record_id, B04 FROM {call} WHERE record_id = $one", {"one": one}
    )
    assert sorted(found.fetchall()) == sorted(row for row in everything if row[1] == one)
    assert s2.execute(f"SELECT count(*) FROM {call}").fetchall() == [(len(everything),)]
    assert s2.execute(f"SELECT id FROM {call} WHERE B04 < 0").fetchall() == []


# Requests


def test_each_tile_is_requested_once_for_all_points(
    s2, server, n_requests, scenes, plan_size, monkeypatch
):
    plans = Counter()
    original = PointPlanner.of_units

    def counted(self, table, usable, units, asked, failures):
        plans.update(set(table.batch["id"].take(pa.array(units.scene)).to_pylist()))
        return original(self, table, usable, units, asked, failures)

    monkeypatch.setattr(PointPlanner, "of_units", counted)
    rng = np.random.default_rng(4)
    n = 5000
    make_points(
        s2, n=np.arange(n), lon=rng.uniform(77.97, 78.02, n), lat=rng.uniform(13.0, 13.03, n)
    )
    n_read, found = n_requests(
        "SELECT record_id, row // 256, col // 256, B04 FROM "
        "rasteret_sample_points('s2', 'pts', bands := ['B04'])"
    )
    assert len(found) > 6 * 1000
    assert len(plans) == 6
    assert max(plans.values()) == 1 if plan_size is None else min(plans.values()) > 3
    ranges = Counter((one["path"], one["range"]) for one in server.requests())
    assert set(ranges.values()) == {1}
    planned = s2.execute(
        "SELECT href, tile_row, tile_col FROM rasteret_plan('s2', bands := ['B04'])"
    ).fetchall()
    tiles = {row[:3] for row in found}
    assert 6 < len(tiles) <= len(planned)
    assert n_read <= (len(tiles) if plan_size is None else len(planned))
    n_none, _ = n_requests("SELECT count(*), min(row) FROM rasteret_sample_points('s2', 'pts')")
    assert n_none == 0


@pytest.mark.any_duckdb
@pytest.mark.parametrize("bands", [["B04"], ["B04", "SCL"]])
def test_a_match_requests_mask_tiles_once_and_bands_of_matches_alone(s2, server, n_requests, bands):
    rng = np.random.default_rng(4)
    lon, lat = rng.uniform(77.97, 78.02, 2000), rng.uniform(13.0, 13.03, 2000)
    make_points(s2, lon=lon, lat=lat, t=[datetime(2024, 2, 20)] * 2000)
    _, found = n_requests(
        "SELECT DISTINCT record_id FROM (FROM rasteret_sample_points('s2', 'pts', "
        f"bands := {bands}, "
        "match := 'latest', time_column := 't', mask_band := 'SCL', mask_values := [3, 8, 9])) "
        "WHERE B04 >= 0"
    )
    ranges = Counter((one["path"], one["range"]) for one in server.requests())
    assert set(ranges.values()) == {1}
    read = {path.split("/")[-2] for path, _ in ranges if path.endswith("B04.tif")}
    assert read == {record for (record,) in found}
    assert not any("20240310" in path for path, _ in ranges)


def test_max_bytes(s2, server):
    some_points(s2)
    query = "FROM rasteret_sample_points('s2', 'pts', max_bytes := $most)"
    with pytest.raises(Exception, match="max_bytes: expected a read of at most 10 bytes"):
        s2.execute(query, {"most": 10}).fetchall()
    assert server.requests() == []
    assert s2.execute(query, {"most": 10_000_000}).fetchall()


# Matching in time

DAY = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A connection with ten scenes with clouds, days apart; and the files' arrays by record."""
    folder = tmp_path_factory.mktemp("series")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    yield con, make_series(con, folder, np.random.default_rng(7))
    con.close()


def make_series(con, folder, rng):
    """Collection `series` of ten scenes and points `pts` of any time; the files' arrays."""
    items, arrays = {}, {}
    for number in rng.permutation(10).tolist():
        left = 500_000 + 100 * int(rng.integers(0, 8))
        transform = Affine(10, 0, left, 0, -10, 4_000_000)
        coarse = Affine(20, 0, left, 0, -20, 4_000_000)
        values = noise((1, 96, 96), seed=number) + 1
        clouds = noise((1, 48, 48), "uint8", high=4, seed=100 + number)
        files = {
            "red": write(folder / f"red{number}.tif", values, transform=transform),
            "scl": write(folder / f"scl{number}.tif", clouds, transform=coarse, nodata=0),
        }
        moment = DAY + timedelta(days=3 * number)
        items[f"s{number}"] = (moment, files)
        arrays[f"s{number}"] = (moment, left, values[0], clouds[0])
    build_items(con, folder, "series", items)
    n = 400
    make_points(
        con,
        n=np.arange(n),
        x=rng.uniform(499_900, 502_000, n),
        y=rng.uniform(3_998_950, 4_000_050, n),
        t=[DAY + timedelta(hours=int(h)) for h in rng.integers(-48, 40 * 24, n)],
    )
    return arrays


def expected_matches(con, arrays, match, max_dt, masked):
    """Number of the point to record and value, by NumPy."""
    found = {}
    for n, x, y, t in con.execute("SELECT n, x, y, t FROM pts").fetchall():
        best = None
        for record, (moment, left, values, clouds) in arrays.items():
            col, row = int(np.floor((x - left) / 10)), int(np.floor((4_000_000 - y) / 10))
            if not (0 <= row < 96 and 0 <= col < 96):
                continue
            away = t - moment
            if match == "latest" and away < timedelta(0):
                continue
            if max_dt is not None and abs(away) > max_dt:
                continue
            if masked and clouds[row // 2, col // 2] in (0, 3):
                continue
            key = (abs(away), away < timedelta(0))
            if best is None or key < best[0]:
                best = key, record, int(values[row, col])
        if best is not None:
            found[n] = best[1:]
    return found


@pytest.mark.any_duckdb
@pytest.mark.parametrize("match", ["latest", "nearest"])
@pytest.mark.parametrize("max_dt", [None, timedelta(days=4)])
@pytest.mark.parametrize("masked", [False, True])
def test_matching_equals_numpy(series, match, max_dt, masked):
    con, arrays = series
    options = ", mask_band := 'scl', mask_values := [3]" if masked else ""
    options += "" if max_dt is None else ", max_dt := INTERVAL '4 days'"
    rows = con.execute(
        "SELECT n, record_id, red, datetime FROM rasteret_sample_points('series', 'pts', "
        f"bands := ['red'], geometry_crs := 32643, match := '{match}', time_column := 't'{options})"
    ).fetchall()
    found = {n: (record, value) for n, record, value, _ in rows}
    assert len(found) == len(rows)
    assert 50 < len(found) < 400
    assert found == expected_matches(con, arrays, match, max_dt, masked)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("match", "at", "order"),
    [
        ("nearest", "infinity", "DESC"),
        ("nearest", "-infinity", "ASC"),
        ("latest", "infinity", "DESC"),
        ("nearest", "200000-01-01", "DESC"),
        ("nearest", "200000-01-01 (BC)", "ASC"),
    ],
)
def test_a_time_however_far_matches_the_first_or_the_last_record(series, match, at, order):
    con, _ = series
    point = f"SELECT x, y, TIMESTAMP '{at}' AS t FROM pts WHERE n = 0"
    wanted = con.execute(
        "SELECT record_id FROM rasteret_sample_points('series', $point, geometry_crs := 32643) "
        f"ORDER BY datetime {order} LIMIT 1",
        {"point": point},
    ).fetchall()
    found = con.execute(
        "SELECT record_id FROM rasteret_sample_points('series', $point, geometry_crs := 32643, "
        f"match := '{match}', time_column := 't')",
        {"point": point},
    ).fetchall()
    assert found == wanted
    assert len(found) == 1


@pytest.mark.any_duckdb
def test_a_mask_drops_rows_of_all_records(series):
    con, arrays = series
    call = "rasteret_sample_points('series', 'pts', bands := ['red'], geometry_crs := 32643"
    everything = con.execute(f"SELECT n, record_id, row, col FROM {call})").fetchall()
    kept = con.execute(
        f"SELECT n, record_id, row, col FROM {call}, mask_band := 'scl', mask_values := 3)"
    ).fetchall()
    clear = [r for r in everything if arrays[r[1]][3][r[2] // 2, r[3] // 2] not in (0, 3)]
    assert 0 < len(kept) < len(everything)
    assert sorted(kept) == sorted(clear)


def test_a_where_does_not_change_the_match(series):
    con, _ = series
    query = (
        "SELECT n, record_id, red FROM rasteret_sample_points('series', 'pts', "
        "geometry_crs := 32643, bands := ['red'], match := 'latest', time_column := 't')"
    )
    everything = con.execute(query).fetchall()
    record = everything[0][1]
    found = con.execute(f"{query} WHERE record_id = '{record}'").fetchall()
    assert sorted(found) == sorted(row for row in everything if row[1] == record)


def test_a_point_without_a_time_matches_nothing(series):
    con, _ = series
    con.execute("CREATE TABLE half AS SELECT * REPLACE (if(n % 2 = 0, NULL, t) AS t) FROM pts")
    numbers = con.execute(
        "SELECT n FROM rasteret_sample_points('series', 'half', geometry_crs := 32643, "
        "match := 'nearest', time_column := 't')"
    ).fetchall()
    assert numbers
    assert {n % 2 for (n,) in numbers} == {1}


# Neighbours


def nearest_valid(pixels, row, col, y, x, reach):
    """Value and distance by rasteret's rules, one pixel at a time."""
    height, width = pixels.shape
    if not np.ma.getmaskarray(pixels)[row, col]:
        return int(pixels[row, col]), 0.0
    for ring in range(1, reach + 1):
        top = [(-ring, c) for c in range(-ring, ring + 1)]
        bottom = [(ring, c) for c in range(-ring, ring + 1)]
        left = [(r, -ring) for r in range(-ring + 1, ring)]
        right = [(r, ring) for r in range(-ring + 1, ring)]
        best = None
        for down, across in [*top, *bottom, *left, *right]:
            r, c = row + down, col + across
            if not (0 <= r < height and 0 <= c < width) or np.ma.getmaskarray(pixels)[r, c]:
                continue
            away = np.hypot(max(c - x, x - c - 1, 0), max(r - y, y - r - 1, 0))
            if best is None or away < best[0]:
                best = away, int(pixels[r, c])
        if best is not None:
            return best[1], best[0]
    return None, None


@pytest.mark.any_duckdb
@pytest.mark.parametrize("when", ["always", "if_center_nodata"])
@pytest.mark.parametrize(("reach", "block"), [(1, 32), (3, 32), (20, 16)])
def test_neighbours_equal_a_search_pixel_by_pixel(con, tmp_path, when, reach, block):
    rng = np.random.default_rng(5)
    pixels = np.where(rng.random((100, 120)) < 0.9, 0, noise((100, 120)) + 1).astype("uint16")
    pixels[10:60, 20:80] = 0
    path = write(tmp_path / "a.tif", pixels[None], nodata=0, blockxsize=block, blockysize=block)
    build_files(con, "one", {"one": path})
    masked = np.ma.masked_equal(pixels, 0)
    x, y = scattered(NORTH_UP, 100, 120, n=600)
    make_points(con, n=np.arange(len(x)), x=x, y=y)
    found = sample(
        con, "one", geometry_crs=32643, max_distance_pixels=reach, return_neighbourhood=when
    )
    assert len(found) > 250
    for row in found:
        place = (4_000_000 - row["point_y"]) / 10, (row["point_x"] - 500_000) / 10
        value, away = nearest_valid(masked, row["row"], row["col"], *place, reach)
        assert row["band"] == value
        assert row["distance_px"] == (None if away is None else pytest.approx(away, abs=1e-9))
        if when == "if_center_nodata" and masked[row["row"], row["col"]] is not np.ma.masked:
            assert row["band_neighbourhood"] is None
            continue
        around = np.pad(pixels, reach)[
            row["row"] : row["row"] + 2 * reach + 1, row["col"] : row["col"] + 2 * reach + 1
        ]
        wanted = [int(n) or None for n in around.ravel()]
        assert row["band_neighbourhood"] == wanted
    lengths = {len(row["band_neighbourhood"] or []) for row in found}
    assert (2 * reach + 1) ** 2 in lengths


# Errors


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("match := 'latest'", "time_column: expected a column of the points"),
        ("match := 'first'", "match: expected 'all', 'latest' or 'nearest'"),
        ("max_dt := INTERVAL '1 day'", "max_dt: expected match := 'latest' or 'nearest'"),
        ("match := 'latest', time_column := 'id'", "time_column: expected id of TIMESTAMP"),
        ("match := 'latest', time_column := 'no'", "time_column: expected one of id, lon"),
        ("match := 'latest', time_column := 'datetime', max_dt := 5", "max_dt: expected an INTER"),
        ("mask_band := 'SCL'", "mask_values: expected mask_band and mask_values"),
        ("mask_band := 'no', mask_values := [1]", "'no'"),
        ("x_column := 'lon'", "x_column: expected x_column and y_column"),
        ("x_column := 'lon', y_column := 'no'", "y_column: expected one of id, lon"),
        ("x_column := 'id', y_column := 'lat'", "points, column id: expected numbers"),
        ("geometry_column := 'no'", "geometry_column: expected one of"),
        ("max_distance_pixels := 65", "max_distance_pixels: expected 64 or less"),
        ("max_distance_pixels := -1", "max_distance_pixels: expected 0 or more"),
        ("return_neighbourhood := 'on'", "return_neighbourhood: expected 'off', 'always'"),
        ("return_neighbourhood := 'always'", "max_distance_pixels: expected 1 or more for return"),
    ],
)
def test_what_is_refused(s2, options, message):
    some_points(s2)
    with pytest.raises(duckdb.Error, match=re.escape(message)):
        s2.execute(f"FROM rasteret_sample_points('s2', 'pts', {options})").fetchall()


def test_areas_are_refused_as_points(s2):
    query = "SELECT 'POLYGON((77 13, 78 13, 78 14, 77 13))' AS geom"
    with pytest.raises(duckdb.Error, match="points, column geom: expected points, got 'Polygon'"):
        s2.execute("FROM rasteret_sample_points('s2', $points)", {"points": query}).fetchall()


def test_no_points_no_rows(s2):
    some_points(s2)
    for where in ("lon > 500", "lat < 0"):
        query = f"SELECT * FROM pts WHERE {where}"
        assert not s2.execute("FROM rasteret_sample_points('s2', $q)", {"q": query}).fetchall()


@pytest.mark.parametrize("rows", ["WHERE false", ""])
def test_columns_without_a_value_are_of_any_type(s2, rows):
    query = f"SELECT NULL::VARCHAR AS lon, NULL::VARCHAR AS lat {rows}"
    assert not s2.execute("FROM rasteret_sample_points('s2', $q)", {"q": query}).fetchall()


@pytest.mark.any_duckdb
def test_a_broken_tile(s2, con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 64, 64)))
    build_files(con, "one", {"one": path})
    make_points(con, n=range(2), x=[1.0, 40.0], y=[1.0, 1.0])
    data = bytearray(path.read_bytes())
    (offset,) = con.execute(
        "SELECT byte_offset FROM rasteret_plan('one') WHERE tile_row = 0 AND tile_col = 1"
    ).fetchall()[0]
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    STORE.clear()
    call = "rasteret_sample_points('one', 'pts', geometry_crs := 'pixel'"
    with pytest.raises(duckdb.Error, match="record one, band band"):
        con.execute(f"FROM {call})").fetchall()
    found = con.execute(f"SELECT n, band IS NULL FROM {call}, on_error := 'null')").fetchall()
    assert sorted(found) == [(0, False), (1, True)]
    stats = "SELECT tiles_decoded + cache_hits, tiles_failed FROM rasteret_read_stats(last := 1)"
    assert con.execute(stats).fetchall() == [(1, 1)]
    told = con.execute(f"SELECT n, error FROM {call}, on_error := 'report') ORDER BY n").fetchall()
    assert told[0] == (0, None)
    assert told[1][1].startswith("band: ")


# Points alone


@pytest.mark.any_duckdb
def test_boxes_hold_all_points_and_leave_out_what_lies_between():
    rng = np.random.default_rng(3)
    lon = np.concatenate([rng.uniform(-75, -70, 50), rng.uniform(5, 9, 50), [180.0, -180.0]])
    lat = rng.uniform(-40, 40, len(lon))
    boxes = Points(lon, lat, crs_of(4326)).lonlat_boxes()
    for x, y in zip(lon, lat, strict=True):
        held = [b.xmin <= turn <= b.xmax and b.ymin <= y <= b.ymax
                for b in boxes for turn in (x, -x if abs(x) == 180 else x)]  # fmt: skip
        assert any(held)
    assert not any(box.xmin < -30 < box.xmax for box in boxes)


@pytest.mark.any_duckdb
def test_a_turned_raster_holds_the_same_points_as_its_transform_says():
    affine = Affine(6, 8, 500_000, 8, -6, 4_000_000)
    grid = Grid(50, 40, SixNumbers(*affine[:6]), "EPSG:32643", 50, 40)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(499_000, 501_000, 5000), rng.uniform(3_999_500, 4_000_500, 5000)
    inverse = ~affine
    col = inverse.a * x + inverse.b * y + inverse.c
    row = inverse.d * x + inverse.e * y + inverse.f
    wanted = np.flatnonzero((col >= 0) & (col < 50) & (row >= 0) & (row < 40))
    found = Points(x, y, crs_of(32643)).located(grid)
    assert len(wanted) > 100
    np.testing.assert_array_equal(found.point, wanted)
    np.testing.assert_array_equal(found.row, np.floor(row[wanted]))
    np.testing.assert_array_equal(found.col, np.floor(col[wanted]))


# The page


def test_the_example_of_points_md(s2):
    page = (Path(__file__).parents[2] / "docs" / "points.md").read_text(encoding="utf-8")
    block, join = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    create, select = block.split(";\n\n")
    s2.execute(create).fetchall()
    found = s2.execute(select).fetchall()
    assert [row[0] for row in found] == ["maize", "fallow", "maize"]
    assert {f"{row[3]:%Y-%m-%d}" for row in found} == {"2024-01-10"}
    assert all(-1 <= row[4] <= 1 for row in found)
    values = s2.execute(join).fetchall()
    assert len(values) > len(found)
    assert any(row[2] is not None for row in values)
