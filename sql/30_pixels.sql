-- Pixels: plan, tiles, rows. Each macro calls the Python function of its name.
-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.

CREATE OR REPLACE MACRO rasteret_plan(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, on_error := 'error', max_bytes := NULL, max_concurrent := 64,
    level := 0
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_plan',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids, on_error: on_error,
         max_bytes: max_bytes, max_concurrent: max_concurrent, level: level}
    ));

COMMENT ON MACRO TABLE rasteret_plan IS $doc$
The tiles that rasteret_pixels would fetch, of uncompressed ones the rows under the area; no request is made.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path
bands           VARCHAR[]  bands to read, in this order; default: all
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
on_error        VARCHAR    'error', 'null' (one row without a place for a band whose tiles are not known) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    as of the read that is planned; a plan makes no request
level           INTEGER    0 is full resolution, 1 the largest overview, …
returns         the record's columns, band, level, tile_row, tile_col, href, byte_offset, byte_count, decoded_bytes, request (number of the merged request)
raises          collection, bands, level: unknown; bbox, geometry: malformed; a band without header, a raster without CRS, unless on_error
example         SELECT count(*), sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'], bbox := [77.984, 13.004, 77.99, 13.01])
$doc$;

CREATE OR REPLACE MACRO rasteret_read_tiles(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, on_error := 'error', max_bytes := NULL, max_concurrent := 64,
    level := 0, masked := true
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_read_tiles',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids, on_error: on_error,
         max_bytes: max_bytes, max_concurrent: max_concurrent, level: level, masked: masked}
    ));

COMMENT ON MACRO TABLE rasteret_read_tiles IS $doc$
Decoded tiles: one row per record, band and tile under the area.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path
bands           VARCHAR[]  bands to read, in this order; default: all
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
on_error        VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    requests under way at once
level           INTEGER    0 is full resolution, 1 the largest overview, …
masked          BOOLEAN    write nodata where a mask hides pixels; false: the file's own values
returns         the record's columns, band, level, tile_row, tile_col, row_off, col_off, height, width, xmin, ymin, xmax, ymax (CRS of the raster), transform, dtype, nodata, valid_count, pixels BLOB (row-major, little-endian)
raises          collection, bands, level: unknown; a tile that can't be read, unless on_error
example         SELECT id, band, tile_row, tile_col, octet_length(pixels) FROM rasteret_read_tiles('s2', bands := ['B04']) LIMIT 4
$doc$;

CREATE OR REPLACE MACRO rasteret_pixels(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, on_error := 'error', max_bytes := NULL, max_concurrent := 64,
    all_touched := false, masked := true, scaled := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_pixels',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids, on_error: on_error,
         max_bytes: max_bytes, max_concurrent: max_concurrent, all_touched: all_touched,
         masked: masked, scaled: scaled}
    ));

COMMENT ON MACRO TABLE rasteret_pixels IS $doc$
Pixels as rows: plain SQL does band math, time series, GROUP BY and joins.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path
bands           VARCHAR[]  bands to read, in this order; default: all
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
on_error        VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    requests under way at once
all_touched     BOOLEAN    pixels that the area touches, not only those whose centre it holds
masked          BOOLEAN    nodata and masked pixels are NULL; false: the file's own values
scaled          BOOLEAN    apply the file's scale and offset; bands become DOUBLE
returns         the record's columns, x, y (pixel centre, CRS units), row, col, one column per band in its own type (of files of several types: the smallest that holds all values exactly); NULL = no data. Pixels outside the area are not returned
raises          collection, bands: unknown; bands of unlike grid; files of one band that no column holds exactly together, as int64 and uint64; a tile that can't be read, unless on_error
example         SELECT datetime, avg(rasteret_ndvi(B04, B08)) AS ndvi FROM rasteret_pixels('s2', bands := ['B04', 'B08'], bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY 1
$doc$;
