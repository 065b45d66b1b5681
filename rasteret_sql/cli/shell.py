"""``rasteret-sql shell``: statements one by one, on a terminal or from a pipe."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
import duckdb

from rasteret_sql import __version__
from rasteret_sql.cli import output as results
from rasteret_sql.cli.completion import DOT_COMMANDS, MODES, Catalog, as_command, is_complete
from rasteret_sql.cli.failures import Failure, is_interrupt, one_line
from rasteret_sql.cli.functions import manual, summary
from rasteret_sql.cli.session import (
    call,
    is_success,
    opened,
    warnings_on_stderr,
    workspace_named,
    workspace_option,
)
from rasteret_sql.duck.results import translated
from rasteret_sql.errors import InputError
from rasteret_sql.progress.display import shown

_WITHOUT_ROWS = {
    getattr(duckdb.StatementType, name) for name in ("CREATE", "INSERT", "UPDATE", "DELETE", "COPY")
}
_LOOK_SECONDS = 0.1


@click.command()
@click.argument("database", default=":memory:", type=click.Path(dir_okay=False))
@click.option("--read-only", is_flag=True, help="Open DATABASE without writing to it.")
@workspace_option
def shell(database: str, workspace_dir: Path | None, *, read_only: bool) -> None:
    """Type SQL over the functions, the collections and a DuckDB file DATABASE.

    On a terminal there is a history, completion of functions, arguments, collections, columns
    and bands with Tab, and colours (not where NO_COLOR is set). A statement ends with a
    semicolon. Ctrl-C stops the statement that runs, Ctrl-D leaves. .help lists the commands of
    the shell, .help rasteret_pixels prints the manual of a function. It needs the extra shell:

        pip install 'rasteret_sql[shell]'

    Statements from a pipe need no more; the first that fails ends it with exit code 1.
    """
    con = opened(database, workspace_dir, read_only=read_only)
    try:
        con.execute("SET enable_progress_bar = false")
        with warnings_on_stderr():
            if sys.stdin.isatty():
                _talk(Shell(con))
            else:
                with contextlib.suppress(EOFError):  # .quit
                    Shell(con).run(sys.stdin.read())
    finally:
        con.close()


class Shell:
    """A session over one connection.

    Args:
        con: A registered connection.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._mode = "table"
        self._is_timed = False
        self._catalog: Catalog | None = None

    def catalog(self) -> Catalog:
        """What there is, as of the last statement."""
        if self._catalog is None:
            self._catalog = Catalog.of(self._con)
        return self._catalog

    def run(self, text: str) -> None:
        """Run statements, and dot commands on lines of their own; print what they give.

        Raises:
            EOFError: the session is to end.
            KeyboardInterrupt: a statement was stopped.
            RasteretError: our own errors.
            duckdb.Error: those of DuckDB.
        """
        written = ""
        for line in text.splitlines(keepends=True):
            command = None if written.strip() else as_command(line)
            if command is not None:
                self._command(command)
                continue
            written += line
            if ";" in line and is_complete(written):
                self._statements(written)
                written = ""
        self._statements(written)

    def _statements(self, text: str) -> None:
        for statement in duckdb.extract_statements(text):
            self._catalog = None
            began = time.monotonic()
            self._statement(statement)
            if self._is_timed:
                click.echo(f"{time.monotonic() - began:.3f} s", err=True)

    def _statement(self, statement: duckdb.Statement) -> None:
        """On a thread of its own: the main thread stays free to take Ctrl-C."""
        failed: list[BaseException] = []
        done = threading.Event()  # Ctrl-C in `join` may take a thread for ended (bpo-45274)

        def work() -> None:
            try:
                with workspace_named(self._con), translated(self._con, statement.query):
                    result = self._con.sql(statement.query)
                    if statement.type not in _WITHOUT_ROWS or _has_rows(result):
                        self._print(result)
            except BaseException as error:  # noqa: BLE001 (raised again below)
                failed.append(error)
            finally:
                done.set()

        is_stopped = False
        with shown("running"):
            threading.Thread(target=work, daemon=True).start()
            while not done.is_set():
                try:
                    done.wait(_LOOK_SECONDS)
                except KeyboardInterrupt:
                    is_stopped = True
                if is_stopped and not done.is_set():
                    self._con.interrupt()
        error = failed[0] if failed else None
        if is_stopped or (isinstance(error, Exception) and is_interrupt(error)):
            raise KeyboardInterrupt from error  # what `show` draws in 2.0 ends without an error
        if error is not None:
            raise error

    def _print(self, result: duckdb.DuckDBPyRelation | None) -> None:
        if result is None or not result.columns or is_success(result):
            return
        if self._mode == "table":
            click.echo(results.box(result), nl=False)
        else:
            results.put(self._con, result, self._mode, None, label="running")

    def _functions(self) -> list[dict[str, str]]:
        return call(self._con, "rasteret_functions", {})

    def _command(self, line: str) -> None:
        """Do what a line says that begins with a dot.

        Raises:
            InputError: it is none of ours, or has another form.
        """
        name, *words = shlex.split(line)
        word = words[0] if words else ""
        if name in (".quit", ".exit"):
            raise EOFError
        if name == ".help" and word:
            click.echo(manual(self._functions(), word.rstrip(";("), where=".functions"))
        elif name == ".help":
            width = max(map(len, DOT_COMMANDS))
            for command, told in DOT_COMMANDS.items():
                click.echo(f"{command:<{width}}  {told}")
        elif name == ".functions":
            click.echo(summary(self._functions()))
        elif name == ".tables":
            for relation in self.catalog().relations:
                click.echo(relation)
        elif name == ".mode" and word in MODES:
            self._mode = word
        elif name == ".timer" and word in ("on", "off"):
            self._is_timed = word == "on"
        elif name == ".read" and word:
            self.run(Path(word).expanduser().read_text(encoding="utf-8"))
        else:
            raise InputError.expected("command", ", ".join(DOT_COMMANDS), line, ".help tells more")


def _has_rows(result: duckdb.DuckDBPyRelation | None) -> bool:
    """Whether a statement that writes returns more than a number, as with RETURNING."""
    return result is not None and result.columns != ["Count"]


def _talk(session: Shell) -> None:
    """Ask for statements until the user leaves.

    Raises:
        Failure: the packages of the extra are missing.
    """
    try:
        from rasteret_sql.cli.prompt import reader  # an extra
    except ModuleNotFoundError as error:
        raise Failure(
            f"shell: expected the package {error.name}, got none; "
            "pip install 'rasteret_sql[shell]', or give statements by a pipe"
        ) from None
    ask = reader(session.catalog)
    click.echo(
        f"rasteret_sql {__version__}, DuckDB {duckdb.__version__}: .help for help, Ctrl-D to leave"
    )
    while _next(session, ask):
        pass


def _next(session: Shell, ask: Callable[[], str]) -> bool:
    """Ask for one statement and run it; whether to go on."""
    try:
        text = ask()
    except KeyboardInterrupt:  # the line is given up
        return True
    except EOFError:
        return False
    try:
        session.run(text)
    except EOFError:
        return False
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
    except Exception as error:  # noqa: BLE001 (the session goes on)
        click.echo(f"error: {one_line(error)}", err=True)
    return True
