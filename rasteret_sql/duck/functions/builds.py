"""Build collections: rasteret_build_stac, rasteret_build_table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from rasteret_sql.duck.functions.collections import check_flag, workspace_of
from rasteret_sql.duck.plain_types import geometry_crs
from rasteret_sql.duck.relations import Relation, caller_sql, find_visible, is_path
from rasteret_sql.duck.scalars import (
    Scalar,
    failed,
    fallible,
    sql_type_name,
    succeeded,
    value_or_error,
    without_geometry_crs,
)
from rasteret_sql.duck.staging import SCALARS as STAGING
from rasteret_sql.duck.staging import STAGE, STAGE_UDF, Staged
from rasteret_sql.duck.table_function import (
    IS_DUCKDB_2,
    Call,
    Runtime,
    Scan,
    Sql,
    Stream,
    quote_text,
    table_function,
)
from rasteret_sql.duck.views import check_view_can_be_made, create_view
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.records.build import (
    REPORT_SCHEMA,
    BuildOptions,
    build_collection,
    existing_report,
)
from rasteret_sql.records.files.workspace import Workspace, check_name
from rasteret_sql.records.footprints import wkb_as_text
from rasteret_sql.records.progress import watched
from rasteret_sql.records.records import Records
from rasteret_sql.records.stac.items import records_from_items
from rasteret_sql.records.stac.search import StacSource, read_items
from rasteret_sql.records.table.footprints import find_geometry
from rasteret_sql.records.table.tables import records_from_table
from rasteret_sql.remote.documents import get_document
from rasteret_sql.remote.stores import is_local, is_remote

_STAGED_UDF = "_rasteret_build_staged"
_REPORT = pa.struct(list(REPORT_SCHEMA))


@dataclass(frozen=True)
class Recipe:
    """How a collection is made from its source: by a build, and again by a refresh.

    Attributes:
        records: Reads the source; None where only the caller's connection can, then `rows`
            is its SQL and `of_rows` takes what it gives.
    """

    options: BuildOptions
    place: Workspace
    records: Callable[[Scan], Records] | None
    rows: str = ""
    of_rows: Callable[[pa.Table], Records] | None = None


@table_function("rasteret_build_stac")
def build_stac(call: Call, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Build from STAC."""
    return _build(call, stac_recipe(call, **arguments))


@table_function("rasteret_build_table")
def build_table(call: Call, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Build from a relation, private ones included."""
    return _build(call, table_recipe(call, **arguments))


def stac_recipe(
    call: Call,
    *,
    name: object,
    stac_api: object,
    bands: list[str] | None = None,
    band_map: dict[str, str] | None = None,
    band_index_map: dict[str, int] | None = None,
    url_rewrite: dict[str, str] | None = None,
    data_source: str | None = None,
    allow_local: bool = False,
    is_partial: bool = False,
    **rest: Any,  # noqa: ANN401
) -> Recipe:
    """Records of STAC items; `is_partial` is for a band map that is not the caller's own."""
    if not isinstance(stac_api, str) or not stac_api.strip():
        raise InputError.expected("stac_api", "a URL or path", stac_api, "name an API or a file")
    options, search = _split(rest)
    check_flag("allow_local", allow_local)
    if isinstance(search.get("intersects"), bytes):  # WKB, which JSON can't hold
        search["intersects"] = wkb_as_text(search["intersects"])
    source = StacSource(location=stac_api, **search)
    source.wanted()
    build = _build_options(
        call,
        name,
        "stac",
        {
            "stac_api": _lasting(stac_api),
            "bands": bands,
            "band_map": band_map,
            "band_index_map": band_index_map,
            "url_rewrite": url_rewrite,
            "allow_local": bool(allow_local) or None,
            "is_partial": is_partial or None,
            **search,
        },
        data_source or search.get("collection") or "",
        options,
    )

    def records(_scan: Scan) -> Records:
        warnings: list[str] = []
        return records_from_items(
            read_items(source, fetch_text=get_document, warnings=warnings),
            bands=bands,
            band_map=band_map,
            band_index_map=band_index_map,
            url_rewrite=url_rewrite,
            is_remote=is_remote(stac_api),
            allow_local=allow_local,
            is_partial=is_partial,
            has_headers=bool(options["enrich"]),
            warnings=warnings,
        )

    return Recipe(build, workspace_of(call, options["workspace"]), records)


def table_recipe(
    call: Call,
    *,
    name: object,
    source: object,
    data_source: str | None = None,
    where: str | None = None,
    **rest: Any,  # noqa: ANN401
) -> Recipe:
    """Records of a relation, private ones included."""
    options, shape = _split(rest)
    allow_local = check_flag("allow_local", shape.get("allow_local", False))
    has_headers = bool(options["enrich"])
    build = _build_options(
        call,
        name,
        "records",
        {
            "source": _lasting(source) if is_path(source) else source,
            "where": where,
            **shape,
            "allow_local": allow_local or None,
        },
        data_source or "",
        options,
    )
    place = workspace_of(call, options["workspace"])
    relation = find_visible(call, source, "source")
    condition = f" WHERE {where}" if where else ""
    if relation is None:
        if not isinstance(source, str):
            raise InputError.expected("source", "a name, SELECT text or path", source, "write text")

        def of_rows(table: pa.Table) -> Records:
            if not IS_DUCKDB_2:
                table = pa.Table.from_batches(map(without_geometry_crs, table.to_batches()))
            return records_from_table(
                table.to_reader, geo_metadata=None, has_headers=has_headers, **shape
            )

        return Recipe(build, place, None, caller_sql(source) + condition, of_rows)
    from_afar = is_remote(str(source))
    if shape.get("geometry_crs") is None:
        shape = shape | {"geometry_crs": footprint_crs(call, relation)}

    def records(_scan: Scan) -> Records:
        def reader() -> pa.RecordBatchReader:
            columns = relation.schema.names
            batches = relation.batches(call, columns, [f"({where})"] if where else [])
            return pa.RecordBatchReader.from_batches(relation.schema, batches)

        return records_from_table(
            reader,
            geo_metadata=relation.geo_metadata,
            is_remote=from_afar,
            has_headers=has_headers,
            **shape,
        )

    return Recipe(build, place, records)


def footprint_crs(call: Call, relation: Relation) -> str | None:
    """The CRS that the type of a relation's footprints declares, None where Arrow tells it."""
    if IS_DUCKDB_2 or relation.source is not None:
        return None
    with call.cursor() as cursor:
        declared = geometry_crs(cursor.sql(f"SELECT * FROM {relation.given} LIMIT 0"))
    column = find_geometry(relation.schema, None, None) if declared else None
    return declared.get(column.name) if column is not None else None


_DEFAULTS: dict[str, Any] = {
    "workspace": None,
    "max_concurrent": 300,
    "on_error": "report",
    "force": False,
    "enrich": True,
}


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that every build takes, and the rest."""
    own = {name: value for name, value in arguments.items() if name not in _DEFAULTS}
    return {name: arguments.get(name, default) for name, default in _DEFAULTS.items()}, own


def _lasting(source: Any) -> Any:  # noqa: ANN401
    """A source as it is found again: a relative path does not outlive the working directory."""
    if not isinstance(source, str) or not is_local(source) or source.startswith("file://"):
        return source
    try:
        path = Path(source).expanduser()
        return str(path.absolute()) if path.exists() else source
    except OSError:  # query text, too long for a path
        return source


def _build_options(
    call: Call,
    name: object,
    kind: str,
    source: dict[str, Any],
    data_source: str,
    options: dict[str, Any],
) -> BuildOptions:
    if not isinstance(name, str):
        raise InputError.expected("name", "a text", name, "name the collection")
    place = workspace_of(call, options["workspace"])
    check_name(name)
    if options["on_error"] not in ("report", "error"):
        raise InputError.expected("on_error", "'report' or 'error'", options["on_error"], "choose")
    for flag in ("force", "enrich"):
        check_flag(flag, options[flag])
    lanes = options["max_concurrent"]
    if not isinstance(lanes, int) or lanes < 1:
        raise InputError.expected("max_concurrent", "1 or more", lanes, "300 suits most stores")
    with call.cursor() as cursor:
        check_view_can_be_made(cursor, name, str(place.root / f"{name}_{kind}"))
    return BuildOptions(
        name=name,
        kind=cast("Any", kind),
        source=source | {"data_source": data_source or None, "enrich": bool(options["enrich"])},
        data_source=data_source,
        enrich=bool(options["enrich"]),
        on_error=options["on_error"],
        n_lanes=lanes,
        force=bool(options["force"]),
    )


def _build(call: Call, recipe: Recipe) -> Stream | Sql:
    existing_report(recipe.place, recipe.options)

    def make(records: Callable[[], Records], stop: threading.Event) -> dict[str, Any]:
        report = existing_report(recipe.place, recipe.options)
        if report is not None:
            return report
        return build_collection(records(), recipe.place, recipe.options, stop)

    return made(call, recipe, make)


Make = Callable[[Callable[[], Records], threading.Event], dict[str, Any]]


def made(call: Call, recipe: Recipe, make: Make) -> Stream | Sql:
    """Make a collection of a recipe's records, then its view.

    `make` is given the records, which it may leave unread, and a stop event; it returns
    the report.
    """
    read = recipe.records
    if read is None:
        return _staged(call, recipe, make)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        with watched(recipe.options.name):
            report = make(lambda: read(scan), scan.stop)
        with call.cursor() as cursor:
            create_view(cursor, recipe.options.name, report["path"])
        yield pa.RecordBatch.from_pylist([report], schema=REPORT_SCHEMA)

    return Stream(REPORT_SCHEMA, run)


def _staged(call: Call, recipe: Recipe, make: Make) -> Sql:
    """Text that sends the caller's private rows through `STAGE_UDF`, then makes them."""
    of_rows = cast("Callable[[pa.Table], Records]", recipe.of_rows)

    def finish(table: pa.Table) -> dict[str, Any]:
        with (
            call.runtime.stop_event(call.caller.connection) as stop,
            watched(recipe.options.name),
        ):
            report = make(lambda: of_rows(table), stop)
        with call.cursor() as cursor:
            create_view(cursor, recipe.options.name, report["path"])
        return report

    token = quote_text(STAGE.add(Staged(finish)))
    caller = quote_text(call.caller.connection)
    return Sql(
        f"SELECT unnest({value_or_error('report')}) FROM ("
        f"SELECT {_STAGED_UDF}({token}, n, {caller}, {quote_text(call.name)}) AS report FROM ("
        f"SELECT count({STAGE_UDF}({token}, s)) AS n FROM (SELECT * FROM {recipe.rows}) AS s))"
    )


def _make_staged(runtime: Runtime) -> Callable[..., pa.Array]:
    def build_staged(
        tokens: pa.Array, _counts: pa.Array, callers: pa.Array, names: pa.Array
    ) -> pa.Array:
        if not len(tokens):
            return pa.array([], fallible(_REPORT))
        try:
            staged = STAGE.get(tokens[0].as_py())
            report = staged.finish(staged.table())
        except RasteretError as error:
            named = runtime.remember(error, names[0].as_py(), callers[0].as_py())
            return failed(_REPORT, len(tokens), named.message)
        return succeeded(pa.array([report] * len(tokens), _REPORT))

    return build_staged


SCALARS = (
    *STAGING,
    Scalar(_STAGED_UDF, _make_staged, sql_type_name(fallible(_REPORT))),
)
