"""Headers of many files: fetched side by side, parsed one after another, each URL once.

Requests wait on lanes, some hundred threads. Parsing holds the interpreter, so one thread does
it, the one that wants the headers: lanes only leave what came. A lane that parsed, or woke a
parser, would make all others wait for the interpreter (benchmarks/header_rate.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue

from rasteret_sql.errors import InterruptedReadError, RasteretError
from rasteret_sql.ingest.header_journal import HeaderJournal
from rasteret_sql.remote.headers import (
    AssetHeader,
    MoreBytesNeeded,
    continue_header,
    parse_asset,
)
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import Start, get_start

_POLL_SECONDS = 0.1
_FLUSH_SECONDS = 0.05
_KEPT_BYTES = 8 << 20
_HEADER_BYTES = 4096
_TILE_BYTES = 24

_Pieces = list[tuple[int, bytes]]
_Arrival = Start | BaseException | tuple[Start, _Pieces] | tuple[AssetHeader, Start, _Pieces]
"""The first bytes, why they have not come, a journal's bytes, or a header of several requests."""


class _Slot:
    """Where a header will be: None until it has come, or why it has not."""

    __slots__ = ("href", "outcome")

    def __init__(self, href: str) -> None:
        self.href = href
        self.outcome: AssetHeader | BaseException | None = None


class Headers:
    """Headers under way and done.

    Args:
        max_concurrent: Requests under way at once.
        stop: Ends the work with InterruptedReadError.
        journal: Has headers of an earlier build that was cut short, and gets the new ones.
        kept_bytes: About how much memory the headers take that stay after `release`.
    """

    def __init__(
        self,
        max_concurrent: int,
        stop: threading.Event,
        journal: HeaderJournal | None = None,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._lanes = lanes(max_concurrent)
        self._stop = stop
        self._journal = journal
        self._slots: dict[str, _Slot] = {}
        self._arrived: SimpleQueue[tuple[_Slot, _Arrival]] = SimpleQueue()
        self._used: dict[str, int] = {}
        self._used_bytes = 0
        self._kept_bytes = kept_bytes
        self._flushed = time.monotonic()

    def continued(self, stop: threading.Event) -> Headers:
        """The same headers under another stop event; nothing may be under way."""
        self._stop = stop
        return self

    def has_all(self, hrefs: Sequence[str]) -> bool:
        """Whether all of these were started and are still there."""
        return all(href in self._slots for href in hrefs)

    def failure(self, href: str) -> RasteretError | None:
        """Why a header that was waited for has not come; None if it has, or no one knows."""
        slot = self._slots.get(href)
        outcome = None if slot is None else slot.outcome
        return outcome if isinstance(outcome, RasteretError) else None

    def start(self, hrefs: Sequence[str]) -> None:
        """Begin to read the headers that are not under way or known; an href may come again."""
        new = [href for href in dict.fromkeys(hrefs) if href not in self._slots]
        known = self._journal.find(new) if self._journal else {}
        for href in new:
            slot = self._slots[href] = _Slot(href)
            if href in known:
                self._arrived.put((slot, known[href]))
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
                    self._lanes.retire()  # some of them may hang, and hold up the next build
                    raise InterruptedReadError("interrupted")
                self._take_next()
                self._flush_at_times()

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
        while self._used_bytes > self._kept_bytes:
            oldest = next(iter(self._used))
            self._used_bytes -= self._used.pop(oldest)
            del self._slots[oldest]
        self._flush_at_times()
        return n_requests

    def _flush_at_times(self) -> None:
        """Hand what came to the journal; a build that is killed loses a twentieth of a second."""
        if self._journal is None:
            return
        now = time.monotonic()
        if now - self._flushed > _FLUSH_SECONDS:
            self._journal.flush()
            self._flushed = now

    def _fetch(self, slot: _Slot) -> None:
        """On a lane: one request, in most cases all there is to do."""
        if self._stop.is_set():
            self._arrived.put((slot, InterruptedReadError("interrupted")))
            return
        try:
            self._arrived.put((slot, get_start(slot.href)))
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for it
            self._arrived.put((slot, error))

    def _continue(self, slot: _Slot, start: Start) -> None:
        """On a lane: the requests of a header that goes on beyond its start."""
        try:
            self._arrived.put((slot, continue_header(slot.href, start)))
        except BaseException as error:  # noqa: BLE001
            self._arrived.put((slot, error))

    def _take_next(self) -> None:
        """Take what arrived first; wait a moment if nothing has."""
        try:
            arrived = self._arrived.get_nowait()
        except Empty:
            try:
                arrived = self._arrived.get(timeout=_POLL_SECONDS)
            except Empty:
                return
        self._take(*arrived)

    def _take(self, slot: _Slot, arrival: _Arrival) -> None:
        """Parse what arrived, or have the rest of it fetched."""
        if isinstance(arrival, BaseException):
            slot.outcome = arrival
        elif isinstance(arrival, Start):
            self._parse(slot, arrival)
        elif isinstance(arrival[0], AssetHeader):
            asset, start, pieces = arrival
            self._keep(slot, asset, start, pieces)
        else:
            self._replay(slot, *arrival)

    def _parse(self, slot: _Slot, start: Start) -> None:
        try:
            asset = parse_asset(start)
        except MoreBytesNeeded:
            self._lanes.post(partial(self._continue, slot, start))
        except RasteretError as error:
            slot.outcome = error
        else:
            self._keep(slot, asset, start, [])

    def _keep(self, slot: _Slot, asset: AssetHeader, start: Start, pieces: _Pieces) -> None:
        if self._journal is not None:
            self._journal.add(slot.href, asset.header, (start, pieces))
        slot.outcome = asset

    def _replay(self, slot: _Slot, start: Start, pieces: _Pieces) -> None:
        """Parse the journal's bytes; if they do not do, read as if nothing was known."""
        try:
            header = parse_asset(start, pieces).header
        except (RasteretError, MoreBytesNeeded):
            self._lanes.post(partial(self._fetch, slot))
        else:
            slot.outcome = AssetHeader(header, start.size, start.etag, requests=0)


def _size_bytes(outcome: AssetHeader | BaseException | None) -> int:
    """About how much memory a header that has come holds."""
    if not isinstance(outcome, AssetHeader):
        return _HEADER_BYTES
    return _HEADER_BYTES + _TILE_BYTES * len(outcome.header.image.tile_offsets)
