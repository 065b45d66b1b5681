"""What Tab offers in bash, zsh and fish, and the command that sets it up.

Only names of folders and of columns are looked at, no record is read. Each Tab is a new
process, so what one answer alone needs (DuckDB, Arrow, data sets) is imported there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from rasteret_sql.cli import PROGRAM, VARIABLE
from rasteret_sql.collections.folders import collection_folders, workspace_folder
from rasteret_sql.errors import RasteretError

SHELLS = ("bash", "zsh", "fish")

_REPAIRS = (
    ('string split ","', 'string split -m 1 ","'),  # fish: a value may hold commas
    # zsh: from fpath the script is a function, and so it is at each Tab after the first
    ("== loadautofunc ]]", "== (loadautofunc|shfunc) ]]"),
)
"""What is wrong in click's scripts, and what stands there instead."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_PLAIN = re.compile(r"[\w./-]+")
"""Names that no shell needs quotes for."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the script that makes Tab complete in SHELL: bash, zsh or fish.

    Commands, options, their values, collections, tables of --database, bands, data sets,
    functions and files are completed. Put the script where the shell finds it, once, and open
    a new shell:

    \b
        rasteret-sql completion bash > ~/.local/share/bash-completion/completions/rasteret-sql
        rasteret-sql completion zsh > ~/.zfunc/_rasteret-sql    # a folder of fpath
        rasteret-sql completion fish > ~/.config/fish/completions/rasteret-sql.fish

    For the running bash alone: eval "$(rasteret-sql completion bash)".
    """  # noqa: D301 (click's mark for lines to be kept)
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"shell: expected {', '.join(SHELLS)}, got {shell}")
    script = kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    for found, better in _REPAIRS:
        script = script.replace(found, better)
    click.echo(script)


def kept_names(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Collections of the workspace."""
    return _matching(_kept(ctx), incomplete)


def relations(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Collections of the workspace, tables and views of ``--database``; files where none is."""
    found = _matching((*_kept(ctx), *_tables(ctx)), incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def tables_or_files(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Tables and views of ``--database``; files where none is."""
    found = _matching(_tables(ctx), incomplete) if incomplete else []
    return found or [CompletionItem(incomplete, type="file")]


def bands(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Bands of the collection that the command names, after those that are there already."""
    given = (ctx.params.get("name"), ctx.params.get("collection"), *ctx.args)
    name = next((one for one in given if one is not None), "")  # click has not yet sorted args
    from rasteret_sql.collections.workspace import Workspace  # 0.1 s

    try:
        known = Workspace(ctx.params.get("workspace_dir")).find(name).bands
    except RasteretError:
        return []
    return _next_of(known, incomplete)


def dataset_ids(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Data sets known by name."""
    from rasteret_sql.datasets.registry import datasets  # 0.1 s

    return _matching(datasets(), incomplete)


@dataclass(frozen=True)
class Words:
    """Offers one of some words.

    Attributes:
        choices: The words.
        prefix: Of all of them; it may be left out.
        are_listed: Several may be given, with commas between them.

    Example:
        >>> functions = Words(("rasteret_read", "rasteret_plan"), prefix="rasteret_")
        >>> [one.value for one in functions(None, None, "pl")]
        ['plan']
        >>> [one.value for one in functions(None, None, "rasteret_r")]
        ['rasteret_read']
    """

    choices: tuple[str, ...]
    prefix: str = ""
    are_listed: bool = False

    def __call__(
        self, _ctx: click.Context | None, _parameter: click.Parameter | None, incomplete: str
    ) -> list[CompletionItem]:
        """Those that begin with what is typed."""
        if self.are_listed:
            return _next_of(self.choices, incomplete)
        is_whole = self.prefix and incomplete and self.prefix.startswith(incomplete)
        prefix = "" if is_whole or incomplete.startswith(self.prefix) else self.prefix
        return _matching((one.removeprefix(prefix) for one in self.choices), incomplete)


def files(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files, by the shell itself."""
    return [CompletionItem(incomplete, type="file")]


def _matching(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    found = sorted({name for name in names if name.startswith(incomplete)})
    return [CompletionItem(name) for name in found if _PLAIN.fullmatch(name)]


def _next_of(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those that may stand behind the last comma: names that do not stand before it."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    rest = (name for name in names if name not in taken)
    return [CompletionItem(before + comma + one.value) for one in _matching(rest, last)]


def _kept(ctx: click.Context) -> list[str]:
    folder = workspace_folder(ctx.params.get("workspace_dir"))
    return [name for name, _ in collection_folders(folder)]


def _tables(ctx: click.Context) -> list[str]:
    """Tables and views of the file that the command names, if it can be read just now."""
    database = ctx.params.get("database")
    if database is None or not Path(database).expanduser().is_file():
        return []
    import duckdb  # 0.1 s

    try:
        with duckdb.connect(str(Path(database).expanduser()), read_only=True) as con:
            rows = con.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal UNION "
                "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
            ).fetchall()
    except duckdb.Error:
        return []
    return [name if schema == "main" else f"{schema}.{name}" for schema, name in rows]
