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
TOO_LARGE = ("hugeint", "uhugeint")
NOT_IN_PARQUET = ("interval", "union", "empty_struct")
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


def value_of(name):
    """SQL of a value of each row of `t`."""
    return NESTED.get(name, f't."{name}"')


def tables_of(con, folder, *names):
    """Make `rec`, a collection with columns of these types, and `src`, its hrefs."""
    columns = ", ".join(f'{value_of(name)} AS "odd {name}"' for name in names)
    listed = ", ".join(f'"odd {name}"' for name in names)
    con.execute(
        f"CREATE OR REPLACE TABLE rec AS SELECT made.*, {columns} FROM made "
        "JOIN t ON id = 'n' || (n_ - 1)"
    )
    con.execute(
        f"CREATE OR REPLACE TABLE src AS SELECT id, '{folder}/a.tif' AS href, {listed} FROM rec"
    )


def values(con, source, *names):
    """Each column's distinct values, as text, by id."""
    listed = ", ".join(f'"odd {name}"::VARCHAR' for name in names)
    found = con.execute(f"SELECT DISTINCT id, {listed} FROM {source} ORDER BY ALL").fetchall()
    return [(row[0], *map(text, row[1:])) for row in found]


def written(folder):
    """What writes `rec` or `src`, and where that is read."""
    return [
        ("rasteret_build_table('built', 'src', href_column := 'href', force := true)", "built"),
        (f"rasteret_export('rec', '{folder}/out', force := true)", f"'{folder}/out/**/*.parquet'"),
    ]


KEPT = [
    name
    for name in (*TYPES, *NESTED)
    if name not in {"geometry", "tuple", *TOO_LARGE, *NOT_IN_PARQUET}
]
"""A record has one geometry; Arrow has no tuples but structs."""


def test_columns_of_a_record_keep_their_values(typed):
    con, folder = typed
    assert len(KEPT) > 50
    tables_of(con, folder, *KEPT)
    expected = values(con, "rec", *KEPT)
    for source in READS:
        assert values(con, source, *KEPT) == expected, source
    enriched = [name for name in KEPT if name != "variant"]
    some = f"(SELECT * FROM {ENRICH} WHERE b_metadata IS NOT NULL)"
    tables_of(con, folder, *enriched)
    assert values(con, some, *enriched) == values(con, "rec", *enriched)
    tables_of(con, folder, *KEPT)
    for write, source in written(folder):
        con.execute(f"FROM {write}").fetchall()
        assert values(con, source, *KEPT) == expected, source


@pytest.mark.parametrize("name", KEPT[:: len(KEPT) // 4])
def test_a_column_alone_keeps_its_values(typed, name):
    con, folder = typed
    tables_of(con, folder, name)
    expected = values(con, "rec", name)
    for source in (*READS, f"(SELECT * FROM {ENRICH} WHERE b_metadata IS NOT NULL)"):
        assert values(con, source, name) == expected, source


@pytest.mark.parametrize("name", [*TOO_LARGE, *(n for n in NOT_IN_PARQUET if n in TYPES)])
def test_a_column_that_has_no_place_is_named(typed, name):
    con, folder = typed
    tables_of(con, folder, name)
    too_large = r"Could not cast value .* source column odd" if name in TOO_LARGE else None
    for source in READS:
        if too_large:
            with pytest.raises(duckdb.Error, match=too_large):
                values(con, source, name)
        else:
            assert values(con, source, name) == values(con, "rec", name), source
    some = f"(SELECT * FROM {ENRICH} WHERE b_metadata IS NOT NULL)"
    assert values(con, some, name) == values(con, "rec", name)
    advice = "expected a type that Parquet can hold, got .*; drop it, or cast it"
    no_parquet = f"column odd {name}: {advice}"
    for write, _ in written(folder):
        with pytest.raises(duckdb.Error, match=too_large or no_parquet):
            con.execute(f"FROM {write}").fetchall()


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
