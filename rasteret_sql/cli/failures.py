"""What a failed command says and returns: exit codes 0, 1, 2, 130."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import IO, Any

import click
import duckdb

from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError, redact
from rasteret_sql.secrets import is_secret

FAILED = 1
INTERRUPTED = 130
_SENTENCE = 200

_URL = re.compile(r"\w+://[^\s'\"]+")
_PAIR = re.compile(r"([\w.-]+)=([^\s'\",;&]+)")
_BEARER = re.compile(r"\b(Bearer|Basic) [^\s'\"]+", re.IGNORECASE)
_POSITION = re.compile(r"^(LINE \d+:|\s*\^|At:|Traceback )", re.MULTILINE)


class Failure(click.ClickException):
    """An error of ours or DuckDB's: one line on stderr, exit code 1."""

    exit_code = FAILED

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(f"error: {self.message}", file=file or sys.stderr)


class Group(click.Group):
    """Commands that belong together; the help lists them as they were added."""

    def names(self) -> list[str]:
        """The commands in that order."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the first sentence of each, whole."""
        commands = [(name, self.get_command(ctx, name)) for name in self.names()]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(_SENTENCE)) for name, one in commands if one]
            )


class Commands(Group):
    """A group that turns exceptions of its commands into exit codes.

    Args:
        places: Module and attribute of each command, by name. It is imported when it is used:
            those that make options of functions take half a second.
    """

    def __init__(
        self,
        *,
        places: Mapping[str, tuple[str, str]] | None = None,
        **options: Any,  # noqa: ANN401 (click's)
    ) -> None:
        super().__init__(**options)
        self._places = places or {}

    def names(self) -> list[str]:
        """The commands in the order of their places."""
        return list({**self._places, **self.commands})

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (as click calls it)
        """The commands in alphabetical order."""
        return sorted(self.names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name in self._places and cmd_name not in self.commands:
            module, attribute = self._places[cmd_name]
            self.add_command(getattr(import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; with ``--debug`` its exception comes through as it is."""
        try:
            return self._invoked(ctx)
        except (KeyboardInterrupt, click.Abort):  # it may come while another error is told
            raise _interrupted(ctx) from None

    def _invoked(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.Abort, click.ClickException, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            _leave_stdout()
            raise click.exceptions.Exit(0) from None
        except Exception as error:
            if is_interrupt(error):
                raise _interrupted(ctx) from None
            if ctx.params.get("debug"):
                raise
            raise Failure(one_line(error)) from error
        return result


def _without_pairs(text: str) -> str:
    """A text without secrets that stand in no address, as ``sig=…`` and ``Bearer …``."""
    return _BEARER.sub(r"\1 …", _PAIR.sub(_hidden, text))


def _hidden(found: re.Match[str]) -> str:
    """A pair of a name and a value, without the value if its name says that it is a secret."""
    return f"{found[1]}=…" if is_secret(found[1]) else found[0]


def _leave_stdout() -> None:
    """The reader has what it wants, as `head`; nothing may fail when Python flushes at its end."""
    with contextlib.suppress(OSError, ValueError):  # a stdout that is no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _interrupted(ctx: click.Context) -> click.exceptions.Exit:
    click.echo("error: interrupted", err=True)
    ctx.close()
    return click.exceptions.Exit(INTERRUPTED)


def is_interrupt(error: Exception) -> bool:
    """Who saw Ctrl-C first reports it: a scan of ours, DuckDB 2, or DuckDB 1.5."""
    if isinstance(error, (InterruptedReadError, duckdb.InterruptException)):
        return True
    return isinstance(error, RuntimeError) and "Query interrupted" in str(error)


def one_line(error: Exception) -> str:
    r"""The text of an error on one line, without the query, stack traces or secrets.

    Secrets are those of addresses, and what looks like one in a literal that DuckDB repeats.

    Example:
        >>> one_line(ValueError("a:\n  no 'http://me:pw@host/a.tif?sig=1'"))
        "a: no 'http://host/a.tif'"
        >>> one_line(duckdb.Error("Could not convert string 'sig=abc' to INT32"))
        "Could not convert string 'sig=…' to INT32"
        >>> one_line(FileNotFoundError(2, "No such file or directory", "a.sql"))
        "a.sql: expected a path that can be used, got 'No such file or directory'; check it"
    """
    if isinstance(error, RasteretError):
        return _without_pairs(error.message)
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
        return InputError.expected(
            error.filename, "a path that can be used", error.strerror, "check it"
        ).message
    text = str(error)
    position = _POSITION.search(text)
    if position:
        text = text[: position.start()]
    text = _URL.sub(lambda found: redact(found[0]), " ".join(text.split()))
    text = _without_pairs(text)
    if isinstance(error, (duckdb.Error, OSError, ValueError)):
        return text
    return f"{type(error).__name__}: {text}; this is a bug, run again with --debug to see where"
