-- Collections: build, keep, share. Each macro calls the Python function of its name.
-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.

CREATE OR REPLACE MACRO rasteret_collections(
    workspace := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_collections',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {workspace: workspace}
    ));

COMMENT ON MACRO TABLE rasteret_collections IS $doc$
Collections of the workspace, from Parquet footers, and views of this database that are collections.

workspace  VARCHAR  folder of collections; default: the connection's
returns    name, kind ('stac', 'records' or 'view'), data_source, records, bands, start_datetime, end_datetime, bbox, size_bytes, created, path
example    FROM rasteret_collections()
$doc$;

CREATE OR REPLACE MACRO rasteret_records(
    collection
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_records',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection}
    ));

COMMENT ON MACRO TABLE rasteret_records IS $doc$
The records of a collection as they are. Remote Parquet is read by ranges, with the credentials of rasteret_sql.storage and without DuckDB's httpfs.

collection  VARCHAR  name of a collection, view or table; SELECT text; Parquet file or folder: a path, s3://, gs://, az:// or https://
returns     the columns of the collection
raises      collection: unknown (the known ones are listed), or not readable
example     SELECT id, datetime FROM rasteret_records('s2') WHERE "eo:cloud_cover" < 10
$doc$;

CREATE OR REPLACE MACRO rasteret_describe(
    collection
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_describe',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection}
    ));

COMMENT ON MACRO TABLE rasteret_describe IS $doc$
Describe a collection.

collection  VARCHAR  name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
returns     one row: name, records, bands, epsg, crs, bounds, start_datetime, end_datetime, data_source, null_metadata MAP(band, count), size_bytes
raises      collection: unknown (the known ones are listed)
example     FROM rasteret_describe('s2')
$doc$;

CREATE OR REPLACE MACRO rasteret_errors(
    collection, workspace := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_errors',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, workspace: workspace}
    ));

COMMENT ON MACRO TABLE rasteret_errors IS $doc$
What was wrong when the collection was built: assets that could not be read, and notes on the source.

collection  VARCHAR  name of a collection of the workspace
workspace   VARCHAR  folder of collections; default: the connection's
returns     id, band, href, error. An asset that could not be read is one of the build report's failed. Not counted there: a row where record and file differ (the asset was read), and a row whose id is NULL, which is a note on the whole source: ids that come twice, renamed columns, NULL datetimes, …
raises      collection: unknown (the known ones are listed)
example     FROM rasteret_errors('s2')
$doc$;

CREATE OR REPLACE MACRO rasteret_drop(
    name, workspace := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_drop',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {name: name, workspace: workspace}
    ));

COMMENT ON MACRO TABLE rasteret_drop IS $doc$
Remove a collection: its view and its files in the workspace.

name       VARCHAR  name of a collection
workspace  VARCHAR  folder of collections; default: the connection's
returns    one row: name, path, records
raises     name: unknown (the known ones are listed)
example    FROM rasteret_drop('s2')
$doc$;

CREATE OR REPLACE MACRO rasteret_load(
    name, path, force := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_load',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {name: name, path: path, force: force}
    ));

COMMENT ON MACRO TABLE rasteret_load IS $doc$
Make a view over an exported collection. A remote one is read through rasteret_records, so its view needs this extension; a local one any DuckDB reads.

name     VARCHAR  name of the view
path     VARCHAR  folder or file of an exported collection, ours or rasteret's: a path, s3://, gs://, az:// or https://; its user, password and signature are kept for this session, never in the view
force    BOOLEAN  replace what stands under the name
returns  one row, as rasteret_describe
raises   path: not found, or without id, assets, geometry, datetime
example  FROM rasteret_load('clear', 'exports/clear')
$doc$;

CREATE OR REPLACE MACRO rasteret_export(
    collection, path, partition_by := ['year', 'month'], compression := 'zstd',
    row_group_bytes := NULL, force := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_export',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, path: path, partition_by: partition_by, compression: compression,
         row_group_bytes: row_group_bytes, force: force}
    ));

COMMENT ON MACRO TABLE rasteret_export IS $doc$
Write a collection, or any subset of one, as hive-partitioned GeoParquet.

collection       VARCHAR    name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
path             VARCHAR    folder to write
partition_by     VARCHAR[]  hive partition columns; [] for none
compression      VARCHAR    Parquet codec
row_group_bytes  BIGINT     size of a row group before compression
force            BOOLEAN    replace what stands under the name
returns          one row per file: path, records, size_bytes
raises           path: not empty, or not writable
example          FROM rasteret_export('SELECT * FROM s2 WHERE "eo:cloud_cover" < 10', 'exports/clear')
$doc$;

CREATE OR REPLACE MACRO rasteret_build_stac(
    name, stac_api, collection := NULL, bbox := NULL, date_range := NULL, query := NULL,
    filter := NULL, ids := NULL, intersects := NULL, bands := NULL, band_map := NULL,
    band_index_map := NULL, url_rewrite := NULL, data_source := NULL, static_catalog := NULL,
    max_items := NULL, allow_local := false, enrich := true, workspace := NULL,
    max_concurrent := 300, on_error := 'report', force := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_build_stac',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {name: name, stac_api: stac_api, collection: collection, bbox: bbox, date_range: date_range,
         query: query, filter: filter, ids: ids, intersects: intersects, bands: bands,
         band_map: band_map, band_index_map: band_index_map, url_rewrite: url_rewrite,
         data_source: data_source, static_catalog: static_catalog, max_items: max_items,
         allow_local: allow_local, enrich: enrich, workspace: workspace,
         max_concurrent: max_concurrent, on_error: on_error, force: force}
    ));

COMMENT ON MACRO TABLE rasteret_build_stac IS $doc$
Build a collection from STAC items: metadata and headers of every asset, as Parquet and a view.

name            VARCHAR    name of the collection and of its view
stac_api        VARCHAR    API URL; static catalog or collection URL or path; or a file of items: .json, .ndjson, .parquet
collection      VARCHAR    STAC collection id
bbox            DOUBLE[]   [west, south, east, north] in degrees
date_range      VARCHAR[]  [start, end]; NULL is open, a date as end means through that day
query           any        STAC query extension: JSON text or STRUCT
filter          any        CQL2 text or JSON
ids             VARCHAR[]  item ids
intersects      any        GEOMETRY, GeoJSON, WKT or WKB in degrees, in place of bbox
bands           VARCHAR[]  bands to keep; default: all raster assets
band_map        MAP        band name to asset key
band_index_map  MAP        band name to sample in its file, from 0
url_rewrite     MAP        href prefix to the prefix that replaces it
data_source     VARCHAR    name of the source; default: the STAC collection id
static_catalog  BOOLEAN    whether stac_api is a static catalog; default: found out
max_items       BIGINT     stop after so many items
allow_local     BOOLEAN    accept hrefs to local files from a remote catalog
enrich          BOOLEAN    read the headers of all assets and keep them
workspace       VARCHAR    folder of collections; default: the connection's
max_concurrent  INTEGER    header requests under way at once
on_error        VARCHAR    what an unreadable asset does: 'report' (NULL and a row of rasteret_errors) or 'error'
force           BOOLEAN    replace what stands under the name
returns         one row: name, kind, path, records, bands, assets, enriched, failed, partitions, size_bytes, requests, seconds; failed counts the assets that could not be read (rasteret_errors)
raises          name: not a plain name, or taken; stac_api: not found, not STAC; bands: unknown
example         FROM rasteret_build_stac('s2', stac_api := 'items.json', bands := ['B04', 'B08'])
$doc$;

CREATE OR REPLACE MACRO rasteret_build_table(
    name, source, column_map := NULL, href_column := NULL, band_index_map := NULL,
    url_rewrite := NULL, columns := NULL, "where" := NULL, enrich := false, bands := NULL,
    data_source := NULL, geometry_crs := NULL, allow_local := false, workspace := NULL,
    max_concurrent := 300, on_error := 'report', force := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_build_table',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {name: name, source: source, column_map: column_map, href_column: href_column,
         band_index_map: band_index_map, url_rewrite: url_rewrite, columns: columns,
         "where": "where", enrich: enrich, bands: bands, data_source: data_source,
         geometry_crs: geometry_crs, allow_local: allow_local, workspace: workspace,
         max_concurrent: max_concurrent, on_error: on_error, force: force}
    ));

COMMENT ON MACRO TABLE rasteret_build_table IS $doc$
Build a collection from a table with one row per scene.

name            VARCHAR    name of the collection and of its view
source          VARCHAR    table, view, TEMP table or registered frame; SELECT text; Parquet file or folder: a path, s3://, gs://, az:// or https://
column_map      MAP        source column to canonical column: id, datetime, geometry, bbox, assets, crs, …
href_column     VARCHAR    column with the file's URL or path, where there is no assets column
band_index_map  MAP        band name to sample in its file, from 0; default: a band per sample, by the files' band descriptions, else b1, b2, …
url_rewrite     MAP        href prefix to the prefix that replaces it
columns         VARCHAR[]  source columns to keep; default: all
where           VARCHAR    SQL condition on the source
enrich          BOOLEAN    read the headers of all assets and keep them
bands           VARCHAR[]  bands to keep; default: all
data_source     VARCHAR    name of the source
geometry_crs    any        CRS of the footprints where nothing in the source says it: 'EPSG:n', n, WKT2 or PROJJSON
allow_local     BOOLEAN    accept hrefs to local files from a remote source
workspace       VARCHAR    folder of collections; default: the connection's
max_concurrent  INTEGER    header requests under way at once
on_error        VARCHAR    what an unreadable asset does: 'report' (NULL and a row of rasteret_errors) or 'error'
force           BOOLEAN    replace what stands under the name
returns         one row: name, kind, path, records, bands, assets, enriched, failed, partitions, size_bytes, requests, seconds; failed counts the assets that could not be read (rasteret_errors)
raises          source: not found, or without id and assets (the message names the argument to give)
example         FROM rasteret_build_table('scenes', 'SELECT * FROM my_scenes', href_column := 'url', bands := ['B04'], enrich := true)
$doc$;

CREATE OR REPLACE MACRO rasteret_enrich(
    source, bands := NULL, href_column := NULL, band_index_map := NULL, on_error := 'report',
    max_concurrent := 300
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_enrich',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {source: source, bands: bands, href_column: href_column, band_index_map: band_index_map,
         on_error: on_error, max_concurrent: max_concurrent}
    ));

COMMENT ON MACRO TABLE rasteret_enrich IS $doc$
Read the headers of all assets of a relation, streaming; nothing is kept.

source          VARCHAR    table, view, TEMP table or registered frame; SELECT text; Parquet path
bands           VARCHAR[]  bands to enrich; default: all of assets, or of an href_column those of the first 64 files
href_column     VARCHAR    column with the file's URL or path, where there is no assets column
band_index_map  MAP        band name to sample in its file, from 0
on_error        VARCHAR    'report' (NULL metadata) or 'error' (in a statement that selects a column it adds: only then are headers read)
max_concurrent  INTEGER    header requests under way at once
returns         every input column; assets, "proj:epsg", crs, bbox and a {band}_metadata STRUCT per band; id (the file name without its ending), datetime (NULL) and geometry (the raster's outline) where the source has none, so that all reads take it as a collection. Of a relation that only this connection sees, give id, datetime and geometry yourself
raises          source: not found, or without assets; bands: not given with an href_column of a TEMP table or registered frame
example         CREATE TABLE enriched AS FROM rasteret_enrich('my_scenes', href_column := 'url', bands := ['B04'])
$doc$;

CREATE OR REPLACE MACRO rasteret_files(
    pattern, bands := NULL, on_error := 'report', max_concurrent := 300
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_files',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {pattern: pattern, bands: bands, on_error: on_error, max_concurrent: max_concurrent}
    ));

COMMENT ON MACRO TABLE rasteret_files IS $doc$
Rasters as records, one per file, with the headers that reads need; nothing is kept.

pattern         any        path, URL, folder or pattern (*, ?, [a-z], **) of rasters, or a list of them; s3://, gs:// and az:// are listed, web servers are not
bands           VARCHAR[]  bands to keep, or a new name for each sample; default: all
on_error        VARCHAR    'report' (NULL metadata) or 'error'
max_concurrent  INTEGER    header requests under way at once
returns         id (the file name without its ending, or the path below the folder that files of one name share), datetime (NULL), geometry, bbox, assets, "proj:epsg", crs, {band}_metadata STRUCT per band; bands have the files' band descriptions, else b1, b2, …
raises          pattern: nothing found, or not to be listed; bands: unknown
example         FROM rasteret_files('*/B04.tif')
$doc$;
