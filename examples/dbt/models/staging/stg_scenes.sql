-- The scenes to read: plain SQL over the collection, without a byte of pixels.
{{ config(materialized='view') }}

SELECT *, split_part(id, '_', 2) AS tile
FROM {{ source('imagery', 's2') }}
WHERE "eo:cloud_cover" < {{ var('max_cloud_cover') }}
