"""A sign of life on a terminal while a long call runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PERIOD_S = 0.2
_WHEEL = "|/-\\"
_CLEAR = "\r\x1b[K"


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show a text and the elapsed seconds on stderr; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_spin, args=(text, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _spin(text: str, done: threading.Event) -> None:
    began = time.monotonic()
    number = 0
    while not done.wait(_PERIOD_S):
        elapsed = time.monotonic() - began
        sys.stderr.write(f"{_CLEAR}{_WHEEL[number % len(_WHEEL)]} {text} {elapsed:.0f} s")
        sys.stderr.flush()
        number += 1
    if number:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
