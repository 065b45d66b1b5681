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
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb

from rasteret_sql.duck.connection import connect
from rasteret_sql.errors import InputError, RasteretWarning, UnknownCollectionError
from rasteret_sql.maps.app import App
from rasteret_sql.maps.connections import Connections
from rasteret_sql.maps.server import LOCAL_NAMES, MapServer
from rasteret_sql.maps.sources import Source, source_of
from rasteret_sql.remote.waiting import until_signalled

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
        collections: Names, tables, SELECT text, Parquet or rasters; none: all of the workspace.
        workspace: Folder of collections, as in `rasteret_sql.connect`.
        database: A DuckDB file, which is opened read-only.
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
    is_file = str(database) != ":memory:"
    con = connect(database, workspace, read_only=is_file, signals=False)
    try:
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
        host: Address to listen on.
        port: 0 for any that is free.
        tokens: One of them a client must show; without any nothing is asked for.
        time_limit_seconds: Of one answer.
        is_public: Whether other machines may ask.
    """
    run = Connections(con, max(4, os.cpu_count() or 1), time_limit_seconds)
    names = list(collections) or [
        f'"{name}"' if not name.isidentifier() else name
        for (name,) in con.sql("SELECT name FROM rasteret_collections() ORDER BY 1").fetchall()
    ]
    if not names:
        raise UnknownCollectionError.expected(
            "collection", "one or more", "none in the workspace", "build one, or name a table"
        )
    sources: list[Source] = []
    for text in names:
        source, taken = source_of(con, run, text), {one.name for one in sources}
        numbered = (f"{source.name}_{number}" for number in range(2, len(names) + 2))
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


def address_of(server: MapServer, host: str, token: str = "") -> str:
    """The address to open."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.port}/" + (f"?token={token}" if token else "")
