"""Fetch, decode, deliver: one queue for a whole call.

Work comes as *blocks*, in delivery order; each needs some *tiles*. Tiles that lie next to
each other in a file share one request. Requests run ahead of the consumer on the lanes,
decoding on a thread per core; the consumer gets each block with its arrays and does the
rest on its own thread. Two limits hold the read-ahead: bytes in flight (fetched or
decoded, not yet delivered), and requests, which start few and double with each delivery
so that a LIMIT costs little.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rasteret_sql.errors import InterruptedReadError, RasteretError
from rasteret_sql.reading.streams import FETCH_BYTES, BlockStream
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_range
from rasteret_sql.tiff.codecs import decode_block
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowAccess, row_access, row_bytes

BUDGET_BYTES = 256 * 1024 * 1024
_FIRST_REQUESTS = 32
_POLL_SECONDS = 0.1

T = TypeVar("T")
Pixels = NDArray[Any]


@dataclass(eq=False)
class Tile:
    """One block of a file, or a part of a large one, decoded once however many need it.

    Attributes:
        format: How to decode the block.
        rows: Rows that the block has (the last strip may be short).
        byte_offset: First byte of the block, in the file.
        byte_count: Bytes of the block; 0 is a sparse one, which is never requested.
        part_rows: Rows of the block that this tile may be asked for, at most.
        stream: What a part of a block is read from, where its rows come in order.
        users: Blocks of the whole run that still need it.
        first_row: Row of the block that ``pixels`` starts with; None before `need`.
        stop_row: Behind the last row that is needed; decoding may stop there.
        pixels: Array (rows, columns, samples), once done.
        error: Why there is none.
    """

    href: str
    byte_offset: int
    byte_count: int
    format: BlockFormat
    rows: int
    part_rows: int
    stream: BlockStream | None = None
    request: Request | None = None
    users: int = 0
    first_row: int | None = None
    stop_row: int = 0
    pixels: Pixels | None = None
    error: RasteretError | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def decoded_bytes(self) -> int:
        """Size of its array, at most."""
        return self.part_rows * row_size(self.format)

    def need(self, start: int, stop: int) -> None:
        """Ask for rows ``[start, stop)`` of the block; rows before are had only if they must."""
        if self.stream is None and row_access(self.format) is not RowAccess.ANY:
            start = 0
        self.first_row = start if self.first_row is None else min(self.first_row, start)
        self.stop_row = max(self.stop_row, stop)

    @property
    def byte_range(self) -> tuple[int, int]:
        """The bytes to fetch: of a block that is not compressed, those of the needed rows."""
        start, stop = self.byte_offset, self.byte_offset + self.byte_count
        if row_access(self.format) is not RowAccess.ANY:
            return start, stop
        first = min(start + (self.first_row or 0) * row_bytes(self.format), stop - 1)
        return first, min(stop, start + self.stop_row * row_bytes(self.format))


@dataclass(eq=False)
class Request:
    """Bytes ``[start, stop)`` of one file, and the tiles in them."""

    href: str
    start: int
    stop: int
    tiles: list[Tile]
    future: Future[Any] | None = None

    @property
    def cost(self) -> int:
        """Bytes that it may hold until its tiles are delivered."""
        is_stream = self.tiles[0].stream is not None
        fetched = min(self.stop - self.start, FETCH_BYTES) if is_stream else self.stop - self.start
        return fetched + sum(tile.decoded_bytes for tile in self.tiles)


@dataclass(eq=False)
class Block(Generic[T]):
    """What is delivered at once, and the tiles it needs."""

    tiles: Sequence[Tile]
    payload: T


class Reader:
    """Runs blocks through fetch and decode.

    Args:
        stop: Ends the run; checked at least every 0.1 s.
        n_lanes: Requests under way at once.
        budget_bytes: Bytes in flight.
    """

    def __init__(
        self, stop: threading.Event, *, n_lanes: int = 64, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self._stop = stop
        self._n_lanes = n_lanes
        self._fetchers = lanes(n_lanes)
        self._decoders = lanes(os.cpu_count() or 1)
        self._budget = budget_bytes
        self._in_flight = 0
        self._held: dict[int, int] = {}

    def run(self, blocks: Iterator[Block[T]]) -> Iterator[Block[T]]:
        """Yield the blocks in order, each when all its tiles are done.

        A tile that failed has `Tile.error` set; the consumer decides what that means.
        """
        waiting: deque[Block[T]] = deque()
        ahead = _FIRST_REQUESTS
        started: deque[Request] = deque()
        exhausted = False
        try:
            while True:
                while not exhausted and len(started) < ahead and self._has_room(waiting):
                    block = next(blocks, None)
                    if block is None:
                        exhausted = True
                        break
                    started.extend(self._start(block))
                    waiting.append(block)
                if not waiting:
                    return
                block = waiting.popleft()
                for tile in block.tiles:
                    self._wait(tile)
                yield block
                self._release(block)
                while started and started[0].future is not None and started[0].future.done():
                    started.popleft()
                ahead = min(2 * ahead, 2 * self._n_lanes)
        finally:
            for request in started:
                if request.future is not None:
                    request.future.cancel()

    def _has_room(self, waiting: deque[Block[T]]) -> bool:
        return self._in_flight < self._budget or not waiting

    def _start(self, block: Block[T]) -> list[Request]:
        started = []
        for tile in block.tiles:
            request = tile.request
            if request is None or request.future is not None:
                continue
            self._in_flight += request.cost
            self._held[id(request)] = len(request.tiles)
            request.future = self._submit(request)
            started.append(request)
        return started

    def _submit(self, request: Request) -> Future[Any]:
        tile = request.tiles[0]
        if tile.stream is not None:
            return tile.stream.submit(self._fetchers, lambda: self._decode(tile, None))
        return self._fetchers.submit(self._fetch, request)

    def _fetch(self, request: Request) -> None:
        try:
            self._check()
            data = memoryview(get_range(request.href, request.start, request.stop - request.start))
        except RasteretError as error:
            self._fail(request, error)
            return
        except Exception as error:  # noqa: BLE001 (must not leave the consumer waiting)
            self._fail(request, RasteretError(f"fetch: {type(error).__name__}: {error}"))
            return
        for tile in request.tiles:
            start, stop = tile.byte_range
            part = data[start - request.start : stop - request.start]
            self._decoders.submit(self._decode, tile, part)

    @staticmethod
    def _fail(request: Request, error: RasteretError) -> None:
        for tile in request.tiles:
            tile.error = error
            tile.done.set()

    def _decode(self, tile: Tile, data: memoryview | None) -> None:
        first, stop = tile.first_row or 0, tile.stop_row
        try:
            self._check()
            if data is None and tile.stream is not None:
                tile.pixels = tile.stream.rows(first, stop, self._check)
            else:
                tile.pixels = decode_block(
                    data or b"", tile.format, rows=tile.rows, needed_rows=stop - first
                )
        except RasteretError as error:
            tile.error = error
        except Exception as error:  # noqa: BLE001 (must not leave the consumer waiting)
            tile.error = RasteretError(f"decode: {type(error).__name__}: {error}")
        finally:
            tile.done.set()

    def _wait(self, tile: Tile) -> None:
        if tile.request is None:
            return
        while not tile.done.wait(_POLL_SECONDS):
            self._check()
        self._check()

    def _release(self, block: Block[T]) -> None:
        for tile in block.tiles:
            tile.users -= 1
            request = tile.request
            if tile.users or request is None or id(request) not in self._held:
                continue
            tile.pixels = None
            self._held[id(request)] -= 1
            if not self._held[id(request)]:
                del self._held[id(request)]
                self._in_flight -= request.cost

    def _check(self) -> None:
        if self._stop.is_set():
            raise InterruptedReadError("interrupted")


def row_size(block_format: BlockFormat) -> int:
    """Bytes of one decoded row."""
    return block_format.tile_width * block_format.samples * item_bytes(block_format)


def item_bytes(block_format: BlockFormat) -> int:
    """Bytes of one decoded sample."""
    complex_int = {"complex_int16": 8, "complex_int32": 16}
    return complex_int.get(block_format.dtype) or np.dtype(block_format.dtype).itemsize
