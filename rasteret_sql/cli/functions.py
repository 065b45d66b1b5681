"""``rasteret-sql functions``: the manual."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import click

from rasteret_sql.cli import tab_completion
from rasteret_sql.cli.session import call, session
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.errors import InputError

_PREFIX = "rasteret_"


@click.command()
@click.argument(
    "name",
    required=False,
    shell_complete=tab_completion.Words(tuple(sorted(FUNCTIONS)), prefix="rasteret_"),
)
def functions(name: str | None) -> None:
    """List the SQL functions, or print the manual of NAME."""
    with session(None) as con:
        rows = call(con, "rasteret_functions", {})
    if name is None:
        click.echo(summary(rows))
        return
    click.echo(manual(rows, name, where="'rasteret-sql functions'"))


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """A line for each function: its name and what it does."""
    width = max(len(row["name"]) for row in rows)
    return "\n".join(f"{row['name']:<{width}}  {row['description']}" for row in rows)


def manual(rows: Sequence[Mapping[str, str]], name: str, *, where: str) -> str:
    """The manual of a function, its prefix may be left out.

    Args:
        rows: Of rasteret_functions().
        name: Of the function.
        where: The command that lists all functions, for the error.

    Raises:
        InputError: there is none of this name.
    """
    wanted = name.lower().removeprefix(_PREFIX)
    known = [row["name"].removeprefix(_PREFIX) for row in rows]
    found = [row for row in rows if row["name"].removeprefix(_PREFIX) == wanted]
    if not found:
        near = [one for one in known if wanted and wanted in one]
        near = near or difflib.get_close_matches(wanted, known, n=1)
        todo = f"did you mean {_PREFIX}{near[0]}?" if near else f"{where} lists them"
        raise InputError.expected("name", "a SQL function", name, todo)
    return f"{found[0]['signature']}\n\n{found[0]['manual'].strip()}"
