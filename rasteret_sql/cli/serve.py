"""``rasteret-sql serve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rasteret_sql.cli.session import warnings_on_stderr, workspace_option


def _tokens(
    _ctx: click.Context, _option: click.Parameter, value: Path | None
) -> dict[str, str] | None:
    """User to token, from a JSON file; a token on the command line would be seen by all."""
    if value is None:
        return None
    try:
        found = json.loads(value.read_text(encoding="utf-8"))
        return {str(user): str(token) for user, token in found.items()}
    except (ValueError, AttributeError):
        raise click.BadParameter(f"expected a JSON object in {value}") from None


@click.command()
@click.option(
    "--database",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="DuckDB file to offer, read-only; default: none.",
)
@workspace_option
@click.option("--host", default="localhost", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9494, show_default=True, help="TCP port."
)
@click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_tokens,
    help="JSON object of user to token; default: one for all, made anew and printed.",
)
@click.option(
    "--time-limit-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop scans that take longer; default: none.",
)
@click.option(
    "--http",
    "http_port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Serve the map of all collections too, on this port, to the same users.",
)
@click.option("--allow-network", is_flag=True, help="Permit a host other than this machine.")
@click.option("--allow-building", is_flag=True, help="Permit functions that write collections.")
def serve(workspace_dir: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Serve the functions and the workspace to plain DuckDB shells until interrupted.

    Needs DuckDB's extension quack. There is no encryption: beyond this machine, put a proxy
    with TLS in front.
    """
    from rasteret_sql import serve as server  # only here: no other command needs it

    with warnings_on_stderr():
        server.serve(workspace=workspace_dir, **options)
