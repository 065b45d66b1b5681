"""``rasteret-sql map``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rasteret_sql.cli import tab_completion
from rasteret_sql.cli.session import database_option, warnings_on_stderr, workspace_option


@click.command("map")
@click.argument(
    "collections",
    nargs=-1,
    metavar="[COLLECTION]...",
    shell_complete=tab_completion.relations,
)
@database_option
@workspace_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="TCP port; 0 for any that is free.",
)
@click.option(
    "--token/--no-token",
    "needs_token",
    default=True,
    show_default=True,
    help="Ask for the token in the address that is printed.",
)
@click.option(
    "--time-limit-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Stop an answer that takes longer.",
)
@click.option("--allow-network", is_flag=True, help="Permit a host other than this machine.")
def map_(collections: tuple[str, ...], workspace_dir: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Show collections on a map in the browser until interrupted.

    COLLECTION is a name, with its schema and database where it needs them, SELECT text over
    one, Parquet, or rasters; without it all of the workspace and the database are shown. Open
    the address that is printed: the page loads nothing from elsewhere.

        rasteret-sql map s2
    """
    from rasteret_sql.maps import serve_map  # only here: no other command needs it

    with warnings_on_stderr():
        serve_map(collections, workspace=workspace_dir, **options)
