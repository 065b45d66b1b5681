-- Pixels as a view: nothing is read before a model below asks, and only what it asks for.
{{ config(materialized='view') }}

SELECT id, datetime, row, col, B04, B08
FROM rasteret_pixels(
    '{{ ref("clear_scenes") }}',
    bands := ['B04', 'B08'],
    bbox := [780000, 1449360, 780640, 1450000],
    geometry_crs := 'EPSG:32643'
)
