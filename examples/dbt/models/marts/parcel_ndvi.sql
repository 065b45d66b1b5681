-- Vegetation index per parcel and date; no pixel is read. Scenes of one date count by their pixels.
{{ config(materialized='table') }}

WITH days AS (
    SELECT
        parcel_id,
        taken_at::DATE AS day,
        sum(red * n_pixels) / sum(n_pixels) AS red,
        sum(nir * n_pixels) / sum(n_pixels) AS nir,
        sum(clear_share * n_pixels) / sum(n_pixels) AS clear_share,
        count(*) AS n_scenes
    FROM {{ ref('parcel_scenes') }}
    WHERE n_pixels > 0
    GROUP BY ALL
)

SELECT parcel_id, crop, day, red, nir, rasteret_ndvi(red, nir) AS ndvi, clear_share, n_scenes
FROM days
JOIN {{ ref('parcels') }} USING (parcel_id)
