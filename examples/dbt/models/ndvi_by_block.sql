-- Blocks of 32 by 32 pixels.
{{ config(materialized='table') }}

SELECT
    id,
    row // 32 AS block_row,
    col // 32 AS block_col,
    avg(rasteret_ndvi(B04, B08)) AS ndvi
FROM {{ ref('field_pixels') }}
WHERE B04 IS NOT NULL
GROUP BY ALL
