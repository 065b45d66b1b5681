"""``rasteret-sql functions``: the manual."""

from __future__ import annotations

import click

from rasteret_sql.cli.session import call, session
from rasteret_sql.errors import InputError


@click.command()
@click.argument("name", required=False)
def functions(name: str | None) -> None:
    """List the SQL functions, or print the manual of NAME."""
    with session(None) as con:
        rows = call(con, "rasteret_functions", {})
    if name is None:
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            click.echo(f"{row['name']:<{width}}  {row['description']}")
        return
    found = [row for row in rows if row["name"] in (name, f"rasteret_{name}")]
    if not found:
        todo = "'rasteret-sql functions' lists them"
        raise InputError.expected("name", "a SQL function", name, todo)
    click.echo(f"{found[0]['signature']}\n\n{found[0]['manual'].strip()}")
