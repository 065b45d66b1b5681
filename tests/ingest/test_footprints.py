"""Footprints that records say and headers know better."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform_bounds

from rasteret_sql.ingest.raster_footprints import covers, widened
from rasteret_sql.units import BBox

SIDE = 64


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def write_tiff(path, epsg=32643, left=600000, top=1450000, pixel=100):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=SIDE,
        height=SIDE,
        count=1,
        dtype="uint8",
        crs=f"EPSG:{epsg}",
        transform=rasterio.Affine(pixel, 0, left, 0, -pixel, top),
    ) as out:
        out.write(np.ones((1, SIDE, SIDE), "uint8"))
        return str(path), BBox(*transform_bounds(out.crs, "OGC:CRS84", *out.bounds))


def items_of(tmp_path, *items):
    whole = [
        {"type": "Feature", "stac_version": "1.0.0", "links": [], "id": f"i{n}"}
        | {"geometry": None, "properties": {"datetime": "2024-05-01T00:00:00Z"}}
        | item
        for n, item in enumerate(items)
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": whole}))
    return str(path)


BUILD = "SELECT records FROM rasteret_build_stac('s', $p, force := true)"
BOXES = "SELECT bbox.xmin, bbox.ymin, bbox.xmax, bbox.ymax FROM s ORDER BY id"


@pytest.mark.any_duckdb
def test_a_box_that_does_not_cover_its_raster_is_widened_and_told(rows, tmp_path):
    path, own = write_tiff(tmp_path / "a.tif")
    half = [own.xmin, own.ymin, (own.xmin + own.xmax) / 2, own.ymax]
    near = [own.xmin + 1e-4, own.ymin + 1e-4, own.xmax, own.ymax]
    assets = {"B04": {"href": path, "eo:bands": [{}]}}
    items = items_of(
        tmp_path,
        {"bbox": half, "assets": assets},
        {"bbox": near, "assets": assets},
        {"bbox": [own.xmin - 1, own.ymin - 1, own.xmax + 1, own.ymax + 1], "assets": assets},
    )
    rows(BUILD, {"p": items})
    first, second, third = rows(BOXES)
    np.testing.assert_allclose(first, own, atol=1e-9)
    assert second == tuple(near)
    assert third[0] == own.xmin - 1
    told = rows("SELECT id, band FROM rasteret_errors('s') WHERE starts_with(error, 'bbox: ')")
    assert told == [("i0", "B04")]
    hidden = [half[2] + 1e-3, own.ymin, own.xmax, own.ymax]
    query = "SELECT count(*) FROM rasteret_pixels('s', bbox := $b) WHERE id = 'i0'"
    whole = rows("SELECT count(*) FROM rasteret_pixels('s') WHERE id = 'i0'")[0][0]
    found = rows(query, {"b": hidden})[0][0]
    assert whole * 0.4 < found < whole * 0.55


@pytest.mark.any_duckdb
def test_a_refresh_keeps_the_wider_box_and_writes_nothing(rows, tmp_path):
    path, own = write_tiff(tmp_path / "a.tif")
    half = [own.xmin, own.ymin, (own.xmin + own.xmax) / 2, own.ymax]
    item = {"bbox": half, "assets": {"B04": {"href": path, "eo:bands": [{}]}}}
    rows(BUILD, {"p": items_of(tmp_path, item)})
    before = rows(BOXES), rows("SELECT path FROM rasteret_collections()")
    refreshed = "SELECT assets FROM rasteret_refresh('s')"
    assert rows(refreshed) == [(0,)]
    assert (rows(BOXES), rows("SELECT path FROM rasteret_collections()")) == before
    item["properties"] = {"datetime": "2024-05-01T00:00:00Z", "n": 1}
    items_of(tmp_path, item)
    assert rows(refreshed) == [(0,)]
    assert rows("SELECT n FROM s") == [(1,)]
    assert rows(BOXES) == before[0]


@pytest.mark.any_duckdb
def test_a_raster_across_the_antimeridian_is_covered(rows, tmp_path):
    path, own = write_tiff(tmp_path / "a.tif", epsg=32701, left=166000, top=8000000, pixel=2000)
    assert own.xmin > own.xmax
    item = {"bbox": [179, -19, -179.9, -18], "assets": {"B04": {"href": path, "eo:bands": [{}]}}}
    rows(BUILD, {"p": items_of(tmp_path, item)})
    ((west, south, east, north),) = rows(BOXES)
    assert west > east
    assert covers(BBox(west, south, east, north), own)


longitude = st.integers(-180, 180)
box = st.builds(
    lambda west, east, south, height: BBox(west, south, east, south + height),
    longitude,
    longitude,
    st.integers(-90, 80),
    st.integers(0, 10),
)


def degrees_in(of):
    """Middles of the degrees of longitude between west and east."""
    stop = of.xmax if of.xmax >= of.xmin else of.xmax + 360
    return {(west + 0.5 + 180) % 360 for west in range(int(of.xmin), int(stop))}


@pytest.mark.any_duckdb
@given(box, box)
def test_a_widened_box_holds_both(one, other):
    both = widened(one, other)
    assert covers(both, one)
    assert covers(both, other)
    assert degrees_in(both) >= degrees_in(one) | degrees_in(other)
    assert (both.ymin, both.ymax) == (min(one.ymin, other.ymin), max(one.ymax, other.ymax))
    if covers(one, other):
        assert degrees_in(one) >= degrees_in(other)


@pytest.mark.any_duckdb
@pytest.mark.parametrize("epsg", [32614, 32701, 3031])
def test_outlines_are_where_geopandas_has_them(tmp_path, epsg):
    from rasteret_sql.ingest.raster_footprints import RasterGrid, lonlat_footprint
    from rasteret_sql.remote.headers import read_asset

    path, _ = write_tiff(tmp_path / "a.tif", epsg=epsg)
    grid = RasterGrid.of(read_asset(path).header)
    found = shapely.from_wkb(lonlat_footprint(grid))
    with rasterio.open(path) as known:
        outline = shapely.segmentize(shapely.box(*known.bounds), 100)
    crs = pyproj.CRS(epsg)
    expected = geopandas.GeoSeries([outline], crs=crs).to_crs("OGC:CRS84")[0]
    assert shapely.symmetric_difference(found, expected).area < 1e-3 * expected.area


def in_utm(shape, epsg):
    frame = geopandas.GeoSeries([shape], crs="OGC:CRS84")
    return frame.to_crs(epsg)[0]


@pytest.mark.any_duckdb
def test_footprints_in_metres_become_degrees(rows, tmp_path):
    """As the items of an s1-rtc collection have them: proj:epsg 32614, footprints in metres."""
    degrees = shapely.box(-99.5, 40, -99, 40.5)
    metres = in_utm(degrees, 32614)
    assets = {"vv": {"href": "s3://b/vv.tif"}}
    projected = {"geometry": shapely.geometry.mapping(metres), "bbox": list(metres.bounds)}
    with_epsg = {"datetime": "2024-05-01T00:00:00Z", "proj:epsg": 32614}
    items = items_of(
        tmp_path,
        projected | {"properties": with_epsg, "assets": assets},
        projected | {"assets": assets},
        {"bbox": list(degrees.bounds), "geometry": shapely.geometry.mapping(metres)}
        | {"properties": with_epsg, "assets": assets},
    )
    rows(BUILD.replace("force", "enrich := false, force"), {"p": items})
    stored = rows("SELECT ST_AsWKB(geometry), bbox FROM s ORDER BY id")
    for geometry, bbox in (stored[0], stored[2]):
        found = geopandas.GeoSeries.from_wkb([bytes(geometry)])[0]
        assert shapely.hausdorff_distance(found, degrees) < 0.01
        assert tuple(bbox.values()) == pytest.approx(degrees.bounds, abs=0.01)
    assert stored[1] == (None, None)
    told = rows("SELECT error FROM rasteret_errors('s') WHERE error LIKE 'item%'")
    assert sorted(text for (text,) in told) == [
        "item i0: bbox: is not in degrees; it is taken as EPSG:32614 and transformed",
        "item i0: geometry: is not in degrees; it is taken as EPSG:32614 and transformed",
        "item i1: bbox: is not in degrees; it is NULL",
        "item i1: geometry: is not in degrees; it is NULL",
        "item i2: geometry: is not in degrees; it is taken as EPSG:32614 and transformed",
    ]


@pytest.mark.any_duckdb
def test_footprints_of_a_stac_geoparquet_file_follow_its_geo_key(rows, tmp_path):
    degrees = shapely.box(15, 45, 15.5, 45.5)
    frame = geopandas.GeoDataFrame(
        {
            "id": ["a"],
            "assets": [{"B04": {"href": "s3://b/B04.tif", "type": "image/tiff"}}],
            "bbox": [dict(zip(BBox._fields, in_utm(degrees, 32633).bounds, strict=True))],
            "datetime": ["2024-05-01T00:00:00Z"],
        },
        geometry=[degrees],
        crs="OGC:CRS84",
    ).to_crs(32633)
    path = tmp_path / "items.parquet"
    frame.to_parquet(path)
    assert pq.read_metadata(path).metadata[b"geo"]
    rows(BUILD.replace("force", "enrich := false, force"), {"p": str(path)})
    ((geometry, bbox),) = rows("SELECT ST_AsWKB(geometry), bbox FROM s")
    found = geopandas.GeoSeries.from_wkb([bytes(geometry)])[0]
    known = geopandas.read_parquet(path).to_crs("OGC:CRS84").geometry[0]
    assert shapely.hausdorff_distance(found, known) < 0.01
    assert tuple(bbox.values()) == pytest.approx(degrees.bounds, abs=0.01)


@pytest.mark.any_duckdb
def test_a_box_that_does_not_cover_its_own_geometry_is_widened_and_told(rows, tmp_path):
    shape = shapely.geometry.mapping(shapely.box(10, 10, 12, 12))
    assets = {"B04": {"href": "s3://b/B04.tif"}}
    items = items_of(
        tmp_path,
        {"geometry": shape, "bbox": [10, 10, 11, 12], "assets": assets},
        {"geometry": shape, "bbox": [10.0005, 10, 12, 12], "assets": assets},
    )
    rows(BUILD.replace("force", "enrich := false, force"), {"p": items})
    assert rows(BOXES) == [(10, 10, 12, 12), (10.0005, 10, 12, 12)]
    told = rows("SELECT error FROM rasteret_errors('s') WHERE error LIKE '%bbox%'")
    assert told == [("item i0: bbox: does not cover the item's geometry; it is widened",)]


WKT2 = pyproj.CRS(32643).to_wkt()
SQUARE = shapely.box(500000, 1400000, 510000, 1410000)


@pytest.mark.parametrize("name", ["geometry", "geom"])
def test_the_crs_of_a_geometry_type_is_that_of_the_footprints(rows, tmp_path, name):
    """A name like EPSG:32643 needs the spatial extension; the definition does not."""
    path, own = write_tiff(tmp_path / "a.tif", left=500000, top=1410000)
    kind = "GEOMETRY('" + WKT2.replace("'", "''") + "')"
    rows(
        f"CREATE TABLE t AS SELECT 'a' AS id, $p AS url, '{SQUARE.wkt}'::{kind} AS {name}",
        {"p": path},
    )
    rows("FROM rasteret_build_table('s', 't', href_column := 'url')")
    expected = geopandas.GeoSeries([SQUARE], crs=32643).to_crs("OGC:CRS84")
    assert rows(BOXES)[0] == pytest.approx(tuple(expected.total_bounds), abs=1e-5)
    ((geometry,),) = rows("SELECT ST_AsWKB(geometry) FROM s")
    found = geopandas.GeoSeries.from_wkb([bytes(geometry)])
    assert shapely.hausdorff_distance(found[0], expected[0]) < 1e-4
    call = "rasteret_enrich('t', href_column := 'url', bands := ['b'])"
    ((box,),) = rows(f"SELECT bbox FROM {call}")
    assert covers(BBox(**box), own)
    assert box["ymax"] < 13


def test_a_private_table_takes_the_crs_of_its_footprints_as_an_argument(rows):
    kind = "GEOMETRY('" + WKT2.replace("'", "''") + "')"
    rows(
        "CREATE TEMP TABLE private AS SELECT 'a' AS id, 's3://b/a.tif' AS url, "
        f"'{SQUARE.wkt}'::{kind} AS geometry"
    )
    rows("FROM rasteret_build_table('s', 'private', href_column := 'url', geometry_crs := 32643)")
    expected = geopandas.GeoSeries([SQUARE], crs=32643).to_crs("OGC:CRS84")
    assert rows(BOXES)[0] == pytest.approx(tuple(expected.total_bounds), abs=1e-5)
