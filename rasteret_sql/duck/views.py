"""Collections as views: plain SQL over Parquet that any DuckDB reads without us."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from rasteret_sql.collections.folders import is_parquet_name
from rasteret_sql.collections.footers import CollectionInfo
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.datasets.registry import set_storage_defaults_of
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.duck.parquet_sql import parquet_sql, remote_view_sql
from rasteret_sql.errors import CollectionError, InputError
from rasteret_sql.remote.stores import is_remote


def create_view(
    con: duckdb.DuckDBPyConnection, name: str, path: str, *, temporary: bool = False
) -> None:
    """Make or renew the view of a collection in the current schema."""
    try:
        con.execute(view_statement(name, path, temporary=temporary))
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise CollectionError(f"view {name}: {first}") from error


def view_statement(name: str, path: str, *, temporary: bool = False) -> str:
    """The statement that makes or renews the view of a collection."""
    kind = "TEMP VIEW" if temporary else "VIEW"
    rows = remote_view_sql(path) if is_remote(path) else parquet_sql(path)
    return f"CREATE OR REPLACE {kind} {quote_identifier(name)} AS SELECT * FROM {rows}"


def check_view_can_be_made(
    con: duckdb.DuckDBPyConnection, name: str, paths: Iterable[object], *, force: bool = False
) -> None:
    """Refuse, before any work, a view that could not be made.

    A TEMP view would not do in a read-only database: only the connection that makes it sees
    it, and that is one of our own.

    Args:
        con: Where it would be made.
        name: Of the view.
        paths: Where the collection is or was: a view over one of them is its own.
        force: Another view of the name may be replaced.

    Raises:
        InputError: the name is another table or view, or the database is read-only.
    """
    database, is_read_only = _database(con)
    if is_read_only:
        raise InputError.expected(
            "name",
            "a database that can be written, for the view",
            f"{database}, which is read-only",
            "ATTACH ':memory:' AS work (READ_WRITE) and USE work",
        )
    if force:
        return
    for kind, sql in _named(con, name):
        if not (kind == "view" and _is_over(sql, paths)):
            raise InputError.expected(
                "name", "a name that is free", f"a {kind} {name}", "choose another, or drop it"
            )


def drop_view(con: duckdb.DuckDBPyConnection, name: str, paths: Iterable[object]) -> None:
    """Remove the view of a collection; a view or table that is not over one of paths stays."""
    for kind, sql in _named(con, name):
        if kind == "view" and _is_over(sql, paths):
            con.execute(f"DROP VIEW IF EXISTS {quote_identifier(name)}")


def create_workspace_views(con: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Make a view for each collection of the workspace whose name is free.

    Files of those built from a data set are reached as that says, by the stores in use.
    """
    _, read_only = _database(con)
    collections = workspace.collections()
    set_storage_defaults_of(info.data_source for info in collections)
    taken = _names(con) if collections else set()
    for info in collections:
        if info.name.lower() not in taken:
            _create_view_if_there(con, info, is_temporary=read_only)


def _create_view_if_there(
    con: duckdb.DuckDBPyConnection, info: CollectionInfo, *, is_temporary: bool
) -> None:
    """Make the view of a collection that another process may replace or drop meanwhile."""
    for is_last in (False, True):
        try:
            create_view(con, info.name, str(info.path), temporary=is_temporary)
        except CollectionError:
            if not info.path.exists():
                return
            if is_last:
                raise
        else:
            return


def _database(con: duckdb.DuckDBPyConnection) -> tuple[str, bool]:
    """Name of the current database, and whether it is read-only."""
    row: tuple[str, bool] = con.execute(
        "SELECT database_name, readonly FROM duckdb_databases() "
        "WHERE database_name = current_database()"
    ).fetchall()[0]
    return row


def quote_part(path: str) -> str:
    """How a path appears inside the text of a view."""
    text = path.rstrip("/").replace("'", "''")
    return text + ("'" if is_parquet_name(path) else "/")


def _is_over(sql: str | None, paths: Iterable[object]) -> bool:
    return any(quote_part(str(path)) in (sql or "") for path in paths)


def _names(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of tables and views in the current schema, in lower case."""
    here = "schema_name = current_schema() AND database_name = current_database()"
    rows = con.execute(
        f"SELECT lower(table_name) FROM duckdb_tables() WHERE {here} "
        f"UNION ALL SELECT lower(view_name) FROM duckdb_views() WHERE {here}"
    ).fetchall()
    return {name for (name,) in rows}


def _named(con: duckdb.DuckDBPyConnection, name: str) -> list[tuple[str, str | None]]:
    """Tables and views of this name in the current schema: kind and SQL text.

    The name is in the text, as DuckDB 1.5 imports pandas to take a parameter.
    """
    text = quote_text(name)
    return con.execute(
        f"SELECT 'table', NULL FROM duckdb_tables() WHERE table_name = {text} AND "
        "schema_name = current_schema() AND database_name = current_database() "
        f"UNION ALL SELECT 'view', sql FROM duckdb_views() WHERE view_name = {text} AND "
        "schema_name = current_schema() AND database_name = current_database()"
    ).fetchall()
