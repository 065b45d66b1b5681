"""Masks of files written in unusual ways hide what GDAL's masks hide."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import rasterio
import tifffile
from reading.rasters import write
from reading.read_oracle import build_files, read

import rasteret_sql

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::rasterio.errors.{name}")
    for name in ("NotGeoreferencedWarning", "NodataShadowWarning")
]

BANDS = ("r", "g", "b")


def with_mask(planes: str, mask_shape: tuple[int, ...], mask_planes: str | None) -> bytes:
    """A colour image of 16 x 16 and, as second page, a mask with 1 or 3 samples."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    shape = (16, 16, 3) if planes == "contig" else (3, 16, 16)
    with tifffile.TiffWriter(file) as writer:
        pixels = rng.integers(1, 255, shape, dtype=np.uint8)
        writer.write(pixels, photometric="rgb", planarconfig=planes, metadata=None)
        hidden = 255 * rng.integers(0, 2, mask_shape, dtype=np.uint8)
        writer.write(
            hidden,
            photometric="minisblack",
            planarconfig=mask_planes,
            metadata=None,
            subfiletype=2,
        )
    # tifffile writes no masks: its second page becomes one
    page, mask = (struct.pack("<HHII", 254, 4, 1, kind) for kind in (2, 4))
    assert file.getvalue().count(page) == 1
    return file.getvalue().replace(page, mask)


def with_alpha(dtype: str, *, nodata: float | None = None) -> bytes:
    """Four bands in planes of their own, the last of them alpha, with an overview."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(1, 255, (4, 64, 64)).astype(dtype)
    pixels[3] = np.where(pixels[0] > 99, 255, 0)
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=64, height=64, count=4, dtype=dtype, interleave="band",
            photometric="rgb", alpha="yes", nodata=nodata,
        ) as file:  # fmt: skip
            file.write(pixels)
            file.build_overviews([2])
        return bytes(memory.read())


CASES = (
    lambda: with_mask("contig", (16, 16), None),
    lambda: with_mask("contig", (16, 16, 3), "contig"),
    lambda: with_mask("contig", (3, 16, 16), "separate"),
    lambda: with_mask("separate", (16, 16, 3), "contig"),
    lambda: with_mask("separate", (3, 16, 16), "separate"),
    lambda: with_alpha("uint8"),
    lambda: with_alpha("uint16"),
    lambda: with_alpha("uint8", nodata=7),
)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("made", CASES)
def test_a_masked_read_hides_what_gdals_mask_hides(tmp_path, made):
    path = tmp_path / "a.tif"
    path.write_bytes(made())
    compare_with_gdal(path, tmp_path)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("bits", [1, 8])
def test_a_real_mask_of_three_samples_hides_what_gdals_hides(tmp_path, data, bits):
    folder = data / "geotiff/gdal/gcore/data"
    compare_with_gdal(folder / f"test3_with_mask_{bits}bit.tif", tmp_path)


def compare_with_gdal(path, tmp_path):
    """Masks, visible pixels, and the number of them at each level, of all bands."""
    con = rasteret_sql.connect(workspace=tmp_path / "workspace")
    with rasterio.open(path) as file:
        expected, masks, count = file.read(), file.read_masks() != 0, file.count
        levels = len(file.overviews(1)) + 1
    bands = (*BANDS, "a")[:count]
    assets = ", ".join(
        f"{name}: {{href: '{path}', band_index: {index}}}" for index, name in enumerate(bands)
    )
    con.execute(
        f"FROM rasteret_build_table('t', $$SELECT 'x' AS id, {{{assets}}} AS assets$$, "
        "enrich := true)"
    )
    for index, band in enumerate(bands):
        found = con.execute(
            f"SELECT row, col, {band} AS value FROM rasteret_pixels('t', bands := ['{band}'])"
        ).fetchnumpy()
        value = np.ma.asarray(found["value"])
        valid = np.zeros(masks.shape[1:], bool)
        valid[found["row"], found["col"]] = ~np.ma.getmaskarray(value)
        np.testing.assert_array_equal(valid, masks[index])
        shown = valid[found["row"], found["col"]]
        np.testing.assert_array_equal(
            value[shown], expected[index][found["row"], found["col"]][shown]
        )
    for level in range(levels):
        options = {"overview_level": level - 1} if level else {}
        with rasterio.open(path, **options) as file:
            n_valid = [int((mask != 0).sum()) for mask in file.read_masks()]
        got = con.execute(
            f"SELECT band, sum(valid_count) FROM rasteret_read_tiles('t', level := {level}) "
            "GROUP BY band"
        ).fetchall()
        assert dict(got) == dict(zip(bands, n_valid, strict=True))
    con.close()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "nodata", [-9999.0, -1.2676506e30, 3.4028234663852886e38, -3.4e38, 1e-20, 0.0, 7.5]
)
def test_real_nodata_is_as_near_as_gdal_s(con, tmp_path, dtype, nodata):
    """GDAL takes real numbers for no data up to 4.8e-7 of it, also as float64."""
    kind, rng = np.dtype(dtype), np.random.default_rng(5)
    exact = kind.type(nodata)
    with np.errstate(over="ignore"):
        near = (exact * (1 + rng.uniform(-6e-7, 6e-7, 900))).astype(kind)
    steps = [exact]
    for towards in (np.inf, -np.inf):
        one = exact
        for _ in range(30):
            with np.errstate(over="ignore"):
                one = np.nextafter(one, kind.type(towards))
            steps.append(one)
    most = np.finfo(kind).max
    values = np.concatenate([steps, near, [-most, most, np.nan, np.inf, 0, 1]]).astype(kind)
    pixels = values[: len(values) // 5 * 5].reshape(1, 5, -1)
    path = write(tmp_path / "a.tif", pixels, nodata=float(exact))
    build_files(con, "made", {"a": path})
    row = read(con, "made", ["band"], valid=True)[0]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(row.valid[0], file.read_masks(1) != 0)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32"])
def test_pixels_of_a_tile_are_the_same_whether_they_are_counted_or_not(con, tmp_path, dtype):
    """Where nodata alone hides pixels they hold it already; -0.0 does not."""
    values = np.random.default_rng(3).integers(0, 3, (70, 90)).astype(dtype)
    if dtype == "float32":
        values[values == 1] = -0.0
    nodata = 2**53 if dtype == "int64" else 0  # the next integer is no float
    if dtype == "int64":
        values = values + nodata
    path = str(tmp_path / "a.tif")
    profile = {"driver": "GTiff", "height": 70, "width": 90, "count": 1, "dtype": dtype}
    with rasterio.open(
        path, "w", **profile, nodata=nodata, tiled=True, blockxsize=32, blockysize=32,
        sparse_ok=True, crs="EPSG:32643", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 2e6),
    ) as file:  # fmt: skip
        file.write(values[:32], 1, window=((0, 32), (0, 90)))
    tiles = f"FROM rasteret_read_tiles('{path}') ORDER BY tile_row, tile_col"
    alone = con.sql(f"SELECT tile_row, tile_col, pixels {tiles}").fetchall()
    counted = con.sql(f"SELECT tile_row, tile_col, pixels, valid_count {tiles}").fetchall()
    assert alone == [row[:3] for row in counted]
    assert sum(row[3] for row in counted) == np.count_nonzero(values[:32] != nodata)
