"""``rasteret-sql query``: one or more statements, the last one's result in any format."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import duckdb
import pyarrow as pa

from rasteret_sql.cli.session import database_option, session, workspace_option
from rasteret_sql.duck.results import translated

_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}
_COPY_OPTIONS = {"csv": "FORMAT csv, HEADER true", "json": "FORMAT json, ARRAY true"} | {
    "parquet": "FORMAT parquet"
}
_BINARY = ("parquet", "arrow")
_ARROW_ROWS = 65_536
_CHUNK_BYTES = 1 << 20


@click.command()
@click.argument("sql")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", *_SUFFIXES.values()]),
    help="Form of the result; default: as the suffix of --output says; table on stdout.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the result; it appears once it is whole. Default: stdout.",
)
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
    last rows of a long result; csv, json, parquet and arrow (an IPC stream) hold all.
    """
    format_ = format_ or ("table" if output is None else _format_of(output))
    if format_ in _BINARY and output is None and sys.stdout.isatty():
        raise click.UsageError(f"--format {format_}: expected --output FILE, got a terminal")
    text = sys.stdin.read() if sql == "-" else sql
    with session(workspace_dir, database, read_only=read_only) as con:
        with translated(con, text):
            result = con.sql(text)
        if result is None or not result.columns or _is_success(result):
            return
        if format_ == "table":
            _put(f"{result}\n".encode(), output)
        else:
            _write(con, result, format_, output)


def _format_of(output: Path) -> str:
    """The format that the name of a file asks for.

    Raises:
        UsageError: it asks for none that is written here.
    """
    format_ = _SUFFIXES.get(output.suffix.lower())
    if format_ is None:
        known = ", ".join(_SUFFIXES)
        raise click.UsageError(
            f"--output: expected a file that ends in {known}, got {output.name!r}; "
            "or say its format with --format"
        )
    return format_


def _is_success(result: duckdb.DuckDBPyRelation) -> bool:
    """2.0 answers SET and the like with an empty column of this name."""
    return result.columns == ["Success"] and not result.fetchall()


def _write(
    con: duckdb.DuckDBPyConnection,
    result: duckdb.DuckDBPyRelation,
    format_: str,
    output: Path | None,
) -> None:
    """Write to a file beside the output, then put it in its place."""
    beside = output.absolute().parent if output else None
    with tempfile.TemporaryDirectory(prefix=".rasteret-sql-", dir=beside) as folder:
        path = Path(folder) / "result"
        if format_ == "arrow":
            _write_arrow(result, path)
        else:
            _name(con, result)
            con.execute(
                f"COPY _rasteret_result TO $path ({_COPY_OPTIONS[format_]})", {"path": str(path)}
            )
        if output is not None:
            path.replace(output)
            return
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                click.echo(chunk, nl=False)


def _name(con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation) -> None:
    """Let SQL name a result: run a query into a TEMP table; take what has run already."""
    try:
        result.create_view("_rasteret_rows", replace=True)
    except duckdb.InvalidInputException:
        con.register("_rasteret_result", result.to_arrow_table())
    else:
        # A COPY that fails on a worker thread can hang 2.0; one from a table has run before.
        con.execute("CREATE OR REPLACE TEMP TABLE _rasteret_result AS FROM _rasteret_rows")


def _write_arrow(result: duckdb.DuckDBPyRelation, path: Path) -> None:
    reader = result.to_arrow_reader(_ARROW_ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _put(data: bytes, output: Path | None) -> None:
    if output is None:
        click.echo(data, nl=False)
    else:
        output.write_bytes(data)
