"""`rasteret_read`: windows and masks are rasterio's, on real files and on made ones."""

from __future__ import annotations

import functools
import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from reading.rasters import NORTH_UP, ROTATED, noise, write
from reading.read_oracle import (
    LOSSY,
    assert_same,
    assert_transform,
    build_files,
    call_of,
    decoded,
    expected_read,
    image_px,
    make_areas,
    numpy_type,
    opened,
    overlap,
    polygonal,
    random_polygon,
    read,
    rows_of,
    to_map,
    touches,
)
from servers.range_server import RangeServer

import rasteret_sql
from examples import examples, in_turns
from rasteret_sql.reading.tile_store import STORE

MAX_PIXELS = 1_500_000
AOI = "POLYGON((77.984 13.004, 77.997 13.002, 77.994 13.030, 77.984 13.004))"
DENSE_AOI = shapely.from_wkt(AOI).segmentize(1e-4).__geo_interface__
ONE = "S2A_43PHQ_20240110_L2A"


# The oracle itself, against the contract written out


def inside_by_crossings(polygon, x, y):
    """Which points lie in a polygon: odd number of edges to the right of them."""
    crossings = np.zeros(x.shape, int)
    for ring in (polygon.exterior, *polygon.interiors):
        corners = np.array(ring.coords)
        for (x1, y1), (x2, y2) in itertools.pairwise(corners):
            if y1 != y2:
                spans = (y1 <= y) != (y2 <= y)
                crossings += spans & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return crossings % 2 == 1


def written_out(pixels, valid, nodata, transform, area_px, *, all_touched, crop, masked):
    """The contract in NumPy, from a whole image and an area in pixel coordinates."""
    _, height, width = pixels.shape
    xmin, ymin, xmax, ymax = area_px.bounds
    cols = slice(max(math.floor(xmin), 0), min(math.ceil(xmax), width))
    rows = slice(max(math.floor(ymin), 0), min(math.ceil(ymax), height))
    if cols.start >= cols.stop or rows.start >= rows.stop:
        return None
    if not crop:
        rows, cols = slice(0, height), slice(0, width)
    col, row = np.meshgrid(np.arange(cols.start, cols.stop), np.arange(rows.start, rows.stop))
    inside = np.zeros(col.shape, bool)
    for polygon in shapely.get_parts(area_px):
        inside |= inside_by_crossings(polygon, col + 0.5, row + 0.5)
    if all_touched:
        inside |= shapely.intersects(area_px, shapely.box(col, row, col + 1, row + 1))
    seen = valid[:, rows, cols] & inside
    values = pixels[:, rows, cols]
    if masked:
        values = np.where(seen, values, pixels.dtype.type(nodata or 0))
    origin = transform @ (cols.start, rows.start)
    moved = (*transform[:2], origin[0], *transform[3:5], origin[1])
    return values, seen, moved


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize(
    "transform",
    [NORTH_UP, Affine(10, 0, 500_000, 0, 10, 4_000_000), ROTATED],
    ids=["north-up", "south-up", "rotated"],
)
def test_the_oracle_is_the_contract_written_out(tmp_path, transform, all_touched):
    pixels = noise((2, 43, 57), high=9)
    path = write(tmp_path / "a.tif", pixels, transform=transform, nodata=7)
    rng = np.random.default_rng(1)
    n_rows = 0
    for size in examples([60] * 6 + [9] * 6 + [130] * 3, [60] * 60 + [9] * 60 + [130] * 30):
        area = random_polygon(rng, size)
        for crop, masked in ((True, True), (False, True), (True, False)):
            how = {"all_touched": all_touched, "crop": crop, "masked": masked}
            wanted = written_out(pixels, pixels != 7, 7, transform, area, **how)
            got = expected_read(path, geometry_px=area, **how)
            assert (got is None) == (wanted is None)
            if got is not None:
                np.testing.assert_array_equal(got.pixels, wanted[0])
                np.testing.assert_array_equal(got.valid, wanted[1])
                assert_transform(got.transform, wanted[2])
                n_rows += 1
    assert n_rows > examples(30, 300)


@pytest.mark.any_duckdb
def test_the_oracle_reads_whole_images_and_overviews(tmp_path):
    pixels = noise((1, 64, 96), high=9)
    path = write(tmp_path / "a.tif", pixels, nodata=7, overviews=[2, 4])
    whole = expected_read(path)
    np.testing.assert_array_equal(whole.pixels, pixels)
    np.testing.assert_array_equal(whole.valid, pixels != 7)
    for level in (1, 2):
        reduced = expected_read(path, level=level)
        assert reduced.pixels.shape == (1, 64 >> level, 96 >> level)
        assert_transform(reduced.transform, NORTH_UP @ Affine.scale(1 << level))
        area = shapely.box(8.2, 16.2, 30.9, 40.9)
        part = expected_read(path, geometry_px=area, level=level)
        step = 1 << level
        rows = slice(16 // step, math.ceil(40.9 / step))
        cols = slice(8 // step, math.ceil(30.9 / step))
        np.testing.assert_array_equal(
            np.where(part.valid, part.pixels, 0),
            np.where(part.valid, reduced.pixels[:, rows, cols], 0),
        )


# Columns


def types_of(con, query):
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE {query}").fetchall()}


def test_columns_and_their_types(s2):
    make_areas(s2, "fields", {"a": shapely.from_wkt(AOI)})
    call = call_of("rasteret_read", "s2", bands=["B08", "SCL"], aois="fields", valid=True)
    types = types_of(s2, f"FROM {call}")
    assert list(types)[:2] == ["id", "datetime"]
    own = {
        "height": "INTEGER", "width": "INTEGER", "transform": "DOUBLE[]", "crs": "VARCHAR",
        "dtypes": "VARCHAR[]", "nodata": "DOUBLE[]", "B08": "BLOB", "SCL": "BLOB", "valid": "BLOB",
        "area": "VARCHAR", "id": "VARCHAR", "datetime": "TIMESTAMP",
    }  # fmt: skip
    assert own.items() <= types.items()
    absent = {"assets", "bbox", "geometry", "geom", "B08_metadata", "B04", "B04_metadata", "error"}
    assert not absent & set(types)
    assert "eo:cloud_cover" in types
    bare = types_of(s2, f"FROM {call_of('rasteret_read', 's2', on_error='report')}")
    assert "valid" not in bare
    assert bare["error"] == "VARCHAR"
    assert {"B04", "B08", "SCL"} <= set(bare)


def test_record_columns_says_which_of_a_record_come_along(s2):
    call = call_of("rasteret_read", "s2", bands=["B04"], record_columns=["id", "geometry"])
    types = types_of(s2, f"FROM {call}")
    assert {"id", "geometry", "height", "B04"} <= set(types)
    assert not {"datetime", "eo:cloud_cover", "bbox", "assets"} & set(types)
    call = call_of("rasteret_read", "s2", bands=["B04"], record_columns=["nothing"])
    with pytest.raises(duckdb.Error, match=r"record_columns: expected .*got 'nothing'"):
        s2.execute(f"EXPLAIN FROM {call}")


def test_the_facts_of_a_row(s2, scenes):
    (got,) = read(s2, "s2", ["B08", "SCL"], ids=[ONE])
    with opened(scenes[0] / ONE / "B08.tif") as file:
        assert (got.row["height"], got.row["width"]) == file.shape
        assert_transform(got.transform, file.transform)
        assert pyproj.CRS(got.row["crs"]).to_epsg() == file.crs.to_epsg() == 32643
        with opened(scenes[0] / ONE / "SCL.tif") as classes:
            assert got.row["dtypes"] == [file.dtypes[0], classes.dtypes[0]]
            assert got.row["nodata"] == [file.nodata, classes.nodata]


def test_rows_come_in_the_order_of_the_records(s2):
    make_areas(s2, "fields", {"a": shapely.from_wkt(AOI), "b": shapely.box(77.99, 13, 78, 13.01)})
    orders = ("id", "id DESC", '"eo:cloud_cover", id')
    for order in orders:
        ordered = f"SELECT * FROM s2 ORDER BY {order}"
        ids = [row[0] for row in s2.execute(ordered).fetchall()]
        call = call_of("rasteret_read", ordered, bands=["B04"], aois="fields")
        found = [row[0] for row in s2.execute(f"SELECT id FROM {call}").fetchall()]
        runs = [name for n, name in enumerate(found) if n == 0 or found[n - 1] != name]
        assert runs == ids
        assert len(found) == 2 * len(ids)


# The demo's scenes, over HTTP


@pytest.mark.any_duckdb
@pytest.mark.parametrize("band", ["B04", "B08", "SCL"])
def test_whole_bands_equal_rasterio(s2, scenes, band):
    found = read(s2, "s2", [band], valid=True)
    assert len(found) == 6
    for got in found:
        assert_same(got, expected_read(scenes[0] / got.row["id"] / f"{band}.tif"))


@functools.cache
def dense_aoi(epsg):
    """The area in the CRS of a file; its many vertices follow the curve."""
    return shapely.geometry.shape(rasterio.warp.transform_geom("OGC:CRS84", epsg, DENSE_AOI))


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_polygon_of_degrees_equals_rasterio_in_both_zones(s2, scenes, level, all_touched):
    found = read(
        s2, "s2", ["B04", "B08"], geometry=AOI, all_touched=all_touched, level=level, valid=True
    )
    assert len(found) == 6
    for got in found:
        for position, band in enumerate(("B04", "B08")):
            path = scenes[0] / got.row["id"] / f"{band}.tif"
            with opened(path) as file:
                area = dense_aoi(file.crs.to_epsg())
            wanted = expected_read(path, area, level=level, all_touched=all_touched)
            one = got._replace(
                bands={band: got.bands[band]}, valid=got.valid[position : position + 1]
            )
            if all_touched and level:  # the curved edges have other vertices, GDAL's rule sees
                assert np.count_nonzero(one.valid != wanted.valid) <= 2
            else:
                assert_same(one, wanted)


@pytest.mark.any_duckdb
def test_a_bbox_is_a_polygon_of_four_corners(s2):
    west, south, east, north = 77.985, 13.004, 77.992, 13.012
    by_box = read(s2, "s2", ["B04"], bbox=[west, south, east, north])
    corners = shapely.box(west, south, east, north)
    by_polygon = read(s2, "s2", ["B04"], geometry=corners.wkt)
    assert len(by_box) == 6
    assert [got.row for got in by_box] == [got.row for got in by_polygon]


def test_an_area_outside_every_scene_gives_no_row_and_no_request(n_requests):
    for area in ("bbox := [10, 50, 11, 51]", "geometry := 'POLYGON((0 0, 1 0, 1 1, 0 0))'"):
        for crop in ("true", "false"):
            call = f"rasteret_read('s2', bands := ['B04'], crop := {crop}, {area})"
            assert n_requests(f"FROM {call}") == (0, [])


def test_date_range_ids_and_where_drop_scenes_before_pixels(n_requests):
    call = "rasteret_read('s2', bands := ['B04'], geometry := $aoi"
    one, found = n_requests(f"FROM {call}, ids := ['{ONE}'])", {"aoi": AOI})
    assert len(found) == 1
    assert one > 0
    inside = call.replace("'s2'", f"$$FROM s2 WHERE id = '{ONE}'$$")
    for query in (f"FROM {call}) WHERE id = '{ONE}'", f"FROM {inside})"):
        n, same = n_requests(query, {"aoi": AOI})
        assert (n, same) == (one, found)
    n, found = n_requests(f"FROM {call}, date_range := ['2024-02-01', '2024-02-28'])", {"aoi": AOI})
    assert (n, len(found)) == (2 * one, 2)


def test_what_is_not_selected_is_not_requested(n_requests):
    call = "rasteret_read('s2', bands := ['B04', 'B08'], geometry := $aoi)"
    both, _ = n_requests(f"FROM {call}", {"aoi": AOI})
    n, found = n_requests(f"SELECT id, B04 FROM {call}", {"aoi": AOI})
    assert (2 * n, len(found)) == (both, 6)
    n, found = n_requests(f"SELECT id, height, width, transform FROM {call}", {"aoi": AOI})
    assert (n, len(found)) == (0, 6)
    for query in (f"EXPLAIN FROM {call}", f"DESCRIBE FROM {call}"):
        assert n_requests(query, {"aoi": AOI})[0] == 0


def test_a_read_requests_what_a_plan_of_tiles_says(n_requests):
    plan = "SELECT count(DISTINCT request) FROM rasteret_plan('s2', geometry := $aoi)"
    planned = n_requests(plan, {"aoi": AOI})
    assert planned[0] == 0
    n, found = n_requests("FROM rasteret_read('s2', geometry := $aoi)", {"aoi": AOI})
    assert len(found) == 6
    assert n == planned[1][0][0]


def test_max_bytes_refuses_before_the_first_request(s2, server):
    for function in ("rasteret_read", "rasteret_plan"):
        with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most 1000 bytes"):
            s2.execute(f"FROM {function}('s2', geometry := $a, max_bytes := 1000)", {"a": AOI})
    assert server.requests() == []


# Real files


@pytest.fixture(scope="module")
def truth(data):
    return json.loads((data / "truth.json").read_text())["files"]


def usable(entry):
    """Files that GDAL reads without loss; of large ones those in tiles."""
    if entry.get("error") or not entry.get("bands"):
        return False
    n_pixels = entry["width"] * entry["height"]
    return (
        n_pixels <= (70_000_000 if entry["tiled"] else MAX_PIXELS)
        and max(entry["block_shape"]) <= 8192
        and entry.get("compression") not in LOSSY
        and not any(band.get("error") for band in entry["bands"])
    )


def areas_in_pixels(all_touched):
    """Areas near the upper left corner, some of them partly outside.

    Three sizes for one value of ``all_touched``, two for the other; or two areas of each size.
    """
    rng = np.random.default_rng(8)
    areas = {}
    for size in (7, 40, 150, 500, 1800):
        for number in range(2):
            areas[f"{size}.{number}"] = random_polygon(rng, size)
    kept = list(areas)[examples(slice(3 * all_touched, None, 4), slice(None))]
    return {name: areas[name] for name in kept}


def check_real_files(con, data, truth, files, bands, *, all_touched):
    """Every file x area in one call; returns the number of windows that were equal."""
    areas = areas_in_pixels(all_touched)
    make_areas(con, "pieces", areas)
    build_files(con, "real", {path: data / path for path in files}, bands)
    good = f"FROM real WHERE {bands[0]}_metadata IS NOT NULL"
    readable = {row[0] for row in con.execute(f"SELECT id FROM ({good})").fetchall()}
    assert len(readable) >= 0.98 * len(files)
    call = call_of(
        "rasteret_read", good, bands=list(bands), aois="pieces", geometry_crs="pixel",
        all_touched=all_touched, valid=True, on_error="report",
    )  # fmt: skip
    cursor = con.execute(f"SELECT * FROM {call}")
    names = [column[0] for column in cursor.description]
    pending = {(path, name) for path in readable for name in areas}
    failed, n_equal = {}, 0
    while batch := cursor.fetchmany(200):
        for values in batch:
            row = dict(zip(names, values, strict=True))
            path = row["id"]
            if row["error"] is not None:
                failed[path] = row["error"]
                continue
            pending.remove((path, row["area"]))
            area = areas[row["area"]]
            wanted = expected_read(
                data / path,
                geometry_px=area,
                indexes=range(1, 1 + len(bands)),
                all_touched=all_touched,
            )
            assert wanted is not None, (path, row["area"])
            placed = not truth[path]["transform_is_identity"]
            assert_same(decoded(row, bands), wanted, georeferenced=placed)
            n_equal += 1
    assert len(failed) <= 0.02 * len(files), failed
    for path in {path for path, _ in pending} - failed.keys():
        image = image_px(data / path)
        for name, area in areas.items():
            assert (path, name) not in pending or not overlap(image, area), (path, name)
    return n_equal


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
def test_windows_of_every_real_file_equal_rasterio(con, data, truth, all_touched):
    """Every other file with each rule, or all files with both."""
    files = [path for path, entry in truth.items() if usable(entry)]
    assert len(files) > 300
    files = files[examples(slice(int(all_touched), None, 2), slice(None))]
    n_equal = check_real_files(con, data, truth, files, ["band"], all_touched=all_touched)
    assert n_equal > examples(200, 2000)


@pytest.mark.any_duckdb
def test_windows_of_three_bands_of_every_real_file_equal_rasterio(con, data, truth):
    files = [path for path, entry in truth.items() if usable(entry) and entry["count"] >= 3]
    assert len(files) > 80
    n_equal = check_real_files(con, data, truth, files, ["r", "g", "b"], all_touched=False)
    assert n_equal > examples(150, 500)


@pytest.mark.any_duckdb
def test_areas_in_the_crs_of_real_files_equal_rasterio(con, data, truth):
    """Georeferenced files with areas of their own, in their own CRS; north-up or not.

    All that are not north-up, and every sixth of the others; or all.
    """
    rng = np.random.default_rng(9)
    placed = [
        path
        for path, entry in truth.items()
        if usable(entry) and entry["crs_present"] and not entry["transform_is_identity"]
    ]
    affines = {path: Affine(*truth[path]["transform"]) for path in placed}
    is_odd = {path: bool(affine.b or affine.e > 0) for path, affine in affines.items()}
    some = [path for n, path in enumerate(placed) if n % 6 == 0 or is_odd[path]]
    build_files(con, "real", {path: data / path for path in examples(some, placed)})
    found = con.execute(
        "SELECT id, crs FROM real WHERE crs IS NOT NULL AND band_metadata IS NOT NULL ORDER BY id"
    )
    n_windows = 0
    odd = set()
    for path, crs in found.fetchall():
        with opened(data / path) as file:
            transform, size = file.transform, max(file.shape)
            is_geographic = file.crs.is_geographic
        areas = {
            str(n): random_polygon(rng, min(s * size, 700)) for n, s in enumerate((1, 0.3, 1.7))
        }
        areas = {name: to_map(area, transform) for name, area in areas.items()}
        if is_geographic:
            earth = shapely.box(-180, -90, 180, 90)
            areas = {n: polygonal(a & earth) for n, a in areas.items()}
            if any(a.is_empty for a in areas.values()):
                continue
        make_areas(con, "pieces", areas)
        rows = read(con, "real", ["band"], ids=[path], aois="pieces", geometry_crs=crs, valid=True)
        by_name = {got.row["area"]: got for got in rows}
        for name, area in areas.items():
            wanted = expected_read(data / path, area, indexes=[1])
            if name in by_name:
                assert_same(by_name[name], wanted)
                n_windows += 1
            else:
                assert not touches(data / path, to_map(area, ~transform)), (path, name)
        if rows and is_odd[path]:
            odd.add(Path(path).name)
    assert n_windows > examples(60, 400)
    assert {"geomatrix.tif", "south-up.tif", "inverted_lat.tif", "2d_test.tif"} <= odd


@pytest.mark.any_duckdb
def test_a_raster_without_a_crs_is_read_whole_or_by_pixels(con, data):
    path = data / "geotiff/rasteret/int16_zstd.tif"
    build_files(con, "bare", {"one": path})
    (whole,) = read(con, "bare", ["band"])
    assert_same(whole, expected_read(path), georeferenced=False)
    assert whole.row["crs"] is None
    area = shapely.Polygon([(3.2, 4.1), (30.7, 9.3), (12.4, 50.6)])
    (part,) = read(con, "bare", ["band"], geometry=area, geometry_crs="pixel")
    assert_same(part, expected_read(path, geometry_px=area), georeferenced=False)
    with pytest.raises(duckdb.Error, match=r"record one.*expected a raster with a (CRS|transform)"):
        read(con, "bare", ["band"], bbox=[0, 0, 1, 1])


# Arguments, on made files

AREA_PX = shapely.Polygon(
    [(5.3, 8.2), (61.4, 3.1), (75.6, 58.8), (20.1, 66.3)],
    [[(30.2, 30.4), (44.6, 31.1), (38, 47.3)]],
)
HERE = {"geometry": AREA_PX, "geometry_crs": "pixel"}


@pytest.fixture
def made(con, tmp_path):
    """Write a file, build collection `made` of it; returns the path."""

    def run(pixels, bands=("band",), **options):
        path = write(tmp_path / "made.tif", pixels, **options)
        build_files(con, "made", {"one": path}, bands)
        return path

    return run


@pytest.mark.any_duckdb
@pytest.mark.parametrize("nodata", [None, 0, 7])
def test_crop_masked_and_all_touched(con, made, nodata):
    path = made(noise((1, 70, 90), high=9), nodata=nodata)
    for crop, masked, all_touched in itertools.product((True, False), repeat=3):
        how = {"crop": crop, "masked": masked, "all_touched": all_touched}
        (got,) = read(con, "made", ["band"], **HERE, **how)
        assert_same(got, expected_read(path, geometry_px=AREA_PX, **how))
        assert got.row["nodata"] == [nodata]


@pytest.mark.any_duckdb
def test_masked_without_an_area_hides_nodata_only(con, made):
    path = made(noise((1, 70, 90), "float32", high=9), nodata=math.nan)
    with rasterio.open(path, "r+") as file:
        file.write(
            np.full((1, 5, 5), np.nan, "float32"), window=rasterio.windows.Window(3, 4, 5, 5)
        )
    build_files(con, "made", {"one": path})
    (got,) = read(con, "made", ["band"], valid=True)
    assert_same(got, expected_read(path))
    assert (~got.valid).sum() == 25
    assert math.isnan(got.row["nodata"][0])


@pytest.mark.any_duckdb
def test_nan_in_a_file_without_nodata_is_a_value(con, made):
    pixels = noise((1, 40, 40), "float32")
    pixels[0, 9:12, 9:12] = np.nan
    path = made(pixels)
    (got,) = read(con, "made", ["band"], valid=True, **HERE)
    wanted = expected_read(path, geometry_px=AREA_PX)
    assert_same(got, wanted)
    assert np.isnan(got.bands["band"][got.valid[0]]).any()


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("dtype", "endianness"),
    in_turns(
        [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("u", "")]
        + ["float32", "float64"],
        ["LITTLE", "BIG"],
    ),
)
def test_blobs_hold_the_native_type_in_little_endian(con, made, dtype, endianness):
    kind = np.dtype(dtype)
    pixels = noise((1, 70, 90), dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    pixels[0, 40, 20:22] = limits.min, limits.max
    path = made(pixels, endianness=endianness)
    (got,) = read(con, "made", ["band"], **HERE)
    assert got.row["dtypes"] == [dtype]
    assert_same(got, expected_read(path, geometry_px=AREA_PX))


@pytest.mark.any_duckdb
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_bands_of_one_file_in_any_order(con, made, interleave):
    path = made(noise((4, 70, 90), "int16"), ("a", "b", "c", "d"), interleave=interleave, nodata=5)
    (got,) = read(con, "made", ["d", "a", "c"], valid=True, **HERE)
    assert_same(got, expected_read(path, geometry_px=AREA_PX, indexes=[4, 1, 3]))
    assert got.row["dtypes"] == ["int16"] * 3


@pytest.mark.any_duckdb
def test_a_tile_that_bands_share_is_requested_once(con, server, tmp_path):
    folder = server.folder / "chunky"
    folder.mkdir(exist_ok=True)
    write(folder / "a.tif", noise((3, 64, 64), "uint8"), interleave="pixel")
    build_files(con, "made", {"one": server.url("scenes", "chunky/a.tif")}, ("r", "g", "b"))
    counts = []
    for bands in (["r"], ["r", "g", "b"]):
        STORE.clear()
        server.reset()
        (got,) = read(con, "made", bands)
        counts.append(sorted(request["range"] for request in server.requests()))
        assert_same(got, expected_read(folder / "a.tif", indexes=range(1, 1 + len(bands))))
    assert counts[0] == counts[1]
    assert counts[0]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("nodata", [None, 5])
def test_an_internal_mask_hides_pixels(con, made, nodata, crop):
    pixels = noise((3, 70, 90), "uint8", high=9)
    hidden = np.where(noise((70, 90), high=4, seed=3) == 0, 0, 255).astype("uint8")
    path = made(pixels, ("r", "g", "b"), mask=hidden, nodata=nodata, overviews=[2])
    for level in (0, 1):
        (got,) = read(con, "made", ["r", "g", "b"], crop=crop, level=level, valid=True, **HERE)
        wanted = expected_read(path, geometry_px=AREA_PX, crop=crop, level=level)
        assert 0 < wanted.valid.sum() < wanted.valid.size
        assert_same(got, wanted)
        (own,) = read(con, "made", ["r", "g", "b"], crop=crop, level=level, masked=False, **HERE)
        assert_same(
            own, expected_read(path, geometry_px=AREA_PX, crop=crop, level=level, masked=False)
        )


@pytest.mark.any_duckdb
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_an_alpha_band_hides_pixels(con, made, interleave):
    pixels = noise((4, 70, 90), "uint8")
    pixels[3] = np.where(pixels[0] > 120, 255, 0)
    names = ("r", "g", "b", "a")
    path = made(pixels, names, photometric="rgb", alpha="yes", interleave=interleave)
    (got,) = read(con, "made", list(names), valid=True, **HERE)
    assert_same(got, expected_read(path, geometry_px=AREA_PX))
    (one,) = read(con, "made", ["g"], valid=True, **HERE)
    assert_same(one, expected_read(path, geometry_px=AREA_PX, indexes=[2]))


@pytest.mark.any_duckdb
def test_blocks_that_are_not_in_the_file_are_no_data(con, made, tmp_path):
    for nodata in (None, 9):
        path = tmp_path / "made.tif"
        options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=96, width=96, dtype="int16",
            transform=NORTH_UP, crs="EPSG:32643", nodata=nodata, **options,
        ) as file:  # fmt: skip
            some = noise((1, 32, 32), "int16", low=10)
            file.write(some, window=rasterio.windows.Window(32, 32, 32, 32))
        build_files(con, "made", {"one": path})
        (got,) = read(con, "made", ["band"], valid=nodata is not None, **HERE)
        assert_same(got, expected_read(path, geometry_px=AREA_PX))


@pytest.mark.any_duckdb
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north-up", "rotated"])
def test_levels_are_the_overviews(con, made, level, transform):
    path = made(noise((1, 333, 517)), transform=transform, overviews=[2, 4, 8], nodata=3)
    rng = np.random.default_rng(level)
    areas = {str(n): random_polygon(rng, size) for n, size in enumerate((500, 200, 60, 30))}
    make_areas(con, "pieces", areas)
    for crop in (True, False):
        rows = read(
            con, "made", ["band"], aois="pieces", geometry_crs="pixel", level=level, crop=crop
        )
        assert {got.row["area"] for got in rows} == set(areas)
        for got in rows:
            area = areas[got.row["area"]]
            assert_same(got, expected_read(path, geometry_px=area, level=level, crop=crop))
    (whole,) = read(con, "made", ["band"], level=level)
    assert_same(whole, expected_read(path, level=level))


@pytest.mark.any_duckdb
def test_a_level_that_is_not_there_is_an_error_that_says_how_many_are(con, made):
    made(noise((1, 70, 90)), overviews=[2])
    with pytest.raises(duckdb.Error, match=r"rasteret_read: record one, band band: .*level"):
        read(con, "made", ["band"], level=2)
    with pytest.raises(duckdb.Error, match="level: expected 0 or more"):
        read(con, "made", ["band"], level=-1)


def test_scaled_values_are_double_and_nan_where_there_is_no_data(con, made, tmp_path):
    path = made(noise((2, 70, 90), "int16", high=9), ("a", "b"), nodata=7)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.25, 2.0), (-3.0, 100.0)
    build_files(con, "made", {"one": path}, ("a", "b"))
    (got,) = read(con, "made", ["a", "b"], scaled=True, valid=True, **HERE)
    wanted = expected_read(path, geometry_px=AREA_PX)
    assert got.row["dtypes"] == ["float64", "float64"]
    assert np.isnan(got.row["nodata"]).tolist() == [True, True]
    for number, (scale, offset) in enumerate(((0.25, -3.0), (2.0, 100.0))):
        raw = wanted.pixels[number].astype(float) * scale + offset
        expected = np.where(wanted.valid[number], raw, np.nan)
        np.testing.assert_array_equal(got.bands["ab"[number]], expected)
    np.testing.assert_array_equal(got.valid, wanted.valid)
    (bare,) = read(con, "made", ["a", "b"], scaled=True, masked=False, **HERE)
    assert bare.row["nodata"] == [7 * 0.25 - 3.0, 7 * 2.0 + 100.0]
    assert (bare.bands["a"] == 7 * 0.25 - 3.0).any()
    assert not np.isnan(bare.bands["a"]).any()
    call = call_of("rasteret_read", "made", bands=["a"], scaled=True, format="list", **HERE)
    values = con.execute(f"SELECT a FROM {call}").fetchall()[0][0]
    raw = wanted.pixels[0].astype(float) * 0.25 - 3.0
    assert values == [
        value if seen else None
        for value, seen in zip(raw.ravel().tolist(), wanted.valid[0].ravel(), strict=True)
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32", "float64"])
def test_lists_hold_the_native_type_and_null_without_data(con, made, dtype):
    path = made(noise((2, 70, 90), dtype, high=9), ("a", "b"), nodata=7)
    kinds = {
        "uint8": "UTINYINT", "int16": "SMALLINT", "uint32": "UINTEGER", "int64": "BIGINT",
        "float32": "FLOAT", "float64": "DOUBLE",
    }  # fmt: skip
    for masked in (True, False):
        call = call_of(
            "rasteret_read", "made", bands=["b", "a"], format="list", masked=masked, **HERE
        )
        assert types_of(con, f"FROM {call}")["a"] == kinds[dtype] + "[]"
        (row,) = rows_of(con, f"FROM {call}")
        wanted = expected_read(path, geometry_px=AREA_PX, indexes=[2, 1], masked=masked)
        for band, pixels, valid in zip("ba", wanted.pixels, wanted.valid, strict=True):
            seen = valid.ravel() | (not masked)
            assert row[band] == [
                value if there else None
                for value, there in zip(pixels.ravel().tolist(), seen, strict=True)
            ]
        assert (row["height"], row["width"]) == wanted.pixels.shape[1:]


def test_an_unknown_format_or_align_is_refused(con, made):
    made(noise((1, 40, 40)))
    with pytest.raises(duckdb.Error, match="format: expected 'blob' or 'list', got 'png'"):
        con.execute("EXPLAIN FROM rasteret_read('made', format := 'png')")
    with pytest.raises(duckdb.Error, match="align: expected 'grid' or 'band', got 'tile'"):
        con.execute("EXPLAIN FROM rasteret_read('made', align := 'tile')")
    for flag in ("all_touched", "crop", "masked", "scaled", "valid"):
        with pytest.raises(duckdb.Error, match=f"{flag}: expected true or false"):
            con.execute(f"EXPLAIN FROM rasteret_read('made', {flag} := 'yes')")


# Bands of unlike grid


@pytest.fixture
def unlike(con, tmp_path):
    """A record whose bands have pixels of 10 and of 20 m, collection `two`."""
    fine = write(tmp_path / "fine.tif", noise((1, 70, 90)), nodata=3)
    coarse = write(
        tmp_path / "coarse.tif", noise((1, 35, 45), "uint8"), transform=NORTH_UP @ Affine.scale(2)
    )
    con.execute(
        "CREATE TABLE two_files AS SELECT 'one' AS id, "
        f"{{fine: {{href: '{fine}'}}, coarse: {{href: '{coarse}'}}}} AS assets"
    )
    con.execute("FROM rasteret_build_table('two', 'two_files', enrich := true)").fetchall()
    return {"fine": fine, "coarse": coarse}


def test_bands_of_unlike_grid_are_an_error_that_names_both(con, unlike):
    for more in ({}, {"bbox": [74, 35, 76, 37]}):
        with pytest.raises(duckdb.Error, match=r"(?s)^(?=.*fine)(?=.*coarse).*align := 'band'"):
            read(con, "two", ["fine", "coarse"], **more)
    for band, path in unlike.items():
        (got,) = read(con, "two", [band])
        assert_same(got, expected_read(path))


@pytest.mark.any_duckdb
@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("crop", [False, True])
def test_aligned_by_band_each_has_its_own_grid(con, unlike, crop, all_touched):
    area = to_map(AREA_PX, NORTH_UP)
    call = call_of(
        "rasteret_read", "two", bands=["coarse", "fine"], geometry=area, geometry_crs="EPSG:32643",
        align="band", crop=crop, all_touched=all_touched,
    )  # fmt: skip
    types = types_of(con, f"FROM {call}")
    assert {"height": "INTEGER[]", "width": "INTEGER[]", "transform": "DOUBLE[][]"}.items() <= (
        types.items()
    )
    (row,) = rows_of(con, f"FROM {call}")
    for number, band in enumerate(("coarse", "fine")):
        wanted = expected_read(unlike[band], area, crop=crop, all_touched=all_touched)
        shape = (row["height"][number], row["width"][number])
        values = np.frombuffer(row[band], numpy_type(row["dtypes"][number])).reshape(shape)
        np.testing.assert_array_equal(values, wanted.pixels[0])
        assert_transform(row["transform"][number], wanted.transform)
    assert row["nodata"] == [None, 3]


# What can't be read


@pytest.fixture
def broken(con, tmp_path):
    """Two records of bands a and b over HTTP; the file of b of the first is gone since."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("1a", "1b", "2a", "2b"):
        write(folder / f"{name}.tif", noise((1, 70, 90), seed=int(name[0])), nodata=3)
    with RangeServer(files=folder) as running:
        rows = ", ".join(
            f"('r{n}', {{a: {{href: '{running.url('files', f'{n}a.tif')}'}}, "
            f"b: {{href: '{running.url('files', f'{n}b.tif')}'}}}})"
            for n in (1, 2)
        )
        con.execute(f"CREATE TABLE parts AS FROM (VALUES {rows}) AS t(id, assets)")
        con.execute("FROM rasteret_build_table('broken', 'parts', enrich := true)").fetchall()
        (folder / "1b.tif").unlink()
        yield folder


def test_a_file_that_is_gone_is_an_error(con, broken):
    with pytest.raises(duckdb.Error, match=r"rasteret_read: .*1b.tif.*404"):
        read(con, "broken", ["a", "b"], **HERE)


@pytest.mark.parametrize("on_error", ["null", "report"])
@pytest.mark.parametrize("several", [False, True])
def test_a_file_that_is_gone_is_null_or_told(con, broken, on_error, several):
    areas = {"x": AREA_PX, "y": shapely.box(2.2, 2.2, 19.7, 19.7)} if several else {"x": AREA_PX}
    make_areas(con, "pieces", areas)
    rows = read(con, "broken", ["a", "b"], on_error=on_error, aois="pieces", geometry_crs="pixel")
    assert sorted((got.row["id"], got.row["area"]) for got in rows) == sorted(
        (record, name) for record in ("r1", "r2") for name in areas
    )
    for got in rows:
        number = got.row["id"][1]
        is_broken = number == "1"
        assert set(got.bands) == ({"a"} if is_broken else {"a", "b"})
        for band, values in got.bands.items():
            wanted = expected_read(
                broken / f"{number}{band}.tif", geometry_px=areas[got.row["area"]]
            )
            assert_same(got._replace(bands={band: values}), wanted)
        if on_error == "report":
            error = got.row["error"]
            assert ("1b.tif" in error) if is_broken else error is None


@pytest.mark.parametrize("on_error", ["null", "report"])
def test_a_raster_without_place_under_an_area_is_one_row_if_errors_may_pass(con, made, on_error):
    made(noise((1, 40, 40)), crs=None)
    with pytest.raises(duckdb.Error, match=r"record one.*expected a raster with a (CRS|transform)"):
        read(con, "made", ["band"], bbox=[76, 35, 78, 37])
    call = call_of("rasteret_read", "made", bbox=[76, 35, 78, 37], on_error=on_error)
    (row,) = rows_of(con, f"FROM {call}")
    assert row["id"] == "one"
    assert row["band"] is None
    assert row["height"] is None
    if on_error == "report":
        assert "expected a raster with a CRS" in row["error"]


# Every way to run it


def test_a_view_a_prepared_statement_and_a_copy_give_the_same(s2, tmp_path):
    call = call_of("rasteret_read", "s2", bands=["B04"], geometry=AOI)
    wanted = s2.execute(f"SELECT id, B04 FROM {call}").fetchall()
    assert len(wanted) == 6
    s2.execute(f"CREATE TEMP VIEW reads AS FROM {call}")
    assert s2.execute("SELECT id, B04 FROM reads").fetchall() == wanted
    s2.execute("CREATE TABLE kept AS FROM reads")
    assert s2.execute("SELECT id, B04 FROM kept").fetchall() == wanted
    path = tmp_path / "reads.parquet"
    s2.execute(f"COPY (FROM reads) TO '{path}'")
    assert s2.execute(f"SELECT id, B04 FROM '{path}'").fetchall() == wanted
    prepared = "SELECT id, B04 FROM rasteret_read('s2', bands := $bands, geometry := $aoi)"
    given = {"bands": ["B04"], "aoi": AOI}
    assert s2.execute(prepared, given).fetchall() == wanted
    with s2.cursor() as cursor:
        assert cursor.execute(prepared, given).fetchall() == wanted


def test_reading_one_area_equals_pixels(s2):
    """The same pixels by `rasteret_read` and by `rasteret_pixels`."""
    rows = read(s2, "s2", ["B04"], geometry=AOI, valid=True)
    for got in rows:
        found = s2.execute(
            "SELECT x, y, B04 FROM rasteret_pixels('s2', bands := ['B04'], geometry := $aoi, "
            "ids := [$id])",
            {"aoi": AOI, "id": got.row["id"]},
        ).fetchnumpy()
        col = np.floor((found["x"] - got.transform.c) / got.transform.a).astype(int)
        row = np.floor((found["y"] - got.transform.f) / got.transform.e).astype(int)
        value = np.ma.asarray(found["B04"])
        valid = np.zeros(got.bands["B04"].shape, bool)
        valid[row, col] = ~np.ma.getmaskarray(value)
        np.testing.assert_array_equal(valid, got.valid[0])
        np.testing.assert_array_equal(got.bands["B04"][row, col], np.ma.filled(value, 0))


def test_two_connections_at_once(scenes):
    """Threads with cursors of one database read the same bytes."""
    con = rasteret_sql.connect(workspace=scenes[1], config={"threads": 2})
    call = call_of("rasteret_read", "s2", bands=["B04", "B08"], geometry=AOI)
    query = f"SELECT id, md5(B04) AS a, md5(B08) AS b FROM {call}"
    wanted = con.execute(query).fetchall()

    def one(_: int) -> list:
        with con.cursor() as cursor:
            return cursor.execute(query).fetchall()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(8))) == [wanted] * 8
    con.close()
