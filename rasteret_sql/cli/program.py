"""The commands of ``rasteret-sql``, together."""

from __future__ import annotations

import click

from rasteret_sql import __version__, progress
from rasteret_sql.cli.failures import Commands

__all__ = ["main"]


_PLACES = {
    "collections": ("rasteret_sql.cli.collections", "collections"),
    "datasets": ("rasteret_sql.cli.datasets", "datasets"),
    "query": ("rasteret_sql.cli.query", "query"),
    "shell": ("rasteret_sql.cli.shell", "shell"),
    "sample": ("rasteret_sql.cli.reads", "sample"),
    "zonal": ("rasteret_sql.cli.reads", "zonal"),
    "preview": ("rasteret_sql.cli.reads", "preview"),
    "map": ("rasteret_sql.cli.map", "map_"),
    "functions": ("rasteret_sql.cli.functions", "functions"),
    "init": ("rasteret_sql.cli.init", "init"),
    "demo": ("rasteret_sql.cli.demo", "demo"),
    "doctor": ("rasteret_sql.cli.doctor", "doctor"),
    "serve": ("rasteret_sql.cli.serve", "serve"),
    "completion": ("rasteret_sql.cli.tab_completion", "completion"),
}


@click.group(cls=Commands, places=_PLACES, context_settings={"help_option_names": ["-h", "--help"]})
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
