"""Columns of every type that DuckDB has, through every function: the value, or an error that
names the column."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest
import tifffile

import rasteret_sql
from rasteret_sql.duck.calls import Call, Caller
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.duck.relations import resolve
from rasteret_sql.errors import CollectionError

TYPES = [row[0] for row in duckdb.sql("DESCRIBE FROM test_all_types()").fetchall()]
NESTED = {
    "list_time_tz": "[t.time_tz]",
    "struct_bit": "{'a b': t.bit, 'c': [{'d': t.time_tz}]}",
    "map_bignum": "MAP {1: t.bignum}",
    "array_time_tz": "array_value(t.time_tz, t.time_tz)",
    "variant": "t.int::VARIANT",
    "json": """'{"a": 1}'::JSON""",
}
TOO_LARGE = {"hugeint", "uhugeint"}
NOT_IN_PARQUET = {"interval": "interval", "union": "sparse_union", "empty_struct": "struct<>"}
READS = ["rasteret_plan('rec')", "rasteret_read_tiles('rec')", "rasteret_pixels('rec')"]
ENRICH = "(FROM rasteret_enrich('src', bands := ['b'], href_column := 'href'))"


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """A connection with three records and DuckDB's own rows of all types."""
    folder = tmp_path_factory.mktemp("typed")
    tifffile.imwrite(folder / "a.tif", np.ones((16, 16), np.uint8), tile=(16, 16), metadata=None)
    con = rasteret_sql.connect(workspace=folder / "workspace", config={"threads": 2})
    con.execute(
        "FROM rasteret_build_table('made', $source, href_column := 'href', bands := ['b'], "
        "enrich := true)",
        {"source": f"SELECT 'n' || i AS id, '{folder}/a.tif' AS href FROM range(3) r(i)"},
    ).fetchall()
    con.execute("CREATE TABLE t AS SELECT row_number() OVER () AS n_, * FROM test_all_types()")
    yield con, folder
    con.close()


def text(value):
    """A value as text, whose list elements DuckDB 1.5 quotes where they are text."""
    return None if value is None else value.replace("'", "")


@pytest.mark.parametrize("name", [*TYPES, *NESTED])
def test_a_column_of_a_record_keeps_its_values_or_is_named(typed, name):
    if name in ("geometry", "tuple"):
        pytest.skip("a record has one geometry; Arrow has no tuples but structs")
    con, folder = typed
    value = NESTED.get(name, f't."{name}"')
    con.execute(
        f"CREATE OR REPLACE TABLE rec AS SELECT made.*, {value} AS odd FROM made "
        "JOIN t ON id = 'n' || (n_ - 1)"
    )
    con.execute(f"CREATE OR REPLACE TABLE src AS SELECT id, '{folder}/a.tif' AS href, odd FROM rec")
    expected = con.execute("SELECT id, odd::VARCHAR FROM rec ORDER BY 1").fetchall()
    expected = [(row[0], text(row[1])) for row in expected]

    def check(source, message):
        query = f"SELECT DISTINCT id, odd::VARCHAR FROM {source} ORDER BY 1"
        if message:
            with pytest.raises(duckdb.Error, match=message):
                con.execute(query).fetchall()
        else:
            found = [(row[0], text(row[1])) for row in con.execute(query).fetchall()]
            assert found == expected, source

    too_large = r"Could not cast value .* source column odd" if name in TOO_LARGE else None
    for source in READS:
        check(source, too_large)
    if name != "variant":
        check(f"(SELECT * FROM {ENRICH} WHERE b_metadata IS NOT NULL)", None)
    no_parquet = "column odd: expected a type that Parquet can hold, got .*; drop it, or cast it"
    refused = too_large or (no_parquet if name in NOT_IN_PARQUET else None)
    for write, source in [
        ("rasteret_build_table('built', 'src', href_column := 'href', force := true)", "built"),
        (f"rasteret_export('rec', '{folder}/out', force := true)", f"'{folder}/out/**/*.parquet'"),
    ]:
        if refused:
            with pytest.raises(duckdb.Error, match=refused):
                con.execute(f"FROM {write}").fetchall()
        else:
            con.execute(f"FROM {write}").fetchall()
            check(source, None)


def test_the_same_call_reads_a_table_that_was_made_again(typed):
    con, folder = typed
    build = "FROM rasteret_build_table('again', 'same', bands := ['b'], force := true)"
    export = f"FROM rasteret_export('same', '{folder}/same', force := true)"
    for value in ("true", "7", "'seven'"):
        con.execute(
            "CREATE OR REPLACE TABLE same AS "
            f"SELECT * EXCLUDE (year, month), {value} AS v FROM made"
        )
        con.execute(build).fetchall()
        con.execute(export).fetchall()
        expected = con.execute("SELECT DISTINCT v, typeof(v) FROM same").fetchall()
        assert con.execute("SELECT DISTINCT v, typeof(v) FROM again").fetchall() == expected
        query = f"SELECT DISTINCT v, typeof(v) FROM '{folder}/same/**/*.parquet'"
        assert con.execute(query).fetchall() == expected


def test_a_table_altered_between_binding_and_reading_is_not_cast(typed):
    con, _ = typed
    con.execute("CREATE OR REPLACE TABLE altered AS SELECT true AS v")
    call = Call("test", Caller("memory", "main", "0"), instance_of(con).runtime)
    relation = resolve(call, "altered")
    con.execute("CREATE OR REPLACE TABLE altered AS SELECT 7 AS v")
    message = "column v: expected bool, as when the statement was prepared, got int32"
    with pytest.raises(CollectionError, match=message):
        list(relation.batches(call, ["v"], []))
