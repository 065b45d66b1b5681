"""The private scalar UDFs that macros and generated SQL call: their names and types.

DuckDB must know a UDF when a connection is registered, and what it does only when a statement
calls it. That code imports most of the package, so the first call imports it.

Such an import cannot wait for a thread that waits for it. Every table function of ours calls
the UDF that binds before any other, on the thread that runs the statement; it imports the code
of all of them, so threads of DuckDB's own import only for a scalar that comes first. What the
thread holds meanwhile is its connection. A thread that imports wants no connection: no module
of ours, nor of a package that it needs, runs a statement when it is imported. A user's module
that runs one while it is imported holds only its own import lock, which we do not want.
Closing a connection waits for first calls before it takes what they need (`first_calls`).
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import duckdb
import pyarrow as pa

from rasteret_sql.duck.callbacks import CALLBACKS, OWED, RUNNING
from rasteret_sql.duck.names import IS_DUCKDB_2, quote_identifier
from rasteret_sql.grid.proj_context import keep_context
from rasteret_sql.schema import BAND_METADATA, RASTER_HEADERS, REPORT_SCHEMA

if TYPE_CHECKING:
    from rasteret_sql.duck.runtime import Runtime

BIND_UDF = "_rasteret_bind"
STAGE_UDF = "_rasteret_stage"
STAGED_UDF = "_rasteret_staged"
BUILD_STAGED_UDF = "_rasteret_build_staged"
HEADERS_UDF = "_rasteret_headers"
HEADER_UDF = "_rasteret_header"
VALUE_UDF = "_rasteret_value"
ENTER_UDF = "_rasteret_enter"

_PLAIN = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
}


class Engine(Protocol):
    """Who has the engine, and makes it when it is asked for."""

    signals: bool
    """Whether SIGINT may be handled."""
    first_calls: set[int]
    """Threads that import what they call, and call it, inside DuckDB."""

    @property
    def runtime(self) -> Runtime:
        """The engine."""
        ...


@dataclass(frozen=True)
class Udf:
    """A private scalar UDF over Arrow arrays of any number and types, NULLs included.

    Attributes:
        name: Starts with ``_rasteret_``.
        made_by: ``module:function`` within ``rasteret_sql.duck``; the function is given the
            engine and returns what to call with the arrays.
        returns: Its SQL type.
        may_raise: Whether what it raises ends the statement. DuckDB drops exceptions of a
            function that it tries to fold, and goes on.
    """

    name: str
    made_by: str
    returns: str
    may_raise: bool = False

    def load(self, runtime: Runtime) -> Callable[..., pa.Array]:
        """What to call; imports it."""
        module, function = self.made_by.split(":")
        make = getattr(importlib.import_module(f"rasteret_sql.duck.{module}"), function)
        return make(runtime)  # type: ignore[no-any-return]


def fallible(kind: pa.DataType) -> pa.StructType:
    """What a UDF returns that may fail: see `scalars.value_or_error`."""
    return pa.struct([("value", kind), ("error", pa.string())])


def sql_type_name(kind: pa.DataType) -> str:
    """An Arrow type as SQL writes it.

    Example:
        >>> sql_type_name(pa.list_(pa.struct([("a b", pa.int32())])))
        'STRUCT("a b" INTEGER)[]'
    """
    if pa.types.is_struct(kind):
        fields = ", ".join(f"{quote_identifier(f.name)} {sql_type_name(f.type)}" for f in kind)
        return f"STRUCT({fields})"
    if pa.types.is_list(kind):
        return sql_type_name(kind.value_type) + "[]"
    return _PLAIN[kind]


UDFS = (
    Udf(BIND_UDF, "functions:make_bind", "VARCHAR", may_raise=True),
    Udf(STAGE_UDF, "staging:make_stage", "BOOLEAN"),
    Udf(STAGED_UDF, "staging:make_staged", "BOOLEAN"),
    Udf(
        BUILD_STAGED_UDF,
        "functions.builds:make_build_staged",
        sql_type_name(fallible(pa.struct(list(REPORT_SCHEMA)))),
    ),
    Udf(
        HEADERS_UDF,
        "functions.enriching:make_headers",
        sql_type_name(fallible(RASTER_HEADERS)),
    ),
    Udf(HEADER_UDF, "functions.enriching:make_header", sql_type_name(fallible(BAND_METADATA))),
    Udf(ENTER_UDF, "scalars:make_enter", "VARCHAR"),
    Udf(VALUE_UDF, "functions.point_values:make_value", sql_type_name(fallible(pa.float64()))),
)


def create_udf(con: duckdb.DuckDBPyConnection, udf: Udf, engine: Engine) -> object:
    """Register a UDF.

    Returns:
        What DuckDB calls; it only borrows it, so the caller must keep it.
    """
    loaded: list[Callable[..., pa.Array]] = []

    def call(*arguments: pa.Array) -> pa.Array:
        this = object()
        if IS_DUCKDB_2:
            RUNNING.add(this)
        try:
            return loaded[0](*arguments) if loaded else first_call(*arguments)
        finally:
            keep_context()
            RUNNING.discard(this)
            if IS_DUCKDB_2 and OWED.is_owed and not _is_ending():
                OWED.is_owed = False
                OWED.send_later  # noqa: B018 (see there)

    def owe() -> None:
        if IS_DUCKDB_2 and not udf.may_raise:
            engine.runtime.scans.on_work()  # whose handler owes what comes inside of a callback

    def first_call(*arguments: pa.Array) -> pa.Array:
        thread = threading.get_ident()
        engine.first_calls.add(thread)
        try:
            with _sigint_waits(owe) if engine.signals else contextlib.nullcontext():
                loaded.append(udf.load(engine.runtime))
            return loaded[0](*arguments)
        finally:
            engine.first_calls.discard(thread)

    if IS_DUCKDB_2:
        CALLBACKS.add(call.__code__)
    con.create_function(  # type: ignore[call-overload]  # the stubs know no varargs
        udf.name, call, None, udf.returns, type="arrow", null_handling="special"
    )
    return call


def _is_ending() -> bool:
    """As `stream.is_ending`: the stream that ends last then sends what is owed."""
    from rasteret_sql.duck.stream import is_ending  # which imports what only a call needs

    return is_ending()


@contextlib.contextmanager
def _sigint_waits(then: Callable[[], None]) -> Iterator[None]:
    """Hold SIGINT back until what is imported inside is whole.

    An import that ended in the middle cannot always be done again: NumPy and other packages
    refuse a second time in a process.

    Args:
        then: Called before a SIGINT that was held back is sent again.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    arrived: list[int] = []
    try:
        signal.signal(signal.SIGINT, lambda number, _frame: arrived.append(number))
    except ValueError:  # a subinterpreter: Python forbids it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if arrived:
            then()
            signal.raise_signal(signal.SIGINT)
