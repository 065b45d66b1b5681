"""The engine of table functions written in Python, for DuckDB, which has only scalar ones.

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

import ctypes
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.duck.calls import Call, Caller, Connections, Scan, Sql, Stream, Warned
from rasteret_sql.duck.declarations import FUNCTIONS, TableFunction
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_text
from rasteret_sql.duck.predicates import conjuncts
from rasteret_sql.duck.scans import Scans, StopEvent
from rasteret_sql.duck.sources import Sources
from rasteret_sql.duck.stream import Batches, OpenScan
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError
from rasteret_sql.progress import counts
from rasteret_sql.reading.columns import copied_views, select_rows
from rasteret_sql.reading.counters import Counters
from rasteret_sql.remote.waiting import listening

if TYPE_CHECKING:
    from rasteret_sql.remote.stores import Stores

_KEPT_READS = 100
_KEPT_WARNINGS = 100
"""Rows of ``rasteret_warnings()``."""
_CLOSE_SECONDS = 5.0

_UNRAISABLE = ctypes.PYFUNCTYPE(None)
"""Makes a function whose exceptions go to ``sys.unraisablehook``, as those of a callback do."""


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
        stores: How files are reached, and which may be; `remote.stores`.
        scans: What runs, for which connection.
        sources: What statements may read that were bound lately.
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.last_errors: dict[str, BaseException] = {}
        self.functions: Mapping[str, TableFunction] = FUNCTIONS
        self.warned: deque[Warned] = deque(maxlen=_KEPT_WARNINGS)
        self.held_warnings: dict[str, list[Warned]] = {}
        self.shares_warnings = True
        self.check_query: Callable[[str], None] = lambda _query: None
        self.stores = connections.stores
        self.scans = Scans(self.stores)
        self.sources = Sources(connections)
        self._lock = threading.RLock()  # a signal's handler may warn while it is held
        self._finished: deque[FinishedRead] = deque(maxlen=_KEPT_READS)

    def bind(self, names: pa.Array, callers: pa.Array, arguments: pa.Array) -> pa.Array:
        """The UDF: SQL text for each call (DuckDB folds it, so there is one)."""
        texts = []
        self.scans.on_work()
        for name, caller, values in zip(names, callers, arguments, strict=True):
            if not name.is_valid or not caller.is_valid:
                raise InputError.expected("arguments", "constants", "NULL", "write them out")
            call = Call(name.as_py(), Caller(**caller.as_py()), self)
            with self.scans.binding(call.caller.connection):
                try:
                    texts.append(self._bind_one(call, _to_python(values)))
                except RasteretError as error:
                    texts.append(_failing(error))
        self.scans.on_work()  # a long bind may have outlived the first call
        return pa.array(texts, pa.string())

    def remember(self, error: RasteretError, function: str, connection: str) -> RasteretError:
        """The error with the function's name in front, kept for `duck.results`."""
        named = _named(error, function)
        if named is not error:  # one that were its own cause would be followed without end
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

    def close(self) -> None:
        """Stop everything and let go of all sources, while DuckDB can still call Python."""
        self.scans.close(_CLOSE_SECONDS)
        self.sources.close()

    def _bind_one(self, call: Call, arguments: Mapping[str, Any]) -> str:
        function = self.functions[call.name]
        try:
            with self.scans.working(call.caller.connection) as stop, _interruptible(stop):
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

        def remember(error: BaseException) -> None:
            _let_go(error)
            self.last_errors[call.caller.connection] = error

        return self.sources.expose(call, stream, what, self._opener(call, stream), remember)

    def _opener(self, call: Call, stream: Stream) -> OpenScan:
        def open_scan(columns: list[str], pushed: pc.Expression | None) -> Batches:
            self.scans.on_work()
            return self._run(call, stream, columns, pushed)

        return open_scan

    def _run(
        self, call: Call, stream: Stream, columns: list[str], pushed: pc.Expression | None
    ) -> Batches:
        parts = conjuncts(pushed, stream.schema.names)
        filtered_on = set().union(*(part.columns for part in parts))
        needed = [name for name in stream.schema.names if name in columns or name in filtered_on]
        try:
            stop = StopEvent()
            scan, started = Scan(needed, stop, parts), datetime.now(UTC)
            with (
                self.scans.started(stop, call.caller.connection, is_pulled=True),
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
    if pa.types.is_timestamp(kind) and kind.unit == "ns":  # Python has microseconds
        value = value.cast(pa.timestamp("us", kind.tz), safe=False)
    try:
        plain = value.as_py()
    except OverflowError:  # 'infinity' and years that Python does not have
        plain = datetime.max if value.value > 0 else datetime.min
    if isinstance(plain, Decimal):  # HUGEINT, as of sum(), comes as DECIMAL(38, 0)
        return float(plain) if kind.scale else int(plain)
    return plain
