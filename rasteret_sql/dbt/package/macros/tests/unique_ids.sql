{#- No id is NULL or comes twice. `columns`: those that name a row together; default: id. -#}
{% test unique_ids(model, columns=['id']) %}
{%- set names = [] -%}
{%- for column in ([columns] if columns is string else columns) -%}
  {%- do names.append(adapter.quote(column)) -%}
{%- endfor %}
SELECT {{ names | join(', ') }}, count(*) AS n
FROM {{ model }}
GROUP BY ALL
HAVING count(*) > 1 OR {{ names | join(' IS NULL OR ') }} IS NULL
{% endtest %}
