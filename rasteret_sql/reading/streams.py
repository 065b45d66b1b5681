"""Large blocks whose rows come in order: fetched and decoded part by part.

The parts of a block follow one another, so one thread at a time works on a block; each
part costs the bytes up to its last row, and what came before is kept nowhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from rasteret_sql.remote.ranges import get_range
from rasteret_sql.tiff.inflate import Bytes
from rasteret_sql.tiff.layout import BlockFormat
from rasteret_sql.tiff.rows import RowStream

_FIRST_FETCH = 256 * 1024
_LARGEST_FETCH = 8 * 1024 * 1024

FETCH_BYTES = _LARGEST_FETCH
"""What a block holds at most besides the rows that are wanted."""


class BlockStream:
    """The rows of one block, in order.

    Args:
        href: File.
        start: First byte of the block.
        stop: Behind its last byte.
        block_format: Format of the block.
    """

    def __init__(self, href: str, start: int, stop: int, block_format: BlockFormat) -> None:
        self._href = href
        self._start, self._stop = start, stop
        self._format = block_format
        self._jobs: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._is_busy = False
        self._check: Callable[[], None] = lambda: None
        self._rewind()

    def submit(self, post: Callable[[Callable[[], None]], None], job: Callable[[], None]) -> None:
        """Run jobs in the order they came, one at a time; ``post`` gives one to a thread."""
        with self._lock:
            self._jobs.append(job)
            if not self._is_busy:
                self._is_busy = True
                post(self._work)

    def rows(self, first: int, stop: int, check: Callable[[], None]) -> NDArray[Any]:
        """Rows ``[first, stop)`` of the block; called from a job.

        Rows that have passed already start the block again. ``check`` is called before each
        request and ends the read by raising.

        Raises:
            DecodeError: if the bytes are cut off or corrupt.
            ReadError: if they did not come.
        """
        self._check = check
        if first < self._rows.position:
            self._rewind()
        return self._rows.rows(first, stop)

    def _rewind(self) -> None:
        self._position, self._next_fetch = self._start, _FIRST_FETCH
        self._rows = RowStream(self._format, self._feed)

    def _feed(self) -> Bytes:
        length = min(self._next_fetch, self._stop - self._position)
        if length <= 0:
            return b""
        self._check()
        data = memoryview(get_range(self._href, self._position, length))
        self._position += length
        self._next_fetch = min(2 * self._next_fetch, _LARGEST_FETCH)
        return data

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_busy = False
                    return
                job = self._jobs.popleft()
            job()
