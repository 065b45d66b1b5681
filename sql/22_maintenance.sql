-- Collections: bring up to date, check, compare with data sets. Each macro calls the Python function of its name.
-- Written by `python docs/build.py` from rasteret_sql/duck/functions: edit it there.

CREATE OR REPLACE MACRO rasteret_refresh(
    name, stac_api := NULL, source := NULL, since := NULL, check_remote := true, workspace := NULL,
    max_concurrent := 300, on_error := 'report'
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_refresh',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {name: name, stac_api: stac_api, source: source, since: since, check_remote: check_remote,
         workspace: workspace, max_concurrent: max_concurrent, on_error: on_error}
    ));

COMMENT ON MACRO TABLE rasteret_refresh IS $doc$
Run the build of a collection again for what is new: records are added and replaced, headers of new and changed files read.

The whole source is read again, so that late and changed records are found; a record that it no longer has stays.
Only headers of new files, of files whose ETag or size changed, and of those in rasteret_errors are read. Readers see the version before or the one after; nothing new makes no new version.

name            VARCHAR  name of a collection that was built in the workspace
stac_api        VARCHAR  where its items are now; needed where the address was signed, as secrets are not kept
source          VARCHAR  where its table is now; the same for rasteret_build_table
since           VARCHAR  look only at items from this date on (STAC); older ones that changed or came late are not found
check_remote    BOOLEAN  ask for ETag and size of every file that is in the collection
workspace       VARCHAR  folder of collections; default: the connection's
max_concurrent  INTEGER  header requests under way at once
on_error        VARCHAR  what an unreadable asset does: 'report' (NULL and a row of rasteret_errors) or 'error'
returns         one row as of a build: records, bands, partitions, size_bytes of the whole collection; assets, enriched, failed, requests of this refresh
raises          name: unknown, or not built here; stac_api: needed again; the source: not to be read (the collection is as before)
example         FROM rasteret_refresh('s2')
$doc$;

CREATE OR REPLACE MACRO rasteret_validate(
    collection, require_band_metadata := true, check_remote := false, max_concurrent := 300
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_validate',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, require_band_metadata: require_band_metadata,
         check_remote: check_remote, max_concurrent: max_concurrent}
    ));

COMMENT ON MACRO TABLE rasteret_validate IS $doc$
List what is wrong with a collection: its Parquet files, columns, records and cached headers, and the files they are of.

collection             VARCHAR  name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
require_band_metadata  BOOLEAN  a band with a file but without a header is a fault
check_remote           BOOLEAN  ask every file for its ETag and size: 'stale', 'gone' and 'unreachable' are faults
max_concurrent         INTEGER  requests under way at once
returns                id (NULL: of no record alone), column, band, fault; no row: all is sound
raises                 collection: unknown (the known ones are listed)
example                SELECT count(*) AS faults FROM rasteret_validate('s2')
$doc$;

CREATE OR REPLACE MACRO rasteret_compare_to_catalog(
    collection, dataset_id := NULL
) AS TABLE
    FROM query(_rasteret_bind(
        'rasteret_compare_to_catalog',
        {database: current_database(), schema: current_schema(), connection: current_connection_id()::VARCHAR},
        {collection: collection, dataset_id: dataset_id}
    ));

COMMENT ON MACRO TABLE rasteret_compare_to_catalog IS $doc$
Put what a data set says of itself beside what the collection is, a row for each fact.

collection  VARCHAR  name of a collection, view or table; SELECT text; Parquet path; or rasters: a path, URL or pattern that ends in .tif or .tiff
dataset_id  VARCHAR  id of the data set; default: the one the collection was built from
returns     fact, catalog, collection (as text), agrees BOOLEAN (NULL where one side says nothing)
raises      collection: of no known data set, or of several
example     SELECT * FROM rasteret_compare_to_catalog('mine') WHERE agrees IS NOT NULL
$doc$;
