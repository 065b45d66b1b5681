-- Data sets by name: built-in ones and the user's own. Each macro calls the Python function of its name.
-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.

CREATE OR REPLACE MACRO rasteret_build(
    dataset_id, name := NULL, bbox := NULL, date_range := NULL, query := NULL, filter := NULL,
    bands := NULL, max_items := NULL, workspace := NULL, max_concurrent := 300,
    on_error := 'report', force := false
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_build',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {dataset_id: dataset_id, name: name, bbox: bbox, date_range: date_range, query: query,
         filter: filter, bands: bands, max_items: max_items, workspace: workspace,
         max_concurrent: max_concurrent, on_error: on_error, force: force}
    ));

COMMENT ON MACRO TABLE rasteret_build IS $doc$
Build a collection from a data set known by name; its files are reached as its access says.

dataset_id      VARCHAR    id, as rasteret_datasets lists it
name            VARCHAR    name of the collection and of its view; default: the id, with _ for what needs quotes
bbox            DOUBLE[]   [west, south, east, north] in degrees
date_range      VARCHAR[]  [start, end]; NULL is open, a date as end means through that day
query           any        STAC query extension: JSON text or STRUCT
filter          any        CQL2 text or JSON
bands           VARCHAR[]  bands to keep; default: those of the data set that the items have
max_items       BIGINT     stop after so many items
workspace       VARCHAR    folder of collections; default: the connection's
max_concurrent  INTEGER    header requests under way at once
on_error        VARCHAR    what an unreadable asset does: 'report' (NULL and a row of rasteret_errors) or 'error'
force           BOOLEAN    replace what stands under the name
returns         one row: name, kind, path, records, bands, assets, enriched, failed, partitions, size_bytes, requests, seconds; failed counts the assets that could not be read (rasteret_errors)
raises          dataset_id: unknown (near ones are listed); bands: unknown; name: taken
example         FROM rasteret_build('mine/s2', name := 'mine', bands := ['red', 'nir'])
$doc$;

CREATE OR REPLACE MACRO rasteret_datasets(
    search := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_datasets',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {search: search}
    ));

COMMENT ON MACRO TABLE rasteret_datasets IS $doc$
Data sets known by name: built-in ones, and those you registered.

search   VARCHAR  text that the id, name or description holds, in any case
returns  id, name, description, bands, access, license, license_url, spatial_coverage, start_date, end_date (NULL: goes on), stac_api, stac_collection, record_table, source ('built-in' or 'local')
raises   the file of your data sets is damaged
example  SELECT id, bands, access FROM rasteret_datasets() WHERE source = 'built-in'
$doc$;

CREATE OR REPLACE MACRO rasteret_register_dataset(
    id, name := NULL, description := NULL, stac_api := NULL, stac_collection := NULL,
    record_table := NULL, column_map := NULL, href_column := NULL, band_map := NULL,
    band_index_map := NULL, url_rewrite := NULL, access := 'open', access_prefixes := NULL,
    spatial_coverage := NULL, start_date := NULL, end_date := NULL, license := NULL,
    license_url := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_register_dataset',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {id: id, name: name, description: description, stac_api: stac_api,
         stac_collection: stac_collection, record_table: record_table, column_map: column_map,
         href_column: href_column, band_map: band_map, band_index_map: band_index_map,
         url_rewrite: url_rewrite, access: access, access_prefixes: access_prefixes,
         spatial_coverage: spatial_coverage, start_date: start_date, end_date: end_date,
         license: license, license_url: license_url}
    ));

COMMENT ON MACRO TABLE rasteret_register_dataset IS $doc$
Keep a data set of your own, in $RASTERET_DATASETS, else ~/.config/rasteret_sql/datasets.json.

id                VARCHAR    as 'mine/s2'; replaces the one you registered under it, goes before a built-in one
name              VARCHAR    title
description       VARCHAR    one sentence
stac_api          VARCHAR    as of rasteret_build_stac; this or record_table
stac_collection   VARCHAR    STAC collection id
record_table      VARCHAR    path or URL of Parquet with a row per scene
column_map        MAP        column of the record table to canonical column
href_column       VARCHAR    column of the record table with the file's URL
band_map          MAP        band name to asset key
band_index_map    MAP        band name to sample in its file, from 0
url_rewrite       MAP        href prefix to the prefix that replaces it
access            VARCHAR    'open', 'requester_pays' (your S3 account) or 'signed' (tokens of the Planetary Computer)
access_prefixes   VARCHAR[]  where the hrefs start for which access holds
spatial_coverage  VARCHAR    in words
start_date        DATE       of the first scene
end_date          DATE       of the last; NULL: goes on
license           VARCHAR    name of the license
license_url       VARCHAR    its text
returns           the row of rasteret_datasets
raises            id: malformed; stac_api: with a secret, or neither it nor record_table; any other: malformed
example           FROM rasteret_register_dataset('mine/s2', stac_api := 'items.json', band_map := MAP {'red': 'B04', 'nir': 'B08'})
$doc$;

CREATE OR REPLACE MACRO rasteret_unregister_dataset(
    id
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_unregister_dataset',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {id: id}
    ));

COMMENT ON MACRO TABLE rasteret_unregister_dataset IS $doc$
Forget a data set that you registered; collections built from it stay.

id       VARCHAR  of a data set you registered
returns  the row of rasteret_datasets that it was
raises   id: not registered (those that are, are listed)
example  FROM rasteret_unregister_dataset('mine/s2')
$doc$;
