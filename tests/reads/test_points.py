"""Points: equal to rasterio.sample; matching equal to NumPy; each tile requested once."""

from __future__ import annotations

import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
from affine import Affine
from reads.read_oracle import build_files, call_of, opened, rows_of

from rasteret_sql.errors import InputError
from rasteret_sql.grid.crs import crs_of
from rasteret_sql.reading.outputs.points import Points
from rasteret_sql.reading.scenes import Grid
from rasteret_sql.reading.tile_store import STORE

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_000_000)


def write(path, pixels, *, transform=NORTH_UP, crs="EPSG:32643", **options):
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} | options
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width,
        dtype=pixels.dtype, transform=transform, crs=crs, **options,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def noise(shape, dtype="uint16", *, high=250, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def make_points(con, name="pts", kind="TABLE", **columns):
    con.register("_points", pa.table(columns))
    con.execute(f"CREATE OR REPLACE {kind} {name} AS FROM _points")
    con.unregister("_points")
    return name


def sample(con, collection, points="pts", **options):
    return rows_of(con, f"FROM {call_of('rasteret_sample_points', collection, points=points, **options)}")


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


def assert_equals_sample(found, path, x, y, bands):
    """Rows of one record equal `rasterio.sample`, NULL where it masks."""
    with opened(path) as file:
        there, rows, cols = inside(file, x, y)
        wanted = list(file.sample(zip(x[there], y[there], strict=True), masked=True))
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
    for path in sorted((data / "geotiff").rglob("*.tif")):
        if path.stat().st_size > 3_000_000:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with opened(path) as file:
                    lossy = str(file.compression) in ("Compression.jpeg", "Compression.webp")
                    is_plain = file.crs is not None and not file.transform.is_identity
                    odd = {"complex", "int64", "uint64"} & {d[:7] for d in file.dtypes}
                    small = file.width * file.height < 4_000_000 and file.count <= 4
                    nbits = file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
                    if lossy or odd or nbits or not (is_plain and small and not file.gcps[0]):
                        continue
                    file.read(1)
            except Exception:  # noqa: BLE001, S112 (files that are broken on purpose)
                continue
        yield path


def test_real_files_equal_rasterio_sample(con, data):
    n_files = n_points = 0
    for path in real_files(data):
        bands = None
        with opened(path) as file:
            transform, height, width, count = file.transform, file.height, file.width, file.count
            crs, colours = file.crs.to_wkt(), [c.name for c in file.colorinterp]
        if "alpha" in colours or "cyan" in colours:
            continue
        bands = [f"b{n}" for n in range(1, count + 1)]
        try:
            build_files(con, "one", {"one": path}, bands)
            held = con.execute("SELECT b1_metadata IS NOT NULL FROM one").fetchall()[0][0]
        except Exception:  # noqa: BLE001, S112 (said by other tests)
            continue
        if not held:
            continue
        x, y = scattered(transform, height, width, seed=n_files)
        make_points(con, n=np.arange(len(x)), x=x, y=y)
        found = sample(con, "one", bands=bands, geometry_crs=crs, record_columns=["id"])
        print(path)
        n_points += assert_equals_sample(found, path, x, y, bands)
        n_files += 1
    assert n_files > 60
    assert n_points > 60 * 100
