"""``rasteret-sql collections``: build, import, refresh, validate, list, info, export, delete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rasteret_sql.cli import options, text, values
from rasteret_sql.cli.failures import FAILED, Failure
from rasteret_sql.cli.progress import shown
from rasteret_sql.cli.session import call, json_option, session, to_json, workspace_option


@click.group()
def collections() -> None:
    """Build, import, refresh, validate, list, describe, export and delete collections."""


@collections.command()
@click.argument("name")
@click.option("--stac-api", required=True, help="API URL, static catalog, or file of items.")
@click.option("--collection", help="STAC collection id.")
@options.together(options.bbox, options.date_range)
@click.option("--intersects", help="Area as WKT or GeoJSON, in degrees.")
@click.option("--ids", metavar="ID,...", callback=values.names, help="Item ids.")
@options.together(
    options.query,
    options.cql2,
    options.max_items,
    options.bands,
    options.band_map,
    options.band_index_map,
    options.url_rewrite,
    options.data_source,
    options.allow_local,
)
@click.option(
    "--enrich/--no-enrich",
    default=True,
    help="Read the headers of all assets and keep them; default: yes.",
)
@options.together(options.max_concurrent, options.strict, options.force)
@workspace_option
@json_option
def build(name: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Build a collection NAME from STAC: metadata and headers of every asset."""
    _build("rasteret_build_stac", name, workspace_dir, arguments, as_json=as_json)


@collections.command("import")
@click.argument("name")
@click.option(
    "--record-table", "source", required=True, help="Parquet path, or SELECT text: a row per scene."
)
@options.column_map
@click.option("--href-column", help="Column with the file's URL, if there is no column assets.")
@click.option("--geometry-crs", help="CRS of the footprints, if the table does not say it.")
@options.band_index_map
@options.url_rewrite
@click.option(
    "--columns",
    metavar="NAME,...",
    callback=values.names,
    help="Source columns to keep; default: all.",
)
@click.option("--where", help="SQL condition on the source.")
@options.together(options.bands, options.data_source, options.allow_local)
@click.option("--enrich", is_flag=True, help="Read the headers of all assets and keep them.")
@options.together(options.max_concurrent, options.strict, options.force)
@workspace_option
@json_option
def import_(name: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Build a collection NAME from a table with one row per scene."""
    _build("rasteret_build_table", name, workspace_dir, arguments, as_json=as_json)


def _build(
    function: str,
    name: str,
    workspace_dir: Path | None,
    arguments: Mapping[str, object],
    *,
    as_json: bool,
) -> None:
    with shown(f"building {name}"), session(workspace_dir) as con:
        report = call(con, function, {"name": name, **arguments}, first="name")[0]
    if as_json:
        click.echo(to_json(report))
        return
    text.report(report)


@collections.command()
@click.argument("name")
@click.option("--stac-api", help="Where its items are now; signed addresses are not kept.")
@click.option("--source", help="Where its table is now.")
@click.option("--since", metavar="DATE", help="Look only at items from this date on.")
@click.option(
    "--check-remote/--no-check-remote",
    default=True,
    help="Ask for ETag and size of every file; default: yes.",
)
@options.together(options.max_concurrent, options.strict)
@workspace_option
@json_option
def refresh(name: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Run the build of the collection NAME again for what is new."""
    with shown(f"refreshing {name}"), session(workspace_dir) as con:
        report = call(con, "rasteret_refresh", {"name": name, **arguments}, first="name")[0]
    if as_json:
        click.echo(to_json(report))
        return
    text.report(report)


@collections.command()
@click.argument("name")
@click.option(
    "--require-band-metadata/--no-require-band-metadata",
    default=True,
    help="Whether a band without its header is a fault; default: yes.",
)
@click.option("--check-remote", is_flag=True, help="Ask for ETag and size of every file.")
@options.max_concurrent
@workspace_option
@json_option
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    name: str,
    workspace_dir: Path | None,
    *,
    as_json: bool,
    **arguments: Any,  # noqa: ANN401
) -> None:
    """List what is wrong with the collection NAME; exit code 1 if anything is."""
    parameters = {"collection": name, **arguments}
    with shown(f"validating {name}"), session(workspace_dir) as con:
        faults = call(con, "rasteret_validate", parameters, first="collection")
    if as_json:
        click.echo(to_json(faults))
    elif faults:
        text.table(faults, ("id", "column", "band", "fault"))
    else:
        click.echo(f"{name}: sound")
    ctx.exit(FAILED if faults else 0)


@collections.command("list")
@workspace_option
@json_option
def list_(workspace_dir: Path | None, *, as_json: bool) -> None:
    """List the collections of the workspace."""
    with session(workspace_dir) as con:
        rows = call(con, "rasteret_collections", {})
    if as_json:
        click.echo(to_json(rows))
    elif not rows:
        click.echo("no collections", err=True)
    else:
        text.table(rows, ("name", "kind", "records", "bands", "start_datetime", "end_datetime"))


@collections.command()
@click.argument("name")
@workspace_option
@json_option
def info(name: str, workspace_dir: Path | None, *, as_json: bool) -> None:
    """Describe the collection NAME."""
    with session(workspace_dir) as con:
        row = call(con, "rasteret_describe", {"collection": name}, first="collection")[0]
    if as_json:
        click.echo(to_json(row))
        return
    text.facts(row)


@collections.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--partition-by",
    metavar="NAME,...",
    callback=values.names,
    help="Hive keys; default: year,month.",
)
@options.force
@workspace_option
def export(
    name: str,
    folder: Path,
    partition_by: list[str] | None,
    workspace_dir: Path | None,
    *,
    force: bool,
) -> None:
    """Write the collection NAME, or a SELECT over one, to FOLDER as GeoParquet."""
    parameters = {
        "collection": name,
        "path": str(folder.expanduser().absolute()),
        "partition_by": partition_by,
        "force": force,
    }
    with shown(f"exporting {name}"), session(workspace_dir) as con:
        rows = call(con, "rasteret_export", parameters, first="collection")
    records = sum(row["records"] for row in rows)
    click.echo(f"{records} records in {len(rows)} files\n{parameters['path']}")


@collections.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@workspace_option
def delete(name: str, workspace_dir: Path | None, *, yes: bool) -> None:
    """Delete the collection NAME: its files in the workspace."""
    with session(workspace_dir) as con:
        found = [row for row in call(con, "rasteret_collections", {}) if row["name"] == name]
        if found and not yes:
            _ask(f"Delete {name}, {found[0]['records']} records, {found[0]['path']}?")
        row = call(con, "rasteret_drop", {"name": name}, first="name")[0]
    click.echo(f"{row['name']}: {row['records']} records deleted")


def _ask(question: str) -> None:
    """Go on after a yes only.

    Raises:
        Failure: after a no, or where nobody answers.
    """
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise
        raise Failure("expected an answer, got the end of stdin; pass --yes") from None
    raise Failure("not deleted")
