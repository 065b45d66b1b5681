-- Columns of your own: a quality score, splits by place and by time, and the layout of an export.
-- rasteret-sql shell --workspace-dir workspace < examples/scores_and_splits.sql

CREATE OR REPLACE TABLE regions AS FROM (VALUES
    ('train', 77.964, 12.99, 77.979, 13.04),
    ('val', 77.979, 12.99, 78.04, 13.04)
) AS t(part, west, south, east, north);

CREATE OR REPLACE VIEW scored AS
SELECT s2.*,
    greatest(0, least(100, 100 - "eo:cloud_cover" * 0.7)) AS quality_score,
    coalesce((SELECT min(part) FROM regions
        WHERE rasteret_bbox_intersects(s2.bbox, west, south, east, north)), 'test') AS by_place,
    CASE WHEN datetime < '2024-03-01' THEN 'train' ELSE 'val' END AS by_time
FROM s2;

SELECT by_place, by_time, count(*) FROM scored WHERE quality_score > 75 GROUP BY ALL ORDER BY ALL;
--> train, train, 1
--> train, val, 1
--> val, train, 1
--> val, val, 1

-- Pixels of the best scene of each place.
SELECT by_place, id, round(avg(B08)) AS nir
FROM rasteret_pixels('FROM scored WHERE quality_score > 97', bands := ['B08'])
GROUP BY ALL ORDER BY ALL;
--> train, S2A_43PHQ_20240110_L2A, 2621.0
--> val, S2A_44PKV_20240110_L2A, 2619.0

-- Folders by split, ZSTD, row groups of a megabyte.
SELECT split_part(path, 'scored/', 2), records
FROM rasteret_export('scored', 'scored', partition_by := ['by_time'], compression := 'zstd',
    row_group_bytes := 1000000, force := true);
--> by_time=train/part-0.parquet, 4
--> by_time=val/part-0.parquet, 2
