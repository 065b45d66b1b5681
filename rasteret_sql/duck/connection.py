"""Connections with the functions of rasteret_sql: `connect` and `register`.

UDFs live in the database instance. Macros live in an attached in-memory catalog named
``rasteret`` (nothing is written to the user's file), and as TEMP macros on each connection,
so that the plain names work after ``USE`` too. TEMP macros are not inherited, so the one
way to make another connection, ``DuckDBPyConnection.cursor`` (also named ``duplicate``), is
wrapped to add them. ``interrupt``, ``close`` and ``__exit__`` are wrapped because only there
can we learn which connection wants its scans stopped. A connection that knows nothing of us
is left as it is.

No connection and no interpreter goes while a thread runs our Python inside DuckDB: scans are
stopped and waited for first. Otherwise DuckDB 1.5 waits for ever with the GIL held, and
DuckDB 2.0 aborts the process (docs/upstream.md).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from rasteret_sql.collections.workspace import Workspace
from rasteret_sql.datasets.registry import set_storage_defaults_of
from rasteret_sql.duck import macros
from rasteret_sql.duck.ctrl_c import CtrlC
from rasteret_sql.duck.table_function import CATALOG, Runtime, quote_identifier
from rasteret_sql.duck.views import create_workspace_views
from rasteret_sql.errors import NotRegisteredError
from rasteret_sql.reading.tile_store import STORE

_NUMBER = "_rasteret_instance"

Connection = duckdb.DuckDBPyConnection

_new_cursor = Connection.cursor
_interrupt = Connection.interrupt
_close = Connection.close
_exit = Connection.__exit__

_CLOSE_SECONDS = 10.0
_RETRY_SECONDS = 0.01


class Instance:
    """One DuckDB database instance with our functions, and its live connections.

    Holds connections weakly: a strong reference would keep the user's file open. Its
    connections hold it (`_instances`), as DuckDB only borrows the UDFs.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.runtime = Runtime(self)
        self.udfs: list[object] = []
        self._members: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()
        self._cursors: weakref.WeakKeyDictionary[Connection, weakref.WeakSet[Connection]] = (
            weakref.WeakKeyDictionary()
        )

    def cursor(self) -> Connection:
        """A connection of our own, without TEMP macros."""
        for member in list(self._members):
            try:
                return _new_cursor(member)
            except duckdb.Error:
                continue  # closed by the user
        raise NotRegisteredError(
            "connection: expected an open connection that rasteret_sql registered, got none; "
            "keep the connection you registered open"
        )

    def adopt(self, con: Connection) -> None:
        """Give a connection the plain function names."""
        if con in self._members:
            return
        row = con.execute("SELECT current_connection_id()::VARCHAR").fetchall()[0]
        self._members[con] = row[0]
        _instances[con] = self
        for statement in macros.temp_statements():
            con.execute(statement)

    def is_parent_of(self, con: Connection, cursor: Connection) -> None:
        """Closing a connection closes the cursors made from it."""
        self._cursors.setdefault(con, weakref.WeakSet()).add(cursor)

    def stop(self, con: Connection) -> bool:
        """Stop the scans of a connection and of its cursors, wait until they have ended.

        Returns:
            Whether there were any.
        """
        family = self._family(con)
        numbers = {number for member in family if (number := self._members.get(member))}
        if not self.runtime.is_used_by(numbers):
            return False
        for number in numbers:
            self.runtime.stop(number)
        for member in family:
            with contextlib.suppress(duckdb.Error):  # closed already
                _interrupt(member)
        self.runtime.stop_and_wait(numbers, _CLOSE_SECONDS)
        return True

    def close(self) -> None:
        """Stop all scans, let go of all sources, close all connections."""
        members = list(self._members)
        if self.runtime.n_running:
            self.runtime.stop()
            for member in members:
                with contextlib.suppress(duckdb.Error):  # closed already
                    _interrupt(member)
        self.runtime.close()
        for member in members:
            with contextlib.suppress(duckdb.Error):  # still busy after `_CLOSE_SECONDS`
                _when_free(lambda member=member: _close(member))  # type: ignore[misc]

    def _family(self, con: Connection) -> list[Connection]:
        found = [con]
        for member in found:
            found += [one for one in self._cursors.get(member, ()) if one not in found]
        return found

    def id_of(self, con: Connection) -> str | None:
        """DuckDB's number of a connection."""
        return self._members.get(con)


_instances: weakref.WeakKeyDictionary[Connection, Instance] = weakref.WeakKeyDictionary()
_by_number: weakref.WeakValueDictionary[str, Instance] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def connect(
    database: str | Path = ":memory:",
    workspace: str | Path | None = None,
    *,
    read_only: bool = False,
    config: dict[str, Any] | None = None,
    signals: bool = True,
    tile_cache_bytes: int | None = None,
) -> Connection:
    """Open a DuckDB database with every ``rasteret_*`` function.

    Also makes a view for each collection already in the workspace, unless the database has
    a table or view of that name.

    Args:
        database: Path of a DuckDB file, or ``':memory:'``.
        workspace: Folder of collections; default ``$RASTERET_WORKSPACE``, else
            ``~/rasteret_workspace``.
        read_only: Open the file without writing to it; views are then TEMP.
        config: DuckDB settings.
        signals: As in `register`.
        tile_cache_bytes: As in `register`.

    Example:
        >>> con = connect(workspace="/nonexistent")
        >>> con.sql("SELECT rasteret_ndvi(1000, 3000)").fetchall()
        [(0.5,)]
        >>> con.close()
    """
    con = duckdb.connect(str(database), read_only=read_only, config=config or {})
    _resize_cache(tile_cache_bytes)
    instance, _ = _registered(con, workspace, signals=signals)
    create_workspace_views(con, instance.workspace)
    return con


def register(
    con: Connection,
    *,
    workspace: str | Path | None = None,
    signals: bool = True,
    tile_cache_bytes: int | None = None,
) -> None:
    """Add the functions to a connection you already have; its later cursors get them too.

    Safe to call again. One workspace serves all connections of a database instance: the one
    given last, if any. Files of its collections that were built from a data set are reached
    as that says; no views are made.

    What changes in the process, from the first call on:

    * ``cursor``, ``duplicate``, ``interrupt``, ``close`` and ``__exit__`` of
      ``duckdb.DuckDBPyConnection`` are wrapped. On connections that are not registered they
      do what they did. ``close`` of a registered one interrupts its reads, also those of its
      cursors in other threads, and waits up to 10 seconds until they have ended.
    * ``atexit``: when the interpreter ends, reads are interrupted and registered connections
      closed. The read of a daemon thread ends with the error "interrupted".
    * SIGINT: while a statement of ours runs, a handler of ours stops the reads and then calls
      the one that was there. It goes in on the main thread only and is taken out when the last
      read has ended. No other signal is handled.

    Args:
        con: An open connection.
        workspace: Folder of collections; default ``$RASTERET_WORKSPACE``, else
            ``~/rasteret_workspace``.
        signals: False leaves SIGINT alone, for this database instance. Ctrl-C may then wait
            until the read ends; ``con.interrupt()`` always stops it.
        tile_cache_bytes: Of decoded tiles that are kept for later reads, in the whole process;
            256 MiB until something else is said. 0 keeps none.

    Example:
        >>> con = duckdb.connect()
        >>> register(con, workspace="/nonexistent", signals=False)
        >>> con.sql("SELECT rasteret_ndvi(1000, 3000)").fetchall()
        [(0.5,)]
        >>> con.close()
    """
    _resize_cache(tile_cache_bytes)
    instance, is_changed = _registered(con, workspace, signals=signals)
    if is_changed:
        set_storage_defaults_of(info.data_source for info in instance.workspace.collections())


def _resize_cache(tile_cache_bytes: int | None) -> None:
    if tile_cache_bytes is not None:
        STORE.resize(tile_cache_bytes)


def instance_of(con: Connection) -> Instance:
    """The instance a registered connection belongs to.

    Raises:
        NotRegisteredError: if `register` was not called.
    """
    instance = _instances.get(con)
    if instance is None:
        raise NotRegisteredError(
            "connection: expected the functions of rasteret_sql on this connection, got none; "
            "call rasteret_sql.register(con)"
        )
    return instance


def _registered(
    con: Connection, workspace: str | Path | None, *, signals: bool
) -> tuple[Instance, bool]:
    """The connection's instance, and whether it has another workspace than before."""
    with _lock:
        _wrap_duckdb()
        instance = _instances.get(con) or _instance_of(con)
        is_changed = instance is None or workspace is not None
        if instance is None:
            instance = _install(con, Workspace(workspace))
        elif workspace is not None:
            instance.workspace = Workspace(workspace)
        instance.runtime.on_work = _ctrl_c.enter if signals else _nothing
        instance.runtime.on_idle = _ctrl_c.leave if signals else _nothing
        instance.adopt(con)
    return instance, is_changed


def _instance_of(con: Connection) -> Instance | None:
    """Another connection of this database may have been registered."""
    try:
        number = con.execute(f"SELECT {CATALOG}.main.{_NUMBER}()").fetchall()[0][0]
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
    return _by_number.get(number)


def _install(con: Connection, workspace: Workspace) -> Instance:
    instance = Instance(workspace)
    with _new_cursor(con) as cursor:
        instance.udfs = macros.create_udfs(cursor, instance.runtime)
        number = f"{id(instance):x}"
        catalog = quote_identifier(CATALOG)
        cursor.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {catalog} (READ_WRITE)")
        cursor.execute(f"USE {catalog}")
        cursor.execute(f"CREATE OR REPLACE MACRO {_NUMBER}() AS '{number}'")
        macros.load(cursor)
    _by_number[number] = instance
    return instance


@functools.cache
def _wrap_duckdb() -> None:
    @functools.wraps(_new_cursor)
    def cursor(self: Connection) -> Connection:
        child = _new_cursor(self)
        instance = _instances.get(self)
        if instance is not None:
            instance.adopt(child)
            instance.is_parent_of(self, child)
        return child

    @functools.wraps(_interrupt)
    def interrupt(self: Connection) -> None:
        instance = _instances.get(self)
        if instance is not None:
            instance.runtime.stop(instance.id_of(self))
        _interrupt(self)

    @functools.wraps(_close)
    def close(self: Connection) -> None:
        _stopped(self, lambda: _close(self))

    @functools.wraps(_exit)
    def exit_(self: Connection, kind: object, error: object, trace: object) -> None:
        _stopped(self, lambda: _exit(self, kind, error, trace))

    Connection.cursor = cursor  # type: ignore[method-assign]
    Connection.duplicate = cursor  # type: ignore[method-assign]
    Connection.interrupt = interrupt  # type: ignore[method-assign]
    Connection.close = close  # type: ignore[method-assign]
    Connection.__exit__ = exit_  # type: ignore[method-assign]
    atexit.register(_close_all)


def _stopped(con: Connection, close: Callable[[], None]) -> None:
    """Close a connection after its scans have ended."""
    instance = _instances.get(con)
    if instance is None or not instance.stop(con):
        close()
    else:
        _when_free(close)


def _when_free(close: Callable[[], None]) -> None:
    """Close as soon as no other thread is in a call of the connection; 2.0 refuses before."""
    busy = getattr(duckdb, "ResourceInUseException", ())
    deadline = time.monotonic() + _CLOSE_SECONDS
    while True:
        try:
            close()
        except busy:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_RETRY_SECONDS)


def _close_all() -> None:
    """At exit: an open connection would print what nanobind leaks, or abort in 1.5."""
    for instance in list(_by_number.values()):
        instance.close()
    _ctrl_c.finish()


def _stop_all() -> None:
    for instance in list(_by_number.values()):
        if instance.runtime.on_work is not _nothing:
            instance.runtime.stop()


def _is_busy() -> bool:
    return any(instance.runtime.n_running for instance in list(_by_number.values()))


def _nothing() -> None:
    """Stand for a handler where signals are not wanted."""


_ctrl_c = CtrlC(_stop_all, _is_busy)
