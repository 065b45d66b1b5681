-- Each observation with the newest clear image at or before its time: nothing of the future.
-- Pixels are read of new observations, and of those for which more scenes have come.
{{ config(materialized='incremental', unique_key='observation_id') }}

{% set new_observations -%}
    SELECT * FROM {{ ref('stg_observations') }}
    {%- if is_incremental() %} ANTI JOIN {{ this }} USING (observation_id, n_candidates){% endif %}
{%- endset %}

WITH samples AS (
    SELECT observation_id, record_id AS scene_id, datetime AS taken_at, B04 AS red, B08 AS nir
    FROM rasteret_sample_points('{{ ref("stg_scenes") }}', '{{ new_observations }}',
        bands := ['B04', 'B08'],
        match := 'latest', time_column := 'seen_at',
        max_dt := INTERVAL {{ var('max_age_days') }} DAY,
        mask_band := 'SCL', mask_values := [3, 8, 9, 10])
)

SELECT *, rasteret_ndvi(red, nir) AS ndvi, rasteret_split(observation_id) AS split
FROM ({{ new_observations }})
LEFT JOIN samples USING (observation_id)
