-- Build a collection from a Parquet table of rasters: an address, a date and an id per row.
-- rasteret-sql shell --workspace-dir workspace < examples/build_collection_from_parquet.sql

-- Such a table. Yours may be at s3://, gs://, az:// or https://.
COPY (
    SELECT id AS scene_id, datetime AS captured, "eo:cloud_cover" AS cloud, assets.B04.href AS image_url
    FROM s2
) TO 'records.parquet';

-- Names of columns are mapped; rows are filtered while they are read; headers are read.
-- Footprints come from the rasters themselves, as the table has none.
SELECT records, bands, enriched, failed
FROM rasteret_build_table('from_parquet', 'records.parquet',
    column_map := MAP {'scene_id': 'id', 'captured': 'datetime'}, href_column := 'image_url',
    band_index_map := MAP {'red': 0}, "where" := 'cloud < 20', enrich := true, force := true);
--> 4, ['red'], 4, 0

-- Without enrich := true it holds metadata alone: it can be searched, but not read.
SELECT records, enriched
FROM rasteret_build_table('bare', 'records.parquet',
    column_map := MAP {'scene_id': 'id', 'captured': 'datetime'}, href_column := 'image_url',
    bands := ['red'], band_index_map := MAP {'red': 0}, force := true);
--> 6, 0

SELECT id, round(avg(red), 1) AS red
FROM rasteret_pixels('from_parquet', bbox := [77.984, 13.004, 77.99, 13.01])
GROUP BY id ORDER BY id LIMIT 1;
--> S2A_43PHQ_20240110_L2A, 1691.8

SELECT count(*) FROM rasteret_validate('from_parquet');
--> 0
