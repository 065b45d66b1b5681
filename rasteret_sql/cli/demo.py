"""``rasteret-sql demo``."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click

_COMMAND = "rasteret-sql"


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
    workspace = shlex.quote(str(folder / "workspace"))
    where = "this folder" if folder == Path() else folder
    click.echo(f"-- The files are in {where}; go on with\n-- ", nl=False)
    click.echo(f"{_own_command()} query --workspace-dir {workspace} 'FROM s2'")


def _own_command() -> str:
    """How a shell calls this command from where it stands."""
    script = Path(sys.executable).with_name(_COMMAND)
    on_path = shutil.which(_COMMAND)
    if on_path is not None and (not script.exists() or Path(on_path).samefile(script)):
        return _COMMAND
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m rasteret_sql"
    here = Path.cwd()
    shown = script.relative_to(here) if script.is_relative_to(here) else script
    return shlex.quote(str(shown))
