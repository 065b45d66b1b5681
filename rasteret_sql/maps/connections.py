"""Cursors that stay open, so that a statement costs its work alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from rasteret_sql.duck.results import translated
from rasteret_sql.errors import InputError, InterruptedReadError, RasteretError


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

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._free.get()
        try:
            if cursor is None:
                with self._lock:
                    cursor = self._con.cursor()
            yield cursor
        finally:
            self._free.put(cursor)


def _plain(text: str) -> str:
    r"""What DuckDB says, without the statement that it repeats.

    Example:
        >>> _plain("Conversion Error: no number\n\nLINE 1: SELECT …")
        'Conversion Error: no number'
    """
    return " ".join(text.split("LINE 1:", maxsplit=1)[0].split())
