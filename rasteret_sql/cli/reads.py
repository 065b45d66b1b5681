"""``rasteret-sql sample``, ``zonal`` and ``preview``: reads of pixels, thin over SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import duckdb

from rasteret_sql.cli import options, tab_completion, text
from rasteret_sql.cli import output as results
from rasteret_sql.cli.areas import relation_of
from rasteret_sql.cli.failures import Failure
from rasteret_sql.cli.session import (
    database_option,
    json_option,
    session,
    to_json,
    with_options,
    workspace_option,
)
from rasteret_sql.cli.statements import statement
from rasteret_sql.duck.results import translated
from rasteret_sql.errors import RasteretError
from rasteret_sql.progress.display import shown

_UNSAFE = re.compile(r"[^\w.+-]")
_MOST_NAME = 200


@click.command()
@click.argument("collection", shell_complete=tab_completion.relations)
@click.argument("points", shell_complete=tab_completion.tables_or_files)
@options.rest_of("rasteret_sample_points", "collection", "points")
@results.options
@database_option
@workspace_option
def sample(collection: str, points: str, **arguments: Any) -> None:  # noqa: ANN401
    """Read the values of COLLECTION at POINTS.

    POINTS is a CSV file with columns lon and lat (or x and y), a GeoJSON or Parquet file,
    SELECT text, or a table of --database. COLLECTION is a name, or SELECT text over one. A row
    is a point and a record that holds it; --match takes the record of the point's time:

        rasteret-sql sample s2 wells.csv --bands B04,B08 --output wells.parquet
    """
    given = {"collection": collection, "points": points}
    _print_rows("rasteret_sample_points", given, arguments, areas="points", label="sampling")


@click.command()
@click.argument("collection", shell_complete=tab_completion.relations)
@click.argument("zones", required=False, shell_complete=tab_completion.tables_or_files)
@options.rest_of("rasteret_zonal_stats", "collection", "zones")
@results.options
@database_option
@workspace_option
def zonal(collection: str, zones: str | None, **arguments: Any) -> None:  # noqa: ANN401
    """Compute statistics of COLLECTION in ZONES, a row per zone, record and band.

    ZONES is a GeoJSON, Parquet or CSV file (with a column geometry of WKT), SELECT text, or a
    table of --database; without it --bbox or --geometry is the zone, or each raster as a whole.
    COLLECTION is a name, or SELECT text over one:

        rasteret-sql zonal s2 fields.geojson --bands B04 --stats mean,p90 --output stats.csv
    """
    given = {"collection": collection, "zones": zones}
    _print_rows("rasteret_zonal_stats", given, arguments, areas="zones", label="reading zones")


@click.command()
@click.argument("collection", shell_complete=tab_completion.relations)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@options.rest_of("rasteret_preview", "collection", "record_columns")
@database_option
@workspace_option
@json_option
def preview(
    collection: str,
    folder: Path,
    database: str,
    workspace_dir: Path | None,
    *,
    as_json: bool,
    **arguments: Any,  # noqa: ANN401
) -> None:
    """Write a PNG of each record of COLLECTION to FOLDER, named by the record's id.

    COLLECTION is a name, or SELECT text over one. It reads the smallest overview that is wide
    enough. The pictures are listed; those of a record that can't be read (--on-error null or
    report) have no file:

        rasteret-sql preview s2 pictures --bands B08,B04,B04 --rescale 0,4000
    """
    given = {"collection": collection, **arguments}
    columns = "id, height, width, png" + (", error" if given["on_error"] == "report" else "")
    query = statement("rasteret_preview", given | {"record_columns": ["id"]}, columns)
    with shown("drawing"), _reading(workspace_dir, database) as con, translated(con, query):
        folder.mkdir(parents=True, exist_ok=True)
        written = [_keep(row, folder, taken) for taken, row in _rows(con, query)]
    if as_json:
        click.echo(to_json(written))
    elif not written:
        click.echo("no records", err=True)
    else:
        text.table(written, tuple(written[0]))
    if written and not any(row["file"] for row in written):
        raise Failure("png: expected a picture, got none; --on-error error says why")


def _print_rows(
    function: str,
    given: Mapping[str, Any],
    arguments: dict[str, Any],
    *,
    areas: str,
    label: str,
) -> None:
    """Call a function and print its rows as the options say."""
    output: Path | None = arguments.pop("output")
    format_ = results.chosen(arguments.pop("format_"), output)
    database, workspace = arguments.pop("database"), arguments.pop("workspace_dir")
    with _reading(workspace, database) as con:
        named = given[areas]
        relation, crs = (None, None) if named is None else relation_of(con, areas, named)
        arguments["geometry_crs"] = arguments["geometry_crs"] or crs
        query = statement(function, {**given, areas: relation, **arguments})
        with translated(con, query):
            results.put(con, con.sql(query), format_, output, label=label)


@contextmanager
def _reading(workspace: Path | None, database: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that leaves the database file as it is; errors advise options."""
    try:
        with session(workspace, database, read_only=database != ":memory:") as con:
            yield con
    except RasteretError as error:
        raise with_options(error) from error


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[set[str], dict[str, Any]]]:
    """Rows one by one, as a picture may be large, with the names of files that are taken."""
    taken: set[str] = set()
    for batch in con.sql(query).to_arrow_reader(1):
        for row in batch.to_pylist():
            yield taken, row


def _keep(row: dict[str, Any], folder: Path, taken: set[str]) -> dict[str, Any]:
    """Write a picture.

    Returns:
        What to list: the row with the file in place of the picture.
    """
    png = row.pop("png")
    path = folder / f"{file_name(str(row['id']), taken)}.png"
    if png is not None:
        path.write_bytes(png)
    return {**row, "file": None if png is None else str(path)}


def file_name(id_: str, taken: set[str]) -> str:
    """A name of a file, without suffix, for the id of a record; each is given once.

    Example:
        >>> taken = set()
        >>> file_name("a/b c", taken), file_name("a_b_c", taken), file_name("..", taken)
        ('a_b_c', 'a_b_c-2', '_.')
    """
    name = _UNSAFE.sub("_", id_)[:_MOST_NAME] or "_"
    name = f"_{name[1:]}" if name.startswith(".") else name
    found, number = name, 1
    while found.lower() in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found.lower())
    return found
