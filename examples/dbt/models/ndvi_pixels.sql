-- A Parquet file for tools without DuckDB.
{{ config(materialized='external', format='parquet') }}

SELECT id, row, col, rasteret_ndvi(B04, B08) AS ndvi
FROM {{ ref('field_pixels') }}
