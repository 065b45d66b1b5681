"""The SQL that the demo runs, and that the documents show.

The polygon is farmland on both sides of 78 E, where UTM zone 43 meets zone 44.
"""

from __future__ import annotations

BUILD = """\
-- Read the headers of all assets of a STAC search once; keep them as Parquet and a view.
SELECT name, records, bands, assets, failed, requests
FROM rasteret_build_stac('s2',
    stac_api := getvariable('items'),
    bands := ['B04', 'B08', 'SCL'])"""

BUILD_LIVE = """\
-- Read the headers of all assets of a STAC search once; keep them as Parquet and a view.
SELECT name, records, bands, assets, failed, requests
FROM rasteret_build_stac('s2',
    stac_api := 'https://earth-search.aws.element84.com/v1',
    collection := 'sentinel-2-l2a',
    bbox := [77.98, 13.00, 78.03, 13.04],
    date_range := ['2024-01-01', '2024-03-31'],
    band_map := {'B04': 'red', 'B08': 'nir'})"""

LIST = """\
-- Collections of the workspace.
SELECT name, kind, records, bands, start_datetime, end_datetime
FROM rasteret_collections()"""

DESCRIBE = """\
-- What a collection holds.
SELECT records, bands, epsg, bounds.xmin AS west, bounds.xmax AS east, null_metadata
FROM rasteret_describe('s2')"""

RECORDS = """\
-- It is a view: any DuckDB reads it, without rasteret_sql.
SELECT id, datetime, "eo:cloud_cover", "proj:epsg", B04_metadata.dtype AS dtype
FROM s2 ORDER BY datetime, id LIMIT 8"""

PLAN = """\
-- What a read would cost, before any request.
SELECT band, count(*) AS tiles, count(DISTINCT request) AS requests,
    sum(byte_count) AS bytes, sum(decoded_bytes) AS decoded_bytes
FROM rasteret_plan('SELECT * FROM s2 WHERE "eo:cloud_cover" < 20',
    bands := ['B04', 'B08'],
    geometry := 'POLYGON((77.984 13.004, 78.022 13.002, 78.016 13.034, 77.984 13.004))')
GROUP BY ALL ORDER BY ALL"""

NDVI = """\
-- A time series of NDVI over a polygon in two UTM zones, cloudy scenes left unread.
SELECT datetime, avg((B08::DOUBLE - B04) / (B08::DOUBLE + B04)) AS ndvi
FROM rasteret_pixels('s2',
    bands := ['B04', 'B08'],
    geometry := 'POLYGON((77.984 13.004, 78.022 13.002, 78.016 13.034, 77.984 13.004))')
WHERE "eo:cloud_cover" < 20
GROUP BY ALL ORDER BY 1"""

NDVI_CLEAR = """\
-- The same, without the pixels that the scene classification calls cloud or shadow.
SELECT datetime, avg(rasteret_ndvi(B04, B08)) AS ndvi, count(*) AS pixels
FROM rasteret_pixels('s2',
    bands := ['B04', 'B08', 'SCL'],
    geometry := 'POLYGON((77.984 13.004, 78.022 13.002, 78.016 13.034, 77.984 13.004))')
WHERE "eo:cloud_cover" < 20 AND rasteret_scl_clear(SCL)
GROUP BY ALL ORDER BY 1"""

TILES = """\
-- Decoded tiles as arrays, for NumPy and the like.
SELECT id, band, tile_row, tile_col, height, width, valid_count, octet_length(pixels) AS bytes
FROM rasteret_read_tiles('s2',
    bands := ['B08'],
    geometry := 'POLYGON((77.984 13.004, 78.022 13.002, 78.016 13.034, 77.984 13.004))')
WHERE "eo:cloud_cover" < 20 AND tile_row = 1
ORDER BY id, tile_col LIMIT 6"""

ERRORS = """\
-- Assets whose header could not be read.
FROM rasteret_errors('s2')"""

LOCAL = (BUILD, LIST, DESCRIBE, RECORDS, PLAN, NDVI, NDVI_CLEAR, TILES, ERRORS)
"""Over the scenes that the demo writes; the variable ``items`` is their ItemCollection."""

LIVE = (BUILD_LIVE, LIST, DESCRIBE, RECORDS, PLAN, NDVI, TILES, ERRORS)
"""Over Sentinel-2 at Earth Search. Its SCL has pixels of 20 m, so it is not read beside B04."""
