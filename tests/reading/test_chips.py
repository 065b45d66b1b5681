"""`rasteret_chips`: squares on a lattice, equal to rasterio's windows."""

from __future__ import annotations

from collections import Counter

import duckdb
import numpy as np
import pytest
import rasterio.warp
import shapely
from rasterio.windows import Window
from reading.rasters import NORTH_UP, ROTATED, noise, write
from reading.read_oracle import (
    assert_transform,
    build_files,
    call_of,
    make_areas,
    opened,
    random_polygon,
    rows_of,
    to_map,
)

import rasteret_sql
from examples import examples
from rasteret_sql.reading import pipeline
from rasteret_sql.reading.tile_store import STORE

ONE = "S2A_43PHQ_20240110_L2A"


def chips(con, collection, bands=("band",), **options):
    return rows_of(con, f"FROM {call_of('rasteret_chips', collection, bands=bands, **options)}")


def places(height, width, size, stride):
    """Corners of all chips that lie in a raster."""
    return [
        (row, col)
        for row in range(0, height - size + 1, stride)
        for col in range(0, width - size + 1, stride)
    ]


def array_of(row, band, dtype="<u2"):
    return np.frombuffer(row[band], dtype).reshape(row["height"], row["width"])


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("size", "stride"), [(32, None), (20, None), (50, 25), (7, 31), (70, 1), (71, None)]
)
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north-up", "rotated"])
def test_chips_of_a_raster_are_rasterio_s_windows(con, made, size, stride, transform):
    path = made(noise((2, 70, 90)), ("a", "b"), transform=transform, nodata=7)
    rows = chips(con, "made", ("a", "b"), size=size, stride=stride)
    wanted = places(70, 90, size, stride or size)
    assert [(row["row_off"], row["col_off"]) for row in rows] == wanted
    with opened(path) as file:
        for row in rows:
            window = Window(row["col_off"], row["row_off"], size, size)
            assert (row["height"], row["width"]) == (size, size)
            for index, band in enumerate(("a", "b"), 1):
                np.testing.assert_array_equal(array_of(row, band), file.read(index, window=window))
            assert_transform(row["transform"], file.window_transform(window))
            assert row["chip_id"] == f"a_{row['row_off']}_{row['col_off']}"
            assert row["record_id"] == row["id"] == "a"
            assert row["dtypes"] == ["uint16", "uint16"]
            assert row["nodata"] == [7, 7]


@pytest.mark.any_duckdb
@pytest.mark.parametrize("level", [0, 1, 2])
def test_chips_of_an_overview(con, made, level):
    path = made(noise((1, 150, 130)), overviews=[2, 4])
    rows = chips(con, "made", size=16, stride=12, level=level)
    with opened(path, level) as file:
        assert [(r["row_off"], r["col_off"]) for r in rows] == places(*file.shape, 16, 12)
        whole = file.read(1)
        for row in rows:
            at = np.s_[row["row_off"] : row["row_off"] + 16, row["col_off"] : row["col_off"] + 16]
            np.testing.assert_array_equal(array_of(row, "band"), whole[at])


@pytest.mark.any_duckdb
def test_an_area_chooses_chips_and_hides_no_pixel(con, made):
    path = made(noise((1, 170, 190), low=1), nodata=0)
    rng = np.random.default_rng(3)
    n_rows = 0
    for _ in range(examples(15, 40)):
        area = random_polygon(rng, 180)
        rows = chips(con, "made", size=24, stride=17, geometry=to_map(area, NORTH_UP),
                     geometry_crs="EPSG:32643", valid=True)  # fmt: skip
        squares = {at: shapely.box(at[1], at[0], at[1] + 24, at[0] + 24)
                   for at in places(170, 190, 24, 17)}  # fmt: skip
        shared = {at: square.intersection(area).area for at, square in squares.items()}
        found = [(row["row_off"], row["col_off"]) for row in rows]
        assert found == [at for at in squares if at in found]
        assert {at for at in squares if shared[at] > 1e-4} <= set(found)
        assert set(found) <= {at for at in squares if shared[at] > 0}
        n_rows += len(rows)
        with opened(path) as file:
            for row in rows[::7]:
                window = Window(row["col_off"], row["row_off"], 24, 24)
                np.testing.assert_array_equal(array_of(row, "band"), file.read(1, window=window))
                assert set(row["valid"]) == {1}
    assert n_rows > examples(80, 200)


@pytest.mark.any_duckdb
def test_an_area_along_the_edges_of_chips_meets_those_inside(con, made):
    made(noise((1, 128, 128)))
    area = to_map(shapely.box(32, 32, 96, 64), NORTH_UP)
    rows = chips(con, "made", size=32, geometry=area, geometry_crs="EPSG:32643")
    assert [(row["row_off"], row["col_off"]) for row in rows] == [(32, 32), (32, 64)]
    triangle = shapely.Polygon([(32, 32), (96, 32), (96, 64), (32, 32)])
    rows = chips(con, "made", size=32, geometry=to_map(triangle, NORTH_UP),
                 geometry_crs="EPSG:32643")  # fmt: skip
    assert [(row["row_off"], row["col_off"]) for row in rows] == [(32, 32), (32, 64)]


def test_a_relation_of_areas_brings_its_columns(s2):
    make_areas(s2, "fields", {"a": shapely.box(77.984, 13.004, 77.99, 13.01),
                              "b": shapely.box(77.986, 13.006, 77.987, 13.007)})  # fmt: skip
    rows = chips(s2, "s2", ("B04",), size=64, aois="fields", ids=[ONE])
    count = Counter(row["area"] for row in rows)
    assert count["a"] > count["b"] >= 1
    found = {area: {r["chip_id"]: r["B04"] for r in rows if r["area"] == area} for area in count}
    assert all(found["a"][chip] == blob for chip, blob in found["b"].items())
    assert [r["record_id"] for r in rows] == [ONE] * len(rows)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("min_valid", [0, 0.25, 0.5, 1])
def test_min_valid_is_the_share_that_holds_data_in_all_bands(con, made, min_valid):
    pixels = noise((2, 64, 96), low=1)
    pixels[0, :20, :50] = 0
    pixels[1, 10:40, 30:80] = 0
    made(pixels, ("a", "b"), nodata=0)
    rows = chips(con, "made", ("a", "b"), size=16, min_valid=min_valid)
    shares = {
        (row, col): (pixels[:, row : row + 16, col : col + 16] != 0).all(axis=0).mean()
        for row, col in places(64, 96, 16, 16)
    }
    wanted = [at for at, share in shares.items() if share >= min_valid]
    assert [(row["row_off"], row["col_off"]) for row in rows] == wanted
    assert len(wanted) > 1
    assert min_valid == 0 or len(wanted) < len(shares)
    one = con.execute(
        "SELECT chip_id FROM rasteret_chips('made', bands := ['a', 'b'], size := 16, "
        f"min_valid := {min_valid})"
    ).fetchall()
    assert len(one) == len(wanted)


@pytest.mark.any_duckdb
def test_the_geometry_is_the_outline_in_degrees(s2, scenes):
    rows = s2.execute(
        "SELECT row_off, col_off, ST_AsText(geometry) AS outline, typeof(geometry) "
        f"FROM rasteret_chips('s2', bands := ['B04'], size := 200, ids := ['{ONE}'])"
    ).fetchall()
    assert len(rows) == 4
    with opened(scenes[0] / ONE / "B04.tif") as file:
        for row, col, text, kind in rows:
            assert kind == "GEOMETRY('OGC:CRS84')"
            window = Window(col, row, 200, 200)
            left, bottom, right, top = rasterio.windows.bounds(window, file.transform)
            wanted = rasterio.warp.transform_geom(
                file.crs, "OGC:CRS84",
                shapely.box(left, bottom, right, top).segmentize(50).__geo_interface__,
            )  # fmt: skip
            got, wanted = shapely.from_wkt(text), shapely.geometry.shape(wanted)
            assert shapely.symmetric_difference(got, wanted).area < 1e-5 * wanted.area


@pytest.mark.any_duckdb
def test_each_tile_is_fetched_and_decoded_once(con, server, monkeypatch):
    folder = server.folder / "chips"
    folder.mkdir(exist_ok=True)
    path = write(folder / "a.tif", noise((1, 256, 256)), blockxsize=64, blockysize=64)
    build_files(con, "made", {"a": server.url("scenes", "chips/a.tif")})
    decoded = []
    real = pipeline.decode_block
    monkeypatch.setattr(
        pipeline, "decode_block", lambda *a, **k: decoded.append(1) or real(*a, **k)
    )
    STORE.clear()
    server.reset()
    make_areas(con, "two", {
        "a": to_map(shapely.box(0, 0, 256, 256), NORTH_UP),
        "b": to_map(shapely.box(10, 10, 200, 140), NORTH_UP),
    })  # fmt: skip
    (planned,) = con.execute("SELECT sum(byte_count) FROM rasteret_plan('made')").fetchone()
    call = call_of("rasteret_chips", "made", size=48, stride=9, max_bytes=planned + 16 * 16,
                   aois="two", geometry_crs="EPSG:32643")  # fmt: skip
    rows = rows_of(con, f"SELECT chip_id, area, band FROM {call}")
    assert sum(row["area"] == "a" for row in rows) == len(places(256, 256, 48, 9)) == 576
    assert sum(row["area"] == "b" for row in rows) > 200
    asked = [request["range"] for request in server.requests()]
    spans = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in asked]
    covered = [byte for start, stop in spans for byte in range(start, stop + 1)]
    assert len(covered) == len(set(covered)) >= planned
    assert len(decoded) == 16
    assert path.stat().st_size >= planned


def test_what_is_not_selected_is_not_requested(n_requests):
    found, rows = n_requests("SELECT chip_id, geometry FROM rasteret_chips('s2', size := 64)")
    assert (found, len(rows)) == (0, 6 * 64)
    found, rows = n_requests("SELECT count(*) FROM rasteret_chips('s2', size := 64)")
    assert (found, rows) == (0, [(384,)])
    everything, _ = n_requests("SELECT B04 FROM rasteret_chips('s2', bands := ['B04'])")
    some, rows = n_requests("SELECT B04 FROM rasteret_chips('s2', bands := ['B04'], size := 64) "
                            f"WHERE id = '{ONE}'")  # fmt: skip
    assert 0 < some < everything
    assert len(rows) == 64


def test_columns(s2):
    described = s2.execute("DESCRIBE FROM rasteret_chips('s2', bands := ['B04'], valid := true)")
    kinds = {row[0]: row[1] for row in described.fetchall()}
    assert kinds["B04"] == kinds["valid"] == "BLOB"
    assert kinds["geometry"] == "GEOMETRY('OGC:CRS84')"
    assert {"chip_id", "record_id", "row_off", "col_off", "crs", "record_crs"} <= set(kinds)
    (crs,) = s2.execute("SELECT DISTINCT crs = record_crs FROM rasteret_chips('s2')").fetchall()
    assert crs == (True,)


def test_chips_are_arrays(s2):
    relation = s2.sql("FROM rasteret_chips('s2', bands := ['B04', 'SCL'], size := 128)")
    arrays = rasteret_sql.to_numpy(relation)
    assert arrays["B04"].shape == arrays["SCL"].shape == (96, 128, 128)
    assert (arrays["B04"].dtype, arrays["SCL"].dtype) == (np.uint16, np.uint8)


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("size := 0", "size: expected 1 or more, got 0"),
        ("stride := 0", "stride: expected 1 or more, got 0"),
        ("min_valid := 1.5", "min_valid: expected a share, 0 to 1, got 1.5"),
        ("min_valid := '1'", "min_valid: expected a share, 0 to 1, got '1'"),
        ("size := NULL", "size: expected 1 or more, an integer, got NULL"),
    ],
)
def test_odd_arguments_are_refused(s2, options, told):
    with pytest.raises(duckdb.Error, match=f"rasteret_chips: {told}"):
        s2.execute(f"FROM rasteret_chips('s2', {options})")


@pytest.mark.any_duckdb
def test_a_lattice_of_too_many_chips_is_refused(con, tmp_path):
    path = write(tmp_path / "a.tif", noise((1, 1100, 1100), "uint8"))
    build_files(con, "made", {"a": path})
    with pytest.raises(duckdb.Error, match="stride: expected at most 1048576 squares of a record"):
        con.execute("SELECT count(*) FROM rasteret_chips('made', size := 2, stride := 1)")


@pytest.mark.any_duckdb
def test_a_band_that_can_t_be_read_is_told(con, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", noise((1, 64, 64), low=1), nodata=0)
    build_files(con, "made", {n: tmp_path / f"{n}.tif" for n in ("a", "b")})
    (tmp_path / "b.tif").unlink()
    STORE.clear()
    with pytest.raises(duckdb.Error, match="rasteret_chips: record b, band band: "):
        chips(con, "made", size=32)
    rows = chips(con, "made", size=32, on_error="report", min_valid=0.5)
    assert [(r["id"], r["error"] is None, r["band"] is None) for r in rows] == [
        *[("a", True, False)] * 4,
        *[("b", False, True)] * 4,
    ]


@pytest.mark.any_duckdb
def test_a_raster_without_place_has_chips_without_geometry(con, build):
    build(a=noise((40, 50), "uint8"))
    rows = chips(con, "made", ("b",), size=20)
    assert [row["geometry"] for row in rows] == [None] * 4
    assert {row["transform"] for row in rows} <= {None}


@pytest.mark.any_duckdb
@pytest.mark.parametrize("n", range(examples(2, 3)))
def test_chips_of_real_files_are_rasterio_s_windows(con, data, n):
    files = sorted((data / "geotiff").rglob("*.tif"))
    rng = np.random.default_rng(n)
    seen = 0
    for path in rng.permutation(files):
        try:
            with opened(path) as file:
                if not 40 <= min(file.shape) <= max(file.shape) <= 1500 or file.count > 4:
                    continue
                if file.dtypes[0] not in ("uint8", "uint16", "int16", "float32"):
                    continue
                if file.compression is not None and file.compression.name not in (
                    "deflate", "lzw", "none", "zstd",
                ):  # fmt: skip
                    continue
                whole = file.read(1)
        except rasterio.errors.RasterioError:
            continue
        try:
            build_files(con, "real", {"a": path})
        except duckdb.Error:
            continue
        size = int(rng.integers(17, 40))
        stride = int(rng.integers(29, 90))
        call = call_of("rasteret_chips", "real", size=size, stride=stride)
        rows = rows_of(con, f"SELECT row_off, col_off, height, width, band, valid FROM "
                       f"{call[:-1]}, valid := true)")  # fmt: skip
        assert [(r["row_off"], r["col_off"]) for r in rows] == places(*whole.shape, size, stride)
        for row in rows:
            top, left = row["row_off"], row["col_off"]
            wanted = whole[top : top + size, left : left + size]
            got = array_of(row, "band", whole.dtype)
            valid = np.frombuffer(row["valid"], np.uint8).reshape(got.shape).astype(bool)
            np.testing.assert_array_equal(got[valid], wanted[valid])
        seen += 1
        if seen == 8:
            break
    assert seen == 8
