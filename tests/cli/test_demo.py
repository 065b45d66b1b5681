"""The demo as a user runs it, against rasterio and NumPy on the files it wrote."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.enums import Resampling

import rasteret_sql
from rasteret_sql.demo import statements

CHECKOUT = Path(__file__).parents[2]
CLEAR = (4, 5, 6, 7, 11)
OURS = os.environ | {"PYTHONPATH": str(CHECKOUT)}


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=OURS,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def printed(folder):
    done = python("-m", "rasteret_sql", "demo", "--folder", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def steps(printed):
    """Statement to the result printed under it."""
    found = re.findall(
        r"((?:^--[^\n]*\n)?^(?:SELECT|FROM|SET)[^;]*);\n(.*?)(?=^--|\Z)",
        printed,
        re.MULTILINE | re.DOTALL,
    )
    return {sql: result.strip() for sql, result in found}


def oracle(folder, *, masked):
    """Mean NDVI per date of the pixels whose centre lies in the polygon, and their count."""
    text = re.search(r"geometry := '(POLYGON.*?)'", statements.NDVI)[1]
    polygon = shapely.segmentize(shapely.from_wkt(text), 0.001)
    values = {}
    for item in json.loads((folder / "scenes/items.json").read_text())["features"]:
        if item["properties"]["eo:cloud_cover"] >= 20:
            continue
        bands = {}
        for name in ("B04", "B08", "SCL"):
            with rasterio.open(folder / "scenes" / item["id"] / f"{name}.tif") as raster:
                bands[name] = raster.read(1)
                shape = rasterio.warp.transform_geom("EPSG:4326", raster.crs, polygon)
                inside = rasterio.features.geometry_mask(
                    [shape], raster.shape, raster.transform, invert=True
                )
        keep = inside & (bands["B04"] > 0)
        if masked:
            keep = inside & np.isin(bands["SCL"], CLEAR)
        red, nir = (bands[name][keep].astype(float) for name in ("B04", "B08"))
        values.setdefault(item["properties"]["datetime"][:10], []).append((nir - red) / (nir + red))
    joined = {day: np.concatenate(parts) for day, parts in values.items()}
    return {day: (found.mean(), found.size) for day, found in joined.items()}


def table(text):
    """The cells of a box that DuckDB drew, without its header."""
    rows = re.findall(r"^│(.*)│$", text.split("├", 1)[1], re.MULTILINE)
    return [[cell.strip() for cell in row.split("│")] for row in rows]


@pytest.mark.any_duckdb
def test_the_printed_ndvi_is_what_rasterio_and_numpy_compute(steps, folder):
    rows = {when[:10]: float(ndvi) for when, ndvi in table(steps[statements.NDVI])}
    expected = {day: mean for day, (mean, _) in oracle(folder, masked=False).items()}
    assert rows == pytest.approx(expected, abs=1e-9)
    assert list(rows) == ["2024-01-10", "2024-03-10"]
    assert rows["2024-03-10"] - rows["2024-01-10"] > 0.3


@pytest.mark.any_duckdb
def test_the_printed_masked_ndvi_and_pixel_counts_are_what_numpy_computes(steps, folder):
    rows = {w[:10]: (float(m), int(n)) for w, m, n in table(steps[statements.NDVI_CLEAR])}
    expected = oracle(folder, masked=True)
    assert {day: n for day, (_, n) in rows.items()} == {day: n for day, (_, n) in expected.items()}
    means = {day: mean for day, (mean, _) in rows.items()}
    assert means == pytest.approx({day: mean for day, (mean, _) in expected.items()}, abs=1e-9)


def test_every_statement_printed_is_one_that_ran_and_gives_what_is_printed(steps, tmp_path):
    assert list(steps)[1:] == list(statements.LOCAL)
    con = rasteret_sql.connect(workspace=tmp_path, config={"threads": 1})
    again = {sql: str(con.sql(sql)).strip() for sql in steps}
    con.close()
    for sql, shown in steps.items():
        if not sql.startswith("SET "):
            assert again[sql] == shown


@pytest.mark.any_duckdb
def test_it_names_the_folder_that_it_keeps(printed, folder):
    assert f"The files are in {folder}" in printed
    assert (folder / "workspace/s2_stac").is_dir()


@pytest.mark.any_duckdb
def test_the_command_that_it_ends_with_works_as_it_stands(printed, folder):
    last = printed.splitlines()[-1].removeprefix("-- ")
    done = subprocess.run(
        ["bash", "-c", last], capture_output=True, text=True, timeout=60, env=OURS, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert "6 rows" in done.stdout


@pytest.mark.any_duckdb
def test_a_command_that_is_not_on_path_is_named_by_its_path(command, tmp_path, monkeypatch):
    venv = tmp_path / "a checkout" / ".venv" / "bin"
    venv.mkdir(parents=True)
    script = venv / "rasteret-sql"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rasteret_sql "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(venv / "python"))
    monkeypatch.chdir(venv.parents[1])
    done = command("demo", "--folder", "demo files")
    assert done.exit_code == 0, done.stderr
    last = done.stdout.splitlines()[-1].removeprefix("-- ")
    workspace = "'demo files/workspace'"
    assert last == f".venv/bin/rasteret-sql query --workspace-dir {workspace} 'FROM s2'"
    again = subprocess.run(["bash", "-c", last], capture_output=True, text=True, env=OURS)
    assert again.returncode == 0, again.stderr
    assert "6 rows" in again.stdout
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(venv), prepend=os.pathsep)
    done = command("demo", "--folder", "demo files")
    assert done.stdout.splitlines()[-1].startswith("-- rasteret-sql query")


@pytest.mark.any_duckdb
def test_a_second_run_in_the_same_folder_prints_the_same_pixels(command, steps, folder):
    done = command("demo", "--folder", folder)
    assert done.exit_code == 0
    assert steps[statements.NDVI] in done.stdout
    assert steps[statements.TILES] in done.stdout


@pytest.mark.any_duckdb
def test_live_without_a_network_is_one_clear_line(command, tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    done = command("demo", "--live", "--folder", tmp_path)
    assert done.exit_code == 1
    assert re.fullmatch(r"error: .*earth-search\.aws\.element84\.com.*\n", done.stderr)
    assert "Traceback" not in done.output


@pytest.mark.any_duckdb
def test_gdal_reads_the_scenes_as_georeferenced_tiled_files_with_overviews(printed, folder):
    features = json.loads((folder / "scenes/items.json").read_text())["features"]
    assert {item["properties"]["proj:epsg"] for item in features} == {32643, 32644}
    for item in features:
        for name in item["assets"]:
            with rasterio.open(folder / "scenes" / item["id"] / f"{name}.tif") as raster:
                assert raster.crs.to_epsg() == item["properties"]["proj:epsg"]
                assert raster.block_shapes == [(128, 128)]
                assert raster.overviews(1) == [2, 4]
                assert raster.nodata == 0
                assert raster.profile["compress"] == "deflate"
                assert raster.dtypes[0] == ("uint8" if name == "SCL" else "uint16")
                bounds = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
                assert item["bbox"] == pytest.approx(bounds, abs=1e-4)


@pytest.mark.any_duckdb
def test_overviews_of_bands_are_means_and_of_classes_are_samples(printed, folder):
    scene = folder / "scenes/S2A_43PHQ_20240310_L2A"
    for name, how in (("B08", Resampling.average), ("SCL", Resampling.nearest)):
        with rasterio.open(scene / f"{name}.tif") as raster:
            full = raster.read(1)
        with rasterio.open(scene / f"{name}.tif", overview_level=0) as raster:
            half = raster.read(1)
        if how is Resampling.nearest:
            assert (half == full[::2, ::2]).all()
            assert set(np.unique(half)) <= set(np.unique(full))
        else:
            parts = full.reshape(256, 2, 256, 2).astype(float)
            whole = (parts > 0).all(axis=(1, 3))
            assert np.abs(half - parts.mean(axis=(1, 3)))[whole].max() <= 0.5
            assert (half[(parts == 0).all(axis=(1, 3))] == 0).all()
