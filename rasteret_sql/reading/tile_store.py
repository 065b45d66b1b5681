"""Tiles of the whole process: what is being decoded, and what was decoded and may be used again.

A tile that one statement decodes is not decoded by another at the same time: that one waits
for it. Decoded tiles are kept while memory allows, but only those of a known version of a
file: a file that changes must not be answered from memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from rasteret_sql.errors import RasteretError
from rasteret_sql.reading.streams import BlockStream
from rasteret_sql.tiff.layout import BlockFormat

Pixels = NDArray[Any]

BUDGET_BYTES = 256 * 1024 * 1024
"""What reads hold at once: bytes that were fetched or decoded and are not yet delivered."""
DEFAULT_CACHE_BYTES = 256 * 1024 * 1024


class TileKey(NamedTuple):
    """What tells a decoded tile from all others.

    Attributes:
        href: The file.
        version: ETag or size of the file.
        byte_offset: First byte of the block.
        byte_count: Its bytes.
        part: Part of a large block.
        format: How it is decoded.
        access: Who may see it: `remote.stores.access_to`.
    """

    href: str
    version: str
    byte_offset: int
    byte_count: int
    part: int
    format: BlockFormat
    access: object = None


@dataclass(eq=False, slots=True)
class Tile:
    """One block of a file, or a part of a large one, decoded once however many need it.

    Attributes:
        key: None where the version of the file is not known.
        format: How to decode the block.
        rows: Rows that the block has (the last strip may be short).
        first_row: Row of the block that ``pixels`` starts with: the first that is needed.
        stop_row: Behind the last row that is needed; decoding may stop there.
        fetch_start: First byte that is requested.
        fetch_stop: Behind the last one.
        block: First byte of the block, and behind its last.
        cost: Bytes that it holds until nobody needs it.
        number: Of the group that needs it first; lower ones are fetched and decoded before.
        stream: What a part of a block is read from, where its rows come in order.
        users: Groups of units that still need it.
        waiting: What is told when it is done.
        pixels: Array (rows, columns, samples), once done.
        error: Why there is none.
    """

    href: str
    key: TileKey | None
    format: BlockFormat
    rows: int
    first_row: int
    stop_row: int
    fetch_start: int
    fetch_stop: int
    block: tuple[int, int]
    cost: int
    request: int
    number: int = 0
    stream: BlockStream | None = None
    users: int = 0
    waiting: list[Any] = field(default_factory=list)
    pixels: Pixels | None = None
    error: RasteretError | None = None
    is_done: bool = False
    is_started: bool = False


class CacheStats(NamedTuple):
    """How the cache did since the process began.

    Attributes:
        capacity_bytes: What it may hold.
        used_bytes: What it holds.
        tiles: Tiles in it.
        hits: Tiles that were found.
        misses: Tiles of a known version that were not.
        evictions: Tiles that had to go.
    """

    capacity_bytes: int
    used_bytes: int
    tiles: int
    hits: int
    misses: int
    evictions: int


class TileStore:
    """Decoded tiles, at most once in work and for a while in memory; thread-safe.

    Args:
        capacity_bytes: Of tiles that nobody needs at the moment. Reads that are under way
            take from it: both together stay below `BUDGET_BYTES` where they can.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._capacity = capacity_bytes
        self._kept: OrderedDict[TileKey, tuple[int, Pixels]] = OrderedDict()
        self._used = self._in_flight = 0
        self._hits = self._misses = self._evictions = 0
        self._in_work: dict[TileKey, list[Callable[[Pixels | None, int], None]]] = {}
        self._lock = threading.Lock()

    def start_over(self) -> None:
        """Forget what was under way, in a process that was forked."""
        self._lock = threading.Lock()
        self._in_work.clear()
        self._in_flight = 0

    def resize(self, capacity_bytes: int) -> None:
        """Keep at most so many bytes from now on."""
        with self._lock:
            self._capacity = capacity_bytes
            self._evict()

    def clear(self) -> None:
        """Let go of all tiles."""
        with self._lock:
            self._kept.clear()
            self._used = 0

    def stats(self) -> CacheStats:
        """Size and counters."""
        with self._lock:
            return CacheStats(
                self._capacity,
                self._used,
                len(self._kept),
                self._hits,
                self._misses,
                self._evictions,
            )

    def find(self, key: TileKey, first_row: int, stop_row: int) -> tuple[int, Pixels] | None:
        """A kept tile that holds some rows, and the row that it starts with."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or not _holds(*kept, first_row, stop_row):
                self._misses += 1
                return None
            self._kept.move_to_end(key)
            self._hits += 1
            return kept

    def has(self, key: TileKey) -> bool:
        """Whether some rows of a tile are kept."""
        with self._lock:
            return key in self._kept

    def begin(self, key: TileKey, when_done: Callable[[Pixels | None, int], None]) -> bool:
        """Say that a tile will be decoded.

        Args:
            key: Of the tile.
            when_done: Called with the pixels and their first row, None where that failed, if
                somebody else is at it.

        Returns:
            Whether the caller is to do it, and to call `finish` then.
        """
        with self._lock:
            waiting = self._in_work.get(key)
            if waiting is None:
                self._in_work[key] = []
                return True
            waiting.append(when_done)
            return False

    def finish(self, key: TileKey, pixels: Pixels | None, first_row: int) -> None:
        """Hand a tile that was begun to those who wait for it."""
        with self._lock:
            waiting = self._in_work.pop(key, [])
        for tell in waiting:
            tell(pixels, first_row)

    def keep(self, key: TileKey, pixels: Pixels, first_row: int) -> None:
        """Keep a tile while there is room; of two versions the one with more rows."""
        size = _size(pixels)
        with self._lock:
            if size > self._capacity // 4:
                return
            kept = self._kept.pop(key, None)
            if kept is not None:
                self._used -= _size(kept[1])
                if _holds(*kept, first_row, first_row + len(pixels)):
                    first_row, pixels = kept
            self._kept[key] = first_row, pixels
            self._used += _size(pixels)
            self._evict()

    def reserve(self, n_bytes: int) -> None:
        """Say what a read takes, or with a negative number gives back."""
        with self._lock:
            self._in_flight += n_bytes
            if n_bytes > 0:
                self._evict()

    def _evict(self) -> None:
        room = max(0, min(self._capacity, BUDGET_BYTES - self._in_flight))
        while self._used > room and self._kept:
            _, (_, pixels) = self._kept.popitem(last=False)
            self._used -= _size(pixels)
            self._evictions += 1


def _size(pixels: Pixels) -> int:
    """Bytes that an array keeps in memory: a view keeps all of what it looks into."""
    return int(getattr(pixels.base, "nbytes", pixels.nbytes))


def _holds(first: int, pixels: Pixels, wanted_first: int, wanted_stop: int) -> bool:
    return first <= wanted_first and wanted_stop <= first + len(pixels)


STORE = TileStore()
"""The store of this process."""
