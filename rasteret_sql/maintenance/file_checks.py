"""Whether files are still the ones whose headers are kept: one question per file."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import NamedTuple

from rasteret_sql.errors import (
    AccessDeniedError,
    InterruptedReadError,
    NotFoundError,
    RasteretError,
)
from rasteret_sql.remote.lanes import lanes
from rasteret_sql.remote.ranges import get_start, stat

_KEPT = 16384
_POLL_SECONDS = 0.1


class FileFacts(NamedTuple):
    """What the store says of a file now.

    Attributes:
        size: Bytes; None if it does not say.
        etag: The store's name of this version; None if it does not say.
        fault: Why it says nothing, None if it does.
        is_gone: Whether there is no such file.
    """

    size: int | None
    etag: str | None
    fault: str | None = None
    is_gone: bool = False

    def differs(self, size: int | None, etag: str | None) -> str | None:
        """In what it differs from what was kept; None where nothing tells.

        Example:
            >>> FileFacts(10, '"b"').differs(10, '"a"')
            'ETag "a" is now "b"'
        """
        if self.size is not None and size is not None and size != self.size:
            return f"size {size} is now {self.size}"
        if self.etag and etag and _plain(etag) != _plain(self.etag):
            return f"ETag {etag} is now {self.etag}"
        return None


class FileChecks:
    """Questions under way and answered, each distinct file once.

    Args:
        max_concurrent: Requests at once.
        stop: Ends the work with InterruptedReadError.

    Attributes:
        requests: Questions so far.
    """

    def __init__(self, max_concurrent: int, stop: threading.Event) -> None:
        self._pool = lanes(max_concurrent)
        self._stop = stop
        self._futures: dict[str, Future[FileFacts]] = {}
        self.requests = 0

    def start(self, hrefs: Iterable[str]) -> None:
        """Ask for these, unless they were asked for of late."""
        for href in hrefs:
            if href not in self._futures:
                self._futures[href] = self._pool.submit(self._ask, href)
                self.requests += 1

    def get(self, href: str) -> FileFacts:
        """The answer.

        Raises:
            InterruptedReadError: the caller stopped.
        """
        self.start([href])
        future = self._futures[href]
        while True:
            try:
                return future.result(_POLL_SECONDS)
            except TimeoutError:
                if self._stop.is_set():
                    self.cancel()
                    raise InterruptedReadError("interrupted") from None

    def forget(self) -> None:
        """Drop the oldest answers, so that memory is bounded."""
        for href in list(self._futures)[: max(0, len(self._futures) - _KEPT)]:
            if self._futures[href].done():
                del self._futures[href]

    def cancel(self) -> None:
        """Ask for nothing more."""
        left = [one for one in self._futures.values() if not one.cancel() and not one.done()]
        if left:  # some may hang
            self._pool.retire()

    def _ask(self, href: str) -> FileFacts:
        if self._stop.is_set():
            raise InterruptedReadError("interrupted")
        try:
            return FileFacts(*_facts(href))
        except NotFoundError as error:
            return FileFacts(None, None, error.message, is_gone=True)
        except RasteretError as error:
            return FileFacts(None, None, error.message)


def _facts(href: str) -> tuple[int | None, str | None]:
    """Size and ETag; a server that refuses HEAD, as for URLs signed for GET, gives a byte."""
    try:
        return stat(href)
    except (AccessDeniedError, NotFoundError):  # obstore takes 405 for 404
        start = get_start(href, 1)
        return start.size, start.etag


def _plain(etag: str) -> str:
    """Without the mark of a weak one, which servers put on what they compress."""
    return etag.removeprefix("W/")
