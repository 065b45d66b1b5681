"""Header bytes of a build under way, so that one that was cut short goes on where it was.

What is kept are the bytes of each header as they came, before any of them is understood: a
build that resumes parses them anew. The file lies beside the versions of a collection and is
gone once the collection is whole.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rasteret_sql.remote.ranges import Start
from rasteret_sql.tiff.layout import Header

MAX_AGE_S = 6 * 3600
"""Older bytes are not trusted: the file may have changed since."""

StoredHeader = tuple[Start, list[tuple[int, bytes]]]
"""First bytes of a file, and ``(offset, bytes)`` of what else its header took."""

_LEAST_START = 64
_T = TypeVar("_T")
_TABLES = """
CREATE TABLE IF NOT EXISTS build (source BLOB);
CREATE TABLE IF NOT EXISTS headers (
    href BLOB PRIMARY KEY, at REAL, size INTEGER, etag TEXT, start BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pieces (
    href BLOB, number INTEGER, position INTEGER, bytes BLOB, PRIMARY KEY (href, number)
) WITHOUT ROWID;
"""
_FIND = "SELECT size, etag, start FROM headers WHERE href = ? AND at > ?"
_PIECES = "SELECT position, bytes FROM pieces WHERE href = ? ORDER BY number"
_CLEAR = "DELETE FROM build; DELETE FROM headers; DELETE FROM pieces;"


class HeaderJournal:
    """Headers by URL, on disk.

    A journal that can't be written or read is forgotten, never an error: it only saves work.
    The file is made when the first headers are written.

    Args:
        path: Of the file.
        source: What is built; a journal of another source is started over.
    """

    def __init__(self, path: Path, source: Mapping[str, object]) -> None:
        self._path = path
        self._source = _key(json.dumps(source, sort_keys=True, default=str))
        self._waiting: list[tuple[str, StoredHeader]] = []
        self._con: sqlite3.Connection | None = None
        self._is_broken = False
        if path.exists():
            self._try(sqlite3.Connection.commit)

    def find(self, hrefs: Sequence[str]) -> dict[str, StoredHeader]:
        """The headers that are known, by href."""
        if self._con is None:
            return {}
        oldest = time.time() - MAX_AGE_S

        def look(con: sqlite3.Connection) -> dict[str, StoredHeader]:
            found = {}
            for href in hrefs:
                key = _key(href)
                for size, etag, data in con.execute(_FIND, (key, oldest)):
                    found[href] = Start(data, size, etag), con.execute(_PIECES, (key,)).fetchall()
            return found

        return self._try(look) or {}

    def add(self, href: str, header: Header, kept: StoredHeader) -> None:
        """Remember the bytes of a header; `flush` writes them."""
        start, pieces = kept
        used = Start(start.data[: _header_stop(header)], start.size, start.etag)
        self._waiting.append((href, (used, pieces)))

    def flush(self) -> None:
        """Write what was added, in one transaction."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        now = time.time()

        def write(con: sqlite3.Connection) -> None:
            with con:
                con.executemany(
                    "INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?, ?)",
                    [(_key(h), now, s.size, s.etag, s.data) for h, (s, _) in waiting],
                )
                con.executemany(
                    "INSERT OR REPLACE INTO pieces VALUES (?, ?, ?, ?)",
                    [
                        (_key(h), number, *piece)
                        for h, (_, pieces) in waiting
                        for number, piece in enumerate(pieces)
                    ],
                )

        self._try(write)

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        if self._con is not None:
            self._con.close()
            self._con = None

    def remove(self) -> None:
        """Delete the file: the collection is whole, or the journal broken."""
        self._waiting.clear()
        if self._con is not None:
            self._con.close()
            self._con = None
        for suffix in ("", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _try(self, use: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Use the file; one that is broken is removed, and none is kept from then on."""
        if self._is_broken:
            return None
        try:
            if self._con is None:
                self._con = _opened(self._path, self._source)
            return use(self._con)
        except (sqlite3.Error, OSError):
            self._is_broken = True
            with suppress(OSError):
                self.remove()
            return None


def _opened(path: Path, source: bytes) -> sqlite3.Connection:
    # a stream's batches are asked for by several threads, one at a time
    con = sqlite3.connect(path, check_same_thread=False)
    con.execute("PRAGMA synchronous = OFF")  # a power cut may cost the journal
    con.executescript(_TABLES)
    if con.execute("SELECT source FROM build").fetchall() != [(source,)]:
        con.executescript(_CLEAR)
        with con:
            con.execute("INSERT INTO build VALUES (?)", (source,))
    return con


def _key(text: str) -> bytes:
    """What stands for a text on disk, where no secret may lie."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _header_stop(header: Header) -> int | None:
    """A byte up to which the header may lie: where the first tile starts.

    If the header goes on behind that, its bytes do not suffice, and are fetched again.
    """
    masks = [header.mask, *header.mask_overviews] if header.mask else []
    firsts = (
        int(level.tile_offsets[0])
        for level in [header.image, *header.overviews, *masks]
        if len(level.tile_offsets)
    )
    stop = min((first for first in firsts if first), default=None)
    return None if stop is None else max(stop, _LEAST_START)
