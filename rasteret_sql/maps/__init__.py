"""A map of collections in the browser: ``rasteret-sql map``.

    rasteret-sql map s2
    open http://127.0.0.1:8765/?token=…

A page shows outlines of scenes, their pixels as tiles, values over time of a point or a
polygon, and the SQL behind each. It is served by this process to this machine, loads nothing
from elsewhere, and asks for the token in the address that is printed.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb

from rasteret_sql.duck.attached import attach_read_only, collections_in, give_plain_names
from rasteret_sql.duck.connection import connect, instance_of
from rasteret_sql.duck.names import quote_identifier
from rasteret_sql.errors import (
    InputError,
    RasteretError,
    RasteretWarning,
    UnknownCollectionError,
)
from rasteret_sql.maps.app import App
from rasteret_sql.maps.connections import Connections
from rasteret_sql.maps.server import LOCAL_NAMES, MapServer
from rasteret_sql.maps.sources import Source, source_of
from rasteret_sql.remote.waiting import until_signalled
from rasteret_sql.secrets import redact_words

__all__ = ["DEFAULT_PORT", "address_of", "serve_map", "serving"]

DEFAULT_PORT = 8765
_POLL_SECONDS = 0.25


def serve_map(
    collections: Sequence[str] = (),
    *,
    workspace: str | Path | None = None,
    database: str | Path = ":memory:",
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    needs_token: bool = True,
    time_limit_seconds: float = 60,
    allow_network: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM; prints the address to open when it listens.

    Args:
        collections: Names, tables, SELECT text, Parquet or rasters; none: all of the workspace
            and of the database.
        workspace: Folder of collections, as in `rasteret_sql.connect`.
        database: A DuckDB file, which is opened read-only. What it holds may be named with the
            file's name before it, and without.
        host: Name or address to listen on.
        port: TCP port; 0 for any that is free.
        needs_token: Ask for a token, made anew, which is part of the address printed.
        time_limit_seconds: Of one answer.
        allow_network: Permit a host other than this machine. There is no encryption: put a
            proxy with TLS in front.

    Raises:
        InputError: a host or port that does not do.
        UnknownCollectionError: no such collection, or none at all.
    """
    if host not in LOCAL_NAMES and not allow_network:
        raise InputError.expected(
            "host", "127.0.0.1", host, "allow_network (--allow-network) permits it"
        )
    con = connect(workspace=workspace, signals=False)
    try:
        if str(database) != ":memory:":
            _add_file(con, database)
        con.execute("SET enable_progress_bar = false")
        con.execute("SET threads = 1")  # tiles are small, and several are made at once
        tokens = [secrets.token_urlsafe(24)] if needs_token else []
        with (
            until_signalled() as stop,
            serving(
                con,
                collections,
                host=host,
                port=port,
                tokens=tokens,
                time_limit_seconds=time_limit_seconds,
                is_public=allow_network,
            ) as server,
        ):
            print(address_of(server, host, *tokens), flush=True)  # noqa: T201 (for whoever started it)
            while not stop.wait(_POLL_SECONDS):
                pass
    finally:
        con.close()


@contextmanager
def serving(
    con: duckdb.DuckDBPyConnection,
    collections: Sequence[str] = (),
    *,
    database: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Sequence[str],
    time_limit_seconds: float = 60,
    is_public: bool = False,
) -> Iterator[MapServer]:
    """Serve in threads of this process, while the with-block lasts.

    Args:
        con: A registered connection.
        collections: As in `serve_map`.
        database: Name of an attached one, whose collections are shown too where none is named.
        host: Address to listen on.
        port: 0 for any that is free.
        tokens: One of them a client must show; without any nothing is asked for.
        time_limit_seconds: Of one answer.
        is_public: Whether other machines may ask.
    """
    run = Connections(con, max(4, os.cpu_count() or 1), time_limit_seconds)
    found = [source_of(con, run, text) for text in collections] or _all(con, run, database)
    if not found:
        raise UnknownCollectionError.expected(
            "collection",
            "one or more",
            f"none in {instance_of(con).folder}",
            "build one, or name a table or another workspace",
        )
    sources: list[Source] = []
    for source in found:
        taken = {one.name for one in sources}
        numbered = (f"{source.name}_{number}" for number in range(2, len(found) + 2))
        name = next(one for one in (source.name, *numbered) if one not in taken)
        sources.append(replace(source, name=name))
    server = MapServer(
        App(run, {source.name: source for source in sources}),
        host,
        port,
        tokens=tokens,
        is_public=is_public,
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        with warnings.catch_warnings():
            # a tile beside all scenes is no surprise
            warnings.simplefilter("ignore", RasteretWarning)
            yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        run.stop()
        server.end_answers()


def _all(con: duckdb.DuckDBPyConnection, run: Connections, database: str | None) -> list[Source]:
    """Collections of the workspace, of the current database and of an attached one.

    Stderr tells of tables and views that can't be read; they are left out.
    """
    rows = con.sql("SELECT name FROM rasteret_collections() WHERE kind <> 'view' ORDER BY 1")
    kept = [name for (name,) in rows.fetchall()]
    found = [source_of(con, run, quote_identifier(name)) for name in kept]
    ((current,),) = con.sql("SELECT current_database()").fetchall()
    for place in dict.fromkeys((current, database or current)):
        for schema, name in collections_in(con, place):
            if schema == "main" and name in kept:
                continue  # the view of a collection of the workspace
            parts = [] if place == current else [place]
            parts += [] if place == current and schema == "main" else [schema]
            text = ".".join(map(quote_identifier, (*parts, name)))
            try:
                found.append(source_of(con, run, text))
            except (duckdb.Error, RasteretError) as error:
                line = redact_words(" ".join(str(error).split()))
                print(f"map: {text} is left out: {line}", file=sys.stderr, flush=True)  # noqa: T201
    return found


def _add_file(con: duckdb.DuckDBPyConnection, path: str | Path) -> None:
    """Attach a file, whose tables and views have plain names too.

    Raises:
        InputError: it is no DuckDB file that can be read.
    """
    try:
        name = attach_read_only(con, path)
    except duckdb.Error as error:
        first = redact_words(str(error).splitlines()[0])
        raise InputError.expected("database", "a DuckDB file", str(path), first) from error
    give_plain_names(con, name)


def address_of(server: MapServer, host: str, token: str = "") -> str:
    """The address to open."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.port}/" + (f"?token={token}" if token else "")
