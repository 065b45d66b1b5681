"""Serve the functions to plain DuckDB shells, over DuckDB's Quack extension.

Clients need no Python and no access to the imagery::

    ATTACH 'quack:localhost:9494' AS r (TOKEN '…');
    FROM r.query('SELECT … FROM rasteret_pixels(…)');

What a client may do is decided four times: Quack asks `Gate` about every statement, and
the engine asks it about query text inside arguments; the database file is attached
READ_ONLY to an in-memory one; DuckDB itself opens files of the workspace only; and the
reader opens only folders and servers where the collections' assets lie.
"""

from __future__ import annotations

import importlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from rasteret_sql import maps
from rasteret_sql.duck import functions as functions  # declares them
from rasteret_sql.duck import macros
from rasteret_sql.duck.attached import attach_read_only
from rasteret_sql.duck.connection import connect, instance_of
from rasteret_sql.duck.declarations import FUNCTIONS
from rasteret_sql.duck.names import quote_text
from rasteret_sql.duck.runtime import Runtime
from rasteret_sql.duck.scans import StopEvent
from rasteret_sql.errors import InputError, RasteretError
from rasteret_sql.remote.waiting import until_signalled
from rasteret_sql.serve.rules import Gate, Origins, confined, token_checker

DEFAULT_PORT = 9494
_LOCAL_HOSTS = ("localhost", "127.0.0.1")
_MIN_TOKEN = 8
_POLL_SECONDS = 0.25
_RELEASE_SECONDS = 10


def serve(
    database: str | Path | None = None,
    *,
    workspace: str | Path | None = None,
    host: str = "localhost",
    port: int = DEFAULT_PORT,
    tokens: Mapping[str, str] | None = None,
    time_limit_seconds: float | None = None,
    allow_network: bool = False,
    allow_building: bool = False,
    http_port: int | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; prints ``serving quack:host:port`` when it listens.

    Args:
        database: A DuckDB file, attached READ_ONLY under the file's name; default: none.
        workspace: Folder of collections, as in `rasteret_sql.connect`; each is a view.
        host: Name or address to listen on.
        port: TCP port; 0 for any that is free, which the line printed names.
        tokens: Token of each user, 8 characters or more; default: one for all, made anew
            and printed.
        time_limit_seconds: Stop scans that take longer; their error says so.
        allow_network: Permit a host other than this machine. There is no encryption: put
            a proxy with TLS in front.
        allow_building: Permit the functions that write the workspace. They fetch from
            anywhere, so readers are no longer held to the collections' own servers.
        http_port: Serve the map of `rasteret_sql.maps` on this port too, to the same users: of
            all collections of the workspace and the database;
            0 for any that is free.

    Raises:
        InputError: a host, port or token that does not do, or no such database.
        RasteretError: DuckDB's extension quack can't be loaded.
    """
    if host not in _LOCAL_HOSTS and not allow_network:
        raise InputError.expected(
            "host", "localhost", host, "allow_network (--allow-network) permits it"
        )
    if database is not None and not Path(database).is_file():
        raise InputError.expected("database", "a DuckDB file", str(database), "check the path")
    users = dict(tokens) if tokens else {"everyone": secrets.token_urlsafe(24)}
    for user, token in users.items():
        if len(token) < _MIN_TOKEN:
            raise InputError.expected(
                f"token of {user}", f"{_MIN_TOKEN} characters or more", len(token), "make it longer"
            )
    con = connect(workspace=workspace)
    try:
        name = None if database is None else attach_read_only(con, database)
        runtime = _prepare(con, list(users.values()), allow_building=allow_building)
        with (
            until_signalled() as stop,
            _listening(con, host, port, public=allow_network) as uri,
            ExitStack() as more,
        ):
            address = None
            if http_port is not None:
                found = maps.serving(
                    con,
                    host=host,
                    port=http_port,
                    database=name,
                    tokens=[*users.values()],
                    is_public=allow_network,
                )
                shown = () if tokens else (users["everyone"],)
                address = maps.address_of(more.enter_context(found), host, *shown)
            print(f"serving {uri}", flush=True)  # noqa: T201 (for whoever started it)
            if not tokens:
                print(f"token {users['everyone']}", flush=True)  # noqa: T201
            if address is not None:
                print(f"map {address}", flush=True)  # noqa: T201
            _wait(stop, runtime, time_limit_seconds)
            runtime.scans.stop()
    finally:
        instance = instance_of(con)
        instance.close()
        instance.runtime.sources.wait_until_released(_RELEASE_SECONDS)


def _prepare(
    con: duckdb.DuckDBPyConnection,
    tokens: list[str],
    *,
    allow_building: bool,
) -> Runtime:
    """Load Quack, put everything in its place, and lock it."""
    instance = instance_of(con)
    _load_extensions(con)
    with con.cursor() as cursor:
        macros.load(cursor)  # sessions of Quack see no TEMP macros
    runtime = instance.runtime
    gate = Gate(con)
    runtime.check_query = gate.check
    runtime.shares_warnings = False
    runtime.functions = {
        name: confined(function, may_build=allow_building) for name, function in FUNCTIONS.items()
    }
    if not allow_building:
        instance.stores.check = Origins(con).check
    for function, name in (
        (gate.authorize, "authorization"),
        (token_checker(tokens), "authentication"),
    ):
        n_parameters = 2 if name == "authorization" else 3
        udf = f"_rasteret_{name}"
        instance.udfs.append(function)
        con.create_function(udf, function, ["VARCHAR"] * n_parameters, "BOOLEAN", side_effects=True)
        con.execute(f"SET GLOBAL quack_{name}_function = '{udf}'")
    root = str(instance.workspace.root).rstrip("/") + "/"
    con.execute(f"SET allowed_directories = [{quote_text(root)}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET GLOBAL python_enable_replacements = false")
    con.execute("SET lock_configuration = true")
    return runtime


def _load_extensions(con: duckdb.DuckDBPyConnection) -> None:
    try:
        for name in ("httpfs", "quack"):
            _load_extension(con, name)
    except duckdb.Error as error:
        version = duckdb.__version__
        raise RasteretError(
            f"serve: expected DuckDB's extensions quack and httpfs, got none for DuckDB {version}; "
            f"pip install duckdb_extensions duckdb_extension_quack=={version} "
            f"duckdb_extension_httpfs=={version}, or let DuckDB INSTALL them from the network"
        ) from error


def _load_extension(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """From the Python package if it is there, else as DuckDB finds it."""
    try:
        importlib.import_module("duckdb_extensions").import_extension(name, con=con)
    except (ImportError, duckdb.Error):
        con.execute(f"INSTALL {name}")
    con.execute(f"LOAD {name}")


@contextmanager
def _listening(
    con: duckdb.DuckDBPyConnection, host: str, port: int, *, public: bool
) -> Iterator[str]:
    uri = f"quack:{host}:{_free_port(host, port)}"
    server_token = secrets.token_urlsafe(24)  # never told: `token_checker` alone decides
    con.execute(
        f"CALL quack_serve({quote_text(uri)}, token := '{server_token}', "
        f"allow_other_hostname := {public})"
    ).fetchall()
    try:
        yield uri
    finally:
        con.execute(f"FROM quack_stop({quote_text(uri)})").fetchall()


def _free_port(host: str, port: int) -> int:
    """The port, if nobody listens on it: Quack would share it. Any free one for 0."""
    try:
        with socket.create_server((host, port)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        got = error.strerror or str(error)
        raise InputError.expected("port", f"a free one, not {port}", got, "choose") from error


def _wait(stop: threading.Event, runtime: Runtime, time_limit_seconds: float | None) -> None:
    began: dict[StopEvent, float] = {}
    while not stop.wait(_POLL_SECONDS):
        if time_limit_seconds is None:
            continue
        now = time.monotonic()
        began = {scan: began.get(scan, now) for scan in runtime.scans.running()}
        for scan, start in began.items():
            if now - start > time_limit_seconds:
                scan.set_for(
                    f"stopped after {time_limit_seconds:g} seconds, the limit of this server; "
                    "read less at a time"
                )
