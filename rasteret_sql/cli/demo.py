"""``rasteret-sql demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to write scenes and collection; default: a new temporary folder, which is kept.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Use Sentinel-2 at Earth Search, over the network, instead of scenes written here.",
)
def demo(folder: Path | None, *, live: bool) -> None:
    """Show each step in SQL, with its result, over a few small scenes.

    Builds a collection of six Sentinel-2-like scenes, lists and describes it, plans a read,
    and computes time series of NDVI over a polygon that lies in two UTM zones.
    """
    from rasteret_sql.demo import run  # tifffile takes a while to import

    folder = folder or Path(tempfile.mkdtemp(prefix="rasteret-sql-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    run(folder, click.echo, live=live)
    click.echo(f"-- The files are in {folder}; go on with\n-- ", nl=False)
    click.echo(f"rasteret-sql query --workspace-dir {folder / 'workspace'} 'FROM s2'")
