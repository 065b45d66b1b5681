"""Pixels of another grid are those of GDAL's WarpedVRT: see warp_oracle."""

import contextlib

import numpy as np
import pyproj
import pytest
import rasterio
from grid.warp_oracle import GEOTIFF, PAIRS, apart_px, check, is_data, oracle
from rasterio.io import MemoryFile

from examples import examples, in_turns
from rasteret_sql.errors import InputError
from rasteret_sql.grid import warp
from rasteret_sql.grid.crs import transformer
from rasteret_sql.grid.kernels import KERNELS, Scale, check_kernel
from rasteret_sql.grid.warp import (
    Grid,
    choose_level,
    grid_over,
    locate,
    measure_scale,
    plan_window,
    source_window,
    warp_block,
)
from rasteret_sql.grid.windows import level_affine
from rasteret_sql.units import Affine, BBox, Window


def ours(data, nodata, source, target, kernel, scale, block=None):
    at = locate(target, block or target.window, source, kernel)
    read = source_window(at, source, kernel, scale)
    cut = data[read.row_start : read.row_stop, read.col_start : read.col_stop]
    return warp_block(cut, is_data(cut, nodata), read, at, kernel, scale)


def compare(path, data, nodata, source, target, kernel, spread):
    """Compare with the oracle; the number of pixels that were."""
    scale = measure_scale(target, source)
    expected = oracle(path, nodata, target, kernel, scale)
    got = ours(data, nodata, source, target, kernel, scale)
    at = locate(target, target.window, source, kernel)
    return check(got, expected, nodata, kernel, spread, at, apart_px(target, source))


def target_over(source, crs, factor, turn=0.0, size=60):
    """A grid around the middle of a source, whose pixels are factor times as large."""
    crs = pyproj.CRS(crs)
    step = transformer(source.crs, crs)
    col, row = source.width / 2, source.height / 2
    corners = [source.affine.to_map(*at) for at in ((col, row), (col + 1, row), (col, row + 1))]
    (x, y), (xa, ya), (xb, yb) = (step.transform(*corner) for corner in corners)
    pixel = np.sqrt(abs((xa - x) * (yb - y) - (xb - x) * (ya - y))) * factor
    cos, sin = pixel * np.cos(np.radians(turn)), pixel * np.sin(np.radians(turn))
    affine = Affine(cos, sin, 0, sin, -cos, 0) if turn else Affine(pixel, 0, 0, 0, -pixel, 0)
    dx, dy = affine.to_map(size / 2 + 0.123, size / 2 - 0.321)
    return Grid(crs, affine._replace(c=x - dx, f=y - dy), size, size)


@contextlib.contextmanager
def in_memory(data, nodata, source):
    profile = {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "count": 1,
        "dtype": data.dtype,
        "crs": source.crs.to_wkt(),
        "transform": rasterio.Affine(*source.affine),
        "nodata": nodata,
    }
    with MemoryFile() as file:
        with file.open(**profile) as out:
            out.write(data, 1)
        yield file.name


def noise(dtype, seed, shape=(110, 120), gaps=0.08):
    rng = np.random.default_rng(seed)
    data = (rng.random(shape) * 5000 + 1).astype(dtype)
    nodata = np.nan if data.dtype.kind == "f" else 0
    data[rng.random(shape) < gaps] = nodata
    data[20:40, 50:90] = nodata
    return data, nodata


@pytest.mark.parametrize(("pair", "dtype"), in_turns(PAIRS, ["float32", "uint16"]))
def test_every_kernel_is_gdals(pair, dtype):
    """Each factor with every other kernel, which take turns; or with all of them."""
    src, affine, dst = PAIRS[pair]
    source = Grid(pyproj.CRS(src), affine, 120, 110)
    data, nodata = noise(dtype, len(pair))
    turn = list(PAIRS).index(pair) // 2
    for number, factor in enumerate((0.7, 1.0, 2.37)):
        target = target_over(source, dst, factor, size=int(90 / factor) + 30)
        with in_memory(data, nodata, source) as path:
            for kernel in examples(KERNELS[(turn + number) % 2 :: 2], KERNELS):
                compared = compare(path, data, nodata, source, target, kernel, 5000)
                assert compared > 500


@pytest.mark.parametrize("turn", [12, -35, 90, 178])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rotated_targets_are_gdals(turn, kernel):
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 120, 110)
    data, nodata = noise("float32", 3)
    for crs in (32632, 3035):
        target = target_over(source, crs, 1.0, turn)
        with in_memory(data, nodata, source) as path:
            assert compare(path, data, nodata, source, target, kernel, 5000) > 1000


def random_grids(seed):
    rng = np.random.default_rng(seed)
    zone = int(rng.integers(1, 61))
    lat = rng.uniform(-70, 75)
    south = lat < 0
    utm = pyproj.CRS(32600 + zone + 100 * south)
    lon = zone * 6 - 183 + rng.uniform(-2.5, 2.5)
    size = 10 ** rng.uniform(0.5, 3)
    x, y = transformer(4326, utm).transform(lon, lat)
    turn = rng.choice([0.0, 0.0, rng.uniform(-180, 180)])
    cos, sin = size * np.cos(np.radians(turn)), size * np.sin(np.radians(turn))
    affine = Affine(cos, sin, x, sin, -cos, y) if turn else Affine(size, 0, x, 0, -size, y)
    if rng.random() < 0.2:
        affine = affine._replace(b=-affine.b, e=-affine.e)
    laea = f"+proj=laea +lat_0={lat:.1f} +lon_0={lon:.1f} +datum=WGS84 +units=m"
    neighbour = 32600 + zone % 60 + 1 + 100 * south
    crs = rng.choice(np.array([4326, 3857, 6933, laea, neighbour, utm.to_epsg()], dtype=object))
    source = Grid(utm, affine, int(rng.integers(30, 130)), int(rng.integers(30, 130)))
    factor = float(np.exp(rng.uniform(np.log(0.4), np.log(5))))
    return source, target_over(source, crs, factor, float(rng.choice([0.0, 0.0, 25.0])))


@pytest.mark.parametrize("seed", range(40))
def test_random_grids_are_gdals(seed):
    source, target = random_grids(seed)
    dtype = ["float32", "int16", "uint8", "float64"][seed % 4]
    data, nodata = noise(dtype, seed, (source.height, source.width), [0, 0.02, 0.3][seed % 3])
    with in_memory(data, nodata, source) as path:
        for kernel in examples(KERNELS[seed // 4 % 2 :: 2], KERNELS):
            compare(path, data, nodata, source, target, kernel, 5000)


REAL = [
    ("data/elevation/dsm.tif", [4326, 26917]),
    ("data/landsat/2015.tif", [3857, 5070]),
    ("data/naip/m_4709963_se_14_1_20180716.tif", [4326, 3857]),
    ("datacube-core/sample_tile_151_-29.tif", [32756, 3577]),
    ("openlayers/non-square-pixels.tif", [3857]),
    ("rasterframes/LC08_B7_Memphis_COG.tiff", [32616, 5070, 3857]),
    ("rasterio/RGB.byte.tif", [3857, 32617]),
    ("rasterio/cogeo.tif", [4326]),
    ("rasterio/world.byte.tif", [3857, 3035]),
    ("rio-tiler-pds/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif", [32632, 3857]),
    ("rio-tiler/cog.tif", [3413, 32622, 4326]),
    ("rio-tiler/cog_dateline.tif", [32601, 4326, 3857]),
    ("rio-tiler/mosaic_value_1.tif", [32617]),
    ("rio-tiler/web.tif", [4326, 32633]),
    ("stars/L7_ETMs.tif", [4326]),
    ("titiler/B01.tif", [3035, 3857]),
    ("titiler/cog_with_nan.tif", [3857]),
]


@pytest.mark.parametrize(("name", "targets"), REAL, ids=[name for name, _ in REAL])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_files_and_their_overviews_are_gdals(name, targets):
    """Each level and CRS with every other kernel and one factor, which take turns; or all."""
    path = GEOTIFF / name
    if not path.exists():
        pytest.skip(f"no shared test data at {path}")
    with rasterio.open(path) as file:
        base = Grid(
            pyproj.CRS.from_wkt(file.crs.to_wkt()),
            Affine(*file.transform[:6]),
            file.width,
            file.height,
        )
        levels = len(file.overviews(1))
        nodata = file.nodata
    compared = 0
    for level in {0, min(levels, 1), levels}:
        options = {"OVERVIEW_LEVEL": level - 1} if level else {}
        with rasterio.open(path, **options) as file:
            data, theirs = file.read(1), file.transform
        height, width = data.shape
        affine = level_affine(base.affine, base.width, base.height, width, height)
        assert affine == pytest.approx(theirs[:6], rel=1e-12)
        source = Grid(base.crs, affine, width, height)
        if data.dtype == np.uint8 and nodata is None:
            data = data.astype(np.int16)  # the band may have every value of its type
        absent = absent_value(data) if nodata is None else nodata
        known = data[is_data(data, absent)].astype(float)
        spread = max(np.ptp(known), np.abs(known).max(), 1)
        # One band by itself: of several, GDAL takes a pixel for missing where all are.
        with in_memory(data, absent, source) as band:
            for number, crs in enumerate(targets):
                turn = (len(name) + level + number) % 2
                for factor in examples((0.83, 1.9)[turn:][:1], (0.83, 1.9)):
                    target = target_over(source, crs, factor, size=90)
                    kernels = KERNELS[(level // 2 + number + len(name) // 2) % 2 :: 2]
                    for kernel in examples(kernels, KERNELS):
                        compared += compare(band, data, absent, source, target, kernel, spread)
    assert compared > 1000


def absent_value(data):
    """A value that a band does not have, to stand for no data."""
    if data.dtype.kind == "f":
        return -54321.0
    info = np.iinfo(data.dtype)
    for value in (info.max, info.min, *range(info.max)):
        if not (data == value).any():
            return value
    raise AssertionError("the band has every value of its type")


def exact(target, window, source, corner=0.5):
    """Every pixel by its own transform."""
    cols = np.arange(window.col_start, window.col_stop) + corner
    rows = np.arange(window.row_start, window.row_stop) + corner
    return warp._mover(target, source)(*np.meshgrid(cols, rows))


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != "same"])
def test_positions_are_exact(pair):
    src, affine, dst = PAIRS[pair]
    source = Grid(pyproj.CRS(src), affine, 400, 180)
    for factor in (0.5, 3.0):
        target = target_over(source, dst, factor, size=300)
        at = locate(target, target.window, source)
        for got, want in zip((at.left, at.top), exact(target, target.window, source), strict=True):
            finite = np.isfinite(want)
            assert finite.any()
            np.testing.assert_array_equal(np.isfinite(got), finite)
            assert np.abs(got - want)[finite].max() < 2e-8


def test_positions_are_exact_where_they_jump():
    world = Grid(pyproj.CRS(4326), Affine(0.1, 0, -180, 0, -0.1, 90), 3600, 1800)
    across = Grid(pyproj.CRS(32760), Affine(5000, 0, 100_000, 0, -5000, 8_500_000), 250, 250)
    pole = Grid(pyproj.CRS(3413), Affine(20_000, 0, -2.5e6, 0, -20_000, 2.5e6), 250, 250)
    globe = Grid(
        pyproj.CRS("+proj=ortho +lat_0=20 +lon_0=30"),
        Affine(60_000, 0, -7.5e6, 0, -60_000, 7.5e6),
        250,
        250,
    )
    for target, jumps in ((across, 1000), (pole, 1000), (globe, 0)):
        at = locate(target, target.window, world)
        x, y = exact(target, target.window, world)
        finite = np.isfinite(x) & np.isfinite(y)
        np.testing.assert_array_equal(np.isfinite(at.left) & np.isfinite(at.top), finite)
        assert np.abs(at.left[finite] - x[finite]).max() < 1e-8
        assert np.abs(at.top[finite] - y[finite]).max() < 1e-8
        assert np.ptp(x[finite]) > jumps
    assert not np.isfinite(exact(globe, globe.window, world)[0]).all()


def test_nearest_is_that_of_the_exact_transform_where_gdal_interpolates_to_1e_6():
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 700, 700)
    data = np.arange(700 * 700, dtype=np.float64).reshape(700, 700)
    target = target_over(source, 32633, 1.0, size=640)
    scale = measure_scale(target, source)
    with in_memory(data, -1, source) as path:
        want, _ = oracle(path, -1, target, "nearest", scale, tolerance=1e-6)
    got, valid = ours(data, -1, source, target, "nearest", scale)
    at = locate(target, target.window, source)
    clear = [np.abs(p - np.round(p)) > 2e-6 for p in (at.left, at.top)]
    assert (clear[0] & clear[1]).mean() > 0.9999
    differ = (got != want) & valid & clear[0] & clear[1]
    assert not differ.any()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", ["utm neighbours", "same", "rotated to utm"])
def test_blocks_fit_together(pair, kernel):
    src, affine, dst = PAIRS[pair]
    source = Grid(pyproj.CRS(src), affine, 120, 110)
    data, nodata = noise("float64", 1)
    target = target_over(source, dst, 1.7, size=80)
    scale = measure_scale(target, source)
    whole, valid = ours(data, nodata, source, target, kernel, scale)
    for block in (Window(0, 33, 0, 80), Window(33, 80, 0, 41), Window(33, 80, 41, 80)):
        part, part_valid = ours(data, nodata, source, target, kernel, scale, block)
        cut = np.s_[block.row_start : block.row_stop, block.col_start : block.col_stop]
        np.testing.assert_array_equal(part_valid, valid[cut])
        np.testing.assert_allclose(part, whole[cut], atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_planned_window_holds_what_is_needed(pair, kernel):
    src, affine, dst = PAIRS[pair]
    source = Grid(pyproj.CRS(src), affine, 120, 110)
    for factor in (0.6, 2.5):
        target = target_over(source, dst, factor, size=150)
        scale = measure_scale(target, source)
        for block in (target.window, Window(0, 64, 64, 128), Window(-300, -200, -300, -200)):
            at = locate(target, block, source, kernel)
            needed = source_window(at, source, kernel, scale)
            planned = plan_window(target, block, source, kernel, scale)
            if kernel == "nearest":  # no more than the pixels themselves
                row, col = (np.floor(one + 1e-10) for one in (at.top, at.left))
                held = (row >= 0) & (row < 110) & (col >= 0) & (col < 120)
                row, col = (np.broadcast_to(one, held.shape)[held] for one in (row, col))
                edges = (row.min(), row.max() + 1, col.min(), col.max() + 1) if len(row) else ()
                assert not edges or planned.intersection(Window(*map(int, edges))) == edges
                assert pair != "same" or planned == (edges or (0, 0, 0, 0))
            elif not needed.is_empty:
                assert planned.intersection(needed) == needed
            if not needed.is_empty:
                assert planned.height <= needed.height + 60


def test_positions_of_parallel_grids_keep_no_more_than_they_say():
    """They are kept while a read lasts, counted by their own bytes."""
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 1000, 1000)
    for kernel in KERNELS:
        at = locate(source, source.window, source, kernel)
        assert {one.size for one in at} == {1000}
        assert all(one.base is None or one.base.size <= 1001 for one in at)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_than_the_needed_window_gives_the_same(kernel):
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 120, 110)
    data, nodata = noise("float64", 2)
    target = target_over(source, 32633, 2.2, size=20)
    scale = measure_scale(target, source)
    at = locate(target, target.window, source, kernel)
    assert source_window(at, source, kernel, scale) != source.window
    some, some_valid = ours(data, nodata, source, target, kernel, scale)
    every, every_valid = warp_block(data, is_data(data, nodata), source.window, at, kernel, scale)
    np.testing.assert_array_equal(some_valid, every_valid)
    np.testing.assert_allclose(some, every, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_block_outside_of_the_source_has_no_data(kernel):
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 50, 50)
    target = Grid(pyproj.CRS(3857), Affine(10, 0, 0, 0, -10, 0), 40, 30)
    scale = measure_scale(target, source)
    at = locate(target, target.window, source, kernel)
    read = source_window(at, source, kernel, scale)
    assert read.is_empty
    assert plan_window(target, target.window, source, kernel, scale).is_empty
    values, valid = warp_block(np.zeros((0, 0), np.uint8), None, read, at, kernel, scale)
    assert values.shape == valid.shape == (30, 40)
    assert not valid.any()
    data, nodata = np.ones((50, 50), np.uint8), 0
    everything = warp_block(data, data != nodata, source.window, at, kernel, scale)
    assert not everything[1].any()


def test_no_data_is_never_blended():
    data = np.full((40, 40), 100, np.uint8)
    valid = np.ones(data.shape, bool)
    data[:, 20:], valid[:, 20:] = 255, False
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 0, 0, -10, 0), 40, 40)
    for factor in (0.4, 1.0, 3.3):
        target = target_over(source, 32632, factor, size=30)
        scale = measure_scale(target, source)
        for kernel in KERNELS:
            at = locate(target, target.window, source, kernel)
            values, known = warp_block(data, valid, source.window, at, kernel, scale)
            assert set(values[known]) == {100}
            assert set(values[~known]) <= {0}


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64", "uint64"])
def test_integers_are_rounded_and_clamped(dtype):
    info = np.iinfo(dtype)
    data = np.full((20, 20), info.min, dtype)
    data[:, 10:] = info.max
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 0, 0, -10, 0), 20, 20)
    target = Grid(source.crs, Affine(5, 0, 30, 0, -5, -30), 28, 28)
    at = locate(target, target.window, source)
    values, valid = warp_block(data, None, source.window, at, "cubic", Scale(0.5, 0.5))
    assert valid.all()
    assert values.dtype == dtype
    assert values[:, :10].max() <= info.min + info.max // 20
    # A cubic overshoots beside a step; near 2**64 float64 has steps of 2048.
    assert values[:, -5:].min() >= info.max - 2048
    halves = np.array([[1, 2]], dtype)
    target = Grid(source.crs, Affine(20, 0, 0, 0, -10, 0), 1, 1)
    at = locate(target, target.window, source, "average")
    assert warp_block(halves, None, Window(0, 1, 0, 2), at, "average", Scale(2, 1))[0] == 2


def test_longitudes_beyond_180_are_found():
    data = np.arange(200, dtype=np.float32).reshape(1, 200).repeat(100, axis=0)
    turned = Grid(pyproj.CRS(4326), Affine(0.1, 0, 170, 0, -0.1, 5), 200, 100)  # 170 to 190
    west = Grid(pyproj.CRS(4326), Affine(0.1, 0, -180, 0, -0.1, 5), 100, 100)
    for crs, affine in (
        (4326, west.affine),
        (32701, Affine(5000, 0, 200_000, 0, -5000, 10_100_000)),
    ):
        target = Grid(pyproj.CRS(crs), affine, 40, 30)
        at = locate(target, target.window, turned)
        values, valid = warp_block(data, None, turned.window, at, "nearest", Scale(1, 1))
        assert valid.all()
        assert values.min() >= 99


def test_boxes_across_the_longitude_where_they_jump_stay_small():
    data = np.arange(360, dtype=np.float32).reshape(1, 360).repeat(180, axis=0)
    world = Grid(pyproj.CRS(4326), Affine(1, 0, -180, 0, -1, 90), 360, 180)
    across = Grid(pyproj.CRS(32760), Affine(70_000, 0, 300_000, 0, -70_000, 8_100_000), 9, 9)
    at = locate(across, across.window, world, "average")
    assert (at.right - at.left).max() < 2
    scale = measure_scale(across, world)
    values, valid = warp_block(data, None, world.window, at, "average", scale)
    assert valid.all()
    assert ((values > 350) | (values < 5)).all()


def test_the_scale_of_grids():
    source = Grid(pyproj.CRS(32632), Affine(10, 0, 600_000, 0, -10, 5_300_000), 400, 400)
    scale = measure_scale(target_over(source, 32633, 3.0), source)
    assert scale.x == pytest.approx(3, rel=1e-3)
    assert scale.want == min(scale)
    turned = target_over(source, 32632, 3.0, turn=30)
    assert measure_scale(turned, source) == pytest.approx((3, 3))
    nowhere = Grid(
        pyproj.CRS("+proj=ortho +lat_0=-48 +lon_0=-171"), Affine(1, 0, 9e6, 0, -1, 9e6), 9, 9
    )
    assert measure_scale(nowhere, source) == (1, 1)


@pytest.mark.parametrize(
    ("want", "level"),
    [
        (0.5, 0), (1, 0), (1.05, 0), (1.85, 0), (1.91, 1), (2.0, 1), (2.09, 1), (3.85, 1),
        (3.91, 2), (4.05, 2), (7.8, 2), (8.0, 3), (100, 3),
    ],
)  # fmt: skip
def test_the_level_is_gdalwarps(want, level):
    assert choose_level([(1000, 800), (500, 400), (250, 200), (125, 100)], want) == level
    assert choose_level([(1000, 800), (125, 100), (500, 400), (250, 200)], want) == {
        0: 0, 1: 2, 2: 3, 3: 1,
    }[level]  # fmt: skip


def test_the_level_of_an_image_without_overviews_or_of_odd_sizes():
    assert choose_level([(1000, 800)], 50) == 0
    assert choose_level([(101, 101), (51, 51), (26, 26)], 1.95) == 1  # 1.98 is near enough
    assert choose_level([(100, 100), (50, 25)], 3) == 1  # the lesser of 2 and 4


def test_grids_of_a_resolution_share_their_edges():
    crs = pyproj.CRS(32632)
    first = grid_over(crs, BBox(103, 207, 191, 283), (20, 10))
    assert first == Grid(crs, Affine(20, 0, 100, 0, -10, 290), 5, 9)
    assert first.bounds == (100, 200, 200, 290)
    on_edges = grid_over(crs, BBox(100 + 1e-9, 200 - 1e-9, 200 + 1e-9, 290 - 1e-9), (20, 10))
    assert on_edges == first
    assert grid_over(crs, BBox(5, 5, 5, 5), (10, 10)).window == Window(0, 1, 0, 1)


@pytest.mark.parametrize("resolution", [(0, 1), (1, -1), (np.nan, 1), (np.inf, 1)])
def test_resolutions_that_make_no_grid_are_refused(resolution):
    with pytest.raises(InputError, match="resolution: expected above 0"):
        grid_over(pyproj.CRS(4326), BBox(0, 0, 1, 1), resolution)
    with pytest.raises(InputError, match="bounds: expected 4 finite numbers"):
        grid_over(pyproj.CRS(4326), BBox(0, 0, np.inf, 1), (1, 1))


def test_kernels_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="resampling: expected one of nearest, bilinear"):
        check_kernel("lanczos")
