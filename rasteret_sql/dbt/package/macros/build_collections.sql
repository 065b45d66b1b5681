{#- Build or refresh the collections of sources that say how: `on-run-start: "{{ rasteret.build_collections() }}"`.

    The arguments of a build stand in `config: meta: rasteret:` of a source's table. A collection is
    built when there is none of its name, refreshed when there is one, built anew by --full-refresh.
    Only sources that a selected node reads are looked at, in `dbt build`, `run` and `snapshot`. -#}
{% macro build_collections() %}
  {%- if execute and flags.WHICH in ('build', 'run', 'snapshot') -%}
    {%- set wanted = [] -%}
    {%- for id in selected_resources -%}
      {%- do wanted.append(id) -%}
      {%- do wanted.extend(graph.nodes[id].depends_on.nodes if id in graph.nodes else []) -%}
    {%- endfor -%}
    {%- for source in graph.sources.values() if source.unique_id in wanted -%}
      {%- set arguments = source.meta.get('rasteret') -%}
      {%- if arguments -%}
        {%- do rasteret.build_collection(source.identifier, arguments) -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{% endmacro %}


{#- Build or refresh one collection and log what was done. -#}
{% macro build_collection(name, arguments) %}
  {%- set given = dict(arguments) -%}
  {%- set refresh = given.pop('refresh', true) -%}
  {%- set functions = {'stac_api': 'rasteret_build_stac', 'source': 'rasteret_build_table',
                       'dataset_id': 'rasteret_build'} -%}
  {%- set main = functions | select('in', given) | list -%}
  {%- if main | length != 1 -%}
    {{- exceptions.raise_compiler_error(
        name ~ ": meta: rasteret: expected one of stac_api, source, dataset_id, got '"
        ~ given | join(', ') ~ "'; give the one to build from") -}}
  {%- endif -%}
  {%- set main = main[0] -%}
  {%- set known = run_query(
      'SELECT count(*) FROM rasteret_collections() WHERE kind <> ' ~ rasteret.sql_literal('view')
      ~ ' AND name = ' ~ rasteret.sql_literal(name)).rows[0][0] > 0 -%}
  {%- if known and not flags.FULL_REFRESH -%}
    {%- if not refresh -%}{{- return('') -}}{%- endif -%}
    {%- set function, verb = 'rasteret_refresh', 'refreshed' -%}
    {%- set options = {} if main == 'dataset_id' else {main: given[main]} -%}
    {%- do options.update(refresh if refresh is mapping else {}) -%}
  {%- else -%}
    {%- set function, verb = functions[main], 'built' -%}
    {%- set options = dict(given, force=true) -%}
  {%- endif -%}
  {%- set texts = [] -%}
  {%- if main == 'dataset_id' and verb == 'built' -%}
    {%- do texts.append(rasteret.sql_literal(options.pop('dataset_id'))) -%}
    {%- do options.update({'name': name}) -%}
  {%- else -%}
    {%- do texts.append(rasteret.sql_literal(name)) -%}
  {%- endif -%}
  {%- for key, value in options.items() -%}
    {%- set is_json = value is mapping and key in ('query', 'filter', 'intersects') -%}
    {%- do texts.append(
        adapter.quote(key) ~ ' := ' ~ rasteret.sql_literal(tojson(value) if is_json else value)) -%}
  {%- endfor -%}
  {%- set report = run_query(
      'SELECT records, enriched, failed FROM ' ~ function ~ '(' ~ texts | join(', ') ~ ')').rows[0] -%}
  {%- do log('collection ' ~ name ~ ' ' ~ verb ~ ': ' ~ report[0] ~ ' records, ' ~ report[1]
      ~ ' headers read, ' ~ report[2] ~ ' files not readable', info=true) -%}
{% endmacro %}


{#- A value of YAML as SQL: text, number, boolean, NULL, LIST or MAP. -#}
{% macro sql_literal(value) %}
  {%- if value is none -%}
    {{- return('NULL') -}}
  {%- elif value is boolean or value is number -%}
    {{- return(value | string) -}}
  {%- elif value is mapping -%}
    {%- set texts = [] -%}
    {%- for key, item in value.items() -%}
      {%- do texts.append(rasteret.sql_literal(key) ~ ': ' ~ rasteret.sql_literal(item)) -%}
    {%- endfor -%}
    {{- return('MAP {' ~ texts | join(', ') ~ '}') -}}
  {%- elif value is iterable and value is not string -%}
    {%- set texts = [] -%}
    {%- for item in value -%}
      {%- do texts.append(rasteret.sql_literal(item)) -%}
    {%- endfor -%}
    {{- return('[' ~ texts | join(', ') ~ ']') -}}
  {%- else -%}
    {{- return("'" ~ (value | string).replace("'", "''") ~ "'") -}}
  {%- endif -%}
{% endmacro %}
