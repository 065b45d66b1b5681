"""Cursors that stay open, so that a statement costs its work alone."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import duckdb

from rasteret_sql.duck.results import translated
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError

_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Connections:
    """Runs statements, several at once.

    Args:
        con: A registered connection; each worker gets a cursor of it.
        n_workers: Statements at once; others wait.
        time_limit_seconds: Of a statement.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, n_workers: int, time_limit_seconds: float
    ) -> None:
        self._con = con
        self._limit = time_limit_seconds
        self._free: queue.LifoQueue[duckdb.DuckDBPyConnection | None] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._n_workers = n_workers
        self._in_use: set[duckdb.DuckDBPyConnection] = set()
        self._is_stopped = False
        for _ in range(n_workers):
            self._free.put(None)

    def table(self, statement: str, is_wanted: Callable[[], bool] = lambda: True) -> Any:  # noqa: ANN401
        """The result of a statement, as a `pyarrow.Table`.

        Args:
            statement: Its text.
            is_wanted: Asked once more when its turn has come.

        Raises:
            RasteretError: what went wrong, in words that may be shown.
            InterruptedReadError: it took longer than it may, or nobody wants it.
        """
        with self._cursor() as cursor:
            if not is_wanted():
                raise InterruptedReadError("request: expected a client, got none; it has gone")
            is_late = threading.Event()

            def stop() -> None:
                is_late.set()
                cursor.interrupt()

            timer = threading.Timer(self._limit, stop)
            timer.daemon = True
            timer.start()
            try:
                with translated(cursor, statement):
                    return cursor.sql(statement).to_arrow_table()
            except (InterruptedReadError, duckdb.Error, RuntimeError) as error:
                if is_late.is_set():
                    raise InterruptedReadError(
                        f"time: expected {self._limit:g} seconds or less, got more; zoom in, or "
                        "choose fewer scenes"
                    ) from error
                if isinstance(error, RasteretError):
                    raise
                raise InputError(_plain(str(error))) from error
            finally:
                timer.cancel()

    def stop(self) -> None:
        """Interrupt what runs and wait until it has ended; later statements are refused.

        The interpreter must not end while a thread of the server is inside DuckDB.
        """
        self._is_stopped = True
        deadline = time.monotonic() + _STOP_SECONDS
        n_ended = 0
        while n_ended < self._n_workers and time.monotonic() < deadline:
            for cursor in tuple(self._in_use):
                cursor.interrupt()
            with suppress(queue.Empty):
                self._free.get(timeout=_LOOK_SECONDS)
                n_ended += 1

    def _next(self) -> duckdb.DuckDBPyConnection | None:
        """The cursor of a worker that is free; None: it has none yet.

        Raises:
            InterruptedReadError: the server has ended meanwhile.
        """
        while not self._is_stopped:
            with suppress(queue.Empty):
                return self._free.get(timeout=_LOOK_SECONDS)
        raise InterruptedReadError("request: expected a server, got none; it has ended")

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._next()
        try:
            if cursor is None:
                with self._lock:
                    cursor = self._con.cursor()
            self._in_use.add(cursor)
            yield cursor
        finally:
            if cursor is not None:
                self._in_use.discard(cursor)
            self._free.put(cursor)


def _plain(text: str) -> str:
    r"""What DuckDB says, without the statement that it repeats.

    Example:
        >>> _plain("Conversion Error: no number\n\nLINE 1: SELECT …")
        'Conversion Error: no number'
    """
    return " ".join(text.split("LINE 1:", maxsplit=1)[0].split())
