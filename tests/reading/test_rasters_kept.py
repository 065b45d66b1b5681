"""Rasters that are read without a collection: headers are read once, as long as files stay."""

from __future__ import annotations

import time

import duckdb
import numpy as np
import pytest
import rasterio
from affine import Affine

from rasteret_sql.duck import relation_files
from rasteret_sql.ingest import rasters
from rasteret_sql.ingest.rasters import KEPT


@pytest.fixture(autouse=True)
def _nothing_kept():
    KEPT.forget()


def write(path, value=1, *, count=1, width=40):
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=30, width=width, dtype="uint8",
        transform=Affine(10, 0, 500_000, 0, -10, 4_000_000), crs="EPSG:32643",
    ) as file:  # fmt: skip
        file.write(np.full((count, 30, width), value, "uint8"))
    return path


def header_requests(server):
    return [one for one in server.requests() if one["method"] == "GET"]


def test_headers_are_read_once(con, server):
    write(server.folder / "kept" / "a.tif")
    url = server.url("scenes", "kept/a.tif")
    server.reset()
    for _ in range(3):
        con.execute(f"EXPLAIN FROM rasteret_plan('{url}')").fetchall()
        con.execute(f"FROM rasteret_plan('{url}')").fetchall()
        con.execute(f"SELECT id, crs FROM rasteret_files('{url}')").fetchall()
        con.execute(f"SELECT id, crs FROM rasteret_files('{url}', bands := ['x'])").fetchall()
    assert len(header_requests(server)) == 1


def test_a_remote_file_that_changes_is_read_again(con, server):
    path = write(server.folder / "kept" / "b.tif", 1)
    url = server.url("scenes", "kept/b.tif")
    query = f"SELECT count(*), sum(b1) FROM rasteret_pixels('{url}')"
    assert con.execute(query).fetchall() == [(1200, 1200)]
    write(path, 3, width=50)
    time.sleep(rasters._TRUSTED_SECONDS + 0.1)
    assert con.execute(query).fetchall() == [(1500, 4500)]


def test_a_folder_that_changes_is_listed_again(con, tmp_path):
    path = write(tmp_path / "a.tif", 1)
    query = f"SELECT id, sum(b1) FROM rasteret_pixels('{tmp_path}/*.tif') GROUP BY id ORDER BY id"
    assert con.execute(query).fetchall() == [("a", 1200)]
    write(path, 2, width=50)
    write(tmp_path / "b.tif", 5)
    assert con.execute(query).fetchall() == [("a", 3000), ("b", 6000)]
    path.unlink()
    assert con.execute(query).fetchall() == [("b", 6000)]


def test_a_file_that_could_not_be_read_is_tried_again(con, tmp_path):
    write(tmp_path / "a.tif", 2)
    (tmp_path / "b.tif").write_bytes(b"no TIFF")
    pattern = f"{tmp_path}/*.tif"
    with pytest.raises(duckdb.Error, match=r"b\.tif|record b|b: "):
        con.execute(f"SELECT sum(b1) FROM rasteret_pixels('{pattern}')").fetchall()
    query = f"SELECT id, sum(b1) FROM rasteret_pixels('{pattern}', on_error := 'null') GROUP BY id"
    assert ("a", 2400) in con.execute(query).fetchall()
    write(tmp_path / "b.tif", 1)
    assert sorted(con.execute(query).fetchall()) == [("a", 2400), ("b", 1200)]


def test_headers_beyond_the_limit_of_memory_are_streamed(con, tmp_path, monkeypatch):
    monkeypatch.setattr(rasters, "_KEPT_BYTES", 1)
    for n in range(5):
        write(tmp_path / f"{n}.tif", n + 1, count=2)
    query = (
        f"SELECT id, second_metadata.image_width, assets.second.band_index "
        f"FROM rasteret_files('{tmp_path}/*.tif', bands := ['first', 'second'])"
    )
    expected = [(str(n), 40, 1) for n in range(5)]
    assert con.execute(query).fetchall() == expected
    assert not KEPT._records
    pixels = f"SELECT id, sum(b2) FROM rasteret_pixels('{tmp_path}/*.tif') GROUP BY id ORDER BY id"
    assert con.execute(pixels).fetchall() == [(str(n), 1200 * (n + 1)) for n in range(5)]


def test_too_many_rasters_are_a_collection_to_build(con, tmp_path, monkeypatch):
    monkeypatch.setattr(relation_files, "_MAX_FILES", 2)
    for n in range(3):
        write(tmp_path / f"{n}.tif")
    with pytest.raises(
        duckdb.Error,
        match=r"collection: expected at most 2 rasters, got '3 .*rasteret_build_table",
    ):
        con.execute(f"FROM rasteret_plan('{tmp_path}/*.tif')")


@pytest.mark.parametrize("name", ["nothing.tif", "[xy]?.tiff", "**/*.TIF"])
def test_a_pattern_without_files_names_the_argument(con, tmp_path, name):
    with pytest.raises(duckdb.Error, match=r"rasteret_read: collection: expected at least one"):
        con.execute(f"FROM rasteret_read('{tmp_path}/{name}')")


def test_every_statement_about_collections_takes_rasters(con, tmp_path):
    for n in range(2):
        write(tmp_path / f"{n}.tif", count=2)
    pattern = f"{tmp_path}/*.tif"
    found = con.execute(f"SELECT records, bands, epsg FROM rasteret_describe('{pattern}')")
    assert found.fetchall() == [(2, ["b1", "b2"], [32643])]
    con.execute(
        "FROM rasteret_build_table('built', $source)",
        {"source": f"SELECT * FROM rasteret_files('{pattern}')"},
    )
    found = con.execute("SELECT id, sum(b2) FROM rasteret_pixels('built') GROUP BY id ORDER BY id")
    assert found.fetchall() == [("0", 1200), ("1", 1200)]


def test_a_web_server_is_asked_for_no_listing(con, server):
    url = server.url("scenes", "kept/X.tif").replace("X", "*")
    with pytest.raises(duckdb.Error, match=r"web server lists none.*name the file"):
        con.execute(f"FROM rasteret_read('{url}')")


def test_a_table_goes_before_a_file_of_its_name(con, tmp_path, monkeypatch):
    write(tmp_path / "scene.tif", 4)
    monkeypatch.chdir(tmp_path)
    query = "SELECT id, sum(b1) FROM rasteret_pixels('scene.tif') GROUP BY id"
    assert con.execute(query).fetchall() == [("scene", 4800)]
    con.execute("CREATE SCHEMA scene")
    con.execute(
        f"CREATE TABLE scene.tif AS SELECT * REPLACE ('mine' AS id) "
        f"FROM rasteret_files('{tmp_path}/scene.tif')"
    )
    assert con.execute(query).fetchall() == [("mine", 4800)]


def test_a_signature_is_used_and_not_stored(con, server):
    write(server.folder / "kept" / "signed.tif", 6)
    url = server.url("scenes", "kept/signed.tif")
    server.reset()
    signed = f"{url}?X-Amz-Signature=S3CRET"
    assert con.execute(f"SELECT assets.b1.href FROM rasteret_files('{signed}')").fetchall() == [
        (url,)
    ]
    query = f"SELECT id, sum(b1) FROM rasteret_pixels('{signed}') GROUP BY id"
    assert con.execute(query).fetchall() == [("signed", 7200)]
    assert server.requests()
    assert all("S3CRET" in one["path"] for one in server.requests())
