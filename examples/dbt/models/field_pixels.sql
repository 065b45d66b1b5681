-- Pixels as a view: nothing is read before a model below asks, and only what it asks for.
{{ config(materialized='view') }}

SELECT id, datetime, row, col, B04, B08
FROM rasteret_pixels(
    '{{ ref("clear_scenes") }}',
    bands := ['B04', 'B08'],
    bbox := {{ var('area') }},
    geometry_crs := '{{ var("area_crs") }}'
)
