"""What a long call is at, on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rasteret_sql.ingest import progress
from rasteret_sql.ingest.progress import Progress

_PERIOD_S = 0.2
_WHEEL = "|/-\\"
_CLEAR = "\r\x1b[K"
_BAR_WIDTH = 20


@contextmanager
def shown(text: str) -> Iterator[None]:
    """Show a text and how far the work is on stderr; nothing where that is no terminal.

    A build lists its records, then reads headers with a bar, then writes its files.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(text, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show(text: str, done: threading.Event) -> None:
    began = time.monotonic()
    number = 0
    while not done.wait(_PERIOD_S):
        elapsed = time.monotonic() - began
        running = progress.running()
        state = line(running[-1]) if running else ""
        wheel = _WHEEL[number % len(_WHEEL)]
        sys.stderr.write(f"{_CLEAR}{wheel} {text}{state} {elapsed:.0f} s")
        sys.stderr.flush()
        number += 1
    if number:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def line(build: Progress) -> str:
    """How far a build is.

    Example:
        >>> build = Progress("s2")
        >>> build.counts.update({"records listed": 4000, "records done": 1000, "headers": 2990})
        >>> line(build)
        ': [#####---------------] 1,000 of 4,000 records, 2,990 headers'
    """
    listed, done = build.counts["records listed"], build.counts["records done"]
    if not done:
        return f": {listed:,} records listed" if listed else ""
    filled = min(_BAR_WIDTH, _BAR_WIDTH * done // max(listed, 1))
    bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
    unread = build.counts["unreadable"]
    odd = f", {unread:,} unreadable" if unread else ""
    return f": [{bar}] {done:,} of {listed:,} records, {build.counts['headers']:,} headers{odd}"
