"""Options that several commands take, worded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from rasteret_sql.cli import values

_Command = TypeVar("_Command", bound=Callable[..., Any])


def together(
    *options: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[_Command], _Command]:
    """Options in the order in which the help lists them."""

    def decorate(command: _Command) -> _Command:
        decorated: Callable[..., Any] = command
        for option in reversed(options):
            decorated = option(decorated)
        return cast("_Command", decorated)

    return decorate


bbox = click.option(
    "--bbox",
    metavar="W,S,E,N",
    callback=values.bbox,
    help="Area in degrees; west > east crosses 180.",
)
date_range = click.option(
    "--date-range",
    metavar="START/END",
    callback=values.date_range,
    help="Dates; a side left out is open.",
)
query = click.option("--query", help="STAC query extension, as JSON.")
cql2 = click.option("--filter", help="CQL2 text or JSON.")
max_items = click.option(
    "--max-items", type=click.IntRange(min=1), help="Stop after so many items."
)
bands = click.option(
    "--bands", metavar="NAME,...", callback=values.names, help="Bands to keep; default: all."
)
band_map = click.option(
    "--band-map", metavar="KEY=VALUE,...", callback=values.texts, help="Band to asset key."
)
band_index_map = click.option(
    "--band-index-map",
    metavar="BAND=N,...",
    callback=values.integers,
    help="Band to sample in its file, from 0.",
)
url_rewrite = click.option(
    "--url-rewrite",
    metavar="KEY=VALUE,...",
    callback=values.texts,
    help="Href prefix to the prefix that replaces it.",
)
column_map = click.option(
    "--column-map",
    metavar="KEY=VALUE,...",
    callback=values.texts,
    help="Source column to canonical column.",
)
data_source = click.option("--data-source", help="Name of the source.")
allow_local = click.option(
    "--allow-local", is_flag=True, help="Let a remote source name files of this machine."
)
max_concurrent = click.option(
    "--max-concurrent",
    type=click.IntRange(min=1),
    default=300,
    show_default=True,
    help="Header requests under way at once.",
)
strict = click.option(
    "--strict",
    "on_error",
    flag_value="error",
    help="End at the first asset that can't be read, change nothing.",
)
force = click.option("--force", is_flag=True, help="Replace what stands under the name.")
