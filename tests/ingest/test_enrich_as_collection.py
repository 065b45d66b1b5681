"""rasteret_enrich and rasteret_files: what they give is a collection for every read."""

from __future__ import annotations

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyproj
import pytest
import rasterio
import shapely
from rasterio.warp import transform_bounds

from rasteret_sql.ingest import rasters
from rasteret_sql.remote.listing import Listed

PIXELS = "SELECT id, count(B04), sum(B04) FROM rasteret_pixels('{}') GROUP BY id ORDER BY id"
CANONICAL = ["assets", "proj:epsg", "crs", "bbox"]


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def names_of(rows, query, parameters=None):
    return [row[0] for row in rows(f"DESCRIBE FROM {query}", parameters)]


@pytest.fixture
def s2(rows, served_items):
    rows("FROM rasteret_build_stac('s2', $p)", {"p": served_items()})
    return "s2"


def test_an_enriched_collection_needs_no_bands(rows, s2):
    expected = rows(PIXELS.format(s2))
    rows("CREATE TABLE e AS FROM rasteret_enrich('s2')")
    assert rows(PIXELS.format("e")) == expected
    assert rows(PIXELS.format("SELECT * FROM rasteret_enrich(''s2'', bands := [''B04''])")) == (
        expected
    )
    rows("CREATE VIEW v AS FROM rasteret_enrich('s2', bands := ['B04'])")
    assert rows(PIXELS.format("v")) == expected


@pytest.mark.any_duckdb
def test_enrich_takes_bare_hrefs_to_a_collection(rows, scenes):
    paths = sorted(str(path) for path in scenes.glob("*/B04.tif"))
    rows("CREATE TABLE bare AS SELECT unnest($p) AS url, 7 AS n", {"p": paths})
    call = "rasteret_enrich('bare', href_column := 'url', bands := ['B04'])"
    added = ["id", "datetime", "geometry", *CANONICAL, "B04_metadata"]
    assert names_of(rows, call) == ["url", "n", *added]
    rows(f"CREATE TABLE e AS FROM {call}")
    found = rows('SELECT id, typeof(datetime), ST_AsWKB(geometry), bbox, "proj:epsg" FROM e')
    assert {row[:2] for row in found} == {("B04", "TIMESTAMP")}
    for path, (_, _, geometry, bbox, epsg) in zip(paths, found, strict=True):
        with rasterio.open(path) as known:
            bounds = transform_bounds(known.crs, "OGC:CRS84", *known.bounds)
            assert known.crs.to_epsg() == epsg
        assert tuple(bbox.values()) == pytest.approx(bounds, abs=1e-9)
        outline = geopandas.GeoSeries.from_wkb([bytes(geometry)], crs="OGC:CRS84")
        assert outline.total_bounds == pytest.approx(bounds, abs=1e-5)
    assert rows("SELECT count(B04) > 0 FROM rasteret_pixels('e')") == [(True,)]


@pytest.mark.any_duckdb
def test_an_id_needs_no_header(rows, scenes, server):
    name = next(scenes.glob("*/B04.tif")).parent.name
    url = server.url("scenes", f"built/{name}/B04.tif")
    rows("CREATE TABLE t AS SELECT $u AS url", {"u": url})
    server.reset()
    call = "rasteret_enrich('t', href_column := 'url', bands := ['B04'])"
    assert rows(f"SELECT id, datetime FROM {call}") == [("B04", None)]
    assert server.requests() == []


def rgb(path, n_samples=3):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=4,
        height=4,
        count=n_samples,
        dtype="uint8",
        crs="EPSG:32643",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 1.5e6),
    ) as out:
        out.write(np.arange(n_samples * 16, dtype="uint8").reshape(n_samples, 4, 4))
    return str(path)


@pytest.mark.any_duckdb
def test_hrefs_of_several_samples_are_several_bands(rows, tmp_path):
    three = rgb(tmp_path / "three.tif")
    one = rgb(tmp_path / "one.tif", 1)
    rows("CREATE TABLE files AS SELECT unnest($p) AS url", {"p": [one, three]})
    call = "rasteret_enrich('files', href_column := 'url')"
    assert names_of(rows, call)[-3:] == ["b1_metadata", "b2_metadata", "b3_metadata"]
    found = rows(f"SELECT id, assets.b3.band_index, b3_metadata IS NULL FROM {call}")
    assert found == [("one", None, True), ("three", 2, False)]
    many = [*[one] * 10, *(rgb(tmp_path / f"{n}.tif", 1) for n in range(64)), three]
    rows("CREATE OR REPLACE TABLE files AS SELECT unnest($p) AS url", {"p": many})
    with pytest.raises(duckdb.Error, match=r"three.tif: expected at most 1 samples, as in"):
        rows(f"SELECT b1_metadata FROM {call}")


def test_a_registered_frame_with_assets_needs_no_bands(con, rows, scenes):
    paths = sorted(scenes.glob("*/B04.tif"))[:2]
    struct = [
        {band: {"href": str(p.with_stem(band)), "band_index": 0} for band in ("B04", "B08")}
        for p in paths
    ]
    struct[1]["B08"] = None
    frame = pa.table({"id": ["a", "b"], "assets": struct, "crs": ["x", "y"], "n": [1, 2]})
    con.register("frame", frame)
    call = "rasteret_enrich('frame')"
    added = ["proj:epsg", "crs", "bbox", "B04_metadata", "B08_metadata"]
    assert names_of(rows, call) == ["id", "assets", "n", *added]
    found = rows(
        "SELECT id, crs LIKE 'EPSG:%', B04_metadata.image_width > 0, B08_metadata IS NULL, n "
        f"FROM {call} ORDER BY id"
    )
    assert found == [("a", True, True, False, 1), ("b", True, True, True, 2)]
    rows(f"CREATE TABLE e AS FROM {call}")
    with rasterio.open(paths[0]) as known:
        total = int(known.read(1, masked=True).sum())
    assert rows("SELECT sum(B04) FROM rasteret_pixels('e') WHERE id = 'a'") == [(total,)]
    rows("CREATE TEMP TABLE private AS FROM frame")
    assert names_of(rows, "rasteret_enrich('private')") == ["id", "assets", "n", *added]


def test_a_private_href_column_says_what_to_give(con, rows):
    con.register("frame", pd.DataFrame({"id": ["a"], "url": ["a.tif"]}))
    with pytest.raises(
        duckdb.Error, match=r"rasteret_enrich: bands: expected names, .* give bands"
    ):
        rows("FROM rasteret_enrich('frame', href_column := 'url')")


def test_a_missing_column_advises_what_enrich_takes(con, rows):
    rows("CREATE TABLE t AS SELECT 'a.tif' AS url")
    con.register("frame", pd.DataFrame({"url": ["a.tif"]}))
    for source in ("t", "frame"):
        with pytest.raises(duckdb.Error) as raised:
            rows(f"SELECT crs FROM rasteret_enrich('{source}', bands := ['b'])")
        assert "source: expected a column assets, got 'columns url'; give href_column" in str(
            raised.value
        )
        assert "column_map" not in str(raised.value)


def test_files_are_records_as_enrich_gives_them(rows, scenes):
    pattern = f"{scenes}/*/B04.tif"
    call = "rasteret_files($p)"
    assert names_of(rows, call, {"p": pattern}) == [
        "id",
        "datetime",
        "geometry",
        "bbox",
        "assets",
        "proj:epsg",
        "crs",
        "b1_metadata",
    ]
    rows(
        "CREATE TABLE bare AS SELECT unnest($p) AS u",
        {"p": sorted(map(str, scenes.glob("*/B04.tif")))},
    )
    columns = 'ST_AsWKB(geometry), bbox, assets, "proj:epsg", crs, b1_metadata'
    found = rows(f"SELECT {columns} FROM {call}", {"p": pattern})
    assert found == rows(f"SELECT {columns} FROM rasteret_enrich('bare', href_column := 'u')")
    assert len(found) == 6
    ids = rows(f"SELECT id FROM {call} ORDER BY id", {"p": pattern})
    assert ids == sorted((f"{path.parent.name}/B04",) for path in scenes.glob("*/B04.tif"))
    rows(f"CREATE TABLE e AS FROM {call}", {"p": pattern})
    query = "SELECT id, count(b1) FROM rasteret_pixels('{}') GROUP BY id ORDER BY id"
    whole = rows(query.format("e"))
    assert rows(query.format(f"FROM rasteret_files(''{pattern}'')")) == whole
    assert len(whole) == 6


@pytest.mark.any_duckdb
def test_files_take_lists_folders_and_names_for_samples(rows, tmp_path):
    (tmp_path / "sub").mkdir()
    one, three = rgb(tmp_path / "one.tif", 1), rgb(tmp_path / "sub" / "three.tif")
    (tmp_path / "sub" / "note.txt").write_text("no raster")
    listed = rows("SELECT id FROM rasteret_files($p)", {"p": [three, one]})
    assert listed == [("three",), ("one",)]
    assert rows("SELECT id FROM rasteret_files($p)", {"p": str(tmp_path)}) == [
        ("one",),
        ("three",),
    ]
    deep = rows("SELECT id FROM rasteret_files($p)", {"p": f"{tmp_path}/**/t*.tif"})
    assert deep == [("three",)]
    call = "rasteret_files($p, bands := ['r', 'g', 'b'])"
    assert rows(f"SELECT assets.b.band_index FROM {call}", {"p": three}) == [(2,)]
    with pytest.raises(duckdb.Error, match=r"rasteret_files: pattern: expected at least one"):
        rows("FROM rasteret_files($p)", {"p": f"{tmp_path}/*.png"})


@pytest.mark.any_duckdb
def test_a_file_that_cannot_be_read_is_null_or_an_error(rows, tmp_path):
    rgb(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"<html>")
    given = {"p": f"{tmp_path}/*.tif"}
    found = rows(
        "SELECT id, b1_metadata IS NULL, b2_metadata IS NULL FROM rasteret_files($p)", given
    )
    assert found == [("a", False, False), ("b", True, True)]
    with pytest.raises(duckdb.Error, match=r"record b, band b1"):
        rows("FROM rasteret_files($p, on_error := 'error')", given)


@pytest.mark.any_duckdb
def test_a_bucket_is_listed(rows, tmp_path, monkeypatch):
    keys = ["a/x.tif", "a/b/y.tif", "a/b/z.png"]
    asked = []

    def listing(folder):
        asked.append(folder)
        return [Listed(f"s3://bucket/{key}", 1, "v") for key in keys]

    def hrefs_of(pattern):
        return [file.href for file in rasters.find_rasters(pattern)]

    monkeypatch.setattr(rasters, "list_files", listing)
    assert hrefs_of("s3://bucket/a/*.tif") == ["s3://bucket/a/x.tif"]
    assert hrefs_of("s3://bucket/a/**/*.tif") == [
        "s3://bucket/a/x.tif",
        "s3://bucket/a/b/y.tif",
    ]
    assert hrefs_of("s3://bucket/?/[!a-w].tif") == ["s3://bucket/a/x.tif"]
    assert hrefs_of("s3://bucket/a/") == [
        "s3://bucket/a/x.tif",
        "s3://bucket/a/b/y.tif",
    ]
    assert asked[0] == "s3://bucket/a/"
    assert asked[2] == "s3://bucket/"


@pytest.mark.any_duckdb
def test_a_web_address_is_one_file(rows, scenes, server):
    name = next(scenes.glob("*/B04.tif")).parent.name
    url = server.url("scenes", f"built/{name}/B04.tif")
    server.reset()
    assert rows("SELECT id, assets.b1.href FROM rasteret_files($p)", {"p": url}) == [("B04", url)]
    with pytest.raises(duckdb.Error, match=r"rasteret_files: .*web server lists none"):
        rows("FROM rasteret_files($p)", {"p": url.replace("B04", "*")})


@pytest.mark.any_duckdb
def test_outlines_hold_their_pixels(rows, scenes):
    path = str(next(scenes.glob("*/B04.tif")))
    rows("CREATE TABLE e AS FROM rasteret_files($p)", {"p": path})
    outline = shapely.from_wkb(bytes(rows("SELECT ST_AsWKB(geometry) FROM e")[0][0]))
    x, y = zip(*rows("SELECT x, y FROM rasteret_pixels('e')"), strict=True)
    crs = rows("SELECT crs FROM e")[0][0]
    lon, lat = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    assert shapely.contains_xy(outline, lon, lat).mean() > 0.9999
