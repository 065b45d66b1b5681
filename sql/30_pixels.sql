-- Pixels: plan, tiles, rows. Each macro calls the Python function of its name.
-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.

CREATE OR REPLACE MACRO rasteret_chips(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, aois := NULL, geometry_column := NULL, level := 0, scaled := false,
    size := 256, stride := NULL, min_valid := 0, valid := false, stack := NULL, resolution := NULL,
    crs := NULL, resampling := 'nearest', overview := 'auto'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_chips',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, aois: aois, geometry_column: geometry_column, level: level,
         scaled: scaled, size: size, stride: stride, min_valid: min_valid, valid: valid,
         stack: stack, resolution: resolution, crs: crs, resampling: resampling, overview: overview}
    ));

COMMENT ON MACRO TABLE rasteret_chips IS $doc$
Chips for training: squares of pixels on a lattice over each raster.

The lattice begins in the upper left corner of each raster, whatever the area, so that
a chip has the same chip_id in every call of one size, stride and level. Chips that
would leave the raster are left out. With resolution or crs the lattice begins in the
origin of the CRS, so chips of all records fall together.
Stacks are on one grid, as composites are: the CRS of most records and the finest
resolution, unless crs and resolution say otherwise. Pixels that a record does not cover
hold no data. With min_valid a record of less is left out of a stack.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands            VARCHAR[]  bands to read, in this order; default: all
bbox             DOUBLE[]   [west, south, east, north]: chips that it meets, whole; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY: chips that it meets, whole
geometry_crs     any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    requests under way at once; default: 64, more where answers take long
aois             VARCHAR    relation of areas, instead of bbox and geometry: a row per record and area, with the area's columns. Table, view, TEMP table, registered frame, SELECT text or Parquet path
geometry_column  VARCHAR    column of aois that holds the areas; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution, 1 the largest overview, …
scaled           BOOLEAN    apply the file's scale and offset; values become DOUBLE
size             INTEGER    rows and columns of a chip
stride           INTEGER    pixels from one chip to the next; default: size, so that chips don't overlap
min_valid        DOUBLE     leave out chips where a smaller share of the pixels, 0 to 1, holds data in all bands
valid            BOOLEAN    add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, width), of stacks (bands, records, height, width)
stack            VARCHAR    'time': one row per chip of one grid over all records, with all records of it in order of time; default: one row per chip of each record
resolution       DOUBLE[]   size of a pixel in units of the CRS, a number or [width, height]; pixel edges are its multiples, so pixels of all records fall together. Default: the raster's own grid
crs              any        CRS of the pixels: 'EPSG:n', n, WKT2 or PROJJSON; default: that of each raster
resampling       VARCHAR    'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes and flags do not bear
overview         any        'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are computed from
returns          the record's columns, the area's columns, chip_id (record_row_col), record_id, row_off, col_off, height, width, transform, crs, geometry (outline, GEOMETRY in longitude and latitude), dtypes VARCHAR[], nodata DOUBLE[] (of scaled values NaN), one BLOB per band (row-major, little-endian). A column of the record of such a name is called record_…. A stack has the area's columns, chip_id (row_col), record_ids VARCHAR[] and datetimes TIMESTAMP[] in place of those of the record, and BLOBs of records x height x width values
raises           collection, bands, level: unknown; stride: more than 1048576 chips of a record; bands of unlike grid; a tile that can't be read, unless on_error; a stack of more than 1 GiB
example          SELECT chip_id, row_off, col_off, octet_length(B04) FROM rasteret_chips('s2', bands := ['B04'], size := 128, bbox := [77.984, 13.004, 77.99, 13.01])
$doc$;

CREATE OR REPLACE MACRO rasteret_composite(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, on_error := 'error', max_bytes := NULL, max_concurrent := NULL,
    method := 'median', period := NULL, mask_band := NULL, mask_values := NULL, resolution := NULL,
    crs := NULL, resampling := 'nearest', overview := 'auto', valid := false, format := 'blob'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_composite',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids, on_error: on_error,
         max_bytes: max_bytes, max_concurrent: max_concurrent, method: method, period: period,
         mask_band: mask_band, mask_values: mask_values, resolution: resolution, crs: crs,
         resampling: resampling, overview: overview, valid: valid, format: format}
    ));

COMMENT ON MACRO TABLE rasteret_composite IS $doc$
Composites: one value per pixel, band and period of many scenes, on one grid over all CRSs.

A row is a block of at most 1024 x 1024 pixels, so memory is bounded by a block of all
records of a period. Blocks of all periods fall together: row_off and col_off count
pixels from the upper left corner of what all records cover.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands           VARCHAR[]  bands to read, in this order; default: all
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
on_error        VARCHAR    'error', 'null' (a record that can't be read is left out) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    requests under way at once; default: 64, more where answers take long
method          VARCHAR    'median', 'mean', 'min', 'max', 'first', 'last' (by datetime) or 'count'
period          VARCHAR    days, weeks, months, quarters or years, as '1 month' or '2 weeks', which begin as those of time_bucket; default: one composite of all records
mask_band       VARCHAR    band that tells where a record is not to be used: where it holds one of mask_values or no data
mask_values     DOUBLE[]   values of mask_band, as clouds
resolution      DOUBLE[]   size of a pixel in units of the CRS, a number or [width, height]; default: the finest of the rasters
crs             any        CRS of the composite: 'EPSG:n', n, WKT2 or PROJJSON; default: that of most records
resampling      VARCHAR    'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes and flags do not bear
overview        any        'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are computed from
valid           BOOLEAN    add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, width)
format          VARCHAR    'blob' (values one after another) or 'list' (LIST with NULL for no data)
returns         period TIMESTAMP (its start; NULL without periods), row_off, col_off, height, width, transform (a, b, c, d, e, f of the block), crs, dtypes VARCHAR[], n_records (that cover a part of it), one BLOB per band (row-major, little-endian; of median and mean float64, of count int32, else of the type of the band; no data is NaN, of integers 0: see valid)
raises          collection, bands, mask_band: unknown; a raster without CRS; a tile that can't be read, unless on_error; bands of complex numbers
example         SELECT period, height, width, octet_length(B04) FROM rasteret_composite('s2', bands := ['B04'], method := 'max', period := '1 month', bbox := [77.984, 13.004, 77.99, 13.01])
$doc$;

CREATE OR REPLACE MACRO rasteret_cache_stats(
    clear := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_cache_stats',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {clear: clear}
    ));

COMMENT ON MACRO TABLE rasteret_cache_stats IS $doc$
The cache of decoded tiles, which all connections of the process share.

clear    BOOLEAN  let go of all tiles, after counting
returns  one row: capacity_bytes, used_bytes, tiles (in it), hits, misses, evictions (since the process began). Only tiles of files of a known version (ETag or size) are kept; reads under way take from the same memory
example  SELECT used_bytes, hits FROM rasteret_cache_stats()
$doc$;

CREATE OR REPLACE MACRO rasteret_read_stats(
    last := 100
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_read_stats',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {last: last}
    ));

COMMENT ON MACRO TABLE rasteret_read_stats IS $doc$
What the last reads of this database instance did, the newest first.

last     INTEGER  how many reads, at most
returns  function, connection (its number), started TIMESTAMP (UTC), seconds, requests, fetched_bytes, tiles_decoded, cache_hits (tiles that were in memory, or that another read was decoding), tiles_failed (not fetched or not decoded: on_error := 'null' or 'report')
example  SELECT function, requests, fetched_bytes FROM rasteret_read_stats() LIMIT 1
$doc$;

CREATE OR REPLACE MACRO rasteret_histogram(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, aois := NULL, geometry_column := NULL, level := 0, all_touched := false,
    scaled := false, bins := 256, value_range := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_histogram',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, aois: aois, geometry_column: geometry_column, level: level,
         all_touched: all_touched, scaled: scaled, bins: bins, value_range: value_range}
    ));

COMMENT ON MACRO TABLE rasteret_histogram IS $doc$
Histograms: one row per record, area, band and bin.

Bins are NumPy's: each holds its lower edge, the last one its upper edge too. With
value_range they are the same for all records, so that GROUP BY band, bin adds them up.
Without it, values too near each other for edges of type DOUBLE (integers beyond 2^53)
get bins as narrow as DOUBLE allows around them.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands            VARCHAR[]  bands to read, in this order; default: all
bbox             DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs     any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    requests under way at once; default: 64, more where answers take long
aois             VARCHAR    relation of areas, instead of bbox and geometry: a row per record and area, with the area's columns. Table, view, TEMP table, registered frame, SELECT text or Parquet path
geometry_column  VARCHAR    column of aois that holds the areas; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution; an overview counts fewer pixels, and is faster
all_touched      BOOLEAN    pixels that the area touches, not only those whose centre it holds
scaled           BOOLEAN    count values with the file's scale and offset applied
bins             INTEGER    bins of equal width, 65536 at most
value_range      DOUBLE[]   [low, high] of all bins; values outside are not counted. Default: the least and greatest value of each record, area and band
returns          the record's columns, the area's columns, band, bin (from 0), low, high, count. No data is not counted; without any value count is 0 and, without value_range, low and high are NULL
raises           collection, bands, level: unknown; a band of complex numbers; a tile that can't be read, unless on_error; a window of more than 1 GiB
example          SELECT bin, low, high, sum(count) AS pixels FROM rasteret_histogram('s2', bands := ['B04'], bins := 16, value_range := [0, 4096], bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY bin
$doc$;

CREATE OR REPLACE MACRO rasteret_sample_points(
    collection, points, x_column := NULL, y_column := NULL, geometry_column := NULL,
    geometry_crs := NULL, match := 'all', max_dt := NULL, time_column := NULL,
    max_distance_pixels := 0, return_neighbourhood := 'off', mask_band := NULL, mask_values := NULL,
    bands := NULL, date_range := NULL, ids := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, record_columns := NULL, level := 0, masked := true, scaled := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_sample_points',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, points: points, x_column: x_column, y_column: y_column,
         geometry_column: geometry_column, geometry_crs: geometry_crs, match: match, max_dt: max_dt,
         time_column: time_column, max_distance_pixels: max_distance_pixels,
         return_neighbourhood: return_neighbourhood, mask_band: mask_band, mask_values: mask_values,
         bands: bands, date_range: date_range, ids: ids, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, record_columns: record_columns, level: level,
         masked: masked, scaled: scaled}
    ));

COMMENT ON MACRO TABLE rasteret_sample_points IS $doc$
Values at points: one row per point and record that holds it, or per point the record that matches its time.

collection            VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
points                VARCHAR    relation of points. Table, view, TEMP table, registered frame, SELECT text or Parquet path
x_column              VARCHAR    column of x or longitude; with y_column
y_column              VARCHAR    column of y or latitude
geometry_column       VARCHAR    column of points; default: the one of type GEOMETRY, else x and y, lon and lat, longitude and latitude, lng and lat, else geometry, geom or wkb_geometry
geometry_crs          any        CRS of the points: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
match                 VARCHAR    'all' (a row per point and record), 'latest' (the newest record at or before the point's time) or 'nearest' (in time)
max_dt                INTERVAL   'latest' and 'nearest': the record's time is no further away; a month is 30 days
time_column           VARCHAR    column with the point's time: TIMESTAMPTZ, or TIMESTAMP or DATE in UTC
max_distance_pixels   INTEGER    where the pixel holds no data, the nearest one that does, so many pixels around at most (64 is the limit)
return_neighbourhood  VARCHAR    'always' or 'if_center_nodata': add a list of the pixels around per band, row by row, NULL outside and where there is no data; 'off'
mask_band             VARCHAR    band that tells where a record is not to be used: where it holds one of mask_values or no data
mask_values           DOUBLE[]   values of mask_band, as clouds
bands                 VARCHAR[]  bands to read, in this order; default: all
date_range            VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids                   VARCHAR[]  record ids
on_error              VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes             BIGINT     refuse a read that would fetch more
max_concurrent        INTEGER    requests under way at once; default: 64, more where answers take long
record_columns        VARCHAR[]  columns of the record to return besides record_id and datetime, or 'all'
level                 INTEGER    0 is full resolution, 1 the largest overview, …
masked                BOOLEAN    no data is NULL; false: the file's own values
scaled                BOOLEAN    apply the file's scale and offset; bands become DOUBLE
returns               the point's columns, point_x, point_y, point_crs, record_id, datetime, raster_crs, row, col (of the first band's pixel that holds the point), distance_px (from the point to the pixel that the value comes from, 0 inside it; of several bands the largest), one column per band in its own type, {band}_neighbourhood. NULL = no data. A point outside a raster, or without a record that matches, gives no row
raises                collection, points, bands, mask_band, a column: unknown; a tile that can't be read, unless on_error
example               SELECT name, record_id, B04 FROM rasteret_sample_points('s2', 'SELECT ''well'' AS name, 77.99 AS lon, 13.01 AS lat', bands := ['B04'])
$doc$;

CREATE OR REPLACE MACRO rasteret_preview(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, width := 512, rescale := NULL, colormap := 'grey'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_preview',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, width: width, rescale: rescale, colormap: colormap}
    ));

COMMENT ON MACRO TABLE rasteret_preview IS $doc$
Pictures: one PNG per record, from the smallest overview that is wide enough.

Pixels without data and outside the area are transparent. A pixel of the picture is the
mean of the valid pixels that it covers; of classes (a MAP, 'scl', a palette) the one in
its middle.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands           VARCHAR[]  [red, green, blue], or one band; default: the collection's, if it has one or three
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
record_columns  VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error        VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    requests under way at once; default: 64, more where answers take long
width           INTEGER    columns of a picture, in pixels; fewer where the area has fewer
rescale         DOUBLE[]   [low, high]: values that become black and white; default: 2nd and 98th percentile of each band of the picture
colormap        any        of one band: 'grey', 'viridis', 'magma', 'rdylgn', 'scl' (classes of Sentinel-2), or MAP {value: '#rrggbb'}, where other values are transparent
returns         the record's columns, height, width (of the picture), transform (of its pixels), level (0: full resolution), png BLOB
raises          collection, bands: unknown, neither one nor three; bands of unlike grid; a tile that can't be read, unless on_error
example         SELECT id, width, height, octet_length(png) FROM rasteret_preview('s2', bands := ['B08', 'B04', 'B04'], width := 128)
$doc$;

CREATE OR REPLACE MACRO rasteret_plan(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, aois := NULL, geometry_column := NULL, level := 0, masked := true,
    resolution := NULL, crs := NULL, resampling := 'nearest', overview := 'auto',
    reads := 'windows', method := NULL, period := NULL, mask_band := NULL, size := NULL,
    stride := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_plan',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, aois: aois, geometry_column: geometry_column, level: level,
         masked: masked, resolution: resolution, crs: crs, resampling: resampling,
         overview: overview, reads: reads, method: method, period: period, mask_band: mask_band,
         size: size, stride: stride}
    ));

COMMENT ON MACRO TABLE rasteret_plan IS $doc$
The tiles that a read would fetch, of uncompressed ones the rows under the area; no request is made.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands            VARCHAR[]  bands to read, in this order; default: all
bbox             DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs     any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (a row with NULL tile_row and tile_col for a band whose tiles are not known) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    as of the read that is planned; a plan makes no request
aois             VARCHAR    relation of areas, instead of bbox and geometry; a tile that several need is one row
geometry_column  VARCHAR    column of aois that holds the areas; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution, 1 the largest overview, …
masked           BOOLEAN    plan the tiles of transparency masks too
resolution       DOUBLE[]   size of a pixel in units of the CRS, a number or [width, height]; pixel edges are its multiples, so pixels of all records fall together. Default: the raster's own grid
crs              any        CRS of the pixels: 'EPSG:n', n, WKT2 or PROJJSON; default: that of each raster
resampling       VARCHAR    'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes and flags do not bear
overview         any        'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are computed from
reads            VARCHAR    what is planned: 'windows' (rasteret_read, rasteret_pixels, and with zones as aois rasteret_zonal_stats), 'composite' (rasteret_composite), 'chips' or 'stacks' (rasteret_chips, without and with stack)
method           VARCHAR    as of the composite; default: 'median'
period           VARCHAR    as of the composite
mask_band        VARCHAR    as of the composite
size             INTEGER    as of the chips; default: 256
stride           INTEGER    as of the chips
returns          the record's columns, band, level, tile_row, tile_col, href, byte_offset, byte_count (of a deflated tile whose first rows are needed, the bytes that hold them by estimate), decoded_bytes, request (number of the merged request), role ('data' or 'mask')
raises           collection, bands, level: unknown; bbox, geometry: malformed; a band without header, a raster without CRS, unless on_error
example          SELECT count(*), sum(byte_count) FROM rasteret_plan('s2', bands := ['B04'], bbox := [77.984, 13.004, 77.99, 13.01])
$doc$;

CREATE OR REPLACE MACRO rasteret_read_tiles(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, level := 0, masked := true
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_read_tiles',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, level: level, masked: masked}
    ));

COMMENT ON MACRO TABLE rasteret_read_tiles IS $doc$
Decoded tiles: one row per record, band and tile under the area.

collection      VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands           VARCHAR[]  bands to read, in this order; default: all
bbox            DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry        any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs    any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range      VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids             VARCHAR[]  record ids
record_columns  VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error        VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes       BIGINT     refuse a read that would fetch more
max_concurrent  INTEGER    requests under way at once; default: 64, more where answers take long
level           INTEGER    0 is full resolution, 1 the largest overview, …
masked          BOOLEAN    write nodata where a mask hides pixels; false: the file's own values
returns         the record's columns, band, level, tile_row, tile_col, row_off, col_off, height, width, xmin, ymin, xmax, ymax (CRS of the raster), transform, dtype, nodata, valid_count, pixels BLOB (row-major, little-endian)
raises          collection, bands, level: unknown; a tile that can't be read, unless on_error
example         SELECT id, band, tile_row, tile_col, octet_length(pixels) FROM rasteret_read_tiles('s2', bands := ['B04']) LIMIT 4
$doc$;

CREATE OR REPLACE MACRO rasteret_read(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, aois := NULL, geometry_column := NULL, level := 0, all_touched := false,
    masked := true, scaled := false, crop := true, valid := false, format := 'blob',
    align := 'grid', resolution := NULL, crs := NULL, resampling := 'nearest', overview := 'auto'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_read',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, aois: aois, geometry_column: geometry_column, level: level,
         all_touched: all_touched, masked: masked, scaled: scaled, crop: crop, valid: valid,
         format: format, align: align, resolution: resolution, crs: crs, resampling: resampling,
         overview: overview}
    ));

COMMENT ON MACRO TABLE rasteret_read IS $doc$
Windows: one row per record and area, with an array of each band.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands            VARCHAR[]  bands to read, in this order; default: all
bbox             DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs     any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    requests under way at once; default: 64, more where answers take long
aois             VARCHAR    relation of areas, instead of bbox and geometry: a row per record and area, with the area's columns. Table, view, TEMP table, registered frame, SELECT text or Parquet path
geometry_column  VARCHAR    column of aois that holds the areas; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution, 1 the largest overview, …
all_touched      BOOLEAN    pixels that the area touches, not only those whose centre it holds
masked           BOOLEAN    write nodata where there is no data; false: the file's own values
scaled           BOOLEAN    apply the file's scale and offset; values become DOUBLE, NaN = no data
crop             BOOLEAN    windows around the area; false: the whole raster, pixels outside the area hidden
valid            BOOLEAN    add a column valid: a BLOB of bytes, 1 where a pixel holds data, (bands, height, width)
format           VARCHAR    'blob' (values one after another) or 'list' (LIST with NULL for no data)
align            VARCHAR    'grid' (all bands on one grid) or 'band' (each on its own; height, width and transform are lists, an entry per band)
resolution       DOUBLE[]   size of a pixel in units of the CRS, a number or [width, height]; pixel edges are its multiples, so pixels of all records fall together. Default: the raster's own grid
crs              any        CRS of the pixels: 'EPSG:n', n, WKT2 or PROJJSON; default: that of each raster
resampling       VARCHAR    'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes and flags do not bear
overview         any        'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are computed from
returns          the record's columns, the area's columns, height, width, transform (a, b, c, d, e, f of the window), dtypes VARCHAR[], nodata DOUBLE[] (of scaled values NaN, scaled itself with masked := false), one BLOB per band (row-major, little-endian, height x width values of its dtype). An area that touches no pixel of a record gives no row
raises           collection, bands, level: unknown; bands of unlike grid; a tile that can't be read, unless on_error; a window of more than 1 GiB
example          SELECT id, height, width, octet_length(B04) FROM rasteret_read('s2', bands := ['B04'], bbox := [77.984, 13.004, 77.99, 13.01])
$doc$;

CREATE OR REPLACE MACRO rasteret_pixels(
    collection, bands := NULL, bbox := NULL, geometry := NULL, geometry_crs := NULL,
    date_range := NULL, ids := NULL, record_columns := NULL, on_error := 'error', max_bytes := NULL,
    max_concurrent := NULL, aois := NULL, geometry_column := NULL, level := 0, all_touched := false,
    masked := true, scaled := false, lonlat := false, coverage := false, resolution := NULL,
    crs := NULL, resampling := 'nearest', overview := 'auto'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_pixels',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, bands: bands, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, aois: aois, geometry_column: geometry_column, level: level,
         all_touched: all_touched, masked: masked, scaled: scaled, lonlat: lonlat,
         coverage: coverage, resolution: resolution, crs: crs, resampling: resampling,
         overview: overview}
    ));

COMMENT ON MACRO TABLE rasteret_pixels IS $doc$
Pixels as rows: plain SQL does band math, time series, GROUP BY and joins.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
bands            VARCHAR[]  bands to read, in this order; default: all
bbox             DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs     any        CRS of bbox and geometry: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (NULL where it can't be read) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    requests under way at once; default: 64, more where answers take long
aois             VARCHAR    relation of areas, instead of bbox and geometry: a row per record and area, with the area's columns. Table, view, TEMP table, registered frame, SELECT text or Parquet path
geometry_column  VARCHAR    column of aois that holds the areas; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution, 1 the largest overview, …
all_touched      BOOLEAN    pixels that the area touches, not only those whose centre it holds
masked           BOOLEAN    nodata and masked pixels are NULL; false: the file's own values
scaled           BOOLEAN    apply the file's scale and offset; bands become DOUBLE
lonlat           BOOLEAN    add lon, lat: the pixel centre in degrees
coverage         BOOLEAN    add coverage: the share of the pixel inside the area, 0 to 1; every pixel that the area touches is a row
resolution       DOUBLE[]   size of a pixel in units of the CRS, a number or [width, height]; pixel edges are its multiples, so pixels of all records fall together. Default: the raster's own grid
crs              any        CRS of the pixels: 'EPSG:n', n, WKT2 or PROJJSON; default: that of each raster
resampling       VARCHAR    'nearest', 'bilinear', 'cubic' or 'average'; all but the first mix values, which classes and flags do not bear
overview         any        'auto' (the overview that gdalwarp takes), 'none' or a level: what pixels are computed from
returns          the record's columns, the area's columns, x, y (pixel centre, CRS units), row, col, one column per band in its own type (of files of several types: the smallest that holds all values exactly); NULL = no data. Pixels outside the area are not returned
raises           collection, bands: unknown; bands of unlike grid; files of one band that no column holds exactly together, as int64 and uint64; a tile that can't be read, unless on_error
example          SELECT datetime, avg(rasteret_ndvi(B04, B08)) AS ndvi FROM rasteret_pixels('s2', bands := ['B04', 'B08'], bbox := [77.984, 13.004, 77.99, 13.01]) GROUP BY ALL ORDER BY 1
$doc$;

CREATE OR REPLACE MACRO rasteret_warnings(
    newest := 100
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_warnings',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {newest: newest}
    ));

COMMENT ON MACRO TABLE rasteret_warnings IS $doc$
The last warnings of this database instance, the oldest first.

A read that matches no record returns no row, which is no error. What was expected is
told here, as a Python warning (rasteret_sql.errors.RasteretWarning), and on stderr of
the command line.

newest   BIGINT  so many of the last ones
returns  function, connection (current_connection_id() of the caller), message, time (UTC)
example  SELECT function, message FROM rasteret_warnings()
$doc$;

CREATE OR REPLACE MACRO rasteret_zonal_stats(
    collection, zones, bands := NULL, stats := ['count', 'mean', 'min', 'max', 'stddev'],
    weights := 'center', weight_band := NULL, min_coverage := 0, bbox := NULL, geometry := NULL,
    geometry_crs := NULL, date_range := NULL, ids := NULL, record_columns := NULL,
    on_error := 'error', max_bytes := NULL, max_concurrent := NULL, geometry_column := NULL,
    level := 0, scaled := false, mask_band := NULL, mask_values := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_zonal_stats',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, zones: zones, bands: bands, stats: stats, weights: weights,
         weight_band: weight_band, min_coverage: min_coverage, bbox: bbox, geometry: geometry,
         geometry_crs: geometry_crs, date_range: date_range, ids: ids,
         record_columns: record_columns, on_error: on_error, max_bytes: max_bytes,
         max_concurrent: max_concurrent, geometry_column: geometry_column, level: level,
         scaled: scaled, mask_band: mask_band, mask_values: mask_values}
    ));

COMMENT ON MACRO TABLE rasteret_zonal_stats IS $doc$
Statistics of the pixels in zones: one row per zone, record and band.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
zones            VARCHAR    relation of polygons, lines or points: table, view, TEMP table, registered frame, SELECT text or Parquet path; NULL: the bbox or geometry, or whole rasters, are the zone
bands            VARCHAR[]  bands to read, in this order; default: all
stats            VARCHAR[]  some of count, weight_sum, sum, mean, variance, stddev, min, max, variety, majority, mode, minority, frac, median, pixel_count, nodata_count, area_m2, and percentiles as p05 or p99.9
weights          VARCHAR    what a pixel counts: 'center' (1 where the zone holds its centre), 'touched' (1 where the zone touches it), 'fraction' (its share inside the zone; of a line the length in it) or 'area' (that share times its square metres on the ellipsoid)
weight_band      VARCHAR    a band whose values are further weights, 0 where it has no data. On another grid, its pixel that holds the centre of a pixel counts
min_coverage     DOUBLE     leave out pixels of which a smaller share is inside; of 'fraction' and 'area'
bbox             DOUBLE[]   [west, south, east, north]; west > east crosses the antimeridian
geometry         any        polygon as WKT, WKB, GeoJSON text or GEOMETRY
geometry_crs     any        CRS of the zones: 'EPSG:n', n, WKT2, PROJJSON, 'pixel'; default: the one that their column names, else lon/lat
date_range       VARCHAR[]  [start, end] of datetime; NULL is open, a date as end means through that day
ids              VARCHAR[]  record ids
record_columns   VARCHAR[]  columns of the record to return, or 'all'; default: all but assets, bbox and geometry
on_error         VARCHAR    'error', 'null' (statistics of a zone are NULL where one of its tiles can't be read) or 'report' (and a column error says why)
max_bytes        BIGINT     refuse a read that would fetch more
max_concurrent   INTEGER    requests under way at once; default: 64, more where answers take long
geometry_column  VARCHAR    column of zones that holds the geometries; default: the one of type GEOMETRY, or named geometry, geom or wkb_geometry
level            INTEGER    0 is full resolution, 1 the largest overview, …
scaled           BOOLEAN    apply the file's scale and offset before anything else
mask_band        VARCHAR    band that tells where pixels are not to be used: where it holds one of mask_values or no data. On another grid, its pixel that holds the centre of a pixel counts
mask_values      DOUBLE[]   values of mask_band, as clouds
returns          the record's columns, the zone's columns, band, one column per statistic. A zone that touches a raster, but no pixel with data, is a row with count 0; one outside is no row
raises           collection, bands, level, stats: unknown; zones: no relation of geometries; weight_band: below 0; a tile that can't be read, unless on_error
example          SELECT name, datetime, band, count, mean FROM rasteret_zonal_stats('s2', 'SELECT ''north'' AS name, ''POLYGON((77.985 13.0, 77.99 13.0, 77.99 13.01, 77.985 13.0))'' AS geometry', bands := ['B04'], weights := 'fraction') ORDER BY ALL
$doc$;
