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
    {%- for source in graph.sources.values() | sort(attribute='unique_id') if source.unique_id in wanted -%}
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
  {%- set builds = {'stac_api': 'rasteret_build_stac', 'source': 'rasteret_build_table',
                    'dataset_id': 'rasteret_build'} -%}
  {%- set origins = builds | select('in', given) | list -%}
  {%- if origins | length != 1 -%}
    {%- do exceptions.raise_compiler_error(
        name ~ ': meta: rasteret: expected one of stac_api, source, dataset_id, got '
        ~ (given | join(', ') or 'none') ~ '; give the one to build from') -%}
  {%- endif -%}
  {%- set origin = origins[0] -%}
  {%- do rasteret.check_arguments(name, builds[origin], given) -%}
  {%- do rasteret.check_arguments(name, 'rasteret_refresh', refresh if refresh is mapping else {}) -%}
  {%- set is_known = run_query(
      'SELECT count(*) FROM rasteret_collections() WHERE kind <> ' ~ rasteret.sql_literal('view')
      ~ ' AND name = ' ~ rasteret.sql_literal(name)).rows[0][0] > 0 -%}
  {%- if not is_known or flags.FULL_REFRESH -%}
    {%- do rasteret.call_build(
        'built', name, builds[origin], dict({'name': name}, force=true, **given)) -%}
  {%- elif refresh -%}
    {%- set again = {} if origin == 'dataset_id' else {origin: given[origin]} -%}
    {%- do rasteret.call_build('refreshed', name, 'rasteret_refresh',
        dict({'name': name}, **dict(again, **(refresh if refresh is mapping else {})))) -%}
  {%- endif -%}
{% endmacro %}


{#- Fail with one line if a function has no such argument. -#}
{% macro check_arguments(name, function, arguments) %}
  {%- set known = run_query(
      'SELECT DISTINCT unnest(parameters) FROM duckdb_functions() WHERE function_name = '
      ~ rasteret.sql_literal(function)).columns[0].values()
      | reject('in', ['name', 'force', 'workspace']) | sort -%}
  {%- for argument in arguments if argument not in known -%}
    {%- do exceptions.raise_compiler_error(
        name ~ ': meta: rasteret: expected arguments of ' ~ function ~ ' (' ~ known | join(', ')
        ~ "), got '" ~ argument ~ "'; fix it") -%}
  {%- endfor -%}
{% endmacro %}


{#- Call the function that builds or refreshes, and log its report. -#}
{% macro call_build(verb, name, function, arguments) %}
  {%- set texts = [] -%}
  {%- for key, value in arguments.items() -%}
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
