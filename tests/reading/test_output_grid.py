"""Reads onto a grid of the caller's: GDAL's WarpedVRT of the same level is the oracle."""

from __future__ import annotations

import json
from typing import NamedTuple

import duckdb
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from grid import warp_oracle
from grid.warp_oracle import GEOTIFF, apart_px, check, oracle
from rasterio.vrt import WarpedVRT
from reading.read_oracle import build_files, call_of, make_areas, numpy_type, rows_of
from servers.range_server import RangeServer

import rasteret_sql
from examples import examples, in_turns
from rasteret_sql.grid.crs import transformer
from rasteret_sql.grid.warp import Grid, choose_level, locate, measure_scale
from rasteret_sql.reading.request import OutputGrid
from rasteret_sql.reading.scenes import Grid as Raster
from rasteret_sql.reading.tile_store import STORE
from rasteret_sql.reading.warps import output_grid
from rasteret_sql.units import Affine

KERNELS = ("nearest", "bilinear", "cubic", "average")
PAIRS = warp_oracle.PAIRS | {  # GDAL finds nothing beyond 180 degrees
    "antimeridian to utm": (4326, Affine(0.01, 0, 177.5, 0, -0.01, -17), 32760)
}


def write(path, data, crs, affine, *, nodata, overviews=(2, 4), mask=None, **options):
    """A GeoTIFF in tiles of 64; overviews are nearest."""
    bands = data if data.ndim == 3 else data[np.newaxis]
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} | options
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
        dtype=data.dtype, crs=crs, transform=rasterio.Affine(*affine), nodata=nodata, **options,
    ) as file:  # fmt: skip
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
        if overviews:
            file.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
    return path


def noise(dtype, seed, shape=(220, 240)):
    """Noise with single pixels and a block of no data."""
    rng = np.random.default_rng(seed)
    data = (rng.random(shape) * 5000 + 1).astype(dtype)
    nodata = np.nan if data.dtype.kind == "f" else 0
    data[rng.random(shape) < 0.08] = nodata
    data[40:80, 100:180] = nodata
    return data, nodata


def level_grid(path, level):
    """The grid of a level of a file, by rasterio."""
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with rasterio.open(path, **options) as file:
        crs = pyproj.CRS.from_wkt(file.crs.to_wkt())
        return Grid(crs, Affine(*file.transform[:6]), file.width, file.height)


def in_file(path, level, nodata):
    """The first band of a level as a file of its own."""
    options = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with rasterio.open(path, **options) as file:
        data = file.read(1)
        own = path.parent / "level.tif"
        with rasterio.open(
            own, "w", driver="GTiff", count=1, height=file.height, width=file.width,
            dtype=data.dtype, crs=file.crs, transform=file.transform, nodata=nodata,
        ) as out:  # fmt: skip
            out.write(data, 1)
    return own


def over(path, crs, factor):
    """A resolution, and an area around the middle, half as wide as a file, in a CRS."""
    source, crs = level_grid(path, 0), pyproj.CRS(crs)
    step = transformer(source.crs, crs)
    places = [(0.5, 0.5), (0.5 + 1 / source.width, 0.5), (0.5, 0.5 + 1 / source.height)]
    (x, y), (xa, ya), (xb, yb) = (
        step.transform(*source.affine.to_map(u * source.width, v * source.height))
        for u, v in places
    )
    pixel = float(np.sqrt(abs((xa - x) * (yb - y) - (xb - x) * (ya - y))) * factor)
    reach = pixel / factor * 60
    area = shapely.Point(x, y).buffer(reach, quad_segs=3)
    return float(f"{pixel:.6g}"), area


def read_one(con, collection, **options):
    """The only row of a read of one band: array, validity, grid."""
    call = call_of("rasteret_read", collection, valid=True, **options)
    (row,) = rows_of(con, f"FROM {call}")
    (band,) = options["bands"]
    shape = row["height"], row["width"]
    values = np.frombuffer(row[band], numpy_type(row["dtypes"][0])).reshape(shape)
    valid = np.frombuffer(row["valid"], np.uint8).reshape(shape).astype(bool)
    grid = Grid(pyproj.CRS(row["crs"]), Affine(*row["transform"]), shape[1], shape[0])
    return values, valid, grid


def level_of(con, collection, **options):
    """The level that a plan names."""
    call = call_of("rasteret_plan", collection, **options)
    ((level,),) = con.execute(f"SELECT DISTINCT level FROM {call}").fetchall()
    return level


def inside(area, grid):
    """Pixels whose centre lies in an area, by rasterio."""
    return rasterio.features.geometry_mask(
        [area], (grid.height, grid.width), rasterio.Affine(*grid.affine), invert=True
    )


class Warped(NamedTuple):
    """One read onto a grid, and the oracle's; values are 0 where there is no data.

    Attributes:
        options: Of the read.
        grid: Of its window.
        got: Values and validity.
        expected: The same, of the oracle.
        at: Where the pixels lie in the source.
        apart: What the two PROJs are apart there, in source pixels.
    """

    options: dict
    grid: Grid
    got: tuple
    expected: tuple
    at: object
    apart: float


def compare(con, collection, path, nodata, spread, crs, factor, kernel):
    """One read against the oracle; the number of pixels compared."""
    case = warp(con, collection, path, nodata, crs, factor, kernel)
    return check(case.got, case.expected, 0, kernel, spread, case.at, case.apart)


def warp(con, collection, path, nodata, crs, factor, kernel):
    """Read the middle of a file onto a grid, as ours and as the oracle's."""
    resolution, area = over(path, crs, factor)
    options = {
        "bands": ["band"], "geometry": area, "geometry_crs": crs, "crs": crs,
        "resolution": resolution, "resampling": kernel,
    }  # fmt: skip
    values, valid, grid = read_one(con, collection, **options)
    assert grid.affine.a == resolution
    assert grid.affine.c / resolution == pytest.approx(round(grid.affine.c / resolution))
    level = level_of(con, collection, **options)
    source = level_grid(path, level)
    base = level_grid(path, 0)
    with rasterio.open(path) as file:
        sizes = [(file.width, file.height)]
        sizes += [(-(-file.width // f), -(-file.height // f)) for f in file.overviews(1)]
    # the scale is that of the grid over the whole raster, of which the window is a part
    scale = scale_of(base, pyproj.CRS(crs), resolution, source)
    want = scale_of(base, pyproj.CRS(crs), resolution, base).want
    assert level == choose_level(sizes, want)
    own = in_file(path, level, nodata)
    expected, expected_valid = oracle(own, nodata, grid, kernel, scale)
    at = locate(grid, grid.window, source, kernel)
    mask = inside(area, grid)
    expected = np.where(mask & expected_valid, expected, 0)
    values = np.where(valid, values, 0)
    expected_valid = expected_valid & mask
    apart = apart_px(grid, source)
    return Warped(options, grid, (values, valid), (expected, expected_valid), at, apart)


def scale_of(base, crs, resolution, source):
    """The scale between the output grid of a raster and one of its levels."""
    raster = Raster(base.width, base.height, base.affine, base.crs.to_wkt())
    grid = output_grid(OutputGrid(crs.to_wkt(), (resolution, resolution)), raster)
    target = Grid(crs, grid.affine, grid.width, grid.height)
    return measure_scale(target, source)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("pair", [name for name in PAIRS if name != "world to mercator"])
def test_every_kernel_on_every_pair_of_crs_is_gdals(con, tmp_path, pair):
    """Every other case, of floats and integers in turns, other ones for the next pair; or all."""
    source, affine, crs = PAIRS[pair]
    compared, turn = 0, list(PAIRS).index(pair)
    cases = [(0.8, "nearest"), (3.3, "nearest"), *((1.4, k) for k in KERNELS)]
    dtypes = ["float32", "uint16"]
    for dtype in examples(dtypes[turn // 2 % 2 :][:1], dtypes):
        data, nodata = noise(dtype, len(pair))
        path = write(tmp_path / f"{dtype}.tif", data, f"EPSG:{source}", affine, nodata=nodata)
        build_files(con, "made", {"one": path})
        for factor, kernel in examples(cases[turn % 2 :: 2], cases):
            compared += compare(con, "made", path, nodata, 5000, crs, factor, kernel)
    assert compared > examples(5_000, 20_000)


REAL = [
    ("rasterio/RGB.byte.tif", 3857),
    ("rasterio/world.byte.tif", 3035),
    ("rio-tiler/cog.tif", 32622),
    ("rio-tiler/cog.tif", 3413),
    ("rio-tiler/cog_dateline.tif", 32601),
    ("rio-tiler/mosaic_value_1.tif", 32617),
    ("rio-tiler/web.tif", 32633),
    ("rasterframes/LC08_B7_Memphis_COG.tiff", 5070),
    ("rio-tiler-pds/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif", 3857),
    ("stars/L7_ETMs.tif", 4326),
    ("titiler/B01.tif", 3035),
    ("titiler/cog_with_nan.tif", 3857),
]


@pytest.mark.any_duckdb
@pytest.mark.parametrize(("name", "crs"), REAL)
def test_nearest_of_real_files_is_gdals(con, name, crs):
    path = GEOTIFF / name
    if not path.exists():
        pytest.skip(f"no shared test data at {path}")
    build_files(con, "real", {"one": path})
    compared = 0
    for factor in examples((0.7, 5.2) if crs == 3857 else (1.9,), (0.7, 1.9, 5.2)):
        case = warp_real(con, "real", path, crs, factor)
        compared += check(case.got, case.expected, None, "nearest", 0, case.at, case.apart)
    assert compared > examples(500, 1500)


def warp_real(con, collection, path, crs, factor):
    """The nearest pixels of a file as it is, as ours and as those of a WarpedVRT."""
    resolution, area = over(path, crs, factor)
    options = {
        "bands": ["band"], "geometry": area, "geometry_crs": crs, "crs": crs,
        "resolution": resolution,
    }  # fmt: skip
    values, valid, grid = read_one(con, collection, **options)
    level = level_of(con, collection, **options)
    source = level_grid(path, level)
    extra = {"OVERVIEW_LEVEL": level - 1} if level else {}
    with rasterio.open(path, **extra) as file, WarpedVRT(
        file, crs=crs, transform=rasterio.Affine(*grid.affine), width=grid.width,
        height=grid.height, tolerance=1e-6, add_alpha=file.nodata is None,
    ) as warped:  # fmt: skip
        expected = warped.read(1)
        known = (warped.read_masks(1) != 0) & inside(area, grid)
    at = locate(grid, grid.window, source, "nearest")
    apart = 1e-6 + apart_px(grid, source)  # 1e-6 is the tolerance of the WarpedVRT
    return Warped(options, grid, (values, valid), (expected, known), at, apart)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A connection with collection `two`: bands of 10 and 20 m in two UTM zones, over one place."""
    folder = tmp_path_factory.mktemp("two")
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    con.execute("CREATE TABLE files (id VARCHAR, assets JSON)")
    for zone, x in ((43, 699_960), (44, 190_000)):
        assets = {}
        for band, size in (("fine", 10), ("coarse", 20)):
            data, nodata = noise("uint16", zone + size, (2400 // size, 2400 // size))
            affine = Affine(size, 0, x, 0, -size, 3_000_000)
            path = write(
                folder / f"{zone}{band}.tif", data, f"EPSG:326{zone}", affine, nodata=nodata
            )
            assets[band] = {"href": str(path)}
        con.execute("INSERT INTO files VALUES (?, ?)", [f"zone {zone}", json.dumps(assets)])
    source = 'SELECT id, from_json(assets, \'{"fine": {"href": "VARCHAR"}, '
    source += '"coarse": {"href": "VARCHAR"}}\') AS assets FROM files'
    con.execute(f"CREATE TABLE given AS {source}")
    con.execute("FROM rasteret_build_table('two', source := 'given', enrich := true)").fetchall()
    yield con
    con.close()


def test_bands_of_unlike_resolution_come_on_one_grid(two):
    rows = rows_of(two, "FROM rasteret_read('two', resolution := 20, valid := true)")
    assert [row["id"] for row in rows] == ["zone 43", "zone 44"]
    for row, crs in zip(rows, ("EPSG:32643", "EPSG:32644"), strict=True):
        assert row["crs"] == crs
        assert (row["height"], row["width"]) == (120, 120)
        coarse = np.frombuffer(row["coarse"], "<u2").reshape(120, 120)
        zone = crs[-2:]
        (path,) = (p for p in files_of(two, "coarse") if f"{zone}coarse" in p)
        with rasterio.open(path) as file:
            assert np.array_equal(coarse, file.read(1))
    with pytest.raises(duckdb.Error, match="the grid of band fine"):
        two.execute("FROM rasteret_read('two', bands := ['fine', 'coarse'])").fetchall()


def files_of(con, band):
    return [row[0] for row in con.execute(f"SELECT assets.{band}.href FROM two").fetchall()]


def test_pixels_are_those_of_the_windows_and_fall_together(two):
    options = {"crs": 3857, "resolution": [25, 30], "resampling": "bilinear"}
    windows = rows_of(two, f"FROM {call_of('rasteret_read', 'two', valid=True, **options)}")
    call = call_of("rasteret_pixels", "two", **options)
    found = two.execute(
        f"SELECT id, row, col, x, y, fine, coarse, crs FROM {call} ORDER BY id, row, col"
    ).fetchnumpy()
    assert set(found["crs"]) == {"EPSG:3857"}
    places = {}
    for row in windows:
        shape = row["height"], row["width"]
        valid = np.frombuffer(row["valid"], np.uint8).reshape(2, *shape).astype(bool)
        own = found["id"] == row["id"]
        a, b, c, d, e, f = row["transform"]
        assert (a, b, d, e) == (25, 0, 0, -30)
        assert c % 25 == 0
        assert f % 30 == 0
        at = (
            np.rint((f - found["y"][own]) / 30 - 0.5).astype(int),
            np.rint((found["x"][own] - c) / 25 - 0.5).astype(int),
        )
        for number, band in enumerate(("fine", "coarse")):
            values = np.frombuffer(row[band], "<u2").reshape(shape)
            got = np.ma.masked_array(found[band])[own]
            assert np.array_equal(~np.ma.getmaskarray(got), valid[number][at])
            assert np.array_equal(got.compressed(), values[at][valid[number][at]])
        places[row["id"]] = set(zip(found["x"][own], found["y"][own], strict=True))
    shared = places["zone 43"] & places["zone 44"]
    assert not shared or len(shared) > 10  # neighbours: pixels are the same places


@pytest.mark.any_duckdb
@pytest.mark.parametrize("longitude", [178.5, -181.5])
def test_a_raster_across_the_antimeridian_is_read_on_both_sides(con, tmp_path, longitude):
    data, _ = noise("uint16", 4)
    for name, x in (("east", longitude), ("plain", 10.0)):
        affine = Affine(0.01, 0, x, 0, -0.01, -17)
        build_files(
            con, name, {"one": write(tmp_path / f"{name}.tif", data, 4326, affine, nodata=0)}
        )
    west = 10.0 - 178.5  # the same place as in `plain`, turned
    for low, high in ((178.7, 179.3), (179.7, 180.4), (-179.8, -179.2)):
        box = [low, -18.5, high if high <= 180 else high - 360, -17.4]
        turned = low if low > 0 else low + 360
        plain = [turned + west, -18.5, turned + west + round(high - low, 6), -17.4]
        rows = [
            rows_of(con, f"FROM {call_of('rasteret_read', n, bbox=b, resolution=0.02, crs=4326)}")
            for n, b in (("east", box), ("plain", plain))
        ]
        assert len(rows[0]) == len(rows[1]) == 1
        (east,), (other,) = rows
        assert east["band"] == other["band"]
        assert (east["height"], east["width"]) == (other["height"], other["width"])


WHOLE = {  # source: CRS, affine, height, width; target: CRS, resolution, its centres
    "around the world": (
        6933, rasterio.Affine(200_000, 0, -17_300_000, 0, -200_000, 7_000_000), 70, 173,
        "EPSG:4326", 1.0, (range(-180, 180), range(-90, 90)),
    ),
    "around a pole": (
        3413, rasterio.Affine(30_000, 0, -1_500_000, 0, -40_000, 1_200_000), 60, 70,
        "EPSG:4326", 0.1, (range(1790, 1800), range(720, 900)),
    ),
    "torn elsewhere": (
        4326, rasterio.Affine(10, 0, -180, 0, -10, 90), 18, 36,
        "EPSG:3832", 777_100.0, (range(-26, 26), range(-20, 20)),
    ),
}  # fmt: skip


@pytest.mark.any_duckdb
@pytest.mark.parametrize("case", WHOLE)
def test_a_grid_over_a_raster_reaches_as_far_as_the_raster(con, tmp_path, case):
    source, affine, height, width, crs, resolution, (cols, rows) = WHOLE[case]
    data, _ = noise("uint16", 3, (height, width))
    path = write(tmp_path / "a.tif", data, f"EPSG:{source}", affine, nodata=None, overviews=())
    build_files(con, "made", {"one": path})
    x, y = np.meshgrid((np.array(cols) + 0.5) * resolution, (np.array(rows) + 0.5) * resolution)
    x, y = x.ravel(), y.ravel()
    a, b, c, d, e, f = (~affine)[:6]
    own_x, own_y = transformer(pyproj.CRS(crs), source).transform(x, y)
    col, row = a * own_x + b * own_y + c, d * own_x + e * own_y + f
    inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    wanted = dict(
        zip(
            zip(x[inside].round(3).tolist(), y[inside].round(3).tolist(), strict=True),
            data[row[inside].astype(int), col[inside].astype(int)].tolist(),
            strict=True,
        )
    )
    call = call_of("rasteret_pixels", "made", resolution=resolution, crs=crs)
    found = con.execute(f"SELECT x, y, band FROM {call} WHERE band IS NOT NULL").fetchall()
    found = {(round(x, 3), round(y, 3)): value for x, y, value in found}
    lost = set(wanted) - set(found)
    assert not lost
    assert len(wanted) > 1000
    differ = [place for place, value in wanted.items() if found[place] != value]
    assert len(differ) <= len(wanted) * 0.002  # centres on an edge of two pixels


@pytest.mark.any_duckdb
def test_masks_are_resampled_as_what_they_are(con, tmp_path):
    """Hidden pixels are never mixed into others, whatever the file keeps there."""
    data = np.full((128, 128), 100, "uint8")
    mask = np.full(data.shape, 255, "uint8")
    data[:, 40:80], mask[:, 40:80] = 255, 0
    affine = Affine(10, 0, 500_000, 0, -10, 3_000_000)
    path = write(tmp_path / "a.tif", data, 32643, affine, nodata=None, mask=mask)
    build_files(con, "made", {"one": path})
    for kernel in KERNELS:
        for overview in ("auto", "none"):
            values, valid, _ = read_one(
                con, "made", bands=["band"], crs="EPSG:32644", resolution=23,
                resampling=kernel, overview=overview,
            )  # fmt: skip
            assert set(np.unique(values[valid])) == {100}
            assert 0.3 < valid.mean() < 0.75
            assert not values[~valid].any()
    everything, _, _ = read_one(
        con, "made", bands=["band"], crs="EPSG:32644", resolution=23, masked=False
    )
    assert {100, 255} <= set(np.unique(everything).tolist())


def test_overview_names_the_level(con, tmp_path):
    data, nodata = noise("uint16", 9)
    affine = Affine(10, 0, 500_000, 0, -10, 3_000_000)
    build_files(con, "made", {"one": write(tmp_path / "a.tif", data, 32643, affine, nodata=nodata)})
    for resolution, level in ((5, 0), (19, 0), (20, 1), (39, 1), (40, 2), (400, 2)):
        options = {"bands": ["band"], "resolution": resolution}
        assert level_of(con, "made", **options) == level, resolution
        assert level_of(con, "made", **options, overview="none") == 0
        assert level_of(con, "made", **options, overview=1) == 1
    with pytest.raises(duckdb.Error, match="expected an overview of at most 2, got 3"):
        level_of(con, "made", bands=["band"], resolution=20, overview=3)


@pytest.mark.any_duckdb
def test_what_is_read_is_planned_and_each_tile_once(tmp_path):
    data, nodata = noise("uint16", 5, (640, 640))
    affine = Affine(10, 0, 500_000, 0, -10, 3_000_000)
    folder = tmp_path / "scenes"
    folder.mkdir()
    write(folder / "a.tif", data, 32643, affine, nodata=nodata)
    with RangeServer(scenes=folder) as server:
        con = rasteret_sql.connect(workspace=tmp_path / "workspace")
        build_files(con, "made", {"one": server.url("scenes", "a.tif")})
        make_areas(
            con,
            "pieces",
            {
                str(n): shapely.box(500_100 + n * 900, 2_995_000, 501_300 + n * 900, 2_997_000)
                for n in range(5)
            },
        )
        for options in (
            {"resolution": 7.5},
            {"resolution": 33, "crs": 32644},
            {"resolution": 25, "resampling": "cubic", "overview": "none"},
            {"resolution": 0.0004, "crs": 4326, "resampling": "average"},
        ):
            options |= {"aois": "pieces", "geometry_crs": 32643}
            call = call_of("rasteret_plan", "made", **options)
            STORE.clear()
            server.reset()
            ((planned, n_bytes),) = con.execute(
                f"SELECT count(DISTINCT request), sum(byte_count) FROM {call}"
            ).fetchall()
            assert server.requests() == []
            rows = con.execute(f"FROM {call_of('rasteret_read', 'made', **options)}").fetchall()
            assert len(rows) == 5
            asked = server.requests()
            assert len(asked) == planned > 0
            STORE.clear()
            server.reset()
            con.execute(f"SELECT sum(band) FROM {call_of('rasteret_pixels', 'made', **options)}")
            con.fetchall()
            assert 0 < len(server.requests()) <= planned
            small = call_of("rasteret_read", "made", **options, max_bytes=int(n_bytes) - 1)
            with pytest.raises(duckdb.Error, match="max_bytes: expected a read of at most"):
                con.execute(f"FROM {small}").fetchall()
        con.close()


def test_predicates_on_places_narrow_the_read(two):
    call = "rasteret_pixels('two', bands := ['fine'], crs := 3857, resolution := 20)"
    whole = two.execute(f"SELECT * FROM {call} WHERE id = 'zone 43'").fetchnumpy()
    row, x = int(np.median(whole["row"])), float(np.median(whole["x"]))
    for predicate, chosen in (
        (f"row = {row}", whole["row"] == row),
        (f"x BETWEEN {x} AND {x + 60}", (whole["x"] >= x) & (whole["x"] <= x + 60)),
    ):
        some = two.execute(f"SELECT * FROM {call} WHERE id = 'zone 43' AND {predicate}")
        assert len(some.fetchall()) == chosen.sum() > 0


def test_scaled_lists_and_whole_rasters(con, tmp_path):
    data, nodata = noise("int16", 6, (90, 80))
    affine = Affine(10, 0, 500_000, 0, -10, 3_000_000)
    path = write(tmp_path / "a.tif", data, 32643, affine, nodata=nodata, overviews=())
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (-100,)
    build_files(con, "made", {"one": path})
    area = shapely.box(500_101, 2_999_502, 500_399, 2_999_798)
    options = {"geometry": area, "geometry_crs": 32643, "resolution": 10}
    (part,) = rows_of(
        con, f"FROM {call_of('rasteret_read', 'made', **options, format='list', scaled=True)}"
    )
    assert (part["height"], part["width"]) == (30, 30)
    wanted = data[20:50, 10:40].ravel()
    assert part["band"] == [None if v == 0 else v * 0.5 - 100 for v in wanted.tolist()]
    (whole,) = rows_of(
        con, f"FROM {call_of('rasteret_read', 'made', **options, crop=False, valid=True)}"
    )
    assert (whole["height"], whole["width"]) == data.shape
    valid = np.frombuffer(whole["valid"], np.uint8).reshape(data.shape).astype(bool)
    assert valid[20:50, 10:40].sum() == valid.sum() == (wanted != 0).sum()


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("resampling := 'cubic'", "resampling: expected 'nearest' where pixels stay on the grid"),
        ("overview := 1", "overview: expected 'auto' where pixels stay on the grid"),
        ("resolution := 10, level := 1", "level: expected 0 with resolution or crs, got 1"),
        ("resolution := 0", "resolution: expected a number above 0, or .width, height., got 0"),
        ("resolution := [1, 2, 3]", "resolution: expected a number above 0"),
        ("resolution := 'fine'", "resolution: expected a number above 0"),
        ("crs := 'EPSG:1'", "crs: expected a code of a CRS"),
        ("resolution := 10, resampling := 'mode'", "resampling: expected 'nearest', 'bilinear'"),
        ("crs := 4326", "resolution: expected the size of a pixel in units of the CRS .degree."),
        ("resolution := 10, overview := 'best'", "overview: expected 'auto', 'none' or a level"),
        ("resolution := 10, align := 'band'", "align: expected 'grid' with resolution or crs"),
        (
            "geometry_crs := 'pixel', geometry := 'POLYGON((0 0, 9 0, 9 9, 0 0))', crs := 3857",
            "geometry_crs: expected a CRS with resolution or crs",
        ),
        ("resolution := 1e-9", "resolution: expected fewer than 2.31 rows and columns"),
        ("resolution := 1e-3", r"resolution: expected fewer than 2.32 pixels in a row"),
    ],
)
def test_what_makes_no_grid_is_refused(two, options, message):
    with pytest.raises(duckdb.Error, match=message):
        two.execute(f"FROM rasteret_read('two', bands := ['fine'], {options})").fetchall()


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("kernel", "crs"), in_turns(KERNELS, ["EPSG:32643", "EPSG:32644", "EPSG:3413"])
)
def test_a_plan_has_any_number_of_pixels(con, tmp_path, crs, kernel):
    data, nodata = noise("uint16", 6, (220, 240))
    affine = Affine(10, 0, 500_000, 0, -10, 3_000_000)
    path = write(tmp_path / "a.tif", data, "EPSG:32643", affine, nodata=nodata, overviews=())
    build_files(con, "made", {"one": path})
    area = shapely.box(500_700, 2_998_700, 501_200, 2_999_300)
    options = {
        "bands": ["band"], "geometry": area, "geometry_crs": "EPSG:32643", "crs": crs,
        "resampling": kernel,
    }  # fmt: skip
    found = {}
    for resolution in (9, 4e-3, 1e-5):
        call = call_of("rasteret_plan", "made", resolution=resolution, **options)
        rows = con.execute(f"SELECT tile_row, tile_col FROM {call}").fetchall()
        assert len(set(rows)) == len(rows)
        found[resolution] = set(rows)
    assert {(1, 1), (2, 1)} <= found[1e-5] == found[4e-3] <= found[9]
    assert len(found[9]) < 13
    with pytest.raises(duckdb.Error, match=r"fewer than 2.32 pixels in a row"):
        con.execute(f"FROM {call_of('rasteret_read', 'made', resolution=4e-3, **options)}")


def test_a_raster_without_crs_is_told(con, tmp_path):
    data, nodata = noise("uint16", 6, (90, 80))
    path = write(tmp_path / "a.tif", data, None, Affine(9, 0, 0, 0, -9, 0), nodata=nodata)
    build_files(con, "made", {"one": path})
    with pytest.raises(duckdb.Error, match="expected a raster with a CRS, got 'none'"):
        con.execute("FROM rasteret_read('made', resolution := 10)").fetchall()
    (row,) = rows_of(con, "FROM rasteret_read('made', resolution := 10, on_error := 'report')")
    assert "expected a raster with a CRS" in row["error"]
