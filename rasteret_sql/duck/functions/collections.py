"""Keep and share: rasteret_load, _export, _collections, _describe, _errors, _drop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.relations import caller_sql, find_visible, kept, resolve
from rasteret_sql.duck.table_function import (
    Call,
    Scan,
    Sql,
    Stream,
    quote_identifier,
    quote_text,
    table_function,
)
from rasteret_sql.duck.views import check_view_can_be_made, create_view, drop_view
from rasteret_sql.errors import CollectionError, InputError, redact
from rasteret_sql.records.files.footers import CollectionInfo
from rasteret_sql.records.files.layout import ROW_GROUP_BYTES, export
from rasteret_sql.records.files.workspace import Workspace, check_name, read_errors
from rasteret_sql.records.hrefs import local_path, unsigned, unsigned_column
from rasteret_sql.records.upkeep.faults import check_types
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


def workspace_of(call: Call, folder: object) -> Workspace:
    """The workspace named in the call, else the connection's."""
    if folder is None:
        return call.workspace
    if not isinstance(folder, str):
        raise InputError.expected("workspace", "a folder", folder, "write a path")
    return Workspace(folder)


def check_flag(argument: str, value: object) -> bool:
    """A BOOLEAN; anything else is refused, as the text 'false' would count as true."""
    if not isinstance(value, bool):
        raise InputError.expected(argument, "true or false", value, "write it without quotes")
    return value


def find(workspace: Workspace, name: object, argument: str) -> CollectionInfo:
    """A collection of the workspace.

    Raises:
        UnknownCollectionError: lists the known ones.
    """
    if not isinstance(name, str):
        raise InputError.expected(argument, "a name", name, "write it as a text constant")
    return workspace.find(name)


@table_function("rasteret_collections")
def collections(call: Call, *, workspace: object) -> Stream:
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


@table_function("rasteret_records")
def records(call: Call, *, collection: object) -> Sql:
    """Rewrite the call: the rows of whatever the argument names."""
    relation = find_visible(call, collection, "collection")
    rows = relation.sql if relation is not None else caller_sql(str(collection))
    return Sql(f"SELECT * FROM {rows}")


@table_function("rasteret_describe")
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
            {when("datetime", "min(datetime)::TIMESTAMP")} AS start_datetime,
            {when("datetime", "max(datetime)::TIMESTAMP")} AS end_datetime,
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


@table_function("rasteret_errors")
def errors(call: Call, *, collection: object, workspace: object) -> Stream:
    """List the assets that could not be read."""
    info = find(workspace_of(call, workspace), collection, "collection")

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        rows = list(read_errors(info.path))
        yield pa.RecordBatch.from_pylist(rows, schema=ERRORS_SCHEMA)

    return Stream(ERRORS_SCHEMA, run)


@table_function("rasteret_drop")
def drop(call: Call, *, name: object, workspace: object) -> Stream:
    """Remove a collection."""
    place = workspace_of(call, workspace)
    info = find(place, name, "name")

    def run(_scan: Scan) -> Iterator[pa.RecordBatch]:
        with call.cursor() as cursor:
            drop_view(cursor, info.name, str(info.path))
        place.drop(info.name)
        row = {"name": info.name, "path": str(info.path), "records": info.records}
        yield pa.RecordBatch.from_pylist([row], schema=DROP_SCHEMA)

    return Stream(DROP_SCHEMA, run)


@table_function("rasteret_load")
def load(call: Call, *, name: object, path: object, force: object) -> Stream:
    """Make a view over an export."""
    if not isinstance(name, str) or not isinstance(path, str):
        raise InputError.expected("name, path", "two texts", f"{name}, {path}", "give both")
    check_name(name)
    remote = is_remote(path)
    full = path if remote else str(Path(local_path(path)).expanduser().absolute())
    if not remote and not Path(full).exists():
        raise InputError.expected("path", "an existing folder or Parquet file", path, "check it")
    plain = unsigned(full)  # the view's text outlives the session, and others read it
    with call.cursor() as cursor:
        check_view_can_be_made(cursor, name, plain, force=check_flag("force", force))
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


@table_function("rasteret_export")
def export_collection(
    call: Call,
    *,
    collection: object,
    path: object,
    partition_by: list[str] | None,
    compression: str,
    row_group_bytes: int | None,
    force: object,
) -> Stream:
    """Write a collection elsewhere."""
    relation = resolve(call, collection)
    check_types(relation.schema, f"collection {relation.label}")
    check_flag("force", force)
    if not isinstance(path, str):
        raise InputError.expected("path", "a folder", path, "write a path")
    if is_remote(path):
        raise InputError.expected(
            "path",
            "a local folder",
            redact(path),
            "export to one, then copy it with the cloud's tool",
        )
    columns = list(relation.schema.names)
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
            Path(path).expanduser().absolute(),
            info={
                "name": info.name if info else "",
                "data_source": info.data_source if info else "",
                "description": "",
            },
            partition_by=partition_by or [],
            compression=compression,
            row_group_bytes=row_group_bytes or ROW_GROUP_BYTES,
            force=bool(force),
        )
        rows = [
            {"path": str(p.path), "records": p.records, "size_bytes": p.size_bytes} for p in parts
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=EXPORT_SCHEMA)

    return Stream(EXPORT_SCHEMA, run)
