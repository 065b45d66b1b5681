"""What a command that builds a collection prints and returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click
import duckdb

from rasteret_sql.cli import text
from rasteret_sql.cli.failures import Failure
from rasteret_sql.cli.session import call, session, to_json
from rasteret_sql.collections.folders import collection_folders
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.progress.display import shown


def build(
    function: str,
    parameters: Mapping[str, object],
    workspace: Path | None,
    *,
    first: str,
    as_json: bool,
) -> None:
    """Call a function that builds a collection and print its report.

    Args:
        function: SQL name.
        parameters: Of the function.
        workspace: Folder of collections.
        first: The parameter that is passed by position.
        as_json: Print JSON.

    Raises:
        Failure: there are headers to read, and none could be read; the report is printed.
    """
    with shown(f"building {parameters[first]}"), session(workspace) as con:
        before = _names(con)
        report = call(con, function, parameters, first=first)[0]
        was_there = report["name"] in before and not parameters["force"]
        reason = ""
        if report["failed"] and not report["enriched"]:
            errors = call(
                con, "rasteret_errors", {"collection": report["name"]}, first="collection"
            )
            reason = next((row["error"] for row in errors if row["band"]), "")
    if as_json:
        click.echo(to_json(report))
    else:
        text.report(report)
        if was_there:  # a build with other options would have been refused
            click.echo("it was there already, built with these options; --force builds it anew")
    if report["failed"] and not report["enriched"]:
        raise Failure(
            f"{report['name']}: expected headers, got 0 of {report['assets']}; "
            f"the first: {reason or 'see rasteret_errors'}"
        )


def _names(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Collections of the workspace."""
    return {name for name, _ in collection_folders(instance_of(con).folder)}
