"""The commands of ``rasteret-sql``, together."""

from __future__ import annotations

import click

from rasteret_sql import __version__, progress
from rasteret_sql.cli.collections import collections
from rasteret_sql.cli.datasets import datasets
from rasteret_sql.cli.demo import demo
from rasteret_sql.cli.doctor import doctor
from rasteret_sql.cli.failures import Commands
from rasteret_sql.cli.functions import functions
from rasteret_sql.cli.init import init
from rasteret_sql.cli.map import map_
from rasteret_sql.cli.query import query
from rasteret_sql.cli.reads import preview, sample, zonal
from rasteret_sql.cli.serve import serve
from rasteret_sql.cli.shell import shell
from rasteret_sql.cli.tab_completion import completion

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rasteret-sql")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--progress/--no-progress",
    "is_progress_wanted",
    default=None,
    help="Show on a terminal how far the work is; default: unless RASTERET_PROGRESS is 0.",
)
def main(*, debug: bool, is_progress_wanted: bool | None) -> None:  # noqa: ARG001 (Commands reads it)
    """Satellite imagery from SQL.

    For a start, some scenes, a collection of them, and the statements that read it:

        rasteret-sql demo --folder .

    Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage,
    130 interrupted.
    """
    progress.wanted(is_progress_wanted)


for command in (
    collections,
    datasets,
    query,
    shell,
    sample,
    zonal,
    preview,
    map_,
    functions,
    init,
    demo,
    doctor,
    serve,
    completion,
):
    main.add_command(command)
