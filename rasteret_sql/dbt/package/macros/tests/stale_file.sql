{#- No file of the collection has changed since its header was read; each is asked for its ETag and
    size (one HEAD each). `gone: true` also finds files that are not there any more. -#}
{% test stale_file(model, gone=false) %}
SELECT id, band, fault
FROM rasteret_validate({{ rasteret.sql_literal('SELECT * FROM ' ~ model) }}, check_remote := true)
WHERE fault LIKE 'stale:%'{% if gone %} OR fault LIKE 'gone:%'{% endif %}
{% endtest %}
