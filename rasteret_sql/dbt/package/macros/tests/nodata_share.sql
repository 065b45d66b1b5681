{#- The share of pixels without data is at most `at_most`, in each row. The model has the columns
    nodata_count and pixel_count, as rasteret_zonal_stats gives them; or it is a collection, and
    `bands` are read, whole rasters, at `level` (0 is full resolution). -#}
{% test nodata_share(model, at_most, bands=none, level=0) %}
SELECT *, nodata_count / pixel_count AS share
FROM {% if bands is none %}{{ model }}{% else -%}
rasteret_zonal_stats(
    {{ rasteret.sql_literal('SELECT * FROM ' ~ model) }}, NULL,
    bands := {{ rasteret.sql_literal(bands) }}, level := {{ level }},
    stats := ['nodata_count', 'pixel_count'], record_columns := ['id']
)
{%- endif %}
WHERE pixel_count > 0 AND nodata_count / pixel_count > {{ at_most }}
{% endtest %}
