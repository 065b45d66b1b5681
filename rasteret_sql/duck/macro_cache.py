"""The macros as a DuckDB file in the user's cache, from which a connection copies them.

In a new process DuckDB 2.0 needs 70 ms of CPU to parse and create them, 6 ms to copy them. The
file is open only meanwhile, read-only, so that any number of processes can do it at once; what
a connection has is the same either way. It is named by DuckDB's version and what the SQL files
hold, and is put in its place when it is complete. Where it cannot be written, or a connection
must not open files, the statements are run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import duckdb

from rasteret_sql.duck import macros
from rasteret_sql.duck.names import CATALOG, quote_identifier, quote_text

_ATTACHED = "_rasteret_macros"
_KEPT_SECONDS = 30 * 24 * 3600
"""Files older than this are deleted when one is written: other versions' mostly."""


def load(
    con: duckdb.DuckDBPyConnection, create_udfs: Callable[[duckdb.DuckDBPyConnection], object]
) -> None:
    """Create the macros and their comments in the catalog `CATALOG`, which the connection uses.

    Args:
        con: A connection of an instance that has the UDFs.
        create_udfs: Register the UDFs in another instance, where the file is made; what is
            returned is kept as long as that is open. Macros bind when created.
    """
    path = _file()
    if not path.is_absolute():
        macros.load(con)
        return
    try:
        if not path.is_file():
            _write(path, create_udfs)
        _copy(con, path)
    except (OSError, duckdb.PermissionException):  # no such folder, or no access to files
        macros.load(con)
    except duckdb.Error:  # damaged: the next connection writes it again
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        macros.load(con)


@functools.cache
def _name() -> str:
    content = hashlib.sha256(macros.script().encode()).hexdigest()
    return f"macros-{duckdb.__version__}-{content[:16]}.duckdb"


def _file() -> Path:
    """In ``$XDG_CACHE_HOME`` or ``~/.cache``; relative where there is no home."""
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(folder)) / "rasteret_sql" / _name()  # noqa: PTH111 (never raises)


def _copy(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    con.execute(f"ATTACH {quote_text(str(path))} AS {_ATTACHED} (READ_ONLY)")
    try:
        con.execute(f"COPY FROM DATABASE {_ATTACHED} TO {quote_identifier(CATALOG)} (SCHEMA)")
    finally:
        con.execute(f"DETACH {_ATTACHED}")


def _write(path: Path, create_udfs: Callable[[duckdb.DuckDBPyConnection], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_old(path.parent)
    incomplete = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect(str(incomplete)) as con:
            udfs = create_udfs(con)
            macros.load(con)
            con.execute("CHECKPOINT")
        del udfs
        incomplete.replace(path)
    finally:
        for left in (incomplete, Path(f"{incomplete}.wal")):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _delete_old(folder: Path) -> None:
    before = time.time() - _KEPT_SECONDS
    for path in folder.glob("macros-*.duckdb*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
