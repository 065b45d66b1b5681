"""The public SQL: find the files of ``sql/``, run them in order.

Each file holds ``CREATE OR REPLACE MACRO`` statements, each followed by its ``COMMENT ON``,
which is the manual. Files are run in the order of their names: macros bind when created.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import duckdb

from rasteret_sql.duck import functions
from rasteret_sql.duck.declarations import BIND_UDF
from rasteret_sql.duck.scalars import create_scalar
from rasteret_sql.duck.table_function import Runtime

_LEADING_COMMENTS = re.compile(r"^(--[^\n]*\n\s*)+")
_CREATE = re.compile(r"^CREATE OR REPLACE MACRO (\w+)")


def sql_folder() -> Path:
    """Where the SQL files are: beside the package in a checkout, inside it once installed."""
    checkout = Path(__file__).parents[2] / "sql"
    return checkout if checkout.is_dir() else Path(__file__).parents[1] / "_sql"


@functools.cache
def statements() -> tuple[str, ...]:
    """Every statement of every file, in order."""
    found = []
    for path in sorted(sql_folder().glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        found += [
            _LEADING_COMMENTS.sub("", s.query.strip()).rstrip(";")
            for s in duckdb.extract_statements(text)
        ]
    return tuple(found)


def load(con: duckdb.DuckDBPyConnection) -> None:
    """Create the macros and their comments in the connection's current schema."""
    for statement in statements():
        con.execute(statement)


@functools.cache
def temp_script() -> str:
    """The macros once more as TEMP macros of one connection, as one script."""
    return ";\n".join(
        _CREATE.sub(r"CREATE OR REPLACE TEMP MACRO \1", statement)
        for statement in statements()
        if _CREATE.match(statement)
    )


def create_udfs(con: duckdb.DuckDBPyConnection, runtime: Runtime) -> list[object]:
    """Register the private scalar UDFs that macros call.

    Returns:
        The functions; DuckDB only borrows them, so they must outlive the connections.
    """
    made = [create_scalar(con, BIND_UDF, runtime.bind, "VARCHAR")]
    made += [
        create_scalar(con, scalar.name, scalar.make(runtime), scalar.returns)
        for scalar in functions.SCALARS
    ]
    return made
