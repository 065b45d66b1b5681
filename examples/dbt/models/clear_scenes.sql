-- The scenes to read: plain SQL over the collection, without a byte of pixels.
{{ config(materialized='view') }}

SELECT * FROM {{ source('imagery', 's2') }}
WHERE "eo:cloud_cover" < 20
