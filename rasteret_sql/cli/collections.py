"""``rasteret-sql collections``: build, import, refresh, validate, list, info, export, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rasteret_sql.cli import options, reports, tab_completion, text
from rasteret_sql.cli.failures import FAILED, Failure, Group
from rasteret_sql.cli.session import call, json_option, session, to_json, workspace_option
from rasteret_sql.collections.folders import workspace_folder
from rasteret_sql.progress.display import shown


@click.group(cls=Group)
def collections() -> None:
    """Build, import, refresh, validate, list, describe, export and delete collections."""


@collections.command()
@click.argument("name")
@options.of("rasteret_build_stac", "stac_api", required=True)
@options.all_of("rasteret_build_stac", "collection", "bbox", "date_range", "intersects")
@options.of("rasteret_build_stac", "ids", metavar="ID,...")
@options.all_of(
    "rasteret_build_stac",
    "query",
    "filter",
    "max_items",
    "bands",
    "band_map",
    "band_index_map",
    "url_rewrite",
    "data_source",
    "allow_local",
    "enrich",
    "max_concurrent",
)
@options.strict
@options.of("rasteret_build_stac", "force")
@workspace_option
@json_option
def build(name: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Build a collection NAME from STAC: metadata and headers of every asset."""
    parameters = {"name": name, **arguments}
    reports.build("rasteret_build_stac", parameters, workspace_dir, first="name", as_json=as_json)


@collections.command("import")
@click.argument("name")
@click.option(
    "--record-table",
    "source",
    required=True,
    shell_complete=tab_completion.files,
    help="Parquet path, or SELECT text: a row per scene.",
)
@options.all_of(
    "rasteret_build_table",
    "column_map",
    "href_column",
    "geometry_crs",
    "band_index_map",
    "url_rewrite",
    "columns",
    "where",
    "bands",
    "data_source",
    "allow_local",
    "enrich",
    "max_concurrent",
)
@options.strict
@options.of("rasteret_build_table", "force")
@workspace_option
@json_option
def import_(name: str, workspace_dir: Path | None, *, as_json: bool, **arguments: Any) -> None:  # noqa: ANN401
    """Build a collection NAME from a table with one row per scene."""
    parameters = {"name": name, **arguments}
    reports.build("rasteret_build_table", parameters, workspace_dir, first="name", as_json=as_json)


@collections.command()
@click.argument("name", shell_complete=tab_completion.kept_names)
@options.all_of("rasteret_refresh", "stac_api", "source", "since", "check_remote", "max_concurrent")
@options.strict
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
@click.argument("name", shell_complete=tab_completion.kept_names)
@options.all_of("rasteret_validate", "require_band_metadata", "check_remote", "max_concurrent")
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
        click.echo(f"no collections in {workspace_folder(workspace_dir)}", err=True)
    else:
        text.table(rows, ("name", "kind", "records", "bands", "start_datetime", "end_datetime"))


@collections.command()
@click.argument("name", shell_complete=tab_completion.kept_names)
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
@click.argument("name", shell_complete=tab_completion.kept_names)
@click.argument("folder", type=click.Path(path_type=Path))
@options.of("rasteret_export", "partition_by")
@options.of("rasteret_export", "force")
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
@click.argument("name", shell_complete=tab_completion.kept_names)
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
        raise Failure("stdin: expected an answer, got its end; pass --yes") from None
    raise Failure("not deleted")
