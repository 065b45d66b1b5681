"""Connections with the functions of rasteret_sql: `connect` and `register`.

UDFs live in the database instance. Macros live in an attached in-memory catalog named
``rasteret`` (nothing is written to the user's file), and as TEMP macros on each registered
connection, so that the plain names work after ``USE`` too. Neither is inherited, so the one
way to make another connection, ``DuckDBPyConnection.cursor`` (also named ``duplicate``), is
wrapped: a cursor gets the catalog in its search path, which takes 0.3 ms. TEMP macros take
0.3 ms each, as every statement of DuckDB's does, and no statement makes more than one.
``USE`` replaces the search path; `register` gives a cursor the TEMP macros too.

``interrupt``, ``close`` and ``__exit__`` are wrapped because only there can we learn which
connection wants its scans stopped. A connection that knows nothing of us is left as it is.

No connection and no interpreter goes while a thread runs our Python inside DuckDB: scans are
stopped and waited for first. Otherwise DuckDB 1.5 waits for ever with the GIL held, and
DuckDB 2.0 aborts the process (docs/upstream.md).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from rasteret_sql.collections.folders import collection_folders, workspace_folder
from rasteret_sql.duck import macro_cache, macros
from rasteret_sql.duck.names import CATALOG, quote_identifier, quote_text
from rasteret_sql.duck.udfs import UDFS, create_udf
from rasteret_sql.errors import NotRegisteredError, RasteretWarning, shorten

if TYPE_CHECKING:
    from rasteret_sql.collections.workspace import Workspace
    from rasteret_sql.duck.ctrl_c import CtrlC
    from rasteret_sql.duck.runtime import Runtime
    from rasteret_sql.remote.stores import Stores

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

    Args:
        workspace: Folder of collections; the default one where None.

    Attributes:
        folder: The same, absolute.
        signals: Whether SIGINT stops its scans.
        first_calls: Threads that import what they call, and call it, inside DuckDB.
    """

    def __init__(self, workspace: str | Path | None) -> None:
        self.folder = workspace_folder(workspace)
        self.signals = True
        self.first_calls: set[int] = set()
        self._engine: Runtime | None = None
        self._workspace: Workspace | None = None
        self._stores: Stores | None = None
        self._engine_lock = threading.Lock()
        self._stores_lock = threading.Lock()
        self.udfs: list[object] = []
        self._members: weakref.WeakKeyDictionary[Connection, str] = weakref.WeakKeyDictionary()
        self._with_macros: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._cursors: weakref.WeakKeyDictionary[Connection, weakref.WeakSet[Connection]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def runtime(self) -> Runtime:
        """The engine, made by the first call: what it imports takes longer than to connect."""
        if self._engine is None:
            from rasteret_sql.duck.runtime import Runtime

            with self._engine_lock:
                if self._engine is None:
                    self._engine = Runtime(self)
                    self._engine.scans.on_work = self._on_work
                    self._engine.scans.on_idle = self._on_idle
        return self._engine

    @property
    def workspace(self) -> Workspace:
        """Where collections are kept."""
        workspace = self._workspace
        if workspace is None:
            from rasteret_sql.collections.workspace import Workspace

            workspace = self._workspace = Workspace(self.folder)
        return workspace

    @property
    def stores(self) -> Stores:
        """How files are reached, and which may be."""
        if self._stores is None:
            from rasteret_sql.remote.stores import Stores

            with self._stores_lock:
                self._stores = self._stores or Stores()
        return self._stores

    def move_to(self, workspace: str | Path) -> None:
        """Have another folder of collections from now on."""
        self.folder = workspace_folder(workspace)
        self._workspace = None

    def has_collections(self) -> bool:
        """Whether there is a collection; none is read."""
        return bool(collection_folders(self.folder))

    def _on_work(self) -> None:
        if self.signals:
            _ctrl_c().enter()

    def _on_idle(self) -> None:
        if self.signals:
            _ctrl_c().leave()

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
        """Give a connection the plain function names, whatever it uses later."""
        if con in self._with_macros:
            return
        if con not in self._members:
            row = con.execute("SELECT current_connection_id()::VARCHAR").fetchall()[0]
            self._members[con] = row[0]
            _instances[con] = self
        for statement in macros.temp_statements():
            con.execute(statement)
        self._with_macros.add(con)

    def adopt_cursor(self, con: Connection) -> None:
        """Give a new connection the plain function names until it uses another schema."""
        number, database, schema = con.execute(
            "SELECT current_connection_id()::VARCHAR, current_database(), current_schema()"
        ).fetchall()[0]
        self._members[con] = number
        _instances[con] = self
        own = f"{quote_identifier(database)}.{quote_identifier(schema)}"
        try:
            con.execute(f"SET search_path = {quote_text(f'{own},{CATALOG}.main')}")
        except duckdb.InvalidInputException:  # settings are locked
            self.adopt(con)

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
        has_waited = self._wait_for_first_calls(numbers)
        if self._engine is None or not (has_waited or self._engine.scans.is_used_by(numbers)):
            return has_waited
        for number in numbers:
            self._engine.scans.stop(number)
        for member in family:
            with contextlib.suppress(duckdb.Error):  # closed already
                _interrupt(member)
        self._engine.scans.stop_and_wait(numbers, _CLOSE_SECONDS)
        return True

    def _wait_for_first_calls(self, numbers: Collection[str | None]) -> bool:
        """Wait until no other thread imports, inside DuckDB, what it calls; stop what it calls.

        Returns:
            Whether there was any.
        """
        deadline = time.monotonic() + _CLOSE_SECONDS
        has_waited = False
        while self.first_calls - {threading.get_ident()} and time.monotonic() < deadline:
            has_waited = True
            if self._engine is not None:
                for number in numbers:
                    self._engine.scans.stop(number)
            time.sleep(_RETRY_SECONDS)
        return has_waited

    def stop_scans(self, con: Connection | None = None) -> None:
        """Have the scans of a connection stop, or all of them."""
        if self._engine is not None:
            self._engine.scans.stop(None if con is None else self.id_of(con))

    @property
    def n_running(self) -> int:
        """Scans that have started and not ended."""
        return 0 if self._engine is None else self._engine.scans.n_running

    def close(self) -> None:
        """Stop all scans, let go of all sources, close all connections."""
        self._wait_for_first_calls([None])
        members = list(self._members)
        if self.n_running:
            self.stop_scans()
            for member in members:
                with contextlib.suppress(duckdb.Error):  # closed already
                    _interrupt(member)
        if self._engine is not None:
            self._engine.close()
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
    a table or view of that name. What DuckDB makes of the functions' SQL is kept for the next
    start in ``$XDG_CACHE_HOME`` or ``~/.cache``, as ``rasteret_sql/macros-*.duckdb`` (0.3 MB); it
    may be deleted, and nothing is kept where that cannot be written.

    Args:
        database: Path of a DuckDB file, or ``':memory:'``.
        workspace: Folder of collections; default ``$RASTERET_WORKSPACE``, else
            ``~/rasteret_workspace``. The first build makes it; until then a folder that is
            named here and not there is a `RasteretWarning`, as its name may be misspelt.
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
    if workspace is not None and not instance.folder.is_dir():
        warnings.warn(
            f"workspace: expected a folder, got {shorten(str(instance.folder))}, which is not "
            "there; check its name, or build a collection, which makes it",
            RasteretWarning,
            stacklevel=2,
        )
    if instance.has_collections():
        from rasteret_sql.duck.views import create_workspace_views

        with instance.stores.in_use():
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

    A cursor knows the plain names until it runs ``USE``; then write ``rasteret.rasteret_read``,
    or register the cursor too.

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
      read has ended. No other signal is handled. With it goes ``sys.excepthook``: a script that
      Ctrl-C ends shows KeyboardInterrupt, then what was there shows it.

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
    if is_changed and instance.has_collections():
        from rasteret_sql.datasets.registry import set_storage_defaults_of

        with instance.stores.in_use():
            set_storage_defaults_of(info.data_source for info in instance.workspace.collections())


def _resize_cache(tile_cache_bytes: int | None) -> None:
    if tile_cache_bytes is not None:
        from rasteret_sql.reading.tile_store import STORE

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
            instance = _install(con, workspace)
        elif workspace is not None:
            instance.move_to(workspace)
        instance.signals = signals
        instance.adopt(con)
    if "ipykernel" in sys.modules:
        from rasteret_sql.progress.display import shown_in_notebooks

        shown_in_notebooks()
    return instance, is_changed


def _instance_of(con: Connection) -> Instance | None:
    """Another connection of this database may have been registered."""
    try:
        number = con.execute(f"SELECT {CATALOG}.main.{_NUMBER}()").fetchall()[0][0]
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
    return _by_number.get(number)


def _install(con: Connection, workspace: str | Path | None) -> Instance:
    instance = Instance(workspace)
    with _new_cursor(con) as cursor:
        instance.udfs = _create_udfs(cursor, instance)
        number = f"{id(instance):x}"
        catalog = quote_identifier(CATALOG)
        cursor.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {catalog} (READ_WRITE)")
        cursor.execute(f"USE {catalog}")
        macro_cache.load(cursor, lambda con: _create_udfs(con, instance))
        cursor.execute(f"CREATE OR REPLACE MACRO {_NUMBER}() AS '{number}'")
    _by_number[number] = instance
    return instance


def _create_udfs(con: Connection, instance: Instance) -> list[object]:
    """Register the UDFs; DuckDB only borrows what is returned."""
    return [create_udf(con, udf, instance) for udf in UDFS]


@functools.cache
def _wrap_duckdb() -> None:
    @functools.wraps(_new_cursor)
    def cursor(self: Connection) -> Connection:
        child = _new_cursor(self)
        instance = _instances.get(self)
        if instance is not None:
            instance.adopt_cursor(child)
            instance.is_parent_of(self, child)
        return child

    @functools.wraps(_interrupt)
    def interrupt(self: Connection) -> None:
        instance = _instances.get(self)
        if instance is not None:
            instance.stop_scans(self)
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
    if _ctrl_c.cache_info().currsize:
        _ctrl_c().finish()


def _stop_all() -> None:
    for instance in list(_by_number.values()):
        if instance.signals:
            instance.stop_scans()


def _is_busy() -> bool:
    return any(instance.n_running for instance in list(_by_number.values()))


@functools.cache
def _ctrl_c() -> CtrlC:
    """The handler of the process; the engine's part of the package is imported by now."""
    from rasteret_sql.duck.ctrl_c import CtrlC

    return CtrlC(_stop_all, _is_busy)
