-- The manual inside the database; run last, as it lists what is there.

CREATE OR REPLACE MACRO rasteret_functions() AS TABLE
    SELECT
        function_name AS name,
        CASE function_type WHEN 'table_macro' THEN 'table' ELSE 'scalar' END AS kind,
        function_name || '(' || array_to_string(parameters, ', ') || ')' AS signature,
        regexp_extract(comment, '^\s*([^\n]*)', 1) AS description,
        trim(regexp_extract(comment, '\nexample +([^\n]*)', 1)) AS example,
        comment AS manual
    FROM duckdb_functions()
    WHERE starts_with(function_name, 'rasteret_') AND comment IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY function_name ORDER BY database_name) = 1
    ORDER BY name;

COMMENT ON MACRO TABLE rasteret_functions IS $doc$
Every public function: the manual inside the database.

Arguments of all functions are constants: literals, prepared parameters, or getvariable('x')
after SET VARIABLE x = (SELECT …). Columns are refused; many areas at once are aois := 'table'.

returns  name, kind ('table' or 'scalar'), signature, description, example, manual
example  SELECT name, description FROM rasteret_functions()
$doc$;
