"""Relations that only the caller's connection sees, handed to Python row by row.

TEMP tables, registered frames, CTEs and uncommitted rows can't be read by a connection of
our own. The text that stands for the call then sends every row through a private UDF,
``_rasteret_stage(token, row)``, which keeps the rows; an aggregate over that call is the
argument of the UDF that does the work, so it runs when all rows have arrived.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.scalars import row_batch
from rasteret_sql.errors import InputError, RasteretError

ROW = "_rasteret_row"
"""Alias that stands for a whole row of the caller's relation: a column of that name wins."""
_KEPT = 256
_WAIT_SECONDS = 60


def _nothing(_table: pa.Table) -> None:
    """Nothing is left to do when all rows are there."""


@dataclass
class Staged:
    """A call that waits for its rows.

    Attributes:
        finish: Does the work, given all rows as one table.
    """

    finish: Callable[[pa.Table], Any] = _nothing
    chunks: list[pa.RecordBatch] = field(default_factory=list)
    is_complete: threading.Event = field(default_factory=threading.Event)

    def wait(self, check: Callable[[], None]) -> pa.Table | None:
        """All rows, once they are there; None where there are none.

        Raises:
            RasteretError: they did not come.
        """
        for _ in range(_WAIT_SECONDS * 20):
            if self.is_complete.wait(0.05):
                self.is_complete.clear()
                chunks, self.chunks = self.chunks, []
                return pa.Table.from_batches(chunks) if chunks else None
            check()
        raise RasteretError(
            "aois: expected the rows of a relation of this connection, got none; "
            "make it a table, which every connection sees"
        )

    def table(self) -> pa.Table:
        """The rows so far; the next execution of the same statement starts afresh."""
        chunks, self.chunks = self.chunks, []
        if not chunks:
            raise InputError.expected("source", "at least one row", "none", "check the source")
        return pa.Table.from_batches(chunks)


class Stage:
    """Calls that wait, by token. One per process: tokens are never reused."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._calls: OrderedDict[str, Staged] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, staged: Staged) -> str:
        """Keep a call until its statement runs; the oldest are forgotten."""
        with self._lock:
            token = f"call{next(self._numbers)}"
            self._calls[token] = staged
            if len(self._calls) > _KEPT:
                self._calls.popitem(last=False)
            return token

    def get(self, token: str) -> Staged:
        """The call of a token."""
        try:
            return self._calls[token]
        except KeyError:
            raise RasteretError(
                "statement: expected a recent one, got one bound long ago; prepare it again"
            ) from None


STAGE = Stage()


def make_stage(_runtime: Runtime) -> Callable[..., pa.Array]:
    """What keeps the rows of a call, by its token."""

    def stage(tokens: pa.Array, rows: pa.Array) -> pa.Array:
        if len(rows):
            STAGE.get(tokens[0].as_py()).chunks.append(row_batch(rows))
        return pa.array([True] * len(rows))

    return stage


def make_staged(_runtime: Runtime) -> Callable[..., pa.Array]:
    """What says that all rows of a call have arrived."""

    def staged(tokens: pa.Array, done: pa.Array) -> pa.Array:
        for token in tokens:
            STAGE.get(token.as_py()).is_complete.set()
        return pa.array([True] * len(done))

    return staged
