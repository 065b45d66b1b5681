"""Table functions written in Python, for DuckDB, which has only scalar ones.

A public function is a SQL macro (written from its declaration, `duck.declarations`) over
one private scalar UDF, ``_rasteret_bind(name, caller, arguments)``, inside ``query()``.
DuckDB folds that UDF while it binds; the UDF finds the declaration of that name, checks the
arguments as it says, and calls its bind function for the SQL text that stands for the call:

* `Stream`: a schema and a function that yields batches. DuckDB scans it lazily, asks for
  the columns it needs, pushes filters, and stops pulling at a LIMIT.
* `Sql`: text that DuckDB binds in the caller's own context, where TEMP tables, CTEs and
  registered frames are visible.

Binding happens one to three times per statement, also for EXPLAIN and DESCRIBE, so a
bind function is quick and has no side effects; work starts with the first batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import math
import threading
import time
import traceback
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.duck.declarations import FUNCTIONS, TableFunction
from rasteret_sql.duck.names import CATALOG as CATALOG
from rasteret_sql.duck.names import IS_DUCKDB_2 as IS_DUCKDB_2
from rasteret_sql.duck.names import quote_identifier as quote_identifier
from rasteret_sql.duck.names import quote_text as quote_text
from rasteret_sql.duck.predicates import Conjunct, combine, conjuncts
from rasteret_sql.duck.stream import Batches, LazySource, OpenScan, n_exported, n_pulling
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError, RasteretWarning
from rasteret_sql.progress import counts
from rasteret_sql.reading.columns import copied_views, select_rows, without_views
from rasteret_sql.reading.pipeline import Counters
from rasteret_sql.remote.waiting import listening

if TYPE_CHECKING:
    from rasteret_sql.collections.workspace import Workspace
    from rasteret_sql.remote.stores import Stores

_EXTENSION_METADATA = b"ARROW:extension:metadata"

_KEPT_READS = 100
_KEPT_BYTES = 64 << 20
"""Of sources that are kept for statements bound earlier."""
_SOURCE_BYTES = 150_000
"""What a source takes: its connection and plan, without what grows with the arguments."""
_BYTES_PER_LETTER = 8
"""Of an argument as text: an area is kept as it was given and parsed."""
_MAX_CATALOGS = 48
"""Sources in 1.5, which needs an attached catalog for each: 600 add 0.3 ms to every query."""

_KEPT_WARNINGS = 100
"""Rows of ``rasteret_warnings()``."""

_UNRAISABLE = ctypes.PYFUNCTYPE(None)
"""Makes a function whose exceptions go to ``sys.unraisablehook``, as those of a callback do."""

_CHECK_SECONDS = 0.01
_IDLE_CHECKS = 3
_RELEASE_SECONDS = 0.3
_CLOSE_SECONDS = 5.0
_START_SECONDS = 0.5
"""A statement that has been bound starts its scan within this time, or has none."""


@dataclass(frozen=True)
class Caller:
    """Who called: names resolve in this database and schema, Ctrl-C stops this connection."""

    database: str
    schema: str
    connection: str


class StopEvent(threading.Event):
    """Set when a statement must end: it is interrupted, abandoned, or takes too long.

    Attributes:
        reason: What the error of the statement says.
    """

    reason = "interrupted"

    def set_for(self, reason: str) -> None:
        """Set it, unless it is set already, for another reason than an interrupt."""
        if not self.is_set():
            self.reason = reason
            self.set()


@dataclass
class Scan:
    """One execution of a `Stream`.

    Attributes:
        columns: Columns that batches must hold: those selected and those filtered on.
        stop: Set when the statement must end.
        counters: What a read of pixels does; None of another function.
    """

    columns: list[str]
    stop: StopEvent
    _conjuncts: list[Conjunct] = field(default_factory=list)
    counters: Counters | None = None

    def take(self, available: set[str]) -> pc.Expression | None:
        """Take over the predicates that read only these columns.

        What is taken must be applied exactly; what is left is applied to the output.
        """
        taken = [part for part in self._conjuncts if part.columns <= available]
        self._conjuncts = [part for part in self._conjuncts if part not in taken]
        return combine(taken)

    def bounds(self, column: str) -> tuple[float, float]:
        """Between which values a column lies in all rows that are kept, ends included."""
        of_column = [p.interval for p in self._conjuncts if p.interval and column in p.columns]
        return (
            max((one.low for one in of_column), default=-math.inf),
            min((one.high for one in of_column), default=math.inf),
        )

    @property
    def remaining(self) -> pc.Expression | None:
        """What nobody took over."""
        return combine(self._conjuncts)

    def check(self) -> None:
        """Raise if the statement was stopped."""
        if self.stop.is_set():
            raise InterruptedReadError(self.stop.reason)


@dataclass(frozen=True)
class Stream:
    """Rows made in Python.

    Attributes:
        schema: All columns; the first one is read for ``count(*)``, so make it a cheap one.
        run: Yields batches that hold at least ``scan.columns``.
        n_rows: About how many rows there are, for the order of joins; 0 says nothing.
    """

    schema: pa.Schema
    run: Callable[[Scan], Iterator[pa.RecordBatch]]
    n_rows: int = 0


@dataclass(frozen=True)
class Sql:
    """SQL text that stands for the call, bound in the caller's context."""

    text: str


@dataclass(frozen=True)
class Warned:
    """A warning that a call gave.

    Attributes:
        function: SQL name.
        connection: DuckDB's number of the connection.
        message: As Python's `warnings` get it.
        time: When, in UTC.
    """

    function: str
    connection: str
    message: str
    time: datetime

    def emit(self) -> None:
        """Hand it to Python's `warnings`.

        Raises:
            RasteretWarning: a filter makes it an error.
        """
        warnings.warn_explicit(
            self.message, RasteretWarning, f"<{self.function}>", 1, module="rasteret_sql"
        )


class Connections(Protocol):
    """Where the engine gets a connection of its own; never the caller's, which is busy."""

    @property
    def workspace(self) -> Workspace:
        """Where collections are kept."""
        ...

    @property
    def stores(self) -> Stores:
        """How files are reached."""
        ...

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
            with contextlib.suppress(duckdb.InvalidInputException):  # a server has locked it, off
                cursor.execute("SET python_enable_replacements = false")
            cursor.execute(f"USE {database}.{schema}")
            path = quote_text(f"{database}.{schema},{CATALOG}.main")
            cursor.execute(f"SET search_path = {path}")
        except duckdb.Error:
            cursor.close()
            raise
        self.runtime.lend(cursor, self.caller.connection)
        return cursor


class FinishedRead(NamedTuple):
    """A read of pixels that has ended, with its `Counters`."""

    function: str
    connection: str
    started: datetime
    seconds: float
    requests: int
    fetched_bytes: int
    tiles_decoded: int
    cache_hits: int
    tiles_failed: int


class Runtime:
    """The engine on one database instance.

    Attributes:
        functions: The table functions that may be called, by SQL name.
        warned: The last warnings of all connections, the oldest first.
        shares_warnings: Whether a connection sees the warnings of the others.
        held_warnings: By connection, warnings that wait for `duck.results.translated`.
        check_query: Asked before query text in an argument is bound; raises to refuse it.
        on_work: Called before a statement is bound and before a scan starts, on the thread
            that does so.
        stores: How files are reached, and which may be; `remote.stores`.
        on_idle: Called when the last scan has ended, on any thread.
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.last_errors: dict[str, BaseException] = {}
        self.functions: Mapping[str, TableFunction] = FUNCTIONS
        self.warned: deque[Warned] = deque(maxlen=_KEPT_WARNINGS)
        self.held_warnings: dict[str, list[Warned]] = {}
        self.shares_warnings = True
        self.check_query: Callable[[str], None] = lambda _query: None
        self.on_work: Callable[[], None] = lambda: None
        self.on_idle: Callable[[], None] = lambda: None
        self.stores = connections.stores
        self._is_closed = False
        self._numbers = itertools.count()
        self._lock = threading.RLock()  # a signal's handler may stop what holds it
        self._sources: OrderedDict[tuple[object, ...], _Exposed] = OrderedDict()
        self._kept_bytes = 0
        self._running: dict[StopEvent, str] = {}
        self._pulled: set[StopEvent] = set()
        self._finished: deque[FinishedRead] = deque(maxlen=_KEPT_READS)
        self._bound: dict[str, tuple[int, float]] = {}  # by connection: thread, until when
        self._alive: weakref.WeakSet[LazySource] = weakref.WeakSet()
        self._lent: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, str] = (
            weakref.WeakKeyDictionary()
        )

    def bind(self, names: pa.Array, callers: pa.Array, arguments: pa.Array) -> pa.Array:
        """The UDF: SQL text for each call (DuckDB folds it, so there is one)."""
        texts = []
        self.on_work()
        for name, caller, values in zip(names, callers, arguments, strict=True):
            if not name.is_valid or not caller.is_valid:
                raise InputError.expected("arguments", "constants", "NULL", "write them out")
            call = Call(name.as_py(), Caller(**caller.as_py()), self)
            connection, thread = call.caller.connection, threading.get_ident()
            self._bound[connection] = thread, math.inf
            try:
                texts.append(self._bind_one(call, _to_python(values)))
            except RasteretError as error:
                texts.append(_failing(error))
            finally:
                self._bound[connection] = thread, time.monotonic() + _START_SECONDS
        self.on_work()  # a long bind may have outlived the first call
        return pa.array(texts, pa.string())

    def remember(self, error: RasteretError, function: str, connection: str) -> RasteretError:
        """The error with the function's name in front, kept for `duck.results`."""
        named = _named(error, function)
        named.__cause__ = error
        self.last_errors[connection] = named
        return named

    def warn(self, call: Call, message: str) -> None:
        """Tell the user something that is no error: a warning of Python, a row of a function.

        May be called while DuckDB runs a scan, on any thread. Where a filter of Python makes
        the warning an error, the statement goes on: `duck.results` raises it afterwards, and
        of a statement run otherwise ``sys.unraisablehook`` gets it.

        Args:
            call: The call that it is about.
            message: ``subject: expected X, got Y; what to do``.
        """
        connection = call.caller.connection
        warned = Warned(call.name, connection, f"{call.name}: {message}", datetime.now(UTC))
        with self._lock:
            self.warned.append(warned)
            held = self.held_warnings.get(connection)
            if held is not None:
                held.append(warned)
                return
        _UNRAISABLE(warned.emit)()

    def lend(self, cursor: duckdb.DuckDBPyConnection, connection: str) -> None:
        """Note that a connection of our own works for a connection of the user's."""
        with self._lock:
            self._lent[cursor] = connection

    def stop(self, connection: str | None = None) -> None:
        """Stop the scans of one connection, or all of them, and the queries they run."""
        with self._lock:
            for event, owner in self._running.items():
                if connection in (None, owner):
                    event.set()
            lent = [one for one, owner in self._lent.items() if connection in (None, owner)]
        for cursor in lent:
            with contextlib.suppress(duckdb.Error):  # closed already
                cursor.interrupt()

    @property
    def n_running(self) -> int:
        """Scans that have started and not ended."""
        return len(self._running)

    def running(self) -> list[StopEvent]:
        """The stop events of the scans that have started and not ended."""
        with self._lock:
            return list(self._running)

    @contextmanager
    def stop_event(self, connection: str) -> Iterator[StopEvent]:
        """An event that `stop` sets while the work inside runs, and that its end sets."""
        event = StopEvent()
        with self._started(event, connection):
            yield event

    @contextmanager
    def working(self, connection: str) -> Iterator[StopEvent]:
        """As `stop_event`; waits inside listen to it, and what is read comes from our stores."""
        with self.stop_event(connection) as stop, listening(stop), self.stores.in_use():
            yield stop

    @contextmanager
    def _started(self, event: StopEvent, connection: str) -> Iterator[None]:
        with self._lock:
            self._running[event] = connection
            self._bound.pop(connection, None)
            if self._is_closed:
                event.set()
        try:
            self.on_work()
            yield
        finally:
            event.set()
            with self._lock:
                self._running.pop(event, None)
                self._pulled.discard(event)
            if not self._running:
                self.on_idle()

    def is_used_by(self, connections: Collection[str]) -> bool:
        """Whether a statement of these connections is bound in another thread, or read."""
        with self._lock:
            is_running = any(owner in connections for owner in self._running.values())
        return is_running or self._is_starting(connections)

    def _is_starting(self, connections: Collection[str] | None) -> bool:
        """Whether another thread binds a statement, or did so a moment ago."""
        now, thread = time.monotonic(), threading.get_ident()
        return any(
            bound_by != thread and now < until
            for connection, (bound_by, until) in list(self._bound.items())
            if connections is None or connection in connections
        )

    def stop_and_wait(self, connections: Collection[str] | None, seconds: float) -> bool:
        """Stop scans, also those about to start, until no thread of DuckDB's runs our Python.

        DuckDB 1.5 closes a connection with the GIL held: a thread that needs the GIL then
        waits for it for ever. A scan of a half-read result, which nobody pulls, counts as
        idle.

        Args:
            connections: Whose scans; None for all.
            seconds: How long to wait at most.

        Returns:
            Whether they are idle.
        """
        is_mine = self._owns(connections)
        deadline = time.monotonic() + seconds
        n_idle = 0
        while n_idle < _IDLE_CHECKS:
            if time.monotonic() > deadline:
                return False
            for connection in [None] if connections is None else connections:
                self.stop(connection)
            is_working = self._is_starting(connections) or self._is_working(is_mine)
            n_idle = 0 if is_working else n_idle + 1
            time.sleep(_CHECK_SECONDS)
        if not IS_DUCKDB_2:  # the thread that read gives its stream back with the GIL
            deadline = min(deadline, time.monotonic() + _RELEASE_SECONDS)
            while n_exported(is_mine) and time.monotonic() < deadline:
                time.sleep(_CHECK_SECONDS)
        return True

    def _owns(self, connections: Collection[str] | None) -> Callable[[object], bool]:
        def is_mine(owner: object) -> bool:
            runtime, connection = cast("tuple[int, str]", owner)
            return runtime == id(self) and (connections is None or connection in connections)

        return is_mine

    def finished_reads(self) -> list[FinishedRead]:
        """The last reads of pixels that have ended, the newest last."""
        return list(self._finished)

    def _note(self, call: Call, counters: Counters, started: datetime) -> None:
        seconds = (datetime.now(UTC) - started).total_seconds()
        moment = started.replace(tzinfo=None)
        self._finished.append(
            FinishedRead(
                call.name,
                call.caller.connection,
                moment,
                seconds,
                counters.requests,
                counters.fetched_bytes,
                counters.tiles_decoded,
                counters.cache_hits,
                counters.tiles_failed,
            )
        )

    def _is_working(self, is_mine: Callable[[object], bool]) -> bool:
        with self._lock:
            owners = [own for event, own in self._running.items() if event not in self._pulled]
        return any(is_mine((id(self), owner)) for owner in owners) or n_pulling(is_mine) > 0

    def close(self) -> None:
        """Stop everything and let go of all sources, while DuckDB can still call Python."""
        with self._lock:
            self._is_closed = True
        self.stop_and_wait(None, _CLOSE_SECONDS)
        with self._lock:
            sources = list(self._sources.values())
            self._sources.clear()
            self._kept_bytes = 0
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
        function = self.functions[call.name]
        try:
            with self.working(call.caller.connection) as stop, _interruptible(stop):
                bound = function.bind(call, **function.checked(arguments))
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
        digest = hashlib.sha256(what.encode("utf-8", "surrogatepass")).digest()
        key = (call.name, call.caller, digest, str(stream.schema))
        with self._lock:
            exposed = self._sources.get(key)
            if exposed is None:
                source = self._source(call, stream)
                exposed = _expose(source, stream, self.connections, next(self._numbers))
                exposed = replace(exposed, n_bytes=_SOURCE_BYTES + _BYTES_PER_LETTER * len(what))
                self._sources[key] = exposed
                self._kept_bytes += exposed.n_bytes
                self._drop_oldest()
            else:
                exposed.source.renew(self._opener(call, stream))
            self._sources.move_to_end(key)
        return exposed.sql

    def _drop_oldest(self) -> None:
        """Let go of the sources that were used least lately, of all but the last one at most."""
        while len(self._sources) > 1 and (
            self._kept_bytes > _KEPT_BYTES
            or (not IS_DUCKDB_2 and len(self._sources) > _MAX_CATALOGS)
        ):
            _, oldest = self._sources.popitem(last=False)
            self._kept_bytes -= oldest.n_bytes
            oldest.release(self.connections)

    def _opener(self, call: Call, stream: Stream) -> OpenScan:
        def open_scan(columns: list[str], pushed: pc.Expression | None) -> Batches:
            self.on_work()
            return self._run(call, stream, columns, pushed)

        return open_scan

    def _source(self, call: Call, stream: Stream) -> LazySource:
        def remember(error: BaseException) -> None:
            _let_go(error)
            self.last_errors[call.caller.connection] = error

        given = stream.schema if IS_DUCKDB_2 else _without_crs(stream.schema)
        schema = without_views(given)
        opener = self._opener(call, stream)
        owner = (id(self), call.caller.connection)
        source = LazySource(schema, opener, remember, owner, given if IS_DUCKDB_2 else schema)
        self._alive.add(source)
        return source

    def _run(
        self, call: Call, stream: Stream, columns: list[str], pushed: pc.Expression | None
    ) -> Batches:
        parts = conjuncts(pushed, stream.schema.names)
        filtered_on = set().union(*(part.columns for part in parts))
        needed = [name for name in stream.schema.names if name in columns or name in filtered_on]
        try:
            stop = StopEvent()
            self._pulled.add(stop)
            scan, started = Scan(needed, stop, parts), datetime.now(UTC)
            with (
                self._started(stop, call.caller.connection),
                counts.reading(call.name, lambda: _counted(scan)) as work,
            ):
                for batch in _listened(stream.run(scan), stop, self.stores):
                    scan.check()
                    remaining = scan.remaining
                    kept = batch if remaining is None else select_rows(batch, remaining)
                    work.counts["rows"] += kept.num_rows
                    if kept.num_rows:
                        chosen = kept.select(columns)
                        with work.giving():
                            yield chosen if IS_DUCKDB_2 else copied_views(chosen)
                if scan.counters is not None:
                    self._note(call, scan.counters, started)
        except RasteretError as error:
            raise _named(error, call.name) from error


def _counted(scan: Scan) -> dict[counts.Count, int]:
    """What a read of pixels has asked for so far."""
    counters = scan.counters
    if counters is None:
        return {}
    return {
        "requests": counters.requests,
        "bytes": counters.fetched_bytes,
        "tiles": counters.tiles_done,
        "tiles expected": counters.tiles_expected,
        "tiles failed": counters.tiles_failed,
        "unreadable": counters.unplanned,
    }


def _listened(batches: Iterator[pa.RecordBatch], stop: StopEvent, stores: Stores) -> Batches:
    """The batches; what waits while one is made listens to the stop event, and uses the stores.

    Not the whole loop does: DuckDB may ask for each batch on another thread.
    """
    try:
        while True:
            with listening(stop), stores.in_use(), _interruptible(stop):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        if isinstance(batches, Generator):
            batches.close()


@contextmanager
def _interruptible(stop: StopEvent) -> Iterator[None]:
    """Tell a query of our own that was interrupted from one that failed.

    Raises:
        InterruptedReadError: the work was stopped.
    """
    try:
        yield
    except (RasteretError, duckdb.Error, OSError) as error:  # pyarrow's is an OSError
        if stop.is_set():
            raise InterruptedReadError(stop.reason) from error
        raise


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
    return _Exposed(_with_estimate(cursor, sql, stream.n_rows), source, catalog, held=cursor)


def _with_estimate(cursor: duckdb.DuckDBPyConnection, sql: str, n_rows: int) -> str:
    """The same rows, which DuckDB takes for about as many as are said.

    To its optimizer an Arrow source has one row (duckdb issue 25631). So rows of ``range`` are
    added, which are counted; beside them stands a relation that is empty, which is known only
    when it runs. They take the columns' types by a cast that the optimizer cannot foresee the
    value of: what it knows to be empty, it removes. Of 1.5 alone: in 2.0 a half-read result of
    such a UNION ALL that is dropped keeps its connection (measured).
    """
    if n_rows <= 1:
        return sql
    found = cursor.sql(sql)
    casts = ", ".join(
        f"{_cast(str(kind))} AS {quote_identifier(name)}"
        for name, kind in zip(found.columns, found.types, strict=True)
    )
    none = "(SELECT unnest(CASE WHEN random() > 2 THEN [1] ELSE [] END))"
    return f"{sql} UNION ALL SELECT {casts} FROM range({n_rows}), {none}"


def _cast(kind: str) -> str:
    is_never = "UNION(" in kind or "GEOMETRY" in kind  # a number as a string: even TRY_CAST fails
    value = "NULL" if is_never else "range::VARCHAR"
    return f"TRY_CAST({value} AS {kind})"


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


def _named(error: RasteretError, function: str) -> RasteretError:
    if error.message.startswith(f"{function}: "):
        return error
    return type(error)(f"{function}: {error.message}")


def _to_python(value: pa.Scalar) -> Any:  # noqa: ANN401 (SQL values of any type)
    if not value.is_valid:
        return None
    kind = value.type
    if pa.types.is_struct(kind):
        if not any(field.name for field in kind):  # a Python tuple
            return [_to_python(value[position]) for position in range(kind.num_fields)]
        return {field.name: _to_python(value[field.name]) for field in kind}
    if pa.types.is_map(kind):
        keys, items = value.values.flatten()
        return {k.as_py(): _to_python(v) for k, v in zip(keys, items, strict=True)}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_to_python(item) for item in value.values]
    plain = value.as_py()
    return float(plain) if isinstance(plain, Decimal) else plain
