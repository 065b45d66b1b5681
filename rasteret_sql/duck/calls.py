"""What a table function is given, and what it returns."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_sql.duck.names import CATALOG, quote_identifier, quote_text
from rasteret_sql.duck.predicates import Conjunct, combine
from rasteret_sql.duck.scans import StopEvent
from rasteret_sql.errors import InterruptedReadError, RasteretWarning
from rasteret_sql.reading.counters import Counters

if TYPE_CHECKING:
    from rasteret_sql.collections.workspace import Workspace
    from rasteret_sql.duck.runtime import Runtime
    from rasteret_sql.remote.stores import Stores


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
    """

    schema: pa.Schema
    run: Callable[[Scan], Iterator[pa.RecordBatch]]


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
        self.runtime.scans.lend(cursor, self.caller.connection)
        return cursor
