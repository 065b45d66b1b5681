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
from collections.abc import Mapping, Sequence
from pathlib import Path

from rasteret_sql.remote.ranges import Start
from rasteret_sql.tiff.layout import Header

MAX_AGE_S = 6 * 3600
"""Older bytes are not trusted: the file may have changed since."""

Kept = tuple[Start, list[tuple[int, bytes]]]
"""First bytes of a file, and ``(offset, bytes)`` of what else its header took."""

_LEAST_START = 64
_TABLES = """
CREATE TABLE IF NOT EXISTS build (source BLOB);
CREATE TABLE IF NOT EXISTS headers (
    href BLOB PRIMARY KEY, at REAL, size INTEGER, etag TEXT, start BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pieces (
    href BLOB, number INTEGER, position INTEGER, bytes BLOB, PRIMARY KEY (href, number)
) WITHOUT ROWID;
"""
_CLEAR = "DELETE FROM build; DELETE FROM headers; DELETE FROM pieces;"


class HeaderJournal:
    """Headers by URL, on disk.

    A journal that can't be written or read is forgotten, never an error: it only saves work.

    Args:
        path: Of the file; made where missing.
        source: What is built; a journal of another source is started over.
    """

    def __init__(self, path: Path, source: Mapping[str, object]) -> None:
        self._path = path
        self._waiting: list[tuple[str, Kept]] = []
        self._con: sqlite3.Connection | None = None
        try:
            self._open(_key(json.dumps(source, sort_keys=True, default=str)))
        except (sqlite3.Error, OSError):
            self.remove()

    def find(self, hrefs: Sequence[str]) -> dict[str, Kept]:
        """The headers that are known, by href."""
        if self._con is None:
            return {}
        found: dict[str, Kept] = {}
        oldest = time.time() - MAX_AGE_S
        try:
            for href in hrefs:
                key = _key(href)
                row = self._con.execute(
                    "SELECT size, etag, start FROM headers WHERE href = ? AND at > ?", (key, oldest)
                ).fetchone()
                if row is None:
                    continue
                pieces = self._con.execute(
                    "SELECT position, bytes FROM pieces WHERE href = ? ORDER BY number", (key,)
                ).fetchall()
                found[href] = Start(data=row[2], size=row[0], etag=row[1]), pieces
        except sqlite3.Error:
            self.remove()
            return {}
        return found

    def add(self, href: str, header: Header, kept: Kept) -> None:
        """Remember the bytes of a header; `flush` writes them."""
        start, pieces = kept
        used = Start(start.data[: _header_stop(header)], start.size, start.etag)
        self._waiting.append((href, (used, pieces)))

    def flush(self) -> None:
        """Write what was added, in one transaction."""
        waiting, self._waiting = self._waiting, []
        if self._con is None or not waiting:
            return
        now = time.time()
        try:
            with self._con:
                self._con.executemany(
                    "INSERT OR REPLACE INTO headers VALUES (?, ?, ?, ?, ?)",
                    [(_key(h), now, s.size, s.etag, s.data) for h, (s, _) in waiting],
                )
                self._con.executemany(
                    "INSERT OR REPLACE INTO pieces VALUES (?, ?, ?, ?)",
                    [
                        (_key(h), number, *piece)
                        for h, (_, pieces) in waiting
                        for number, piece in enumerate(pieces)
                    ],
                )
        except sqlite3.Error:
            self.remove()

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

    def _open(self, source: bytes) -> None:
        # a stream's batches are asked for by several threads, one at a time
        self._con = sqlite3.connect(self._path, check_same_thread=False)
        self._con.execute("PRAGMA synchronous = OFF")  # a power cut may cost the journal
        self._con.executescript(_TABLES)
        if self._con.execute("SELECT source FROM build").fetchall() != [(source,)]:
            self._con.executescript(_CLEAR)
            with self._con:
                self._con.execute("INSERT INTO build VALUES (?)", (source,))


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
