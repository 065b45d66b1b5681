-- Observations, each with the number of scenes that it may be joined with.
{{ config(materialized='view') }}

SELECT o.*, count(s.id) AS n_candidates
FROM {{ ref('observations') }} AS o
LEFT JOIN {{ ref('stg_scenes') }} AS s
    ON s.datetime BETWEEN o.seen_at - INTERVAL {{ var('max_age_days') }} DAY AND o.seen_at
    AND o.lon BETWEEN s.bbox.xmin AND s.bbox.xmax
    AND o.lat BETWEEN s.bbox.ymin AND s.bbox.ymax
GROUP BY ALL
