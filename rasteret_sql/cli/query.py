"""``rasteret-sql query``: one or more statements, the last one's result in any format."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rasteret_sql.cli import output as results
from rasteret_sql.cli.session import database_option, is_success, session, workspace_option
from rasteret_sql.duck.results import translated


@click.command()
@click.argument("sql")
@results.options
@click.option("--read-only", is_flag=True, help="Open --database without writing to it.")
@database_option
@workspace_option
def query(
    sql: str,
    format_: str | None,
    output: Path | None,
    database: str,
    workspace_dir: Path | None,
    *,
    read_only: bool,
) -> None:
    """Run SQL, or what stdin holds where SQL is -; print the last statement's result.

    The collections of the workspace are views. As in DuckDB, the table shows the first and
    last rows of a long result; csv, json, parquet and arrow (an IPC stream) hold all. csv, json
    and arrow come on stdout while the statement runs; exit code 1 says that they are not whole.
    """
    format_ = results.chosen(format_, output)
    text = sys.stdin.read() if sql == "-" else sql
    with session(workspace_dir, database, read_only=read_only) as con, translated(con, text):
        result = con.sql(text)
        if result is None or not result.columns or is_success(result):
            return
        results.put(con, result, format_, output, label="running")
