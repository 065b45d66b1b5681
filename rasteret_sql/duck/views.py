"""Collections as views: plain SQL over Parquet that any DuckDB reads without us."""

from __future__ import annotations

import duckdb

from rasteret_sql.duck.relations import parquet_sql
from rasteret_sql.duck.table_function import quote_identifier
from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.records.catalog import suggest_storage_of
from rasteret_sql.records.workspace import Workspace


def create_view(
    con: duckdb.DuckDBPyConnection, name: str, path: str, *, temporary: bool = False
) -> None:
    """Make or renew the view of a collection in the current schema."""
    kind = "TEMP VIEW" if temporary else "VIEW"
    sql = f"CREATE OR REPLACE {kind} {quote_identifier(name)} AS SELECT * FROM {parquet_sql(path)}"
    try:
        con.execute(sql)
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise CollectionError(f"view {name}: {first}") from error


def check_name_is_free(con: duckdb.DuckDBPyConnection, name: str, path: str) -> None:
    """Refuse a name that is another table or view.

    Raises:
        InputError: says what stands there.
    """
    for kind, sql in _named(con, name):
        if kind == "table" or quote_part(path) not in (sql or ""):
            raise InputError.expected(
                "name", "a name that is free", f"a {kind} {name}", "choose another, or drop it"
            )


def drop_view(con: duckdb.DuckDBPyConnection, name: str, path: str) -> None:
    """Remove the view of a collection; a view or table that is not ours stays."""
    for kind, sql in _named(con, name):
        if kind == "view" and quote_part(path) in (sql or ""):
            con.execute(f"DROP VIEW IF EXISTS {quote_identifier(name)}")


def create_workspace_views(con: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Make a view for each collection of the workspace whose name is free.

    Files of those built from a data set are reached as that says.
    """
    read_only = con.execute(
        "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0][0]
    collections = workspace.collections()
    suggest_storage_of(info.data_source for info in collections)
    for info in collections:
        if not _named(con, info.name):
            create_view(con, info.name, str(info.path), temporary=read_only)


def quote_part(path: str) -> str:
    """How a path appears inside the text of a view."""
    return path.rstrip("/").replace("'", "''") + "/"


def _named(con: duckdb.DuckDBPyConnection, name: str) -> list[tuple[str, str | None]]:
    """Tables and views of this name in the current schema: kind and SQL text."""
    return con.execute(
        "SELECT 'table', NULL FROM duckdb_tables() WHERE table_name = $name AND "
        "schema_name = current_schema() AND database_name = current_database() "
        "UNION ALL SELECT 'view', sql FROM duckdb_views() WHERE view_name = $name AND "
        "schema_name = current_schema() AND database_name = current_database()",
        {"name": name},
    ).fetchall()
