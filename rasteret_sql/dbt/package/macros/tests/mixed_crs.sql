{#- All scenes have one CRS, so that x, y and pixel sizes mean the same; with `group_by`, a column or
    a list of them, all of a group. A scene without a CRS is found too. -#}
{% test mixed_crs(model, group_by=none) %}
{%- set columns = [group_by] if group_by is string else group_by or [] %}
SELECT {% for column in columns %}{{ adapter.quote(column) }}, {% endfor -%}
    list(DISTINCT coalesce(crs, 'none')) AS found, count(*) AS scenes
FROM {{ model }}
GROUP BY ALL
HAVING count(DISTINCT crs) > 1 OR bool_or(crs IS NULL)
{% endtest %}
