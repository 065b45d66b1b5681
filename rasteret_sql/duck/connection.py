"""Connections with the functions of rasteret_sql: `connect` and `register`.

UDFs live in the database instance. Macros live in an attached in-memory catalog named
``rasteret`` (nothing is written to the user's file), and as TEMP macros on each connection,
so that the plain names work after ``USE`` too. TEMP macros are not inherited, so the one
way to make another connection, ``DuckDBPyConnection.cursor`` (also named ``duplicate``), is
wrapped to add them; a connection that knows nothing of us is left as it is. ``interrupt``
is wrapped for the same reason: only there can we learn which connection wants its scans
stopped.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import signal
import threading
import weakref
from pathlib import Path
from types import FrameType
from typing import Any

import duckdb

from rasteret_sql.duck import macros
from rasteret_sql.duck.stream import is_callback
from rasteret_sql.duck.table_function import CATALOG, Runtime, quote_identifier
from rasteret_sql.duck.views import create_workspace_views
from rasteret_sql.errors import NotRegisteredError
from rasteret_sql.records.catalog.registry import suggest_storage_of
from rasteret_sql.records.files.workspace import Workspace

_NUMBER = "_rasteret_instance"

Connection = duckdb.DuckDBPyConnection

_new_cursor = Connection.cursor
_interrupt = Connection.interrupt


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

    def close(self) -> None:
        """Stop all scans, let go of all sources, close all connections."""
        self.runtime.close()
        for member in list(self._members):
            member.close()

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

    Example:
        >>> con = connect(workspace="/nonexistent")
        >>> con.sql("SELECT rasteret_ndvi(1000, 3000)").fetchall()
        [(0.5,)]
        >>> con.close()
    """
    con = duckdb.connect(str(database), read_only=read_only, config=config or {})
    instance, _ = _registered(con, workspace)
    create_workspace_views(con, instance.workspace)
    return con


def register(con: Connection, *, workspace: str | Path | None = None) -> None:
    """Add the functions to a connection you already have; its later cursors get them too.

    Safe to call again. One workspace serves all connections of a database instance: the one
    given last, if any. Files of its collections that were built from a data set are reached
    as that says; no views are made.
    """
    instance, is_changed = _registered(con, workspace)
    if is_changed:
        suggest_storage_of(info.data_source for info in instance.workspace.collections())


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


def _registered(con: Connection, workspace: str | Path | None) -> tuple[Instance, bool]:
    """The connection's instance, and whether it has another workspace than before."""
    with _lock:
        _wrap_duckdb()
        instance = _instances.get(con) or _instance_of(con)
        is_changed = instance is None or workspace is not None
        if instance is None:
            instance = _install(con, Workspace(workspace))
        elif workspace is not None:
            instance.workspace = Workspace(workspace)
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
        return child

    @functools.wraps(_interrupt)
    def interrupt(self: Connection) -> None:
        instance = _instances.get(self)
        if instance is not None:
            instance.runtime.stop(instance.id_of(self))
        _interrupt(self)

    Connection.cursor = cursor  # type: ignore[method-assign]
    Connection.duplicate = cursor  # type: ignore[method-assign]
    Connection.interrupt = interrupt  # type: ignore[method-assign]
    atexit.register(_close_all)
    _listen_to_ctrl_c()


def _close_all() -> None:
    """At exit: an open connection would print what nanobind leaks, or abort in 1.5."""
    for instance in list(_by_number.values()):
        instance.close()


def _stop_all() -> None:
    for instance in list(_by_number.values()):
        instance.runtime.stop()


def _listen_to_ctrl_c() -> None:
    """Stop scans at Ctrl-C too where they run on one of DuckDB's worker threads."""
    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous):
        return

    def stop_then(number: int, frame: FrameType | None) -> Any:  # noqa: ANN401
        _stop_all()
        if frame is not None and is_callback(frame.f_code):
            return None  # the scan ends by itself: "interrupted"
        return previous(number, frame)

    with contextlib.suppress(ValueError):  # not the main thread: Python forbids it
        signal.signal(signal.SIGINT, stop_then)
