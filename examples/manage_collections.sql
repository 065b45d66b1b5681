-- Build, inspect, filter, export, reload and drop a collection.
-- rasteret-sql shell --workspace-dir workspace < examples/manage_collections.sql

-- Build it from STAC items: metadata, and the header of every asset.
SELECT name, records, bands, failed
FROM rasteret_build_stac('farm', stac_api := 'scenes/items.json', force := true);
--> farm, 6, ['B04', 'B08', 'SCL'], 0

-- What there is.
SELECT name, kind, records FROM rasteret_collections() WHERE name = 'farm';
--> farm, stac, 6

SELECT records, bands, epsg FROM rasteret_describe('farm');
--> 6, ['B04', 'B08', 'SCL'], [32643, 32644]

-- A subset is a view.
CREATE OR REPLACE VIEW clear_farm AS
FROM farm WHERE "eo:cloud_cover" < 5 AND datetime >= '2024-01-01' AND datetime < '2024-04-01';

SELECT count(*) FROM clear_farm;
--> 2

-- A read takes the view.
SELECT count(DISTINCT id), round(avg(B08)) FROM rasteret_pixels('clear_farm', bands := ['B08']);
--> 2, 2620.0

-- Export it; the folder is GeoParquet, and pixels stay where they are.
SELECT sum(records)::BIGINT FROM rasteret_export('clear_farm', 'exported_farm', force := true);
--> 2

-- Reload it.
SELECT records FROM rasteret_load('reloaded_farm', 'exported_farm', force := true);
--> 2

-- Remove it. The export stays.
DROP VIEW clear_farm;

SELECT name, records FROM rasteret_drop('farm');
--> farm, 6
