"""Every item file of the shared data is ingested, or refused for the reason written here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import shapely

from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.ingest.stac.items import records_from_items
from rasteret_sql.ingest.stac.search import StacSource, read_items
from rasteret_sql.schema import BBOX, DATETIME, GEOMETRY, ID, assets_type

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
STAC = DATA / "stac"
SUFFIXES = {".json", ".ndjson", ".geojson", ".parquet"}
FILES = sorted(p.relative_to(STAC).as_posix() for p in STAC.rglob("*") if p.suffix in SUFFIXES)

_STACTA = "paired/gdal-stacta/autotest/gdrivers/data/stacta"
_TRAILING_COMMA = "Expecting property name enclosed in double quotes"
REFUSED = {
    "gdal/stacit/overlapping_sources.json": _TRAILING_COMMA,
    "gdal/stacit/overlapping_sources_with_nodata.json": _TRAILING_COMMA,
    "gdal/stacit/test_multiple_assets.json": _TRAILING_COMMA,
    **{
        f"{_STACTA}/{name}.json": "tiled asset templates"
        for name in (
            "test",
            "test_east_hemisphere",
            "test_multiple_asset_templates",
            "test_multiple_tms",
            "test_stac_1_1",
            "test_with_raster_extension",
            "test_with_raster_extension_no_eo_bands",
        )
    },
    "pgstac/collections.ndjson": "a Collection instead of an item",
    "pgstac/planetary-computer/collections.ndjson": "a Collection instead of an item",
    "rustac/core/data/invalid-item.json": "an empty id",
    "rustac/io/mocks/collections-page-1.json": "a list of collections",
    "rustac/io/mocks/collections-page-2.json": "a list of collections",
    "stac-extensions/classification/collection-item-assets.json": "No such file",
}
S2_100 = "stac-fastapi-elasticsearch-opensearch/sample_data/sentinel-s2-l2a-cogs_0_100.json"
_NO_NETWORK = "no network in tests"
REMOTE = {
    "odc-stac/sentinel-2-l2a.collection.json",
    (
        "paired/openeo-global-mosaics/tests/data/stac/issue_copernicus_global_mosaics/"
        "stac.dataspace.copernicus.eu/v1/collections/sentinel-2-global-mosaics.json"
    ),
    (
        "paired/openeo-global-mosaics/tests/data/stac/issue_copernicus_global_mosaics/"
        "stac.dataspace.copernicus.eu/v1/index.json"
    ),
    "pystac-client/astraea_api.json",
    "pystac-client/planetary-computer-aster-l1t-collection.json",
    "pystac-client/planetary-computer-collection.json",
    "pystac-client/planetary-computer-root.json",
    "stac-fastapi-elasticsearch-opensearch/sample_data/collection.json",
    "stac-geoparquet/3dep-lidar-copc-pc-collection.json",
}
"""Landing pages and collections of APIs, whose links leave this machine."""
WITHOUT_RASTERS = {
    "pystac/test-case-1/country-1/area-1-1/area-1-1-labels/area-1-1-labels.json",
    "pystac/test-case-1/country-1/area-1-2/area-1-2-labels/area-1-2-labels.json",
    "pystac/test-case-1/country-2/area-2-1/area-2-1-labels/area-2-1-labels.json",
    "pystac/test-case-1/country-2/area-2-2/area-2-2-labels/area-2-2-labels.json",
    "rio-tiler/stac_grib.json",
    (
        "sentinel2/sentinel2-l1c-example/S2A_T01LAC_20200717T221944_L1C/"
        "S2A_T01LAC_20200717T221944_L1C.json"
    ),
    "sentinel2/sentinel2-l1c-example/collection.json",
    "stac-geoparquet/3dep-lidar-copc-pc.json",
}
"""Labels, GRIB, JPEG 2000 and point clouds: the hrefs of all assets are kept."""
EMPTY = {
    "paired/nrcan-landcover/examples/collection.json",
    "paired/world-jpeg/benchmark/stac/collection.json",
    "pystac/cbers-partial/CBERS4AWFI/collection.json",
    "pystac/cbers-partial/CBERS4MUX/collection.json",
    "pystac/cbers-partial/CBERS4PAN10M/collection.json",
    "pystac/cbers-partial/CBERS4PAN5M/collection.json",
    "pystac/cbers-partial/catalog.json",
    "stac-extensions/item-assets/example-landsat8.json",
    "stac-spec/collection-only/collection-with-schemas.json",
    "stac-spec/collection-only/collection.json",
}
"""Catalogs and collections without a link to an item."""

pytestmark = [
    pytest.mark.any_duckdb,
    pytest.mark.skipif(not FILES, reason="the shared data is not here"),
]


@pytest.fixture
def con(cursor):
    """A cursor on an empty workspace."""
    return cursor


def no_network(url: str) -> bytes:
    raise CollectionError(_NO_NETWORK)


def ingest(path: str | Path, **conditions):
    warnings: list[str] = []
    source = StacSource(str(path), **conditions)
    records = records_from_items(
        read_items(source, fetch_text=no_network, warnings=warnings), warnings=warnings
    )
    table = pa.Table.from_batches(records.batches(), records.schema)
    table.validate(full=True)
    return records, table


def reason(name: str) -> str | None:
    return _NO_NETWORK if name in REMOTE else REFUSED.get(name)


@pytest.mark.parametrize("name", [name for name in FILES if reason(name) is None])
def test_a_file_of_items_is_ingested(name):
    records, table = ingest(STAC / name)
    assert (table.num_rows == 0) == (name in EMPTY)
    bands = [field.name for field in records.schema.field("assets").type]
    assert (not bands) == (name in EMPTY)
    canonical = ["id", "datetime", "geometry", "bbox", "assets", "collection", "proj:epsg", "crs"]
    assert records.schema.names[:8] == canonical
    assert records.schema.field("id") == ID
    assert records.schema.field("datetime") == DATETIME
    assert records.schema.field("geometry") == GEOMETRY
    assert records.schema.field("bbox").type == BBOX
    assert records.schema.field("assets").type == assets_type(bands)
    hrefs = [
        asset["href"] for row in table["assets"].to_pylist() for asset in row.values() if asset
    ]
    assert all("sig=" not in href and "X-Amz" not in href for href in hrefs)
    if bands:
        assert hrefs
    is_told = not records.has_rasters
    assert is_told == (name in WITHOUT_RASTERS)


@pytest.mark.parametrize("name", [name for name in FILES if reason(name) is not None])
def test_a_file_that_is_refused_says_why(name):
    with pytest.raises((CollectionError, InputError)) as caught:
        ingest(STAC / name)
    assert reason(name) in caught.value.message
    if name in REFUSED and "No such file" not in REFUSED[name]:
        assert Path(name).name in caught.value.message


def plain_items(name):
    document = json.loads((STAC / name).read_text())
    if isinstance(document, list):
        return document
    return document["features"] if document["type"] == "FeatureCollection" else [document]


ITEM_FILES = [
    "landsat/landsat-c2-l2/LC09_L2SP_010065_20220129_02_T1/LC09_L2SP_010065_20220129_02_T1.json",
    "odc-stac/site1-20200606-tall-strip-africa.geojson",
    "pystac-client/sample-item-collection.json",
    "rustac/core/data/item-collection.json",
    "stac-geoparquet/landsat-c2-l2-pc.json",
    "stac-geoparquet/naip-pc.json",
    "stac-geoparquet/sentinel-2-l2a-pc.json",
    S2_100,
]


@pytest.mark.parametrize("name", ITEM_FILES)
def test_every_property_of_every_item_is_in_its_column(name):
    items = plain_items(name)
    _, table = ingest(STAC / name)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [item["id"] for item in items]
    for row, item in zip(rows, items, strict=True):
        for key, value in item["properties"].items():
            if key in {"datetime", "proj:epsg"} or value is None:
                continue
            assert key in row, key
            if key in {"created", "updated", "start_datetime", "end_datetime"}:
                assert row[key].isoformat()[:19] == value[:19]
            elif isinstance(row[key], str) and not isinstance(value, str):
                assert json.loads(row[key]) == value
            else:
                assert contains(row[key], value)
        assert row["proj:epsg"] == item["properties"].get("proj:epsg", row["proj:epsg"])
        shape = shapely.from_wkb(row["geometry"])
        assert shapely.equals(shape, shapely.from_geojson(json.dumps(item["geometry"])))


def contains(stored, value):
    """Whether a stored value is the given one, NULL members aside."""
    if isinstance(value, dict):
        return all(contains(stored[key], inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(contains, stored, value)) and len(stored) == len(value)
    return stored == value


def test_hrefs_lead_to_the_local_files_that_upstream_meant():
    pairs = json.loads((DATA / "pairs.json").read_text())
    relative = [pair for pair in pairs if pair["match"] == "relative href resolves"]
    assert len(relative) >= 10
    found = Counter()
    for pair in relative:
        _, table = ingest(DATA / pair["item_file"])
        row = next(row for row in table.to_pylist() if row["id"] == pair["item_id"])
        hrefs = {Path(asset["href"]).resolve() for asset in row["assets"].values() if asset}
        found[(DATA / pair["local"]).resolve() in hrefs] += 1
    assert found == {True: len(relative)}


@pytest.mark.parametrize(
    ("name", "n_rows", "bands"),
    [
        ("stac-geoparquet/naip.parquet", 5, ["Red", "Green", "Blue", "NIR"]),
        ("rustac/core/data/extended-item.parquet", 1, None),
        ("rustac/duckdb/data/100-sentinel-2-items.parquet", 100, None),
    ],
)
def test_stac_geoparquet_gives_the_items_back(name, n_rows, bands):
    records, table = ingest(STAC / name)
    assert table.num_rows == n_rows
    assert table["datetime"].null_count == table["geometry"].null_count == 0
    assert table["bbox"].null_count == 0
    if bands:
        assert [field.name for field in records.schema.field("assets").type] == bands
    first = table.slice(0, 1).to_pylist()[0]
    bounds = shapely.from_wkb(first["geometry"]).bounds
    assert list(first["bbox"].values()) == pytest.approx(bounds, abs=1e-6)


def test_duplicate_ids_are_named():
    records, table = ingest(STAC / "pgstac/items_duplicate_ids.ndjson")
    assert table.num_rows == 2
    assert records.warnings == ["id: pgstac-test-item-duplicated: more than one item has this id"]


@pytest.mark.parametrize(
    ("conditions", "n_found"),
    [
        ({}, 100),
        ({"collection": "sentinel-s2-l2a-cogs"}, 100),
        ({"collection": "other"}, 0),
        ({"max_items": 5}, 5),
    ],
)
def test_conditions_select_items_of_a_file(conditions, n_found):
    _, table = ingest(STAC / S2_100, **conditions)
    assert table.num_rows == n_found


def test_ids_and_queries_select_what_a_plain_loop_does():
    items = plain_items(S2_100)
    wanted = [items[3]["id"], items[70]["id"], "none"]
    _, table = ingest(STAC / S2_100, ids=wanted)
    assert table["id"].to_pylist() == wanted[:2]
    _, table = ingest(STAC / S2_100, query={"eo:cloud_cover": {"lte": 10, "gt": 0}})
    clear = [item["id"] for item in items if 0 < item["properties"]["eo:cloud_cover"] <= 10]
    assert table["id"].to_pylist() == clear
    assert 0 < len(clear) < 100
