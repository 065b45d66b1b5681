-- Reads only the scenes that came since the last run.
{{ config(materialized='incremental', unique_key='id') }}

{% set since -%}
    {% if is_incremental() %} WHERE datetime > (SELECT max(datetime) FROM {{ this }}){% endif %}
{%- endset %}

SELECT id, datetime, min(B04) AS lowest, max(B04) AS highest, now() AS read_at
FROM rasteret_pixels('SELECT * FROM {{ ref("clear_scenes") }}{{ since }}', bands := ['B04'])
GROUP BY id, datetime
