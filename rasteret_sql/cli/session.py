"""A connection for one command, and its results as JSON."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import click
import duckdb

from rasteret_sql import connect
from rasteret_sql.collections.folders import collection_folders
from rasteret_sql.duck.connection import instance_of
from rasteret_sql.duck.results import translated
from rasteret_sql.errors import (
    InputError,
    RasteretError,
    RasteretWarning,
    UnknownCollectionError,
)

workspace_option = click.option(
    "--workspace-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of collections; default: $RASTERET_WORKSPACE, else ~/rasteret_workspace.",
)
database_option = click.option(
    "--database",
    type=click.Path(dir_okay=False),
    default=":memory:",
    help="DuckDB file; default: in memory.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_SWITCH = re.compile(r"\b(force|enrich|allow_local) := true\b")
_WORD = re.compile(r"\b(on_error|weights) := '(\w+)'")
_ARGUMENT = re.compile(r"\b([a-z]+(?:_[a-z]+)*) := (?=['\[\d])")
_COLUMN = re.compile(r"\b(geometry_column|href_column) := '(.*?)'")
_COLUMN_MAP = re.compile(r"(?:column_map := )?MAP \{'(.*?)': '(.*?)'\}")
_NO_TABLE = re.compile(r"Table with name (.+?) does not exist!")
_SHOWN_NAMES = 8


@contextmanager
def session(
    workspace: Path | None, database: str = ":memory:", *, read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of this command; errors inside are the real ones, not DuckDB's text.

    Warnings are lines on stderr, once the work inside is done.
    """
    con = opened(database, workspace, read_only=read_only)
    try:
        con.execute("SET enable_progress_bar = false")
        with warnings_on_stderr(), workspace_named(con), translated(con):
            yield con
    finally:
        con.close()


def opened(
    database: str, workspace: Path | None, *, read_only: bool = False
) -> duckdb.DuckDBPyConnection:
    """A connection with the functions.

    That the workspace is not there is left to what the command looks for in it.

    Raises:
        InputError: DuckDB cannot open the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RasteretWarning)
            return connect(database, workspace, read_only=read_only)
    except duckdb.IOException as error:
        if database == ":memory:":
            raise
        raise not_opened(database, error) from error


def not_opened(database: str, error: duckdb.Error) -> InputError:
    """The error of a database file, with the first line of what DuckDB says."""
    return InputError.expected(
        "database", "a DuckDB file", database, str(error).strip().partition("\n")[0]
    )


@contextmanager
def workspace_named(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Where a collection is not there, say in which folder it was looked for.

    Raises:
        UnknownCollectionError: a collection or table is not there.
    """
    try:
        yield
    except UnknownCollectionError as error:
        folder = instance_of(con).folder
        if collection_folders(folder):
            raise
        told = error.message.rpartition("; ")[0]
        raise UnknownCollectionError(
            f"{told}; {folder} holds none, --workspace-dir names another folder"
        ) from error
    except duckdb.CatalogException as error:
        found = _NO_TABLE.search(str(error))
        if found is None:
            raise
        folder = instance_of(con).folder
        names = [name for name, _ in collection_folders(folder)]
        shown = names if len(names) <= _SHOWN_NAMES else [*names[:_SHOWN_NAMES], "…"]
        raise UnknownCollectionError.expected(
            "table",
            f"a table, view or collection of {folder} ({', '.join(shown) or 'none'})",
            found[1],
            "check the name, or pass --workspace-dir",
        ) from error


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Show our own warnings as a command shows its errors, whatever filters there are."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, RasteretWarning):
            click.echo(f"warning: {message}", err=True)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RasteretWarning)
        warnings.showwarning = shown
        yield


def is_success(result: duckdb.DuckDBPyRelation) -> bool:
    """Whether a result says only that a statement was run.

    DuckDB 2.0 answers SET and the like with an empty column of this name.
    """
    return result.columns == ["Success"] and not result.fetchall()


def call_text(function: str, parameters: Mapping[str, object], *, first: str = "") -> str:
    """A statement that calls a table function with named parameters.

    Args:
        function: SQL name.
        parameters: Argument names; their values go to ``execute`` beside this text.
        first: The one that is passed by position.

    Example:
        >>> call_text("rasteret_drop", {"name": "s2", "workspace": "w"}, first="name")
        'FROM rasteret_drop($name, workspace := $workspace)'
    """
    listed = [f"${name}" if name == first else f"{_quoted(name)} := ${name}" for name in parameters]
    return f"FROM {function}({', '.join(listed)})"


def _quoted(name: str) -> str:
    """The one argument whose name is a word of SQL needs quotes."""
    return '"where"' if name == "where" else name


def call(
    con: duckdb.DuckDBPyConnection,
    function: str,
    parameters: Mapping[str, object],
    *,
    first: str = "",
) -> list[dict[str, Any]]:
    """Call a table function with prepared parameters; None leaves one at its default.

    Returns:
        Its rows, column name to value.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        with translated(con):
            result = con.execute(call_text(function, given, first=first), given)
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    except RasteretError as error:
        raise with_options(error) from error


def with_options(error: RasteretError) -> RasteretError:
    """An error whose advice is of this command's options."""
    return type(error)(_with_options(error.message))


def _with_options(message: str) -> str:
    """A message that advises arguments and functions of SQL, with what a shell has instead.

    Example:
        >>> _with_options("name: expected a new name, got 's2'; pass force := true to replace it")
        "name: expected a new name, got 's2'; pass --force to replace it"
        >>> _with_options("band B04: expected a header, got NULL; pass on_error := 'null'")
        'band B04: expected a header, got NULL; pass --on-error null'
        >>> _with_options("id: got 'columns a'; give column_map := MAP {'<column>': 'id'}")
        "id: got 'columns a'; give --column-map '<column>=id'"
        >>> _with_options("expected a column for match := 'latest', got NULL")
        "expected a column for --match 'latest', got NULL"
    """
    message = message.replace("see rasteret_datasets()", "see rasteret-sql datasets list")
    message = _COLUMN_MAP.sub(r"--column-map '\1=\2'", message)
    message = _COLUMN.sub(lambda found: f"--{found[1].replace('_', '-')} '{found[2]}'", message)
    message = _WORD.sub(lambda found: f"--{found[1].replace('_', '-')} {found[2]}", message)
    message = _ARGUMENT.sub(lambda found: f"--{found[1].replace('_', '-')} ", message)
    return _SWITCH.sub(lambda found: f"--{found[1].replace('_', '-')}", message)


def to_json(value: object) -> str:
    """JSON text; timestamps, which are UTC, as RFC 3339.

    Example:
        >>> print(to_json({"at": datetime(2024, 1, 2)}))
        {
          "at": "2024-01-02T00:00:00Z"
        }
    """
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    return str(value)
