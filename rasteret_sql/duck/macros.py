"""The public SQL: find the files of ``sql/``, run them in order.

Each file holds ``CREATE OR REPLACE MACRO`` statements, each followed by its ``COMMENT ON``,
which is the manual. Files are run in the order of their names: macros bind when created.
Those of table functions are written from `duck.declarations`, the others by hand.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import duckdb

from rasteret_sql.duck import functions
from rasteret_sql.duck.declarations import BIND_UDF, SQL_FILES
from rasteret_sql.duck.scalars import create_scalar
from rasteret_sql.duck.table_function import Runtime
from rasteret_sql.errors import RasteretError

PLAIN = ("10_scalars.sql", "90_functions.sql")
"""Files of macros that need no Python."""

HAND_WRITTEN = (*PLAIN, "35_values.sql")
"""The files that are not written from declarations."""

_LEADING_COMMENTS = re.compile(r"^(--[^\n]*\n\s*)+")
_CREATE = re.compile(r"^CREATE OR REPLACE MACRO (\w+)")


def sql_folder(package: Path = Path(__file__).parents[1]) -> Path:
    """Where the SQL files are: inside the package once installed, beside it in a checkout.

    A folder ``sql`` beside an installed package is another package's.

    Raises:
        RasteretError: in neither place are files of ours.
    """
    for folder in (package / "_sql", package.parent / "sql"):
        if all((folder / name).is_file() for name in (*HAND_WRITTEN, *SQL_FILES)):
            return folder
    raise RasteretError.expected(
        "SQL files", f"{HAND_WRITTEN[0]} and others in {package / '_sql'}", "none", "install again"
    )


@functools.cache
def statements() -> tuple[str, ...]:
    """Every statement of every file, in order."""
    return _statements_of(*sorted((*HAND_WRITTEN, *SQL_FILES)))


@functools.cache
def plain_statements() -> tuple[str, ...]:
    """Those of the files that need no Python: any DuckDB can run and keep them."""
    return _statements_of(*PLAIN)


def _statements_of(*names: str) -> tuple[str, ...]:
    found = []
    folder = sql_folder()
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
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
def temp_statements() -> tuple[duckdb.Statement, ...]:
    """The macros once more as TEMP macros of one connection.

    Parsed once for all connections: DuckDB 2.0 needs as long to parse them as to run them.
    """
    script = ";\n".join(
        _CREATE.sub(r"CREATE OR REPLACE TEMP MACRO \1", statement)
        for statement in statements()
        if _CREATE.match(statement)
    )
    return tuple(duckdb.extract_statements(script))


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
