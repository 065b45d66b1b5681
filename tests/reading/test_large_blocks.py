"""Large strips and tiles are read in parts: bounded memory, and only what is needed."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import rasterio
import tifffile

import rasteret_sql
from rasteret_sql.reading.planner import Planner

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIDE = 4200
"""Of an image whose uint16 strip, 35 MB, counts as large."""


def build_table(con, href, n_bands=1):
    """Collection `t` of one file."""
    bands = ", ".join(f"b{n}: {{href: '{href}', band_index: {n}}}" for n in range(n_bands))
    con.execute(
        f"FROM rasteret_build_table('t', $$SELECT 'x' AS id, {{{bands}}} AS assets$$, "
        "enrich := true)"
    )


def box(window):
    """A window (rows, columns) as polygon in pixels."""
    (top, bottom), (left, right) = window
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return f"POLYGON(({', '.join(f'{x} {y}' for x, y in corners)}))"


@functools.cache
def picture(dtype="uint16", bands=1):
    rows, columns = np.arange(SIDE), np.arange(SIDE)
    plane = np.add.outer(rows // 3, columns // 7).astype(dtype)
    return np.stack([plane + n for n in range(bands)])


def write(path, pixels, **options):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count,
        dtype=pixels.dtype.name, **{"blockysize": height, **options},
    ) as file:  # fmt: skip
        file.write(pixels)
    with tifffile.TiffFile(path) as file:  # GDAL shows a large strip as rows
        assert len(file.pages.first.dataoffsets) in (1, count), "not one block"


@pytest.mark.any_duckdb
@pytest.mark.parametrize(
    ("bands", "options"),
    [
        (1, {}),
        (1, {"endianness": "BIG"}),
        (2, {"interleave": "PIXEL"}),
        (2, {"interleave": "BAND"}),
        (1, {"compress": "DEFLATE", "zlevel": 1}),
        (1, {"compress": "DEFLATE", "predictor": 2, "zlevel": 1}),
        (2, {"compress": "DEFLATE", "interleave": "PIXEL", "zlevel": 1}),
        (1, {"compress": "LZW", "predictor": 2}),
        (1, {"compress": "ZSTD"}),
        (1, {"tiled": True, "blockxsize": 4208, "blockysize": 4208}),
        (1, {"compress": "DEFLATE", "tiled": True, "blockxsize": 4208, "blockysize": 4208}),
    ],
)
def test_windows_of_a_large_block_are_gdals(con, tmp_path, bands, options):
    path = tmp_path / "a.tif"
    pixels = picture(bands=bands)
    write(path, pixels, **options)
    build_table(con, path, bands)
    names = [f"b{n}" for n in range(bands)]
    for window in (((0, 3), (5, 9)), ((2995, 3300), (40, 140)), ((4199, 4200), (0, SIDE))):
        found = con.execute(
            f"SELECT row, col, {', '.join(names)} FROM rasteret_pixels('t', geometry := $aoi, "
            "geometry_crs := 'pixel') ORDER BY row, col",
            {"aoi": box(window)},
        ).fetchnumpy()
        expected = pixels[:, slice(*window[0]), slice(*window[1])]
        for name, plane in zip(names, expected, strict=True):
            np.testing.assert_array_equal(found[name], plane.ravel())
    sums = con.execute(
        f"SELECT {', '.join(f'sum({name})' for name in names)} FROM rasteret_pixels('t')"
    ).fetchall()[0]
    assert list(sums) == pixels.sum(axis=(1, 2), dtype=np.int64).tolist()


def test_a_tile_of_the_file_stays_one_row(con, tmp_path):
    path = tmp_path / "a.tif"
    pixels = picture()
    write(path, pixels, compress="DEFLATE", zlevel=1)
    build_table(con, path)
    rows = con.execute(
        "SELECT tile_row, height, width, pixels FROM rasteret_read_tiles('t')"
    ).fetchall()
    assert [row[:3] for row in rows] == [(0, SIDE, SIDE)]
    assert rows[0][3] == pixels.tobytes()


@pytest.mark.any_duckdb
@pytest.mark.parametrize("compress", ["NONE", "DEFLATE"])
def test_slabs_that_are_planned_in_groups_are_all_read_once(con, server, monkeypatch, compress):
    monkeypatch.setattr(
        Planner.__init__,
        "__kwdefaults__",
        {**Planner.__init__.__kwdefaults__, "at_once": 2},
    )
    path = server.folder / f"grouped_{compress}.tif"
    pixels = picture()
    write(path, pixels, compress=compress)
    build_table(con, server.url("scenes", path.name))
    server.reset()
    got = con.execute("SELECT count(*), sum(b0) FROM rasteret_pixels('t')").fetchall()
    assert got == [(SIDE * SIDE, int(pixels.sum(dtype=np.int64)))]
    assert fetched(server) < path.stat().st_size


@pytest.mark.any_duckdb
@pytest.mark.parametrize("name", ["tiff_dos_strip_chop.tif", "strip_larger_than_2GB_header.tif"])
def test_a_small_file_that_declares_terabytes_fails_at_once(con, tmp_path, data, name):
    build_table(con, data / "geotiff/gdal/gcore/data" / name)
    for query, message in (
        ("SELECT count(b0) FROM rasteret_pixels('t')", "record x, band b0"),
        ("SELECT count(pixels) FROM rasteret_read_tiles('t')", "at most 1073741824 bytes"),
    ):
        begun = time.perf_counter()
        with pytest.raises(Exception, match=message):
            con.execute(query).fetchall()
        assert time.perf_counter() - begun < 10, "it was planned whole"


def fetched(server):
    return sum(request["bytes"] for request in server.requests())


def test_of_an_uncompressed_strip_only_the_rows_of_the_area_are_fetched(con, tmp_path, server):
    write(server.folder / "plain.tif", picture())
    build_table(con, server.url("scenes", "plain.tif"))
    area = {"aoi": box(((3000, 3010), (0, 20)))}
    read = "rasteret_{}('t', geometry := $aoi, geometry_crs := 'pixel'{})"
    server.reset()
    count = con.execute(f"SELECT count(b0) FROM {read.format('pixels', '')}", area).fetchall()
    assert count == [(200,)]
    assert fetched(server) == 10 * SIDE * 2
    planned = con.execute(f"SELECT byte_count FROM {read.format('plan', '')}", area).fetchall()
    assert planned == [(10 * SIDE * 2,)]
    within = read.format("pixels", f", max_bytes := {10 * SIDE * 2}")
    assert con.execute(f"SELECT count(b0) FROM {within}", area).fetchall() == [(200,)]
    tiles = read.format("read_tiles", f", max_bytes := {10 * SIDE * 2}")
    with pytest.raises(Exception, match="max_bytes"):
        con.execute(f"SELECT count(pixels) FROM {tiles}", area).fetchall()


@pytest.mark.any_duckdb
def test_of_a_deflated_strip_no_more_is_fetched_than_up_to_the_area(con, tmp_path, server):
    noise = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
    doubled = np.repeat(noise, 2, axis=2)
    write(server.folder / "packed.tif", doubled, compress="DEFLATE", zlevel=1)
    size = (server.folder / "packed.tif").stat().st_size
    build_table(con, server.url("scenes", "packed.tif"))
    server.reset()
    con.execute(
        "SELECT count(b0) FROM rasteret_pixels('t', geometry := $aoi, geometry_crs := 'pixel')",
        {"aoi": box(((100, 110), (0, 20)))},
    ).fetchall()
    assert fetched(server) < size / 10


@pytest.mark.any_duckdb
def test_damage_in_the_middle_is_told_and_what_lies_before_is_read(con, tmp_path):
    path = tmp_path / "a.tif"
    pixels = picture()
    write(path, pixels, compress="DEFLATE", zlevel=1)
    with tifffile.TiffFile(path) as file:
        start, size = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size // 2 + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    build_table(con, path)
    good, total = con.execute(
        "SELECT count(b0), count(*) FROM rasteret_pixels('t', on_error := 'null')"
    ).fetchall()[0]
    assert total == SIDE * SIDE
    assert 0 < good < total
    with pytest.raises(Exception, match="record x, band b0"):
        con.execute("SELECT count(b0) FROM rasteret_pixels('t')").fetchall()


READ = """
import resource, sys, json
import rasteret_sql
con = rasteret_sql.connect(workspace=sys.argv[1], config={"threads": 2})
con.execute("SET enable_progress_bar = false")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = con.execute("SELECT sum(b0)::DOUBLE FROM rasteret_pixels('t')").fetchall()[0][0]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([total, after - before]))
"""


@pytest.mark.any_duckdb
def test_a_strip_of_196_mb_costs_a_fraction_of_that(tmp_path):
    side = 14_000
    row = np.arange(side) % 200
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row.astype(np.uint8).tobytes()) for _ in range(side))
    body += packer.flush()
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8",
        compress="DEFLATE", blockysize=side, sparse_ok=True,
    ):  # fmt: skip
        pass
    data = bytearray(path.read_bytes())
    offset_tag, count_tag = (
        data.find(tag + b"\x04\0\x01\0\0\0") for tag in (b"\x11\x01", b"\x17\x01")
    )
    data[offset_tag + 8 : offset_tag + 12] = len(data).to_bytes(4, "little")
    data[count_tag + 8 : count_tag + 12] = len(body).to_bytes(4, "little")
    path.write_bytes(bytes(data) + body)
    with rasteret_sql.connect(workspace=tmp_path / "workspace") as con:
        build_table(con, path)
    run = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "workspace")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    total, kilobytes = json.loads(run.stdout.strip().splitlines()[-1])
    assert total == float(row.sum() * side)
    assert kilobytes < 130_000, "the whole strip is 196 MB"
