-- The cached headers as data: no file is opened. Any DuckDB runs this, without rasteret_sql, over
-- FROM read_parquet('workspace/s2_stac/**/*.parquet', hive_partitioning = true).
-- rasteret-sql shell --workspace-dir workspace < examples/query_headers.sql

-- Tiles and codec of each scene.
SELECT id, len(B04_metadata.tile_offsets) AS tiles, B04_metadata.compression AS codec
FROM s2 WHERE "eo:cloud_cover" < 10 ORDER BY tiles DESC, id LIMIT 1;
--> S2A_43PHQ_20240110_L2A, 16, 32946

-- Bytes and tiles of a band in all its files, by month.
SELECT year, month, sum(list_sum(B08_metadata.tile_byte_counts)) > 200_000 AS large,
    sum(rasteret_num_tiles(B08_metadata))::BIGINT AS tiles
FROM s2 GROUP BY ALL ORDER BY ALL LIMIT 1;
--> 2024, 1, True, 32

-- Ground resolution and levels.
SELECT DISTINCT B04_metadata.transform[1] AS resolution_m, len(B04_metadata.overviews) AS overviews
FROM s2;
--> 10.0, 2

-- What a read of one square kilometre would cost.
SELECT count(*) AS tiles, count(DISTINCT request) AS requests
FROM rasteret_plan('s2', bands := ['B04'], bbox := [77.985, 13.005, 77.994, 13.014]);
--> 9, 6
