"""The result of a statement on stdout or in a file: table, CSV, JSON, Parquet, Arrow."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import duckdb
import pyarrow as pa

from rasteret_sql.cli.decorators import together
from rasteret_sql.cli.failures import Failure
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.progress.display import shown

_SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".arrow": "arrow"}
_BINARY = ("parquet", "arrow")
_BATCH_ROWS = 65_536
_CHUNK_BYTES = 1 << 20
_MANY_ROWS = 40
_RESULT = "_rasteret_result"

Write = Callable[[bytes], object]

options = together(
    click.option(
        "--format",
        "format_",
        type=click.Choice(["table", *_SUFFIXES.values()]),
        help="Form of the result; default: as the suffix of --output says; table on stdout.",
    ),
    click.option("--json", "format_", flag_value="json", help="The same as --format json."),
    click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File for the result; it appears once it is whole. Default: stdout.",
    ),
)
"""``--format``, ``--json`` and ``--output``."""


def chosen(format_: str | None, output: Path | None) -> str:
    """The format that the options ask for; call it before anything runs.

    Raises:
        UsageError: the name of the file asks for none, or a terminal can't show it.
        Failure: there is no folder for the file.
    """
    if output is not None and not output.absolute().parent.is_dir():
        raise Failure(
            f"output: expected a file in a folder that is there, got {str(output)!r}; "
            "make the folder"
        )
    if format_ is None:
        format_ = "table" if output is None else _format_of(output)
    if format_ in _BINARY and output is None and sys.stdout.isatty():
        raise click.UsageError(f"--format {format_}: expected --output FILE, got a terminal")
    return format_


def _format_of(output: Path) -> str:
    found = _SUFFIXES.get(output.suffix.lower())
    if found is None:
        known = ", ".join(_SUFFIXES)
        raise click.UsageError(
            f"--output: expected a file that ends in {known}, got {output.name!r}; "
            "or say its format with --format"
        )
    return found


def put(
    con: duckdb.DuckDBPyConnection,
    result: duckdb.DuckDBPyRelation,
    format_: str,
    output: Path | None,
    *,
    label: str,
) -> None:
    """Write a result, as it comes where that can be; with a sign of life on a terminal.

    CSV, JSON and Arrow go to stdout batch by batch, so memory stays small, and what comes
    before an error has been written. A file is written beside its place and then moved there.

    Args:
        con: The connection of the result.
        result: Rows; they are computed here.
        format_: As `chosen` says.
        output: File; None for stdout.
        label: What the work is, for a terminal.
    """
    if output is None:
        _to_stdout(con, result, format_, label)
        return
    with (
        shown(label),
        tempfile.TemporaryDirectory(prefix=".rasteret-sql-", dir=output.absolute().parent) as made,
    ):
        path = Path(made) / "result"
        if format_ == "parquet":
            _copy_parquet(con, result, path)
        else:
            with path.open("wb") as file:
                _WRITERS[format_](con, result, file.write)
        path.replace(output)


def _to_stdout(
    con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, format_: str, label: str
) -> None:
    if format_ == "table":
        with shown(label):
            text = box(result)
        click.echo(text, nl=False)
        return
    quiet = contextlib.nullcontext() if sys.stdout.isatty() else shown(label)
    with quiet:
        if format_ == "parquet":  # which is written from its end
            with tempfile.TemporaryDirectory(prefix="rasteret-sql-") as made:
                path = Path(made) / "result"
                _copy_parquet(con, result, path)
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        _echo(chunk)
        else:
            _WRITERS[format_](con, result, _echo)


def box(result: duckdb.DuckDBPyRelation) -> str:
    """The box that DuckDB draws, on a terminal as wide as that."""
    if not sys.stdout.isatty():
        return f"{result}\n"
    drawn = io.StringIO()
    width = shutil.get_terminal_size().columns
    with contextlib.redirect_stdout(drawn):
        result.show(max_width=width, max_rows=_MANY_ROWS)
    return drawn.getvalue()


def _echo(data: bytes) -> None:
    click.echo(data, nl=False)


def _write_table(
    _con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, write: Write
) -> None:
    write(f"{result}\n".encode())


def _write_csv(
    con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, write: Write
) -> None:
    """As DuckDB's COPY writes CSV: NULL is nothing, an empty text is a pair of quotes."""
    names = _name(con, result)
    cells = (_csv_cell(quote_identifier(name)) for name in names)
    write((",".join(_csv_name(name) for name in names) + "\n").encode())
    for lines in _lines(con, " || ',' || ".join(cells)):
        write(("\n".join(lines) + "\n").encode())


def _csv_cell(column: str) -> str:
    text = f"CAST({column} AS VARCHAR)"
    quoted = f"""'"' || replace({text}, '"', '""') || '"'"""
    special = f"""{text} = '' OR regexp_matches({text}, '[,"#\\n\\r]')"""
    return f"CASE WHEN {column} IS NULL THEN '' WHEN {special} THEN {quoted} ELSE {text} END"


def _csv_name(name: str) -> str:
    needs_quotes = not name or any(mark in name for mark in ',"#\n\r')
    return '"' + name.replace('"', '""') + '"' if needs_quotes else name


def _write_json(
    con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, write: Write
) -> None:
    """One array, an object per row, as DuckDB's COPY writes it."""
    names = _name(con, result)
    pairs = (f"{quote_text(name)}: {quote_identifier(name)}" for name in names)
    before = "[\n\t"
    for lines in _lines(con, f"CAST(to_json({{{', '.join(pairs)}}}) AS VARCHAR)"):
        write((before + ",\n\t".join(lines)).encode())
        before = ",\n\t"
    write(b"\n]\n" if before != "[\n\t" else b"[\n\t\n]\n")


def _lines(con: duckdb.DuckDBPyConnection, expression: str) -> Iterator[list[str]]:
    """A text for each row of the result that `_name` named, in batches."""
    reader = con.sql(f"SELECT {expression} FROM {_RESULT}").to_arrow_reader(_BATCH_ROWS)  # noqa: S608
    for batch in reader:
        if batch.num_rows:
            yield batch.column(0).to_pylist()


def _name(con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation) -> list[str]:
    """Let SQL name a result: a query by a view, what has run already by its rows.

    Returns:
        Its columns; of several of one name, each has another.
    """
    try:
        result.create_view(_RESULT, replace=True)
    except duckdb.InvalidInputException:
        con.register(_RESULT, result.to_arrow_table())
    return con.sql(f"FROM {_RESULT} LIMIT 0").columns


def _write_arrow(
    _con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, write: Write
) -> None:
    """An IPC stream."""
    reader = result.to_arrow_reader(_BATCH_ROWS)
    with pa.ipc.new_stream(pa.PythonFile(_Sink(write), "w"), reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


class _Sink:
    """What Arrow takes for a file."""

    closed = False

    def __init__(self, write: Write) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """All is written at once."""

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _copy_parquet(
    con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation, path: Path
) -> None:
    """By way of a TEMP table: a COPY that fails on a worker thread can hang DuckDB 2.0."""
    _name(con, result)
    con.execute(f"CREATE OR REPLACE TEMP TABLE {_RESULT}_rows AS FROM {_RESULT}")
    con.execute(f"COPY {_RESULT}_rows TO $path (FORMAT parquet)", {"path": str(path)})


_WRITERS: dict[str, Callable[[duckdb.DuckDBPyConnection, duckdb.DuckDBPyRelation, Write], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "arrow": _write_arrow,
}
