-- Statistics per parcel and scene. Pixels are read of the scenes that came since the last run.
{{ config(materialized='incremental', unique_key=['parcel_id', 'scene_id']) }}

{% set new_scenes -%}
    SELECT * FROM {{ ref('stg_scenes') }}
    {%- if is_incremental() %} WHERE id NOT IN (SELECT scene_id FROM {{ this }}){% endif %}
{%- endset %}

WITH reflectance AS (
    FROM rasteret_zonal_stats('{{ new_scenes }}', '{{ ref("parcels") }}',
        bands := ['B04', 'B08'], weights := 'fraction',
        stats := ['mean', 'count', 'pixel_count', 'nodata_count'],
        record_columns := ['id', 'datetime'])
),

classes AS (
    SELECT parcel_id, id,
        list_sum([e.value FOR e IN map_entries(frac) IF rasteret_scl_clear(e.key::INTEGER)]) AS clear
    FROM rasteret_zonal_stats('{{ new_scenes }}', '{{ ref("parcels") }}',
        bands := ['SCL'], weights := 'fraction', stats := ['frac'], record_columns := ['id'])
)

SELECT
    parcel_id,
    id AS scene_id,
    datetime AS taken_at,
    max(mean) FILTER (band = 'B04') AS red,
    max(mean) FILTER (band = 'B08') AS nir,
    min(count) AS n_pixels,
    max(pixel_count) AS pixel_count,
    max(nodata_count) AS nodata_count,
    coalesce(clear, 0) AS clear_share
FROM reflectance
JOIN classes USING (parcel_id, id)
GROUP BY ALL
