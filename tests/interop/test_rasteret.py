"""rasteret 0.4.1 and we read each other's collections, and the pixels are GDAL's.

It needs Python 3.12: `make interop` makes the environment that ``RASTERET_PYTHON`` names.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.warp import transform_bounds

BANDS = ("B1", "B2", "B3")
SHAPE = (3, 260, 300)
KINDS = {
    "single": {},
    "chunky": {"interleave": "pixel", "predictor": 2},
    "planar": {"interleave": "band", "predictor": 2},
    "masked": {"interleave": "pixel"},
    "big": {"ENDIANNESS": "BIG"},
}
"""Files of all kinds; of "single" there is one for each band."""

LOAD = textwrap.dedent(
    """
    import sys, numpy as np, pyarrow.dataset as ds, rasterio, rasteret

    c = rasteret.load(sys.argv[1])
    print(c.name, c.data_source, sorted(c.bands), sorted(c.epsg))
    for r in c.to_table(["id", "assets", "proj:epsg"]).to_pylist():
        for band in sorted(c.bands):
            asset = r["assets"][band]
            with rasterio.open(asset["href"]) as d:
                want, bounds = d.read(asset["band_index"] + 1), d.bounds
            got = c.where(ds.field("id") == r["id"]).get_numpy(
                geometries=tuple(bounds), bands=[band], geometry_crs=r["proj:epsg"])[0]
            print(r["id"], band, got.dtype == want.dtype and np.array_equal(got, want))
    """
)
BUILD = textwrap.dedent(
    """
    import sys, rasteret

    c = rasteret.build_from_table(
        sys.argv[1], name="theirs", data_source="made", workspace_dir=sys.argv[2],
        enrich_cog=True)
    c.export(sys.argv[3])
    """
)


@pytest.fixture(scope="module")
def rasteret_python() -> str:
    python = os.environ.get("RASTERET_PYTHON")
    if not python:
        pytest.skip("rasteret needs Python 3.12: run `make interop`")
    return python


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, list[Path]]:
    """For each kind the file of each band."""
    folder = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(4).integers(1, 5000, SHAPE, dtype=np.uint16)
    found = {}
    for kind, options in KINDS.items():
        if kind == "single":
            found[kind] = [write(folder / f"{b}.tif", pixels[[i]]) for i, b in enumerate(BANDS)]
        else:
            found[kind] = [write(folder / f"{kind}.tif", pixels, **options)] * len(BANDS)
    return found


def write(path: Path, pixels: np.ndarray, **options: object) -> Path:
    shape = {"count": len(pixels), "height": SHAPE[1], "width": SHAPE[2], "dtype": pixels.dtype}
    place = {"crs": "EPSG:32643", "transform": Affine(10, 0, 780_000, 0, -10, 1_440_000)}
    tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **shape, **place, **tiles, **options) as made,
    ):
        made.write(pixels)
        if path.stem == "masked":
            made.write_mask(np.tri(*SHAPE[1:], dtype=bool))
        made.build_overviews([2])
    return path


@pytest.fixture(scope="module")
def table(files, tmp_path_factory) -> Path:
    """One record for each kind of file."""
    rows = []
    for month, (kind, paths) in enumerate(files.items(), start=1):
        with rasterio.open(paths[0]) as opened:
            bounds = transform_bounds(opened.crs, "OGC:CRS84", *opened.bounds)
        index = [0, 0, 0] if kind == "single" else [0, 1, 2]
        assets = zip(BANDS, paths, index, strict=True)
        rows.append(
            {
                "id": kind,
                "datetime": datetime(2024, month, 5, 10),
                "geometry": shapely.to_wkb(shapely.box(*bounds)),
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
                "assets": {b: {"href": str(p), "band_index": i} for b, p, i in assets},
                "proj:epsg": 32643,
            }
        )
    path = tmp_path_factory.mktemp("table") / "records.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def run(python: str, script: str, home: Path, *arguments: object) -> list[str]:
    """Lines that a script prints, in an environment without our own path."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HOME": str(home)}
    command = [python, "-W", "ignore", "-c", script, *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize("partition_by", [["year", "month"], []], ids=["hive", "flat"])
def test_rasteret_reads_the_pixels_of_our_collections(
    rasteret_python, rows, table, tmp_path, partition_by
):
    rows(
        "FROM rasteret_build_table('ours', $t, enrich := true, data_source := 'made', "
        "\"where\" := 'id <> ''big''')",  # rasteret reads no big-endian pixels
        {"t": str(table)},
    )
    target = tmp_path / "out"
    query = "FROM rasteret_export('ours', $path, partition_by := $keys)"
    rows(query, {"path": str(target), "keys": partition_by})
    folders = [target] if not partition_by else [target, tmp_path / "workspace" / "ours_records"]
    for folder in folders:
        first, *found = run(rasteret_python, LOAD, tmp_path, folder)
        assert first == "ours made ['B1', 'B2', 'B3'] [32643]"
        kinds = [kind for kind in KINDS if kind != "big"]
        assert sorted(found) == sorted(f"{kind} {band} True" for kind in kinds for band in BANDS)


def test_we_read_the_collections_of_rasteret_and_what_it_leaves_out(
    rasteret_python, con, rows, table, files, tmp_path
):
    run(rasteret_python, BUILD, tmp_path, table, tmp_path / "theirs", tmp_path / "exported")
    cached = next((tmp_path / "theirs").iterdir())
    assert [cached.name] == ["theirs_records"]
    for source in (tmp_path / "exported", cached):
        described = rows("FROM rasteret_load('r', $p, force := true)", {"p": str(source)})[0]
        assert described[:4] == ("r", len(KINDS), list(BANDS), [32643])
        for kind, paths in files.items():
            check_pixels(con, str(source), kind, paths)


def test_a_workspace_of_rasteret_is_one_of_ours(rasteret_python, rows, table, tmp_path):
    """Its folders have our names, so the default workspace is shared."""
    workspace = tmp_path / "theirs"
    run(rasteret_python, BUILD, tmp_path, table, workspace, tmp_path / "exported")
    found = rows("FROM rasteret_collections(workspace := $w)", {"w": str(workspace)})[0]
    assert found[:5] == ("theirs", "records", "made", len(KINDS), list(BANDS))


def check_pixels(con, source: str, kind: str, paths: list[Path]) -> None:
    """Pixels with their mask, an overview and a plan are those of GDAL."""
    where = {"c": source, "ids": [kind]}
    query = "SELECT * FROM rasteret_pixels($c, ids := $ids) ORDER BY row, col"
    found = con.execute(query, where).fetchnumpy()
    for index, (band, path) in enumerate(zip(BANDS, paths, strict=True)):
        number = 1 if kind == "single" else index + 1
        with rasterio.open(path) as opened:
            want = opened.read(number, masked=True)
        got = np.ma.asarray(found[band]).reshape(want.shape)
        assert got.dtype == want.dtype
        assert np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(want)), (kind, band)
        assert np.array_equal(got.filled(0), want.filled(0)), (kind, band)
        with rasterio.open(path, overview_level=0) as opened:
            half = opened.read(number)
        query = (
            "SELECT row_off, col_off, height, width, pixels FROM rasteret_read_tiles("
            "$c, ids := $ids, bands := [$b], level := 1, masked := false)"
        )
        for row, col, height, width, pixels in con.execute(query, where | {"b": band}).fetchall():
            tile = np.frombuffer(pixels, half.dtype).reshape(height, width)
            assert np.array_equal(tile, half[row : row + height, col : col + width])
    plan = "SELECT count(*) FROM rasteret_plan($c, ids := $ids)"
    assert con.execute(plan, where).fetchall() == [(27,)]
