"""Headers of many files: fetched side by side, parsed one after another, each URL once.

Requests wait on lanes, some hundred threads. Parsing holds the interpreter, so it is done by
one thread: that keeps its caches warm and leaves the lanes to waiting, which is faster than
parsing where the bytes came in (benchmarks/header_rate.py).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from rasteret_sql.errors import InterruptedReadError
from rasteret_sql.records.header_journal import HeaderJournal
from rasteret_sql.remote.headers import (
    AssetHeader,
    MoreBytesNeeded,
    continue_header,
    parse_asset,
)
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import Start, get_start

_POLL_SECONDS = 0.1
_KEPT_BYTES = 64 << 20
_HEADER_BYTES = 4096
_TILE_BYTES = 24

_Pieces = list[tuple[int, bytes]]


class _Slot:
    """Where a header will be: None until it has come, or why it has not."""

    __slots__ = ("href", "outcome")

    def __init__(self, href: str) -> None:
        self.href = href
        self.outcome: AssetHeader | BaseException | None = None


class Headers:
    """Headers under way and done.

    Args:
        n_lanes: Requests under way at once.
        stop: Ends the work with InterruptedReadError.
        journal: Has headers of an earlier build that was cut short, and gets the new ones.
    """

    def __init__(
        self, n_lanes: int, stop: threading.Event, journal: HeaderJournal | None = None
    ) -> None:
        self._lanes = lanes(n_lanes)
        self._parser = lanes(1, "parser")
        self._stop = stop
        self._journal = journal
        self._slots: dict[str, _Slot] = {}
        self._awaited: _Slot | None = None
        self._has_come = threading.Event()
        self._used: dict[str, int] = {}
        self._used_bytes = 0

    def start(self, hrefs: Sequence[str]) -> None:
        """Begin to read the headers that are not under way or known; an href may come again."""
        new = [href for href in dict.fromkeys(hrefs) if href not in self._slots]
        known = self._journal.find(new) if self._journal else {}
        for href in new:
            slot = self._slots[href] = _Slot(href)
            if href in known:
                self._parser.post(partial(self._replay, slot, *known[href]))
            else:
                self._lanes.post(partial(self._fetch, slot))

    def wait(self, hrefs: Sequence[str]) -> None:
        """Wait for headers that were started.

        Raises:
            InterruptedReadError: the stop event was set.
        """
        for href in reversed(hrefs):  # they come about in order: after the last, few are left
            slot = self._slots[href]
            while slot.outcome is None:
                if self._stop.is_set():
                    raise InterruptedReadError("interrupted")
                self._has_come.clear()
                self._awaited = slot
                if slot.outcome is None:
                    self._has_come.wait(_POLL_SECONDS)
                self._flush()

    def get(self, href: str) -> AssetHeader:
        """Return a header that `wait` waited for.

        Raises:
            ReadError: the bytes did not come.
            HeaderError: they are no TIFF that we read.
            InterruptedReadError: the stop event was set.
        """
        outcome = self._slots[href].outcome
        if isinstance(outcome, AssetHeader):
            return outcome
        raise outcome or InterruptedReadError("interrupted")

    def release(self, hrefs: Sequence[str]) -> int:
        """Say that headers were used: the latest stay, as far as their tile tables are small.

        Returns:
            How many requests those took that were not used before.
        """
        n_requests = 0
        for href in hrefs:
            outcome = self._slots[href].outcome
            if href not in self._used:
                n_requests += outcome.requests if isinstance(outcome, AssetHeader) else 1
            else:
                self._used_bytes -= self._used.pop(href)
            self._used[href] = _size_bytes(outcome)
            self._used_bytes += self._used[href]
        while self._used_bytes > _KEPT_BYTES:
            oldest = next(iter(self._used))
            self._used_bytes -= self._used.pop(oldest)
            del self._slots[oldest]
        self._flush()
        return n_requests

    def _flush(self) -> None:
        if self._journal is not None:
            self._journal.flush()

    def _tell(self, slot: _Slot, outcome: AssetHeader | BaseException) -> None:
        slot.outcome = outcome
        if self._awaited is slot:
            self._has_come.set()

    def _fetch(self, slot: _Slot) -> None:
        """On a lane: one request, in most cases all there is to do."""
        if self._stop.is_set():
            self._tell(slot, InterruptedReadError("interrupted"))
            return
        try:
            start = get_start(slot.href)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for it
            self._tell(slot, error)
        else:
            self._parser.post(partial(self._parse, slot, start))

    def _parse(self, slot: _Slot, start: Start) -> None:
        """On the parser's thread; a header that goes on beyond its start goes back to a lane."""
        try:
            asset = parse_asset(start)
        except MoreBytesNeeded:
            self._lanes.post(partial(self._continue, slot, start))
        except BaseException as error:  # noqa: BLE001
            self._tell(slot, error)
        else:
            self._keep(slot, asset, start, [])

    def _continue(self, slot: _Slot, start: Start) -> None:
        try:
            asset, pieces = continue_header(slot.href, start)
        except BaseException as error:  # noqa: BLE001
            self._tell(slot, error)
        else:
            self._keep(slot, asset, start, pieces)

    def _keep(self, slot: _Slot, asset: AssetHeader, start: Start, pieces: _Pieces) -> None:
        if self._journal is not None:
            self._journal.add(slot.href, asset.header, (start, pieces))
        self._tell(slot, asset)

    def _replay(self, slot: _Slot, start: Start, pieces: _Pieces) -> None:
        """On the parser's thread, from the journal's bytes."""
        try:
            header = parse_asset(start, pieces).header
        except BaseException:  # noqa: BLE001 - then it is read as if nothing was known
            self._lanes.post(partial(self._fetch, slot))
        else:
            self._tell(slot, AssetHeader(header, start.size, start.etag, requests=0))


def _size_bytes(outcome: AssetHeader | BaseException | None) -> int:
    """About how much memory a header that has come holds."""
    if not isinstance(outcome, AssetHeader):
        return _HEADER_BYTES
    return _HEADER_BYTES + _TILE_BYTES * len(outcome.header.image.tile_offsets)
