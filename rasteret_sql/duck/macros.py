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

from rasteret_sql.errors import RasteretError

PLAIN = ("10_scalars.sql", "90_functions.sql")
"""Files of macros that need no Python."""

HAND_WRITTEN = (*PLAIN, "35_values.sql")
"""The files that are not written from declarations."""

SQL_FILES = {
    "20_collections.sql": "Collections: build, keep, share.",
    "22_maintenance.sql": "Collections: bring up to date, check, compare with data sets.",
    "25_datasets.sql": "Data sets by name: built-in ones and the user's own.",
    "30_pixels.sql": "Pixels: plan, tiles, rows.",
}
"""The files of ``sql/`` that are written from declarations, and their first sentence."""

_LEADING_COMMENTS = re.compile(r"^(--[^\n]*\n\s*)+")
_CREATE = re.compile(r"^CREATE OR REPLACE MACRO\b", re.MULTILINE)
_COMMENT = re.compile(
    r"^COMMENT ON MACRO (?:TABLE )?\w+ IS \$doc\$.*?\$doc\$;", re.MULTILINE | re.DOTALL
)


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
def script() -> str:
    """Every statement of every file, in order."""
    return _text_of(*sorted((*HAND_WRITTEN, *SQL_FILES)))


@functools.cache
def statements() -> tuple[duckdb.Statement, ...]:
    """Those of `script`, parsed.

    Once for all databases: DuckDB 2.0 needs as long to parse them as to run them.
    """
    return tuple(duckdb.extract_statements(script()))


def plain_statements() -> tuple[str, ...]:
    """Those of the files that need no Python: any DuckDB can run and keep them."""
    found = duckdb.extract_statements(_text_of(*PLAIN))
    return tuple(_LEADING_COMMENTS.sub("", s.query.strip()).rstrip(";") for s in found)


def _text_of(*names: str) -> str:
    folder = sql_folder()
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def load(con: duckdb.DuckDBPyConnection) -> None:
    """Create the macros and their comments in the connection's current schema."""
    for statement in statements():
        con.execute(statement)


@functools.cache
def temp_statements() -> tuple[duckdb.Statement, ...]:
    """The macros once more as TEMP macros of one connection, without comments."""
    macros = _COMMENT.sub("", script())
    return tuple(duckdb.extract_statements(_CREATE.sub("CREATE OR REPLACE TEMP MACRO", macros)))
