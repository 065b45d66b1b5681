"""Streams as Arrow sources that SQL text can name, kept for statements bound earlier."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa

from rasteret_sql.duck.calls import Call, Connections, Stream
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_identifier
from rasteret_sql.duck.stream import LazySource, OpenScan
from rasteret_sql.errors import RasteretError
from rasteret_sql.reading.columns import without_views

_EXTENSION_METADATA = b"ARROW:extension:metadata"

_KEPT_BYTES = 64 << 20
"""Of sources that are kept for statements bound earlier."""
_SOURCE_BYTES = 150_000
"""What a source takes: its connection and plan, without what grows with the arguments."""
_BYTES_PER_LETTER = 8
"""Of an argument as text: an area is kept as it was given and parsed."""
_MAX_CATALOGS = 48
"""Sources in 1.5, which needs an attached catalog for each: 600 add 0.3 ms to every query."""


class Sources:
    """The sources of one database instance; of those used least lately it lets go.

    Args:
        connections: Where they get a connection each.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._numbers = itertools.count()
        self._lock = threading.RLock()  # a signal's handler may bind while it is held
        self._kept: OrderedDict[tuple[object, ...], _Exposed] = OrderedDict()
        self._kept_bytes = 0
        self._alive: weakref.WeakSet[LazySource] = weakref.WeakSet()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def expose(
        self,
        call: Call,
        stream: Stream,
        what: str,
        open_scan: OpenScan,
        on_error: Callable[[BaseException], None],
    ) -> str:
        """SQL text of a SELECT that reads a stream, in any connection of the instance.

        Args:
            call: for which the stream is made.
            stream: the rows.
            what: tells it from other streams of such a call; the same is not made twice.
            open_scan: as of `LazySource`.
            on_error: told the exception that ended a scan.
        """
        digest = hashlib.sha256(what.encode("utf-8", "surrogatepass")).digest()
        key = (call.name, call.caller, digest, str(stream.schema))
        with self._lock:
            exposed = self._kept.get(key)
            if exposed is None:
                owner = call.runtime.scans.owner(call.caller.connection)
                source = _source(stream, open_scan, on_error, owner)
                self._alive.add(source)
                exposed = _expose(source, stream, self._connections, next(self._numbers))
                exposed = replace(exposed, n_bytes=_SOURCE_BYTES + _BYTES_PER_LETTER * len(what))
                self._kept[key] = exposed
                self._kept_bytes += exposed.n_bytes
                self._drop_oldest()
            else:
                exposed.source.renew(open_scan)
            self._kept.move_to_end(key)
        return exposed.sql

    def _drop_oldest(self) -> None:
        """Let go of the sources that were used least lately, of all but the last one at most."""
        while len(self._kept) > 1 and (
            self._kept_bytes > _KEPT_BYTES or (not IS_DUCKDB_2 and len(self._kept) > _MAX_CATALOGS)
        ):
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.n_bytes
            oldest.release(self._connections)

    def close(self) -> None:
        """Let go of all sources, while DuckDB can still call Python."""
        with self._lock:
            sources = list(self._kept.values())
            self._kept.clear()
            self._kept_bytes = 0
        for exposed in sources:
            with contextlib.suppress(RasteretError, duckdb.Error):  # closed already
                exposed.release(self._connections)

    def wait_until_released(self, seconds: float) -> None:
        """After `close`, wait until no thread of DuckDB's holds a source any more.

        One that lets go of a source while the interpreter ends aborts the process.
        """
        deadline = time.monotonic() + seconds
        while self._alive and time.monotonic() < deadline:
            time.sleep(0.01)


@dataclass(frozen=True)
class _Exposed:
    """A source that SQL text can name; DuckDB reads it while this object lives."""

    sql: str
    source: LazySource
    catalog: str | None = None
    held: object = None
    n_bytes: int = 0

    def release(self, connections: Connections) -> None:
        """Detach its catalog; a result that still streams from it goes on (measured)."""
        if self.catalog is not None:
            with connections.cursor() as cursor:
                cursor.execute(f"DETACH DATABASE IF EXISTS {self.catalog}")


def _source(
    stream: Stream, open_scan: OpenScan, on_error: Callable[[BaseException], None], owner: object
) -> LazySource:
    given = stream.schema if IS_DUCKDB_2 else _without_crs(stream.schema)
    schema = without_views(given)
    return LazySource(schema, open_scan, on_error, owner, given if IS_DUCKDB_2 else schema)


def _expose(source: LazySource, stream: Stream, connections: Connections, number: int) -> _Exposed:
    cursor = connections.cursor()
    if IS_DUCKDB_2:
        relation = cursor.from_arrow(source)
        return _Exposed(relation.sql_query(), source, held=(cursor, relation))
    catalog = f"_rasteret_{number}"
    cursor.execute(f"ATTACH ':memory:' AS {catalog} (READ_WRITE)")
    cursor.execute(f"USE {catalog}")
    cursor.from_arrow(source).create_view("source")
    sql = f"SELECT *{_crs_casts(stream.schema)} FROM {catalog}.main.source"
    return _Exposed(sql, source, catalog, held=cursor)


def _crs_casts(schema: pa.Schema) -> str:
    """The CRS again, in SQL; lon/lat is the only one that DuckDB knows without extensions."""
    casts = [
        f"{quote_identifier(field.name)}::GEOMETRY('OGC:CRS84') AS {quote_identifier(field.name)}"
        for field in schema
        if b"CRS84" in (field.metadata or {}).get(_EXTENSION_METADATA, b"")
    ]
    return f" REPLACE ({', '.join(casts)})" if casts else ""


def _without_crs(schema: pa.Schema) -> pa.Schema:
    """The schema, its geometries without CRS.

    1.5 looks the CRS of an Arrow source up in its catalog when it executes, where no
    transaction is active: "INTERNAL Error: TransactionContext::ActiveTransaction".
    """
    fields = []
    for one in schema:
        metadata = one.metadata or {}
        has_crs = _EXTENSION_METADATA in metadata
        fields.append(
            one.with_metadata(metadata | {_EXTENSION_METADATA: b"{}"}) if has_crs else one
        )
    return pa.schema(fields)
