"""Cursors for tests that share a connection: to connect costs more than most tests do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import duckdb

MADE = """
SELECT 'DETACH', database_name, '' FROM duckdb_databases() WHERE NOT internal
UNION ALL SELECT 'DROP SCHEMA', schema_name, 'CASCADE' FROM duckdb_schemas()
    WHERE NOT internal AND database_name = current_database()
UNION ALL SELECT 'DROP TABLE', table_name, '' FROM duckdb_tables()
    WHERE schema_name = 'main' AND database_name = current_database()
UNION ALL SELECT 'DROP VIEW', view_name, '' FROM duckdb_views()
    WHERE NOT internal AND schema_name = 'main' AND database_name = current_database()
"""


@contextlib.contextmanager
def cursor_of(con: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor for one test; what that makes in the database is dropped in the end."""
    kept = set(con.execute(MADE).fetchall())
    with con.cursor() as cursor:
        yield cursor
    for drop, name, rest in set(con.execute(MADE).fetchall()) - kept:
        quoted = name.replace('"', '""')
        con.execute(f'{drop} "{quoted}" {rest}')
