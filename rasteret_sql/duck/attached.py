"""A database file beside an in-memory one: read, never written."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

from rasteret_sql.duck.names import quote_identifier, quote_text


def attach_read_only(con: duckdb.DuckDBPyConnection, path: str | Path) -> str:
    """Attach a file under its own name, or as ``data`` where that is taken.

    Args:
        con: An open connection.
        path: Of the DuckDB file.

    Returns:
        The name that it has in this instance.
    """
    rows = con.execute("SELECT lower(database_name) FROM duckdb_databases()").fetchall()
    stem = Path(path).stem
    name = "data" if (stem.lower(),) in rows else stem
    con.execute(f"ATTACH {quote_text(str(path))} AS {quote_identifier(name)} (READ_ONLY)")
    return name


def give_plain_names(con: duckdb.DuckDBPyConnection, database: str) -> None:
    """Make tables and views of a database known without its name, as views of the current one.

    A view that can't be read is left out. One of the same name is replaced, unless it says the
    same: then a collection stays what it is.

    Args:
        con: Its current database can be written.
        database: Name of the one that was attached.
    """
    own = {(schema, name): _body(sql) for schema, name, sql in _listed(con, None)}
    for schema, name, sql in _listed(con, database):
        if sql is not None and own.get((schema, name)) == _body(sql):
            continue
        parts = [quote_identifier(part) for part in (database, schema, name)]
        view = ".".join(parts[1:])
        with contextlib.suppress(duckdb.Error):  # a view of what is no longer there
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {parts[1]}")
            con.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {'.'.join(parts)}")


def collections_in(con: duckdb.DuckDBPyConnection, database: str) -> list[tuple[str, str]]:
    """Schema and name of tables and views that hold scenes and headers of bands, sorted."""
    return con.execute(
        "SELECT schema_name, table_name FROM duckdb_columns() WHERE NOT internal "
        "AND database_name = $database GROUP BY ALL HAVING bool_or(column_name = 'id') "
        "AND bool_or(column_name = 'geometry') AND bool_or(ends_with(column_name, '_metadata')) "
        "ORDER BY ALL",
        {"database": database},
    ).fetchall()


def _listed(
    con: duckdb.DuckDBPyConnection, database: str | None
) -> list[tuple[str, str, str | None]]:
    """Schema, name, and text of a view, of the tables and views of a database."""
    where = "NOT internal AND NOT temporary AND database_name = ifnull($name, current_database())"
    return con.execute(
        f"SELECT schema_name, table_name, NULL FROM duckdb_tables() WHERE {where} "
        f"UNION ALL SELECT schema_name, view_name, sql FROM duckdb_views() WHERE {where}",
        {"name": database},
    ).fetchall()


def _body(view: str | None) -> str:
    """What a view selects.

    Example:
        >>> _body('CREATE VIEW "s2" AS SELECT 1;'), _body(None)
        ('SELECT 1', '')
    """
    return (view or "").partition(" AS ")[2].rstrip("; \n")
