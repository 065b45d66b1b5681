"""Relations that are files which we read ourselves: remote Parquet, and rasters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_sql.collections.footers import part_files
from rasteret_sql.collections.geo_key import geo_of_footer
from rasteret_sql.collections.parquet_source import ParquetSource
from rasteret_sql.duck.calls import Call, Scan, Stream
from rasteret_sql.duck.raster_stream import raster_stream
from rasteret_sql.duck.relation_names import exists, is_path, is_query, parse_name
from rasteret_sql.errors import InputError, redact
from rasteret_sql.ingest.rasters import KEPT, is_raster_name
from rasteret_sql.remote.stores import is_remote
from rasteret_sql.units import BBox

_REMOTE_VIEW = re.compile(
    r"""AS SELECT \* FROM "?rasteret"?\."?main"?\.rasteret_records\('((?:[^']|'')+)'\);?$"""
)
_VIEW = (
    "SELECT {} FROM duckdb_views() WHERE view_name = $name AND NOT internal AND "
    "schema_name = current_schema() AND database_name = current_database()"
)
_MAX_FILES = 5000
"""Rasters of one pattern whose headers are read when a statement is bound."""
_N_LANES = 300


def source_of(cursor: duckdb.DuckDBPyConnection, text: str) -> ParquetSource | None:
    """The files that we read ourselves: remote ones, also by the name of a view over them."""
    if is_query(text):
        return None
    if is_remote(text) or _is_old_geoparquet(text):
        return ParquetSource(text)
    if not cursor.execute(_VIEW.format("1"), {"name": text}).fetchall():
        return None  # as of most: the texts of views take DuckDB a millisecond to write
    views = cursor.execute(_VIEW.format("sql"), {"name": text}).fetchall()
    found = _REMOTE_VIEW.search(views[0][0]) if views else None
    return ParquetSource(found[1].replace("''", "'")) if found else None


def ranged_sql(call: Call, source: ParquetSource, boxes: Sequence[BBox] = ()) -> str:
    """What stands after FROM for Parquet that is read through our own storage."""

    def run(scan: Scan) -> Iterator[pa.RecordBatch]:
        keep = scan.take(set(source.schema.names))
        yield from source.batches(scan.columns, keep, boxes, check=scan.check)

    what = f"{source.version} {boxes}"
    return f"({call.runtime.expose(call, Stream(source.schema, run), what)})"


def is_rasters(cursor: duckdb.DuckDBPyConnection, text: str) -> bool:
    """Whether a text is the path, URL or pattern of rasters, and no name of a relation."""
    if is_query(text) or not is_raster_name(text):
        return False
    name = None if is_remote(text) else parse_name(text)
    return name is None or not exists(cursor, name)


def rasters_sql(call: Call, pattern: str, argument: str) -> str:
    """What stands after FROM for rasters that are a collection of their own."""
    with call.runtime.scans.stop_event(call.caller.connection) as stop:
        files = KEPT.find(pattern, argument)
        if len(files) > _MAX_FILES:
            raise InputError.expected(
                argument,
                f"at most {_MAX_FILES} rasters",
                f"{len(files)} for {redact(pattern)}",
                "build a collection: rasteret_build_table(name, 'FROM rasteret_files(…)')",
            )
        records = KEPT.open(files, _N_LANES, stop)
    if records.n_failed == len(files) and records.first_failure is not None:
        raise records.first_failure
    stream = raster_stream(records, records.bands, "report")
    what = hashlib.sha256(repr(records.files).encode()).hexdigest()
    return f"({call.runtime.expose(call, stream, what)})"


def _is_old_geoparquet(text: str) -> bool:
    """Whether a local path is GeoParquet before 1.0, which DuckDB refuses to open."""
    if is_query(text) or not is_path(text):
        return False
    try:
        geo = json.loads(geo_metadata_of(text) or b"{}")
    except (ValueError, OSError):
        return False
    return str(geo.get("version") or geo.get("schema_version")).startswith("0.")


def geo_metadata_of(text: str) -> bytes | None:
    """The ``geo`` key of a local Parquet file, or of the first one of a folder."""
    path = Path(text).expanduser()
    first = next(part_files(path), None) if path.is_dir() else path
    if first is None or not first.is_file():
        return None
    try:
        return geo_of_footer(pq.read_metadata(first))
    except (OSError, pa.ArrowInvalid):
        return None  # the read itself says what is wrong with the file
