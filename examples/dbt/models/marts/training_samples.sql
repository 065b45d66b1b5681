-- Each observation with the newest clear image at or before its time: nothing of the future.
-- Pixels are read of the observations that came since the last run.
{{ config(materialized='incremental', unique_key='observation_id') }}

{% set new_observations -%}
    SELECT * FROM {{ ref('observations') }}
    {%- if is_incremental() %} WHERE observation_id NOT IN (SELECT observation_id FROM {{ this }}){% endif %}
{%- endset %}

WITH samples AS (
    FROM rasteret_sample_points('{{ ref("stg_scenes") }}', '{{ new_observations }}',
        bands := ['B04', 'B08'],
        match := 'latest', time_column := 'seen_at', max_dt := INTERVAL '60 days',
        mask_band := 'SCL', mask_values := [3, 8, 9, 10])
)

SELECT
    observation_id,
    o.label,
    o.lon,
    o.lat,
    o.seen_at,
    record_id AS scene_id,
    datetime AS taken_at,
    B04 AS red,
    B08 AS nir,
    rasteret_ndvi(B04, B08) AS ndvi,
    rasteret_split(observation_id) AS split
FROM ({{ new_observations }}) AS o
LEFT JOIN samples USING (observation_id)
