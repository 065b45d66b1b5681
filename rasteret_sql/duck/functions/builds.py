"""Build collections: rasteret_build_stac, rasteret_build_table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_sql.duck.functions.collections import workspace_of
from rasteret_sql.duck.relations import caller_sql, find_visible
from rasteret_sql.duck.scalars import Scalar, sql_type_name
from rasteret_sql.duck.staging import SCALARS as STAGING
from rasteret_sql.duck.staging import STAGE, STAGE_UDF, Staged
from rasteret_sql.duck.table_function import (
    Call,
    Runtime,
    Scan,
    Sql,
    Stream,
    quote_text,
    table_function,
)
from rasteret_sql.duck.views import check_name_is_free, create_view
from rasteret_sql.errors import InputError, redact
from rasteret_sql.records.build import (
    REPORT_SCHEMA,
    BuildOptions,
    build_collection,
    existing_report,
)
from rasteret_sql.records.items import records_from_items
from rasteret_sql.records.records import Records
from rasteret_sql.records.stac import StacSource, read_items
from rasteret_sql.records.tables import records_from_table
from rasteret_sql.records.workspace import Workspace, check_name
from rasteret_sql.remote.documents import get_document
from rasteret_sql.remote.stores import is_remote

_STAGED_UDF = "_rasteret_build_staged"


@table_function("rasteret_build_stac")
def build_stac(
    call: Call,
    *,
    name: object,
    stac_api: object,
    bands: list[str] | None,
    band_map: dict[str, str] | None,
    band_index_map: dict[str, int] | None,
    url_rewrite: dict[str, str] | None,
    data_source: str | None,
    allow_local: bool,
    is_partial: bool = False,
    **rest: Any,  # noqa: ANN401
) -> Stream:
    """Build from STAC; `is_partial` is for a band map that is not the caller's own."""
    if not isinstance(stac_api, str) or not stac_api.strip():
        raise InputError.expected("stac_api", "a URL or path", stac_api, "name an API or a file")
    options, search = _split(rest)
    source = StacSource(location=stac_api, **search)
    source.wanted()
    build = _build_options(
        call,
        name,
        "stac",
        {
            "stac_api": redact(stac_api),
            "bands": bands,
            "band_map": band_map,
            "band_index_map": band_index_map,
            "url_rewrite": url_rewrite,
            **{key: str(value) for key, value in search.items() if value is not None},
        },
        data_source or search["collection"] or "",
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
            allow_local=bool(allow_local),
            is_partial=is_partial,
            warnings=warnings,
        )

    return _build_stream(call, workspace_of(call, options["workspace"]), build, records)


@table_function("rasteret_build_table")
def build_table(
    call: Call,
    *,
    name: object,
    source: object,
    data_source: str | None,
    where: str | None,
    **rest: Any,  # noqa: ANN401
) -> Stream | Sql:
    """Build from a relation, private ones included."""
    options, shape = _split(rest)
    build = _build_options(
        call,
        name,
        "records",
        {"table": source, "where": where, **shape},
        data_source or "",
        options,
    )
    place = workspace_of(call, options["workspace"])
    relation = find_visible(call, source, "source")
    condition = f" WHERE {where}" if where else ""
    if relation is None:
        if not isinstance(source, str):
            raise InputError.expected("source", "a name, SELECT text or path", source, "write text")
        return _staged(call, place, build, caller_sql(source) + condition, shape)
    geo = _geo_metadata(source)
    from_afar = is_remote(str(source))

    def records(_scan: Scan) -> Records:
        def reader() -> pa.RecordBatchReader:
            columns = relation.schema.names
            batches = relation.batches(call, columns, [f"({where})"] if where else [])
            return pa.RecordBatchReader.from_batches(relation.schema, batches)

        return records_from_table(reader, geo_metadata=geo, is_remote=from_afar, **shape)

    return _build_stream(call, place, build, records)


_COMMON = ("workspace", "max_concurrent", "on_error", "force", "enrich")


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that every build takes, and the rest."""
    own = {name: value for name, value in arguments.items() if name not in _COMMON}
    return {name: arguments[name] for name in _COMMON}, own


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
    lanes = options["max_concurrent"]
    if not isinstance(lanes, int) or lanes < 1:
        raise InputError.expected("max_concurrent", "1 or more", lanes, "300 suits most stores")
    build = BuildOptions(
        name=name,
        kind=cast("Any", kind),
        source=source | {"enrich": bool(options["enrich"])},
        data_source=data_source,
        enrich=bool(options["enrich"]),
        on_error=options["on_error"],
        n_lanes=lanes,
        force=bool(options["force"]),
    )
    with call.cursor() as cursor:
        check_name_is_free(cursor, name, str(place.root / f"{name}_{kind}"))
    existing_report(place, build)
    return build


def _build_stream(
    call: Call, place: Workspace, build: BuildOptions, records: Callable[[Scan], Records]
) -> Stream:
    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        report = existing_report(place, build)
        if report is None:
            report = build_collection(records(scan), place, build, scan.stop)
        with call.cursor() as cursor:
            create_view(cursor, build.name, report["path"])
        yield pa.RecordBatch.from_pylist([report], schema=REPORT_SCHEMA)

    return Stream(REPORT_SCHEMA, run)


def _staged(
    call: Call, place: Workspace, build: BuildOptions, rows: str, shape: dict[str, Any]
) -> Sql:
    """Text that sends the caller's private rows through `STAGE_UDF`, then builds."""

    def finish(table: pa.Table) -> dict[str, Any]:
        report = existing_report(place, build)
        if report is None:
            records = records_from_table(table.to_reader, geo_metadata=None, **shape)
            with call.runtime.stop_event(call.caller.connection) as stop:
                report = build_collection(records, place, build, stop)
        with call.cursor() as cursor:
            create_view(cursor, build.name, report["path"])
        return report

    token = quote_text(STAGE.add(Staged(finish)))
    return Sql(
        f"SELECT unnest({_STAGED_UDF}({token}, n)) FROM ("
        f"SELECT count({STAGE_UDF}({token}, s)) AS n FROM (SELECT * FROM {rows}) AS s)"
    )


def _make_staged(_runtime: Runtime) -> Callable[..., pa.Array]:
    def build_staged(tokens: pa.Array, _counts: pa.Array) -> pa.Array:
        reports = []
        for token in tokens.to_pylist():
            staged = STAGE.get(token)
            reports.append(staged.finish(staged.table()))
        return pa.array(reports, pa.struct(list(REPORT_SCHEMA)))

    return build_staged


def _geo_metadata(source: object) -> bytes | None:
    """The ``geo`` key of a Parquet file, which may be the only place that names the CRS."""
    path = Path(str(source)).expanduser()
    if path.is_dir():
        path = next(iter(sorted(path.rglob("*.parquet"))), path)
    if not path.is_file():
        return None
    return cast("bytes | None", (pq.read_metadata(path).metadata or {}).get(b"geo"))


SCALARS = (
    *STAGING,
    Scalar(_STAGED_UDF, _make_staged, sql_type_name(pa.struct(list(REPORT_SCHEMA)))),
)
