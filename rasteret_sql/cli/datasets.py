"""``rasteret-sql datasets``: list, info, build, register, unregister."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rasteret_sql.cli import options, reports, tab_completion, text
from rasteret_sql.cli.failures import Group
from rasteret_sql.cli.session import (
    call,
    json_option,
    session,
    to_json,
    with_options,
    workspace_option,
)
from rasteret_sql.datasets.dataset import ACCESS
from rasteret_sql.datasets.registry import find_dataset
from rasteret_sql.errors import RasteretError


@click.group(cls=Group)
def datasets() -> None:
    """List, describe, build, register and unregister data sets known by name."""


@datasets.command("list")
@options.of("rasteret_datasets", "search")
@json_option
def list_(search: str | None, *, as_json: bool) -> None:
    """List the data sets: built-in ones and your own."""
    with session(None) as con:
        rows = call(con, "rasteret_datasets", {"search": search})
    if as_json:
        click.echo(to_json(rows))
    elif not rows:
        click.echo("no data sets", err=True)
    else:
        text.table(rows, ("id", "access", "source", "name", "description"))


@datasets.command()
@click.argument("dataset_id", metavar="ID", shell_complete=tab_completion.dataset_ids)
@json_option
def info(dataset_id: str, *, as_json: bool) -> None:
    """Describe the data set ID."""
    try:
        dataset = find_dataset(dataset_id)
    except RasteretError as error:
        raise with_options(error) from error
    row = {"id": dataset.id, **dataset.fields(), "source": dataset.source}
    if as_json:
        click.echo(to_json(row))
    else:
        text.facts(row)


@datasets.command()
@click.argument("dataset_id", metavar="ID", shell_complete=tab_completion.dataset_ids)
@options.all_of(
    "rasteret_build",
    "name",
    "bbox",
    "date_range",
    "query",
    "filter",
    "bands",
    "max_items",
    "max_concurrent",
)
@options.strict
@options.of("rasteret_build", "force")
@workspace_option
@json_option
def build(dataset_id: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Build a collection from the data set ID."""
    parameters = {"dataset_id": dataset_id, **arguments}
    reports.build("rasteret_build", parameters, workspace_dir, first="dataset_id", as_json=as_json)


@datasets.command()
@click.argument("dataset_id", metavar="ID", shell_complete=tab_completion.dataset_ids)
@options.all_of(
    "rasteret_register_dataset",
    "name",
    "description",
    "stac_api",
    "stac_collection",
    "record_table",
    "column_map",
    "href_column",
    "band_map",
    "band_index_map",
    "url_rewrite",
)
@options.of("rasteret_register_dataset", "access", type=click.Choice(ACCESS))
@options.of("rasteret_register_dataset", "access_prefixes", metavar="PREFIX,...")
@options.all_of(
    "rasteret_register_dataset",
    "spatial_coverage",
    "start_date",
    "end_date",
    "license",
    "license_url",
)
@json_option
def register(dataset_id: str, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Keep a data set of your own under ID, in place of one that is there."""
    with session(None) as con:
        parameters = {"id": dataset_id, **arguments}
        row = call(con, "rasteret_register_dataset", parameters, first="id")[0]
    click.echo(to_json(row) if as_json else f"{row['id']}: registered")


@datasets.command()
@click.argument("dataset_id", metavar="ID", shell_complete=tab_completion.dataset_ids)
def unregister(dataset_id: str) -> None:
    """Forget your own data set ID; collections built from it stay."""
    with session(None) as con:
        row = call(con, "rasteret_unregister_dataset", {"id": dataset_id}, first="id")[0]
    click.echo(f"{row['id']}: unregistered")
