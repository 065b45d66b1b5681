"""What a relation argument names: table, view, collection, query text, Parquet or rasters."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from rasteret_sql.collections.footers import CollectionInfo
from rasteret_sql.collections.geo_key import with_declared_crs
from rasteret_sql.collections.parquet_source import ParquetSource
from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.duck.calls import Call
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_identifier
from rasteret_sql.duck.parquet_sql import parquet_sql
from rasteret_sql.duck.plain_types import with_plain_types
from rasteret_sql.duck.relation_files import (
    geo_metadata_of,
    is_rasters,
    ranged_sql,
    rasters_sql,
    source_of,
)
from rasteret_sql.duck.relation_names import exists, is_path, is_plain_name, is_query, parse_name
from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.errors import (
    CollectionError,
    InputError,
    UnknownBandError,
    UnknownCollectionError,
)
from rasteret_sql.reading.index import INDEX, Version
from rasteret_sql.remote.stores import is_remote
from rasteret_sql.schema import bands_of, metadata_column
from rasteret_sql.units import BBox

_NO_PARQUET = re.compile(r'No files found that match the pattern "(.*?)/\*\*/\*\.parquet"')
_COLLECTION_VIEW = re.compile(
    r"""^CREATE VIEW [^;]* AS SELECT \* FROM read_parquet\('((?:[^']|'')+)/\*\*/\*\.parquet'"""
    r"""(?:, \(?hive_\w+ = [^()]*(?:\([^()]*\))?\)?)*\);?$""",
    re.IGNORECASE,
)
"""A view as `duck.views.create_view` makes it, and nothing more."""
_OF_VIEW = (
    "WHERE lower(view_name) = lower($name) AND NOT internal AND schema_name = $schema "
    "AND database_name = $database"
)
_FOLDERS: weakref.WeakKeyDictionary[Runtime, dict[tuple[object, ...], str | None]] = (
    weakref.WeakKeyDictionary()
)
"""The folder of the collection that a view shows, by what numbers DuckDB gave it."""

_MAX_VIEWS = 1024
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class Relation:
    """A relation that a connection of our own can read.

    Attributes:
        sql: What stands after FROM.
        schema: Its columns.
        label: How the user named it.
        given: Like `sql`, with the types that the user's columns have in DuckDB.
        source: The Parquet files, where we read them and not DuckDB.
        boxes: Row groups of the source that meet none of these are not read.
        version: The version of a collection of a workspace that it is, nothing more or less.
    """

    sql: str
    schema: pa.Schema
    label: str
    given: str
    source: ParquetSource | None = None
    boxes: tuple[BBox, ...] = ()
    version: Version | None = None

    @property
    def bands(self) -> list[str]:
        """Bands whose header it caches."""
        return bands_of(self.schema)

    @property
    def geo_metadata(self) -> bytes | None:
        """The ``geo`` key of a Parquet file, which may be the only place that names the CRS."""
        if self.source is not None:
            return self.source.geo_metadata
        return geo_metadata_of(self.label)

    def renewed(self, call: Call) -> Relation:
        """The relation as it is now, where it is a version of a collection that was replaced.

        Raises:
            CollectionError: its columns are others than when the statement was bound.
        """
        if self.version is None or self.version.is_current:
            return self
        now = resolve(call, self.label)
        lost = set(self.schema.names) - set(now.schema.names)
        if lost:
            raise CollectionError.expected(
                f"{self.label}, column {min(lost)}",
                "the columns of when the statement was prepared",
                "none of that name",
                "prepare it again",
            )
        self._check_types(pa.schema([now.schema.field(name) for name in self.schema.names]))
        return now

    @property
    def is_query(self) -> bool:
        """Whether it was given as the text of a query."""
        return is_query(self.label)

    def near(self, call: Call, boxes: Sequence[BBox] | None) -> Relation:
        """The same without most of what lies elsewhere, where DuckDB can't see to that."""
        boxes = tuple(boxes or ())
        if self.source is None or not boxes:
            return self
        return replace(self, sql=ranged_sql(call, self.source, boxes), boxes=boxes)

    def slim(self, call: Call) -> Relation:
        """The same with the sample type alone of each band's metadata.

        DuckDB reads parts of a struct by itself where it reads the files.
        """
        if self.source is None:
            return self
        source = self.source.only(dict.fromkeys(map(metadata_column, self.bands), "dtype"))
        return replace(self, sql=ranged_sql(call, source, self.boxes), source=source)

    def batches(
        self, call: Call, columns: Sequence[str], where: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Stream some columns of some rows."""
        listed = ", ".join(quote_identifier(name) for name in columns)
        condition = f" WHERE {' AND '.join(where)}" if where else ""
        cursor = call.cursor()
        try:
            reader = stream(cursor, f"SELECT {listed} FROM {self.sql}{condition}", _BATCH_ROWS)
            self._check_types(reader.schema)
            schema = self._as_bound(reader.schema)
            for batch in reader:
                if batch.num_rows:
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        except duckdb.Error as error:
            raise unreadable(self.label, error) from error
        finally:
            cursor.close()

    def table(self, call: Call) -> pa.Table:
        """All rows."""
        cursor = call.cursor()
        try:
            found = cursor.sql(f"SELECT * FROM {self.sql}").to_arrow_table()
        except duckdb.Error as error:
            raise unreadable(self.label, error) from error
        finally:
            cursor.close()
        return pa.Table.from_arrays(found.columns, schema=self._as_bound(found.schema))

    def _as_bound(self, now: pa.Schema) -> pa.Schema:
        """A schema of what DuckDB gives, with the CRS of geometries that was found at first."""
        if IS_DUCKDB_2 or self.source is not None:
            return now
        bound = {field.name: field.metadata for field in self.schema}
        return pa.schema(
            [field.with_metadata(bound.get(field.name, field.metadata)) for field in now],
            now.metadata,
        )

    def _check_types(self, now: pa.Schema) -> None:
        """Refuse what was altered after it was bound; a cast could change its values."""
        for field in now:
            bound = self.schema.field(field.name)
            if field.type != bound.type:
                raise CollectionError.expected(
                    f"{self.label}, column {field.name}",
                    f"{bound.type}, as when the statement was prepared",
                    field.type,
                    "prepare it again",
                )


def stream(con: duckdb.DuckDBPyConnection, query: str, batch_rows: int) -> pa.RecordBatchReader:
    """Run a query and read its result as it comes; each version has one way that streams."""
    result = con.sql(query) if IS_DUCKDB_2 else con.execute(query)
    return result.to_arrow_reader(batch_rows)


def resolve(call: Call, text: object, argument: str = "collection") -> Relation:
    """Find what the argument names and its columns.

    Raises:
        InputError: not text, or SQL that does not bind.
        UnknownCollectionError: no such name; the known ones are listed.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError.expected(
            argument, "a name, SELECT text or path", text, "write it as a text constant"
        )
    version = _version(call, text)
    if version is not None:
        return _of_version(text, version)
    if is_query(text):
        call.runtime.check_query(text)
    cursor = call.cursor()
    try:
        of_rasters = is_rasters(cursor, text)
        source = None if of_rasters else source_of(cursor, text)
        if source is not None:
            sql: str | None = ranged_sql(call, source)
        elif of_rasters:
            sql = rasters_sql(call, text, argument)
        else:
            sql = _from_clause(cursor, text, call.workspace)
        if sql is None:
            raise _unknown(cursor, text, call.workspace, argument)
        given, bound = sql, cursor.sql(f"SELECT * FROM {sql} LIMIT 0")
        casts = with_plain_types(bound)
        if casts:
            sql = f"(SELECT *{casts} FROM {sql})"
            bound = cursor.sql(f"SELECT * FROM {sql} LIMIT 0")
        schema = bound.to_arrow_table().schema
        if not IS_DUCKDB_2:
            schema = with_declared_crs(schema, bound.types)
    except duckdb.Error as error:
        raise unreadable(f"{argument} {text!r}", error) from error
    finally:
        cursor.close()
    return Relation(sql, schema, text, given, source)


def _version(call: Call, text: str) -> Version | None:
    """The version of a collection that a plain name stands for, where it is in the index."""
    if not is_plain_name(text):
        return None
    folder = _folder_of_view(call, text)
    if folder is None:
        return None

    def load(with_rows: bool) -> pa.Table:  # noqa: FBT001 (a callback of one argument)
        cursor = call.cursor()
        try:
            rows = "" if with_rows else " LIMIT 0"
            found = cursor.sql(f"SELECT * FROM {quote_identifier(text)}{rows}")
            casts = with_plain_types(found)
            if casts:
                found = cursor.sql(f"SELECT *{casts} FROM {quote_identifier(text)}{rows}")
            return found.to_arrow_table()
        finally:
            cursor.close()

    try:
        return INDEX.version(folder, load)
    except duckdb.Error:
        return None  # the slower way says what is wrong


def _folder_of_view(call: Call, name: str) -> str | None:
    """The collection's folder where the name is that of its view as we made it.

    To list a view's text, DuckDB writes those of all its own views too, which takes 1 ms. A
    view that is replaced has another number, so what was found under a number stays true.
    """
    caller = call.caller
    view = f"SELECT {{}} FROM duckdb_views() {_OF_VIEW}"
    named = {"name": name, "schema": caller.schema, "database": caller.database}
    with call.runtime.connections.cursor() as cursor:
        found = cursor.execute(view.format("database_oid, view_oid"), named).fetchall()
        if len(found) != 1:
            return None
        key = (caller.database, caller.schema, *found[0])
        folders = _FOLDERS.setdefault(call.runtime, {})
        if key not in folders:
            rows = cursor.execute(view.format("database_oid, view_oid, sql"), named).fetchall()
            if [row[:2] for row in rows] != found:
                return None  # replaced meanwhile: the slower way reads what it is now
            match = _COLLECTION_VIEW.search(rows[0][2])
            while len(folders) >= _MAX_VIEWS:
                folders.pop(next(iter(folders)), None)
            folders[key] = None if match is None else match[1].replace("''", "'")
        return folders[key]


def _of_version(name: str, version: Version) -> Relation:
    sql = quote_identifier(name)
    return Relation(sql, version.schema, name, sql, version=version)


def find_visible(call: Call, text: object, argument: str) -> Relation | None:
    """Like `resolve`, but None for what only the caller's own connection may see."""
    try:
        return resolve(call, text, argument)
    except UnknownCollectionError:
        return None
    except CollectionError as error:
        if isinstance(error.__cause__, duckdb.CatalogException) or _is_empty_folder(text, error):
            return None
        raise


def _is_empty_folder(text: object, error: CollectionError) -> bool:
    """Whether a plain name was taken for a folder of the working directory without Parquet."""
    is_name = isinstance(text, str) and is_plain_name(text)
    return is_name and isinstance(error.__cause__, duckdb.IOException)


def caller_sql(text: str) -> str:
    """FROM clause for the caller's own connection: a query, or a name of any kind."""
    if is_query(text):
        return _subquery(text)
    return parse_name(text) or quote_identifier(text)


def _subquery(text: str) -> str:
    """Query text in parentheses; it may end in a comment."""
    return f"({text.strip().rstrip(';')}\n)"


def _from_clause(cursor: duckdb.DuckDBPyConnection, text: str, workspace: Workspace) -> str | None:
    if is_query(text):
        return _subquery(text)
    name = parse_name(text)
    if name is not None and exists(cursor, name):
        return name
    if is_path(text):
        return parquet_sql(text)
    found = kept(workspace, text)
    return parquet_sql(str(found.path)) if found is not None else None


def kept(workspace: Workspace, name: str) -> CollectionInfo | None:
    """The collection of this name in the workspace, None if there is none."""
    return next((info for info in workspace.collections() if info.name == name), None)


def _unknown(
    cursor: duckdb.DuckDBPyConnection,
    text: str,
    workspace: Workspace,
    argument: str,
) -> UnknownCollectionError:
    known = {info.name for info in workspace.collections()}
    rows = cursor.execute(
        "SELECT DISTINCT table_name FROM duckdb_columns() "
        "WHERE column_name = 'assets' AND NOT internal "
        "AND NOT starts_with(database_name, '_rasteret_')"
    ).fetchall()
    known |= {row[0] for row in rows}
    listed = ", ".join(sorted(known)) or "none yet"
    return UnknownCollectionError.expected(
        argument,
        f"a collection (known: {listed})",
        text,
        "a TEMP table or registered frame is not seen here: make it a table or a Parquet file",
    )


def unreadable(label: str, error: duckdb.Error) -> CollectionError:
    """DuckDB's error about a relation, without the line of the statement that it marks."""
    text = " ".join(str(error).partition("\n\nLINE ")[0].split())
    folder = _NO_PARQUET.search(text)
    if folder is None:
        return CollectionError(f"{label}: {text}")
    if is_remote(folder[1]) or Path(folder[1]).exists():
        advice = f"rasters in it are named by a pattern: '{folder[1]}/**/*.tif'"
    else:
        advice = "no such folder: check the path; if a view names it, build the collection again"
    return CollectionError(f"{label}: {text}; {advice}")


def check_bands(relation: Relation, bands: object) -> tuple[str, ...]:
    """The bands to read: those asked for, else all.

    Raises:
        UnknownBandError: names the known ones.
    """
    known = relation.bands
    if not known:
        names = relation.schema.names
        is_bare = "assets" in names  # a collection whose headers were not read
        raise CollectionError.expected(
            f"collection {relation.label}",
            "{band}_metadata columns",
            "none" if is_bare else ", ".join(names[:12]),
            "build it with enrich := true, or use rasteret_enrich"
            if is_bare
            else "the first argument is the collection, areas and points come behind it",
        )
    if bands is None:
        return tuple(known)
    if isinstance(bands, str):
        bands = [bands]
    if not isinstance(bands, list) or not bands:
        raise InputError.expected("bands", "a list of band names", bands, "or leave it out for all")
    for band in bands:
        if band not in known:
            raise UnknownBandError.of(band, known)
    if len(set(bands)) < len(bands):
        raise InputError.expected("bands", "each band once", ", ".join(bands), "drop the repeats")
    return tuple(bands)


def reading_columns(relation: Relation, bands: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Columns that a read needs besides those wanted in the result."""
    names = relation.schema.names
    needed = ["id", "assets", "crs", "proj:epsg", *(metadata_column(band) for band in bands)]
    for name in ("id", "assets"):
        if name not in names:
            raise CollectionError.expected(
                f"collection {relation.label}", f"a column {name}", ", ".join(names[:12]), "add it"
            )
    return [name for name in dict.fromkeys([*wanted, *needed]) if name in names]
