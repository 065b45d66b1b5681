"""Rasters without a collection: a path, URL or glob of TIFFs, `rasteret_files`, an enrichment."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from reading.read_oracle import assert_same, expected_read, read, rows_of

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 4_000_000)
AREA = shapely.Polygon([(500_053, 3_999_920), (500_614, 3_999_969), (500_300, 3_999_400)])
HERE = {"geometry": AREA, "geometry_crs": "EPSG:32643"}


def write(path, count=2, *, seed=0, descriptions=None, crs="EPSG:32643", **options):
    pixels = np.random.default_rng(seed).integers(0, 250, (count, 70, 90)).astype("uint16")
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} | options
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=70, width=90, dtype="uint16",
        transform=TRANSFORM, crs=crs, nodata=7, **options,
    ) as file:  # fmt: skip
        file.write(pixels)
        if descriptions:
            file.descriptions = descriptions
    return path


@pytest.mark.parametrize("name", ["scene.tif", "scene.tiff", "a scene's.2024.tif"])
def test_a_path_is_a_collection_of_one(con, tmp_path, name):
    path = write(tmp_path / name)
    (got,) = read(con, str(path), ["b1", "b2"], valid=True, **HERE)
    assert got.row["id"] == name.rpartition(".")[0]
    assert_same(got, expected_read(path, AREA))
    (got,) = read(con, str(path), ["b2"])
    assert_same(got, expected_read(path, indexes=[2]))


def test_bands_are_all_by_default_in_the_order_of_the_file(con, tmp_path):
    path = write(tmp_path / "many.tif", count=11)
    columns = [row[0] for row in con.execute(f"DESCRIBE FROM rasteret_read('{path}')").fetchall()]
    assert [c for c in columns if c.startswith("b")] == [f"b{n}" for n in range(1, 12)]


def test_band_descriptions_are_names(con, tmp_path):
    path = write(tmp_path / "named.tif", descriptions=("red", "nir 2"))
    (got,) = read(con, str(path), ["nir 2", "red"], **HERE)
    assert_same(got, expected_read(path, AREA, indexes=[2, 1]))
    with pytest.raises(duckdb.Error, match=r"bands: .*red.*'b1'"):
        con.execute(f"EXPLAIN FROM rasteret_read('{path}', bands := ['b1'])")


def test_a_url_is_a_collection_of_one(con, server):
    folder = server.folder / "alone"
    folder.mkdir(exist_ok=True)
    path = write(folder / "scene.tif")
    url = server.url("scenes", "alone/scene.tif")
    (got,) = read(con, url, ["b1", "b2"], **HERE)
    assert got.row["id"] == "scene"
    assert_same(got, expected_read(path, AREA))
    with pytest.raises(duckdb.Error, match=r"rasteret_read: .*nothing\.tif"):
        con.execute(f"FROM rasteret_read('{server.url('scenes', 'nothing.tif')}')").fetchall()


@pytest.mark.parametrize("pattern", ["*.tif", "**/*.tif", "scene?.tif"])
def test_a_glob_is_a_collection(con, tmp_path, pattern):
    folder = tmp_path / "files"
    (folder / "deep").mkdir(parents=True)
    paths = {f"scene{n}": write(folder / f"scene{n}.tif", seed=n) for n in range(4)}
    if pattern.startswith("**"):
        paths["scene9"] = write(folder / "deep" / "scene9.tif", seed=9)
    else:
        write(folder / "deep" / "scene9.tif", seed=9)
    (folder / "notes.txt").write_text("not a raster")
    rows = read(con, str(folder / pattern), ["b1", "b2"], **HERE)
    assert {got.row["id"] for got in rows} == set(paths)
    assert len(rows) == len(paths)
    for got in rows:
        assert_same(got, expected_read(paths[got.row["id"]], AREA))


def test_every_read_takes_a_path(con, tmp_path):
    path = write(tmp_path / "scene.tif")
    with rasterio.open(path) as file:
        image = file.read(masked=True)
    found = con.execute(f"SELECT sum(b1), count(b2), count(*) FROM rasteret_pixels('{path}')")
    assert found.fetchall() == [(image[0].sum(), image[1].count(), 70 * 90)]
    tiles = con.execute(
        f"SELECT count(*), sum(valid_count) FROM rasteret_read_tiles('{path}', bands := ['b1'])"
    )
    assert tiles.fetchall() == [(9, image[0].count())]
    plan = con.execute(f"SELECT DISTINCT band, href FROM rasteret_plan('{path}') ORDER BY 1")
    bands, hrefs = zip(*plan.fetchall(), strict=True)
    assert bands == ("b1", "b2")
    assert all(href.endswith("scene.tif") for href in hrefs)


def test_rasteret_files_gives_records_that_are_a_collection(con, tmp_path):
    paths = {f"scene{n}": write(tmp_path / f"scene{n}.tif", seed=n) for n in range(3)}
    call = f"rasteret_files('{tmp_path}/*.tif')"
    records = rows_of(con, f"SELECT * FROM {call} ORDER BY id")
    assert [record["id"] for record in records] == list(paths)
    for record in records:
        assert record["proj:epsg"] == 32643
        assert set(record["assets"]) == {"b1", "b2"}
        assert [record["assets"][b]["band_index"] for b in ("b1", "b2")] == [0, 1]
        for band in ("b1", "b2"):
            assert record[f"{band}_metadata"]["image_width"] == 90
            assert record[f"{band}_metadata"]["nodata"] == 7
    wanted = f"SELECT * FROM {call} WHERE id <> 'scene1' ORDER BY id DESC"
    rows = read(con, wanted, ["b1", "b2"], **HERE)
    assert [got.row["id"] for got in rows] == ["scene2", "scene0"]
    for got in rows:
        assert_same(got, expected_read(paths[got.row["id"]], AREA))
    con.execute(f"CREATE TABLE kept AS FROM {call}")
    (got,) = read(con, "kept", ["b2"], ids=["scene1"])
    assert_same(got, expected_read(paths["scene1"], indexes=[2]))


def test_rasteret_files_takes_a_list(con, tmp_path):
    paths = [write(tmp_path / f"scene{n}.tif", seed=n) for n in range(3)]
    listed = ", ".join(f"'{path}'" for path in (paths[2], paths[0]))
    found = con.execute(f"SELECT id FROM rasteret_files([{listed}]) ORDER BY id").fetchall()
    assert found == [("scene0",), ("scene2",)]


def test_a_pattern_without_files_says_so(con, tmp_path):
    for call in (
        f"rasteret_read('{tmp_path}/*.tif')",
        f"rasteret_files('{tmp_path}/*.tif')",
        f"rasteret_pixels('{tmp_path}/none.tif')",
    ):
        with pytest.raises(duckdb.Error, match=r"rasteret_\w+: .*expected .*\.tif"):
            con.execute(f"FROM {call}").fetchall()


def test_a_file_that_is_no_tiff_is_told(con, tmp_path):
    path = tmp_path / "broken.tif"
    path.write_bytes(b"this is not a TIFF at all")
    with pytest.raises(duckdb.Error, match=r"rasteret_read: .*broken\.tif"):
        con.execute(f"FROM rasteret_read('{path}')").fetchall()


def test_the_result_of_an_enrichment_is_a_collection(con, tmp_path):
    paths = {f"scene{n}": write(tmp_path / f"scene{n}.tif", seed=n) for n in range(3)}
    rows = ", ".join(f"('{name}', '{path}', {n})" for n, (name, path) in enumerate(paths.items()))
    con.execute(f"CREATE TABLE listed AS FROM (VALUES {rows}) AS t(id, href, extra)")
    call = (
        "rasteret_enrich('listed', bands := ['one', 'two'], href_column := 'href', "
        "band_index_map := MAP {'one': 0, 'two': 1})"
    )
    for collection in (f"SELECT * FROM {call}", f"FROM {call}"):
        got = read(con, collection, ["two", "one"], **HERE)
        assert {row.row["id"]: row.row["extra"] for row in got} == {
            f"scene{n}": n for n in range(3)
        }
        for row in got:
            assert_same(row, expected_read(paths[row.row["id"]], AREA, indexes=[2, 1]))
    con.execute(f"CREATE TABLE enriched AS FROM {call}")
    found = con.execute("SELECT count(*) FROM rasteret_pixels('enriched')").fetchall()
    assert found == [(3 * 70 * 90,)]


def test_a_path_and_a_built_collection_read_the_same(con, tmp_path, server):
    urls = []  # of two files, as tiles of one that was read before need no request
    for name in ("same", "again"):
        (server.folder / name).mkdir(exist_ok=True)
        write(server.folder / name / "scene.tif", interleave="band")
        urls.append(server.url("scenes", f"{name}/scene.tif"))
    con.execute(
        "FROM rasteret_build_table('built', $source, href_column := 'href', "
        "band_index_map := MAP {'b1': 0, 'b2': 1}, enrich := true)",
        {"source": f"SELECT 'scene' AS id, '{urls[0]}' AS href"},
    ).fetchall()
    server.reset()
    (built,) = read(con, "built", ["b1", "b2"], **HERE)
    n_built = len(server.requests())
    server.reset()
    (alone,) = read(con, urls[1], ["b1", "b2"], **HERE)
    own = ("height", "width", "transform", "crs", "dtypes", "nodata", "b1", "b2")
    assert [built.row[name] for name in own] == [alone.row[name] for name in own]
    assert n_built < len(server.requests()) <= n_built + 3
