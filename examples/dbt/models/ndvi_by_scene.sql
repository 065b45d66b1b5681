-- A time series: one row per scene.
{{ config(materialized='table') }}

SELECT
    id,
    datetime,
    count(B04) AS n_pixels,
    avg(rasteret_ndvi(B04, B08)) AS ndvi
FROM rasteret_pixels('{{ ref("clear_scenes") }}', bands := ['B04', 'B08'])
GROUP BY id, datetime
