"""Keep and share: rasteret_load, _export, _collections, _describe, _errors, _drop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.footers import CollectionInfo
from rasteret_sql.collections.hrefs import local_path, unsigned, unsigned_column
from rasteret_sql.collections.layout import ROW_GROUP_BYTES, check_export, export
from rasteret_sql.collections.workspace import Workspace, check_name, read_errors
from rasteret_sql.duck.calls import Call, Scan, Sql, Stream
from rasteret_sql.duck.checks import at_least, text
from rasteret_sql.duck.declarations import Parameter, table_function
from rasteret_sql.duck.functions.parameters import COLLECTION, FORCE, WORKSPACE
from rasteret_sql.duck.names import quote_identifier, quote_text
from rasteret_sql.duck.relations import caller_sql, find_visible, kept, resolve
from rasteret_sql.duck.views import check_view_can_be_made, create_view, drop_view
from rasteret_sql.errors import CollectionError, InputError, redact
from rasteret_sql.maintenance.faults import check_types
from rasteret_sql.remote.stores import is_remote, remember_signed
from rasteret_sql.schema import BBOX, bands_of, metadata_column

_MOMENT = pa.timestamp("us")

LIST_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("data_source", pa.string()),
        ("records", pa.int64()),
        ("bands", pa.list_(pa.string())),
        ("start_datetime", _MOMENT),
        ("end_datetime", _MOMENT),
        ("bbox", BBOX),
        ("size_bytes", pa.int64()),
        ("created", _MOMENT),
        ("path", pa.string()),
    ]
)

DESCRIBE_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("records", pa.int64()),
        ("bands", pa.list_(pa.string())),
        ("epsg", pa.list_(pa.int32())),
        ("crs", pa.list_(pa.string())),
        ("bounds", BBOX),
        ("start_datetime", _MOMENT),
        ("end_datetime", _MOMENT),
        ("data_source", pa.string()),
        ("null_metadata", pa.map_(pa.string(), pa.int64())),
        ("size_bytes", pa.int64()),
    ]
)

ERRORS_SCHEMA = pa.schema([(n, pa.string()) for n in ("id", "band", "href", "error")])
EXPORT_SCHEMA = pa.schema(
    [("path", pa.string()), ("records", pa.int64()), ("size_bytes", pa.int64())]
)
DROP_SCHEMA = pa.schema([("name", pa.string()), ("path", pa.string()), ("records", pa.int64())])


KEPT = Parameter("name", "VARCHAR", "name of a collection", check=text("a name"))
"""A collection of the workspace, by its name alone."""

ANYWHERE = ": a path, s3://, gs://, az:// or https://"


def workspace_of(call: Call, folder: str | None) -> Workspace:
    """The workspace named in the call, else the connection's."""
    return call.workspace if folder is None else Workspace(folder)


@table_function(
    "rasteret_collections",
    "Collections of the workspace, from Parquet footers, and views of this database that are "
    "collections.",
    file="20_collections.sql",
    parameters=(WORKSPACE,),
    returns="name, kind ('stac', 'records' or 'view'), data_source, records, bands, "
    "start_datetime, end_datetime, bbox, size_bytes, created, path",
    example="FROM rasteret_collections()",
)
def collections(call: Call, *, workspace: str | None) -> Stream:
    """List the workspace."""
    place = workspace_of(call, workspace)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        rows = [_list_row(info) for info in place.collections()]
        if workspace is None:
            rows += _views(call, {row["path"] for row in rows})
        yield pa.RecordBatch.from_pylist(rows, schema=LIST_SCHEMA)

    return Stream(LIST_SCHEMA, run)


def _list_row(info: CollectionInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in LIST_SCHEMA.names if name != "path"} | {
        "path": str(info.path),
        "bbox": info.bbox._asdict() if info.bbox else None,
    }


def _views(call: Call, paths: set[str]) -> list[dict[str, Any]]:
    """Views of this database over collections that are not in the workspace."""
    with call.cursor() as cursor:
        rows = cursor.execute(
            "SELECT v.view_name, v.sql FROM duckdb_views() v JOIN duckdb_columns() c ON "
            "c.database_name = v.database_name AND c.schema_name = v.schema_name "
            "AND c.table_name = v.view_name WHERE NOT v.internal "
            "AND NOT starts_with(v.database_name, '_rasteret_') GROUP BY ALL "
            "HAVING bool_or(c.column_name = 'assets') "
            "AND bool_or(ends_with(c.column_name, '_metadata'))"
        ).fetchall()
    others = [name for name, sql in rows if not any(p.replace("'", "''") in sql for p in paths)]
    return [{"name": name, "kind": "view"} for name in sorted(set(others))]


@table_function(
    "rasteret_records",
    "The records of a collection as they are. Remote Parquet is read by ranges, with the "
    "credentials of rasteret_sql.storage and without DuckDB's httpfs.",
    file="20_collections.sql",
    parameters=(
        COLLECTION.with_doc(
            "name of a collection, view or table; SELECT text; Parquet file or folder" + ANYWHERE
        ),
    ),
    returns="the columns of the collection",
    raises="collection: unknown (the known ones are listed), or not readable",
    example="""SELECT id, datetime FROM rasteret_records('s2') WHERE "eo:cloud_cover" < 10""",
)
def records(call: Call, *, collection: object) -> Sql:
    """Rewrite the call: the rows of whatever the argument names."""
    relation = find_visible(call, collection, "collection")
    rows = relation.sql if relation is not None else caller_sql(str(collection))
    return Sql(f"SELECT * FROM {rows}")


@table_function(
    "rasteret_describe",
    "Describe a collection.",
    file="20_collections.sql",
    parameters=(COLLECTION,),
    returns="one row: name, records, bands, epsg, crs, bounds, start_datetime, end_datetime, "
    "data_source, null_metadata MAP(band, count), size_bytes",
    raises="collection: unknown (the known ones are listed)",
    example="FROM rasteret_describe('s2')",
)
def describe(call: Call, *, collection: object) -> Stream:
    """Describe a collection."""
    relation = resolve(call, collection)
    check_types(relation.schema, f"collection {relation.label}")
    bands = bands_of(relation.schema)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist(
            [description(call, relation.slim(call).sql, relation.label, relation.schema, bands)],
            schema=DESCRIBE_SCHEMA,
        )

    return Stream(DESCRIBE_SCHEMA, run)


_BOUNDS = (
    "{'xmin': min(bbox.xmin), 'ymin': min(bbox.ymin), "
    "'xmax': max(bbox.xmax), 'ymax': max(bbox.ymax)}"
)

_MOMENTS = (
    "{}(datetime::TIMESTAMP) FILTER (datetime::TIMESTAMP "
    "BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999')"
)
"""Without infinity, which Python lacks."""


def description(
    call: Call, sql: str, label: str, schema: pa.Schema, bands: list[str]
) -> dict[str, Any]:
    """The row of rasteret_describe."""
    names = set(schema.names)

    def when(column: str, expression: str) -> str:
        return expression if column in names else "NULL"

    nulls = ", ".join(
        f"{quote_text(b)}: count(*) FILTER ({quote_identifier(metadata_column(b))} IS NULL)"
        for b in bands
    )
    query = f"""
        SELECT count(*) AS records,
            {when("proj:epsg", 'list_sort(list(DISTINCT "proj:epsg"))')} AS epsg,
            {when("crs", "list_sort(list(DISTINCT crs))")} AS crs,
            {when("bbox", _BOUNDS)} AS bounds,
            {when("datetime", _MOMENTS.format("min"))} AS start_datetime,
            {when("datetime", _MOMENTS.format("max"))} AS end_datetime,
            {f"MAP {{{nulls}}}" if bands else "NULL"} AS null_metadata
        FROM {sql}"""
    with call.cursor() as cursor:
        row: dict[str, Any] = cursor.sql(query).to_arrow_table().to_pylist()[0]
    row["epsg"] = [code for code in row["epsg"] or [] if code is not None]
    row["crs"] = [text for text in row["crs"] or [] if text is not None]
    info = kept(call.workspace, label)
    return row | {
        "name": label,
        "bands": bands,
        "data_source": info.data_source if info else None,
        "size_bytes": info.size_bytes if info else None,
    }


@table_function(
    "rasteret_errors",
    "What was wrong when the collection was built: assets that could not be read, and notes on "
    "the source.",
    file="20_collections.sql",
    parameters=(
        Parameter(
            "collection",
            "VARCHAR",
            "name of a collection of the workspace",
            check=text("a name"),
        ),
        WORKSPACE,
    ),
    returns="id, band, href, error. An asset that could not be read is one of the build report's "
    "failed. Not counted there: a row where record and file differ (the asset was read), and a "
    "row whose id is NULL, which is a note on the whole source: ids that come twice, renamed "
    "columns, NULL datetimes, …",
    raises="collection: unknown (the known ones are listed)",
    example="FROM rasteret_errors('s2')",
)
def errors(call: Call, *, collection: str, workspace: str | None) -> Stream:
    """List the assets that could not be read."""
    info = workspace_of(call, workspace).find(collection, "collection")

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        rows = list(read_errors(info.path))
        yield pa.RecordBatch.from_pylist(rows, schema=ERRORS_SCHEMA)

    return Stream(ERRORS_SCHEMA, run)


@table_function(
    "rasteret_drop",
    "Remove a collection: its view and its files in the workspace.",
    file="20_collections.sql",
    writes=True,
    parameters=(KEPT, WORKSPACE),
    returns="one row: name, path, records",
    raises="name: unknown (the known ones are listed)",
    example="FROM rasteret_drop('s2')",
)
def drop(call: Call, *, name: str, workspace: str | None) -> Stream:
    """Remove a collection."""
    place = workspace_of(call, workspace)
    info = place.find(name)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        with call.cursor() as cursor:
            drop_view(cursor, info.name, place.folders(info.name))
        place.drop(info.name)
        row = {"name": info.name, "path": str(info.path), "records": info.records}
        yield pa.RecordBatch.from_pylist([row], schema=DROP_SCHEMA)

    return Stream(DROP_SCHEMA, run)


@table_function(
    "rasteret_load",
    "Make a view over an exported collection. A remote one is read through rasteret_records, so "
    "its view needs this extension; a local one any DuckDB reads.",
    file="20_collections.sql",
    writes=True,
    parameters=(
        Parameter("name", "VARCHAR", "name of the view", check=text("a name")),
        Parameter(
            "path",
            "VARCHAR",
            "folder or file of an exported collection, ours or rasteret's"
            + ANYWHERE
            + "; its user, password and signature are kept for this session, never in the view",
            check=text("a folder or Parquet file", "write a path"),
        ),
        FORCE,
    ),
    returns="one row, as rasteret_describe",
    raises="path: not found, or without id, assets, geometry, datetime",
    example="FROM rasteret_load('clear', 'exports/clear')",
)
def load(call: Call, *, name: str, path: str, force: bool) -> Stream:
    """Make a view over an export."""
    check_name(name)
    remote = is_remote(path)
    full = path if remote else str(Path(local_path(path)).expanduser().absolute())
    if not remote and not Path(full).exists():
        raise InputError.expected("path", "an existing folder or Parquet file", path, "check it")
    plain = unsigned(full)  # the view's text outlives the session, and others read it
    with call.cursor() as cursor:
        check_view_can_be_made(cursor, name, [plain], force=force)
    relation = resolve(call, full, "path")
    missing = {"id", "assets", "geometry", "datetime"} - set(relation.schema.names)
    if missing:
        raise CollectionError.expected(
            f"path {path}",
            "a collection with id, datetime, geometry, assets",
            f"none of {', '.join(sorted(missing))}",
            "use rasteret_build_table for other tables",
        )
    check_types(relation.schema, f"path {path}")
    bands = bands_of(relation.schema)

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        remember_signed(plain, full)
        with call.cursor() as cursor:
            create_view(cursor, name, plain)
        row = description(call, relation.slim(call).sql, name, relation.schema, bands)
        yield pa.RecordBatch.from_pylist([row], schema=DESCRIBE_SCHEMA)

    return Stream(DESCRIBE_SCHEMA, run)


def without_secrets(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, the addresses in them without user, password and signature."""
    columns = [unsigned_column(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


@table_function(
    "rasteret_export",
    "Write a collection, or any subset of one, as hive-partitioned GeoParquet.",
    file="20_collections.sql",
    writes=True,
    parameters=(
        COLLECTION,
        Parameter("path", "VARCHAR", "folder to write", check=text("a folder", "write a path")),
        Parameter(
            "partition_by",
            "VARCHAR[]",
            "hive partition columns; [] for none",
            "['year', 'month']",
        ),
        Parameter("compression", "VARCHAR", "Parquet codec", "'zstd'", text()),
        Parameter(
            "row_group_bytes",
            "BIGINT",
            "size of a row group before compression",
            "NULL",
            at_least(1),
        ),
        FORCE,
    ),
    returns="one row per file: path, records, size_bytes",
    raises="path: not empty, or not writable",
    example="""FROM rasteret_export('SELECT * FROM s2 WHERE "eo:cloud_cover" < 10', """
    "'exports/clear')",
)
def export_collection(
    call: Call,
    *,
    collection: object,
    path: str,
    partition_by: list[str] | None,
    compression: str,
    row_group_bytes: int | None,
    force: bool,
) -> Stream:
    """Write a collection elsewhere."""
    relation = resolve(call, collection)
    check_types(relation.schema, f"collection {relation.label}")
    if is_remote(path):
        raise InputError.expected(
            "path",
            "a local folder",
            redact(path),
            "export to one, then copy it with the cloud's tool",
        )
    columns = list(relation.schema.names)
    folder = Path(path).expanduser().absolute()
    chosen: dict[str, Any] = {
        "partition_by": partition_by or [],
        "compression": compression,
        "force": force,
    }
    check_export(relation.schema, folder, **chosen)
    info = kept(call.workspace, relation.label)

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        batches = (
            without_secrets(batch)
            for batch in relation.batches(call, columns, [])
            if not scan.check()  # type: ignore[func-returns-value]
        )
        parts = export(
            relation.schema,
            batches,
            folder,
            info={
                "name": info.name if info else "",
                "data_source": info.data_source if info else "",
                "description": "",
            },
            row_group_bytes=row_group_bytes or ROW_GROUP_BYTES,
            **chosen,
        )
        rows = [
            {"path": str(p.path), "records": p.records, "size_bytes": p.size_bytes} for p in parts
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=EXPORT_SCHEMA)

    return Stream(EXPORT_SCHEMA, run)
