"""Build collections: rasteret_build_stac, rasteret_build_table."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from rasteret_sql.collections.footprints import wkb_as_text
from rasteret_sql.collections.geo_key import extension
from rasteret_sql.collections.workspace import Workspace, check_name
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import flag, rows_not_raster, text
from rasteret_sql.duck.declarations import Parameter, table_function
from rasteret_sql.duck.functions.collections import workspace_of
from rasteret_sql.duck.functions.parameters import (
    ALLOW_LOCAL,
    BAND_INDEX_MAP,
    BANDS,
    BBOX,
    BUILD_PARAMETERS,
    BUILD_REPORT,
    DATA_SOURCE,
    DATE_RANGE,
    ENRICH,
    FILTER,
    HREF_COLUMN,
    MAX_ITEMS,
    NAME,
    QUERY,
    URL_REWRITE,
)
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_text
from rasteret_sql.duck.relation_names import is_path
from rasteret_sql.duck.relations import Relation, caller_sql, find_visible
from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.scalars import (
    failed,
    succeeded,
    value_or_error,
    without_geometry_crs,
)
from rasteret_sql.duck.staging import ROW, STAGE, Staged
from rasteret_sql.duck.udfs import BUILD_STAGED_UDF, STAGE_UDF, fallible
from rasteret_sql.duck.views import check_view_can_be_made, create_view
from rasteret_sql.errors import InputError, RasteretError, redact
from rasteret_sql.ingest.bands import checked_indices
from rasteret_sql.ingest.build import (
    BuildOptions,
    build_collection,
    existing_report,
)
from rasteret_sql.ingest.records import Records
from rasteret_sql.ingest.stac.items import records_from_items
from rasteret_sql.ingest.stac.search import StacSource, read_items
from rasteret_sql.ingest.table.footprints import find_geometry
from rasteret_sql.ingest.table.tables import check_table, records_from_table
from rasteret_sql.progress.counts import watched
from rasteret_sql.remote.documents import get_document
from rasteret_sql.remote.stores import is_local, is_remote
from rasteret_sql.schema import REPORT_SCHEMA

_N_NOTES = 2
_REPORT = pa.struct(list(REPORT_SCHEMA))


def _nothing_to_check() -> None:
    """Pass what is known only when it is read."""


@dataclass(frozen=True)
class BuildRequest:
    """How a collection is made from its source: by a build, and again by a refresh.

    Attributes:
        records: Reads the source; None where only the caller's connection can, then `rows`
            is its SQL and `of_rows` takes what it gives.
        check: Refuses, before any work, what `records` would refuse.
    """

    options: BuildOptions
    place: Workspace
    records: Callable[[Scan], Records] | None
    rows: str = ""
    of_rows: Callable[[pa.Table], Records] | None = None
    check: Callable[[], None] = _nothing_to_check


@table_function(
    "rasteret_build_stac",
    "Build a collection from STAC items: metadata and headers of every asset, as Parquet and a "
    "view.",
    file="20_collections.sql",
    writes=True,
    parameters=(
        NAME,
        Parameter(
            "stac_api",
            "VARCHAR",
            "API URL; static catalog or collection URL or path; or a file of items: .json, "
            ".ndjson, .parquet",
            check=text("a URL or path", "name an API or a file", blank_passes=False),
        ),
        Parameter("collection", "VARCHAR", "STAC collection id", "NULL"),
        BBOX,
        DATE_RANGE,
        QUERY,
        FILTER,
        Parameter("ids", "VARCHAR[]", "item ids", "NULL"),
        Parameter(
            "intersects",
            "any",
            "GEOMETRY, GeoJSON, WKT or WKB in degrees, in place of bbox",
            "NULL",
        ),
        BANDS.with_doc("bands to keep; default: all raster assets"),
        Parameter("band_map", "MAP", "band name to asset key", "NULL"),
        BAND_INDEX_MAP,
        URL_REWRITE,
        DATA_SOURCE.with_doc("name of the source; default: the STAC collection id"),
        Parameter(
            "static_catalog",
            "BOOLEAN",
            "whether stac_api is a static catalog; default: found out",
            "NULL",
            flag,
        ),
        MAX_ITEMS,
        ALLOW_LOCAL.with_doc("accept hrefs to local files from a remote catalog"),
        ENRICH.with_default("true"),
        *BUILD_PARAMETERS,
    ),
    returns=BUILD_REPORT,
    raises="name: not a plain name, or taken; stac_api: not found, not STAC; bands: unknown",
    example="FROM rasteret_build_stac('s2', stac_api := 'items.json', bands := ['B04', 'B08'])",
)
def build_stac(call: Call, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Build from STAC."""
    return _build(call, stac_request(call, **arguments))


@table_function(
    "rasteret_build_table",
    "Build a collection from a table with one row per scene.",
    file="20_collections.sql",
    writes=True,
    parameters=(
        NAME,
        Parameter(
            "source",
            "VARCHAR",
            "table, view, TEMP table or registered frame; SELECT text; Parquet file or folder: "
            "a path, s3://, gs://, az:// or https://",
            check=rows_not_raster,
        ),
        Parameter(
            "column_map",
            "MAP",
            "source column to canonical column: id, datetime, geometry, bbox, assets, crs, …",
            "NULL",
        ),
        HREF_COLUMN,
        BAND_INDEX_MAP.with_doc(
            "band name to sample in its file, from 0; default: a band per sample, by the files' "
            "band descriptions, else b1, b2, …"
        ),
        URL_REWRITE,
        Parameter("columns", "VARCHAR[]", "source columns to keep; default: all", "NULL"),
        Parameter("where", "VARCHAR", "SQL condition on the source", "NULL", text()),
        ENRICH.with_default("false"),
        BANDS,
        DATA_SOURCE,
        Parameter(
            "geometry_crs",
            "any",
            "CRS of the footprints where nothing in the source says it: 'EPSG:n', n, WKT2 or "
            "PROJJSON",
            "NULL",
        ),
        ALLOW_LOCAL,
        *BUILD_PARAMETERS,
    ),
    returns=BUILD_REPORT,
    raises="source: not found, or without id and assets (the message names the argument to give)",
    example="FROM rasteret_build_table('scenes', 'SELECT * FROM my_scenes', href_column := 'url', "
    "bands := ['B04'], enrich := true)",
)
def build_table(call: Call, **arguments: Any) -> Stream | Sql:  # noqa: ANN401
    """Build from a relation, private ones included."""
    return _build(call, table_request(call, **arguments))


def stac_request(
    call: Call,
    *,
    name: str,
    stac_api: str,
    bands: list[str] | None = None,
    band_map: dict[str, str] | None = None,
    band_index_map: dict[str, int] | None = None,
    url_rewrite: dict[str, str] | None = None,
    data_source: str | None = None,
    allow_local: bool = False,
    is_partial: bool = False,
    **rest: Any,  # noqa: ANN401
) -> BuildRequest:
    """Records of STAC items; `is_partial` is for a band map that is not the caller's own."""
    options, search = _split(rest)
    place = workspace_of(call, options["workspace"])
    if isinstance(search.get("intersects"), bytes):  # WKB, which JSON can't hold
        search["intersects"] = wkb_as_text(search["intersects"])
    source = StacSource(location=stac_api, **search)
    source.wanted()
    build = _build_options(
        call,
        name,
        "stac",
        {
            "stac_api": _absolute_source(stac_api),
            "bands": bands,
            "band_map": band_map,
            "band_index_map": band_index_map,
            "url_rewrite": url_rewrite,
            "allow_local": allow_local or None,
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
            has_headers=options["enrich"],
            warnings=warnings,
            spool_folder=place.spool_folder,
        )

    def check() -> None:
        source.check_place()
        checked_indices(band_index_map)

    return BuildRequest(build, place, records, check=check)


def table_request(
    call: Call,
    *,
    name: str,
    source: object,
    data_source: str | None = None,
    where: str | None = None,
    **rest: Any,  # noqa: ANN401
) -> BuildRequest:
    """Records of a relation, private ones included."""
    options, shape = _split(rest)
    has_headers = options["enrich"]
    build = _build_options(
        call,
        name,
        "records",
        {
            "source": _absolute_source(source) if is_path(source) else source,
            "where": where,
            **shape,
            "allow_local": shape.get("allow_local") or None,
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
                table.to_reader,
                geo_metadata=None,
                has_headers=has_headers,
                spool_folder=place.spool_folder,
                **shape,
            )

        return BuildRequest(build, place, None, caller_sql(source) + condition, of_rows)
    from_afar = is_remote(str(source))
    if shape.get("geometry_crs") is None:
        shape = shape | {"geometry_crs": footprint_crs(relation)}

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
            spool_folder=place.spool_folder,
            **shape,
        )

    def check() -> None:
        check_table(relation.schema, geo_metadata=relation.geo_metadata, **shape)

    return BuildRequest(build, place, records, check=check)


def footprint_crs(relation: Relation) -> str | None:
    """The CRS that the type of a relation's footprints declares, None where Arrow tells it."""
    if IS_DUCKDB_2 or relation.source is not None:
        return None
    column = find_geometry(relation.schema, None, None)
    declared = None if column is None else extension(relation.schema.field(column.name))[1]
    return declared if declared is None or isinstance(declared, str) else json.dumps(declared)


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


def _absolute_source(source: Any) -> Any:  # noqa: ANN401
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
    name: str,
    kind: str,
    source: dict[str, Any],
    data_source: str,
    options: dict[str, Any],
) -> BuildOptions:
    place = workspace_of(call, options["workspace"])
    check_name(name)
    with call.cursor() as cursor:
        check_view_can_be_made(cursor, name, place.folders(name))
    return BuildOptions(
        name=name,
        kind=cast("Any", kind),
        source=source | {"data_source": data_source or None, "enrich": options["enrich"]},
        data_source=data_source,
        enrich=options["enrich"],
        on_error=options["on_error"],
        max_concurrent=options["max_concurrent"],
        force=options["force"],
    )


def _build(call: Call, request: BuildRequest) -> Stream | Sql:
    if existing_report(request.place, request.options) is None:
        request.check()

    def work(records: Callable[[], Records], stop: threading.Event) -> dict[str, Any]:
        report = existing_report(request.place, request.options)
        if report is not None:
            return report
        found = records()
        report = build_collection(found, request.place, request.options, stop)
        _warn_of_notes(call, request.options.name, found.warnings)
        return report

    return run_build(call, request, work)


def _warn_of_notes(call: Call, name: str, notes: Sequence[str]) -> None:
    """Tell that there are notes on the source, which only rasteret_errors shows."""
    if notes:
        shown = "; ".join(redact(note) for note in notes[:_N_NOTES])
        more = "; …" if len(notes) > _N_NOTES else ""
        call.runtime.warn(
            call,
            f"source: expected nothing to note, got {len(notes)} ({shown}{more}); "
            f"see FROM rasteret_errors({quote_text(name)})",
        )


BuildWork = Callable[[Callable[[], Records], threading.Event], dict[str, Any]]


def run_build(call: Call, request: BuildRequest, work: BuildWork) -> Stream | Sql:
    """Build a collection of the records of a request, then its view.

    `work` is given the records, which it may leave unread, and a stop event; it returns
    the report.
    """
    read = request.records
    if read is None:
        return _staged(call, request, work)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        with watched(request.options.name):
            report = work(lambda: read(scan), scan.stop)
        with call.cursor() as cursor:
            create_view(cursor, request.options.name, report["path"])
        yield pa.RecordBatch.from_pylist([report], schema=REPORT_SCHEMA)

    return Stream(REPORT_SCHEMA, run)


def _staged(call: Call, request: BuildRequest, work: BuildWork) -> Sql:
    """Text that sends the caller's private rows through `STAGE_UDF`, then makes them."""
    of_rows = cast("Callable[[pa.Table], Records]", request.of_rows)

    def finish(table: pa.Table) -> dict[str, Any]:
        with (
            call.runtime.scans.working(call.caller.connection) as stop,
            watched(request.options.name),
        ):
            report = work(lambda: of_rows(table), stop)
        with call.cursor() as cursor:
            create_view(cursor, request.options.name, report["path"])
        return report

    token = quote_text(STAGE.add(Staged(finish)))
    caller = quote_text(call.caller.connection)
    return Sql(
        f"SELECT unnest({value_or_error('report')}) FROM ("
        f"SELECT {BUILD_STAGED_UDF}({token}, n, {caller}, {quote_text(call.name)}) AS report FROM ("
        f"SELECT count({STAGE_UDF}({token}, {ROW})) AS n "
        f"FROM (SELECT * FROM {request.rows}) AS {ROW}))"
    )


def make_build_staged(runtime: Runtime) -> Callable[..., pa.Array]:
    """The UDF that builds from the rows of a call, when all have arrived."""

    def build_staged(
        tokens: pa.Array, _counts: pa.Array, callers: pa.Array, names: pa.Array
    ) -> pa.Array:
        if not len(tokens):
            return pa.array([], fallible(_REPORT))
        try:
            staged = STAGE.get(tokens[0].as_py())
            report = staged.finish(staged.table())
        except RasteretError as error:
            return failed(
                runtime, error, (names[0].as_py(), callers[0].as_py()), _REPORT, len(tokens)
            )
        return succeeded(pa.array([report] * len(tokens), _REPORT))

    return build_staged
