"""What runs for which connection: stopped by Ctrl-C and `close`, and waited for."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import duckdb

from rasteret_sql.duck.names import IS_DUCKDB_2
from rasteret_sql.duck.stream import n_exported, n_pulling
from rasteret_sql.remote.waiting import listening

if TYPE_CHECKING:
    from rasteret_sql.remote.stores import Stores

_CHECK_SECONDS = 0.01
_IDLE_CHECKS = 3
_RELEASE_SECONDS = 0.3
_START_SECONDS = 0.5
"""A statement that has been bound starts its scan within this time, or has none."""


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


class Scans:
    """The scans of one database instance, and the other work of its functions.

    Args:
        stores: How files are reached.

    Attributes:
        on_work: Called before a statement is bound and before a scan starts, on the thread
            that does so.
        on_idle: Called when the last scan has ended, on any thread.
    """

    def __init__(self, stores: Stores) -> None:
        self.on_work: Callable[[], None] = lambda: None
        self.on_idle: Callable[[], None] = lambda: None
        self._stores = stores
        self._is_closed = False
        self._lock = threading.RLock()  # a signal's handler may stop what holds it
        self._running: dict[StopEvent, str] = {}
        self._pulled: set[StopEvent] = set()
        self._bound: dict[str, tuple[int, float]] = {}  # by connection: thread, until when
        self._lent: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, str] = (
            weakref.WeakKeyDictionary()
        )

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
        with self.started(event, connection):
            yield event

    @contextmanager
    def working(self, connection: str) -> Iterator[StopEvent]:
        """As `stop_event`; waits inside listen to it, and what is read comes from our stores."""
        with self.stop_event(connection) as stop, listening(stop), self._stores.in_use():
            yield stop

    @contextmanager
    def started(
        self, event: StopEvent, connection: str, *, is_pulled: bool = False
    ) -> Iterator[None]:
        """Note what runs inside for a connection; `stop` sets the event, and so does its end.

        Args:
            event: What the work listens to.
            connection: DuckDB's number of it.
            is_pulled: Whether it works only while DuckDB pulls batches of it.
        """
        if is_pulled:
            self._pulled.add(event)
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

    @contextmanager
    def binding(self, connection: str) -> Iterator[None]:
        """Note that this thread binds a statement inside, whose scan starts inside or soon."""
        thread = threading.get_ident()
        self._bound[connection] = thread, math.inf
        try:
            yield
        finally:
            self._bound[connection] = thread, time.monotonic() + _START_SECONDS

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

    def owner(self, connection: str) -> tuple[int, str]:
        """What names a connection of this instance as the owner of a stream."""
        return id(self), connection

    def _owns(self, connections: Collection[str] | None) -> Callable[[object], bool]:
        def is_mine(owner: object) -> bool:
            scans, connection = cast("tuple[int, str]", owner)
            return scans == id(self) and (connections is None or connection in connections)

        return is_mine

    def _is_working(self, is_mine: Callable[[object], bool]) -> bool:
        with self._lock:
            own = [owner for event, owner in self._running.items() if event not in self._pulled]
        return any(is_mine(self.owner(one)) for one in own) or n_pulling(is_mine) > 0

    def close(self, seconds: float) -> None:
        """Stop all scans, those that start later too, and wait for them so long at most."""
        with self._lock:
            self._is_closed = True
        self.stop_and_wait(None, seconds)
