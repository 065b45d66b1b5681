"""``rasteret-sql init``: a DuckDB file that shows the collections without Python."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import duckdb

from rasteret_sql import register
from rasteret_sql.cli.failures import Failure
from rasteret_sql.cli.session import not_opened, workspace_option
from rasteret_sql.collections.folders import workspace_folder
from rasteret_sql.collections.footers import CollectionInfo
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.duck.macros import plain_statements
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.views import check_view_can_be_made, create_view, view_statement
from rasteret_sql.errors import InputError

_ATTACHED = "SELECT path FROM duckdb_databases() WHERE database_name = 'file'"
_STORAGE_VERSION = "v1.0.0"
"""Of a new file: DuckDB 2.0 would write one that 1.5 can't open."""
_LISTS = "CREATE OR REPLACE MACRO rasteret_functions() AS TABLE"
_ELSEWHERE = "Not in this file: run rasteret-sql shell, or ask a server (rasteret-sql serve). "
"""In front of what a function does that needs Python."""


@click.command()
@click.argument("database", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--sql", "as_sql", is_flag=True, help="Print the statements, for .read of any DuckDB shell."
)
@click.option("--force", is_flag=True, help="Replace other views of the same names.")
@workspace_option
def init(database: Path | None, workspace_dir: Path | None, *, as_sql: bool, force: bool) -> None:
    """Make or renew a DuckDB file DATABASE that shows the collections without Python.

    It gets a view for each collection of the workspace, and the functions that are plain SQL,
    as rasteret_ndvi. FROM rasteret_functions() lists them, then those that need Python, with
    their manuals: rasteret-sql shell has them, and a server that rasteret-sql serve starts.
    What else the file holds stays as it is. Views name the files where they are: run it again
    after a build under a new name, and with --force when the workspace has moved.

        rasteret-sql init my.duckdb && duckdb my.duckdb "FROM s2"
    """
    if (database is None) == (not as_sql):
        raise click.UsageError("expected DATABASE or --sql, got " + ("both" if as_sql else "none"))
    workspace = Workspace(workspace_dir)
    collections = workspace.collections()
    for name, problem in workspace.problems.items():
        click.echo(f"warning: {name}: {problem}", err=True)
    if database is None:
        _print(collections)
    else:
        _write(database.expanduser(), collections, force=force)
        if not collections:
            folder = workspace_folder(workspace_dir)
            click.echo(f"no collections in {folder}; --workspace-dir names another", err=True)


def _print(collections: list[CollectionInfo]) -> None:
    views = [view_statement(info.name, str(info.path)) for info in collections]
    click.echo("-- Written by `rasteret-sql init --sql`.\n")
    click.echo(";\n\n".join((*_macros(), *views)) + ";")


def _macros() -> list[str]:
    """The functions that are plain SQL, the last of which lists the others too."""
    with duckdb.connect() as con:
        register(con)
        rows = con.execute(
            "SELECT name, signature, description, example, manual FROM rasteret_functions()"
        ).fetchall()
    listed = ",\n        ".join(f"({', '.join(map(quote_text, row))})" for row in rows)
    return [
        _listing(statement.removeprefix(_LISTS), listed)
        if statement.startswith(_LISTS)
        else statement
        for statement in plain_statements()
    ]


def _listing(here: str, listed: str) -> str:
    """The macro that lists functions: those that are here, then those that are not."""
    return f"""{_LISTS}
    WITH here AS ({here}
    ), listed AS (
        FROM (VALUES
        {listed}
        ) AS _(name, signature, description, example, manual)
    )
    SELECT * EXCLUDE is_here FROM (
        SELECT *, true AS is_here FROM here
        UNION ALL BY NAME
        SELECT name, 'needs Python' AS kind, signature, {quote_text(_ELSEWHERE)} || description
            AS description, example, manual, false AS is_here
        FROM listed ANTI JOIN here USING (name)
    ) ORDER BY is_here DESC, name"""  # noqa: S608 (of our own texts)


def _write(path: Path, collections: list[CollectionInfo], *, force: bool) -> None:
    """Write macros and views in one transaction.

    Raises:
        Failure: a name is taken by another table or view; nothing has changed.
        InputError: the file is of another kind, or cannot be written.
    """
    version = "" if path.exists() else f", STORAGE_VERSION '{_STORAGE_VERSION}'"
    with duckdb.connect() as con:
        try:
            con.execute(f"ATTACH {quote_text(str(path))} AS file (READ_WRITE{version})")
        except duckdb.IOException as error:
            raise not_opened(str(path), error) from error
        if con.execute(_ATTACHED).fetchall() == [(None,)]:  # CSV and the like, as views in memory
            raise InputError.expected(
                "database", "a DuckDB file", str(path), "name a new file, as my.duckdb"
            )
        con.execute("USE file")
        con.execute("BEGIN")
        for statement in _macros():
            con.execute(statement)
        for info in collections:
            try:
                check_view_can_be_made(con, info.name, [info.path], force=force)
            except InputError as error:
                raise Failure(
                    f"{info.name}: expected a name that is free in {path.name}, got another table "
                    "or view; pass --force to replace a view, or rename it"
                ) from error
            create_view(con, info.name, str(info.path))
        con.execute("COMMIT")
        (n_functions,) = con.execute(
            "SELECT count(DISTINCT function_name) FROM duckdb_functions() WHERE "
            "database_name = 'file' AND starts_with(function_name, 'rasteret_')"
        ).fetchall()[0]
    views = "1 view" if len(collections) == 1 else f"{len(collections)} views"
    click.echo(f"{path}: {views}, {n_functions} functions")
    click.echo(
        f"what reads pixels needs Python: rasteret-sql shell {shlex.quote(str(path))}, or a server "
        "(rasteret-sql serve)"
    )
