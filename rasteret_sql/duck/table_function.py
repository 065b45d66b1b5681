"""Table functions written in Python, for DuckDB, which has only scalar ones.

A public function is a SQL macro (``sql/*.sql``: name, parameters, defaults, manual) over
one private scalar UDF, ``_rasteret_bind(name, caller, arguments)``, inside ``query()``.
DuckDB folds that UDF while it binds; the UDF finds the Python function of that name, lets
it check its arguments, and returns the SQL text that stands for the call:

* `Stream`: a schema and a function that yields batches. DuckDB scans it lazily, asks for
  the columns it needs, pushes filters, and stops pulling at a LIMIT.
* `Sql`: text that DuckDB binds in the caller's own context, where TEMP tables, CTEs and
  registered frames are visible.

Binding happens one to three times per statement, also for EXPLAIN and DESCRIBE, so a
bind function is quick and has no side effects; work starts with the first batch.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.duck.predicates import Conjunct, combine, conjuncts
from rasteret_sql.duck.stream import Batches, LazySource, OpenScan
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError

if TYPE_CHECKING:
    from rasteret_sql.records.files.workspace import Workspace

BIND_UDF = "_rasteret_bind"
CATALOG = "rasteret"
"""The attached in-memory database that holds the macros."""

IS_DUCKDB_2 = int(duckdb.__version__.split(".")[0]) >= 2

_EXTENSION_METADATA = b"ARROW:extension:metadata"

_KEPT_SOURCES = 1024 if IS_DUCKDB_2 else 48
"""Sources kept for statements bound earlier. 1.5 needs an attached catalog for each, and
600 of them add 0.3 ms to every query; 2.0 needs a few kB."""


@dataclass(frozen=True)
class Caller:
    """Who called: names resolve in this database and schema, Ctrl-C stops this connection."""

    database: str
    schema: str
    connection: str


@dataclass
class Scan:
    """One execution of a `Stream`.

    Attributes:
        columns: Columns that batches must hold: those selected and those filtered on.
        stop: Set when the statement is interrupted or abandoned.
    """

    columns: list[str]
    stop: threading.Event
    _conjuncts: list[Conjunct] = field(default_factory=list)

    def take(self, available: set[str]) -> pc.Expression | None:
        """Take over the predicates that read only these columns.

        What is taken must be applied exactly; what is left is applied to the output.
        """
        taken = [part for part in self._conjuncts if part.columns <= available]
        self._conjuncts = [part for part in self._conjuncts if part not in taken]
        return combine(taken)

    @property
    def remaining(self) -> pc.Expression | None:
        """What nobody took over."""
        return combine(self._conjuncts)

    def check(self) -> None:
        """Raise if the statement was stopped."""
        if self.stop.is_set():
            raise InterruptedReadError("interrupted")


@dataclass(frozen=True)
class Stream:
    """Rows made in Python.

    Attributes:
        schema: All columns; the first one is read for ``count(*)``, so make it a cheap one.
        run: Yields batches that hold at least ``scan.columns``.
    """

    schema: pa.Schema
    run: Callable[[Scan], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Sql:
    """SQL text that stands for the call, bound in the caller's context."""

    text: str


class Connections(Protocol):
    """Where the engine gets a connection of its own; never the caller's, which is busy."""

    workspace: Workspace
    """Where collections are kept."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new connection to the caller's database instance."""
        ...


@dataclass(frozen=True)
class Call:
    """What a bind function knows about the call besides its arguments."""

    name: str
    caller: Caller
    runtime: Runtime

    @property
    def workspace(self) -> Workspace:
        """Where collections are kept."""
        return self.runtime.connections.workspace

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection where unqualified names, our functions' too, resolve as for the caller."""
        cursor = self.runtime.connections.cursor()
        database, schema = (quote_identifier(n) for n in (self.caller.database, self.caller.schema))
        try:
            # else a source called `text` or `name` is taken for our own Python variable
            cursor.execute("SET python_enable_replacements = false")
            cursor.execute(f"USE {database}.{schema}")
            path = quote_text(f"{database}.{schema},{CATALOG}.main")
            cursor.execute(f"SET search_path = {path}")
        except duckdb.Error:
            cursor.close()
            raise
        return cursor


BindFunction = Callable[..., "Stream | Sql"]

FUNCTIONS: dict[str, BindFunction] = {}
"""Every table function, by its SQL name."""


def table_function(name: str) -> Callable[[BindFunction], BindFunction]:
    """Declare the Python side of a SQL table function.

    The decorated function is called with a `Call` and one keyword argument per parameter
    of the macro (Python values: list, dict for MAP and STRUCT, float for DECIMAL, bytes for
    BLOB and GEOMETRY), and returns a `Stream` or `Sql`.
    """

    def declare(function: BindFunction) -> BindFunction:
        FUNCTIONS[name] = function
        return function

    return declare


class Runtime:
    """The engine on one database instance.

    Attributes:
        functions: The table functions that may be called, by SQL name.
        check_query: Asked before query text in an argument is bound; raises to refuse it.
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.last_errors: dict[str, BaseException] = {}
        self.functions: Mapping[str, BindFunction] = FUNCTIONS
        self.check_query: Callable[[str], None] = lambda _query: None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._sources: OrderedDict[tuple[object, ...], _Exposed] = OrderedDict()
        self._running: dict[threading.Event, str] = {}
        self._alive: weakref.WeakSet[LazySource] = weakref.WeakSet()

    def bind(self, names: pa.Array, callers: pa.Array, arguments: pa.Array) -> pa.Array:
        """The UDF: SQL text for each call (DuckDB folds it, so there is one)."""
        texts = []
        for name, caller, values in zip(names, callers, arguments, strict=True):
            if not name.is_valid or not caller.is_valid:
                raise InputError.expected("arguments", "constants", "NULL", "write them out")
            call = Call(name.as_py(), Caller(**caller.as_py()), self)
            try:
                texts.append(self._bind_one(call, _to_python(values)))
            except RasteretError as error:
                texts.append(_failing(error))
        return pa.array(texts, pa.string())

    def remember(self, error: RasteretError, function: str, connection: str) -> RasteretError:
        """The error with the function's name in front, kept for `duck.results`."""
        named = _named(error, function)
        named.__cause__ = error
        self.last_errors[connection] = named
        return named

    def stop(self, connection: str | None = None) -> None:
        """Stop the scans of one connection, or all of them."""
        with self._lock:
            for event, owner in self._running.items():
                if connection in (None, owner):
                    event.set()

    @property
    def n_running(self) -> int:
        """Scans that have started and not ended."""
        return len(self._running)

    def running(self) -> list[threading.Event]:
        """The stop events of the scans that have started and not ended."""
        with self._lock:
            return list(self._running)

    @contextmanager
    def stop_event(self, connection: str) -> Iterator[threading.Event]:
        """An event that `stop` sets while the work inside runs, and that its end sets."""
        event = threading.Event()
        with self._lock:
            self._running[event] = connection
        try:
            yield event
        finally:
            event.set()
            with self._lock:
                self._running.pop(event, None)

    def close(self) -> None:
        """Stop everything and let go of all sources, while DuckDB can still call Python."""
        self.stop()
        with self._lock:
            sources = list(self._sources.values())
            self._sources.clear()
        for exposed in sources:
            with contextlib.suppress(RasteretError, duckdb.Error):  # closed already
                exposed.release(self.connections)

    def wait_until_released(self, seconds: float) -> None:
        """After `close`, wait until no thread of DuckDB's holds a source any more.

        One that lets go of a source while the interpreter ends aborts the process.
        """
        deadline = time.monotonic() + seconds
        while self._alive and time.monotonic() < deadline:
            time.sleep(0.01)

    def _bind_one(self, call: Call, arguments: Mapping[str, Any]) -> str:
        try:
            bound = self.functions[call.name](call, **arguments)
        except RasteretError as error:
            raise self.remember(error, call.name, call.caller.connection) from error
        if isinstance(bound, Sql):
            return bound.text
        return self.expose(call, bound, repr(sorted(arguments.items())))

    def expose(self, call: Call, stream: Stream, what: str) -> str:
        """SQL text of a SELECT that reads a stream, in any connection of the instance.

        Args:
            call: for which the stream is made.
            stream: the rows.
            what: tells it from other streams of such a call; the same is not made twice.
        """
        key = (call.name, call.caller, what, str(stream.schema))
        with self._lock:
            exposed = self._sources.get(key)
            if exposed is None:
                source = self._source(call, stream)
                exposed = _expose(source, stream.schema, self.connections, next(self._numbers))
                self._sources[key] = exposed
                if len(self._sources) > _KEPT_SOURCES:
                    self._sources.popitem(last=False)[1].release(self.connections)
            else:
                exposed.source.renew(self._opener(call, stream))
            self._sources.move_to_end(key)
        return exposed.sql

    def _opener(self, call: Call, stream: Stream) -> OpenScan:
        def open_scan(columns: list[str], pushed: pc.Expression | None) -> Batches:
            return self._run(call, stream, columns, pushed)

        return open_scan

    def _source(self, call: Call, stream: Stream) -> LazySource:
        def remember(error: BaseException) -> None:
            _let_go(error)
            self.last_errors[call.caller.connection] = error

        schema = stream.schema if IS_DUCKDB_2 else _without_crs(stream.schema)
        source = LazySource(schema, self._opener(call, stream), remember)
        self._alive.add(source)
        return source

    def _run(
        self, call: Call, stream: Stream, columns: list[str], pushed: pc.Expression | None
    ) -> Batches:
        parts = conjuncts(pushed)
        filtered_on = set().union(*(part.columns for part in parts))
        needed = [name for name in stream.schema.names if name in columns or name in filtered_on]
        try:
            with self.stop_event(call.caller.connection) as stop:
                scan = Scan(needed, stop, parts)
                for batch in stream.run(scan):
                    scan.check()
                    remaining = scan.remaining
                    kept = batch if remaining is None else batch.filter(remaining)
                    if kept.num_rows:
                        yield kept.select(columns)
        except RasteretError as error:
            raise _named(error, call.name) from error


@dataclass(frozen=True)
class _Exposed:
    """A source that SQL text can name; DuckDB reads it while this object lives."""

    sql: str
    source: LazySource
    catalog: str | None = None
    held: object = None

    def release(self, connections: Connections) -> None:
        """Detach its catalog; a result that still streams from it goes on (measured)."""
        if self.catalog is not None:
            with connections.cursor() as cursor:
                cursor.execute(f"DETACH DATABASE IF EXISTS {self.catalog}")


def _expose(
    source: LazySource, schema: pa.Schema, connections: Connections, number: int
) -> _Exposed:
    cursor = connections.cursor()
    if IS_DUCKDB_2:
        relation = cursor.from_arrow(source)
        return _Exposed(relation.sql_query(), source, held=(cursor, relation))
    catalog = f"_rasteret_{number}"
    cursor.execute(f"ATTACH ':memory:' AS {catalog} (READ_WRITE)")
    cursor.execute(f"USE {catalog}")
    cursor.from_arrow(source).create_view("source")
    sql = f"SELECT *{_crs_casts(schema)} FROM {catalog}.main.source"
    return _Exposed(sql, source, catalog, held=cursor)


def _crs_casts(schema: pa.Schema) -> str:
    """The CRS again, in SQL; lon/lat is the only one that DuckDB knows without extensions."""
    casts = [
        f"{quote_identifier(field.name)}::GEOMETRY('OGC:CRS84') AS {quote_identifier(field.name)}"
        for field in schema
        if b"CRS84" in (field.metadata or {}).get(_EXTENSION_METADATA, b"")
    ]
    return f" REPLACE ({', '.join(casts)})" if casts else ""


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold, as the readers and connections of a scan."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _failing(error: RasteretError) -> str:
    """SQL that fails to bind with exactly the error's message.

    To what a UDF raises, DuckDB 1.5 adds a line for every Python frame on the stack, also
    the user's and dbt's. A nested ``query()`` is bound before any column of the statement,
    so "column not found" does not come first.
    """
    return f"FROM query(error({quote_text(error.message)})::VARCHAR)"


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


def quote_identifier(name: str) -> str:
    r"""An SQL identifier.

    Example:
        >>> print(quote_identifier('a"b'))
        "a""b"
    """
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """An SQL string literal.

    Example:
        >>> quote_text("it's")
        "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def _named(error: RasteretError, function: str) -> RasteretError:
    if error.message.startswith(f"{function}: "):
        return error
    return type(error)(f"{function}: {error.message}")


def _to_python(value: pa.Scalar) -> Any:  # noqa: ANN401 (SQL values of any type)
    if not value.is_valid:
        return None
    kind = value.type
    if pa.types.is_struct(kind):
        return {field.name: _to_python(value[field.name]) for field in kind}
    if pa.types.is_map(kind):
        keys, items = value.values.flatten()
        return {k.as_py(): _to_python(v) for k, v in zip(keys, items, strict=True)}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_to_python(item) for item in value.values]
    plain = value.as_py()
    return float(plain) if isinstance(plain, Decimal) else plain
