-- Major TOM cells and splits as columns of a collection, then chips for training.
-- rasteret-sql shell --workspace-dir workspace < examples/major_tom_on_the_fly.sql

CREATE OR REPLACE VIEW tom AS
SELECT *, concat_ws('_', 'MT', cell, strftime(datetime, '%Y%m%d')) AS product_id,
    rasteret_split(cell, train := 0.8, val := 0.1) AS split
FROM (
    SELECT *, rasteret_grid_cell((bbox.xmin + bbox.xmax) / 2, (bbox.ymin + bbox.ymax) / 2, km := 10) AS cell
    FROM s2
);

-- All images of a cell are in one part.
SELECT cell, split, count(*), count(DISTINCT product_id) FROM tom GROUP BY ALL;
--> 144U_846R, train, 6, 3

-- The view is a collection: chips of its training part, without those with clouds.
SELECT count(*), min(height), min(width)
FROM rasteret_chips('FROM tom WHERE split = ''train''', bands := ['B04', 'B08'], size := 128,
    min_valid := 0.95);
--> 53, 128, 128

-- Keep cells and split with the collection, in folders by cell.
SELECT count(*), sum(records)::BIGINT
FROM rasteret_export('tom', 'major_tom', partition_by := ['cell', 'year'], force := true);
--> 1, 6
