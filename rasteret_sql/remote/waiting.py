"""Waits that end when the caller stops: for a request, for a lane, for a moment.

Whoever works for a statement says so with `listening`; every wait below it on that thread then
looks at the stop event some ten times a second. A request that is left goes on, on its lane,
until its own limits end it; nobody waits for it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from rasteret_sql.errors import InterruptedReadError
from rasteret_sql.remote.lanes import Lanes, lanes

_POLL_S = 0.1
_N_LANES = 4096
"""Threads are started when none is idle: requests that were left must not hold up new ones."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Heard(threading.local):
    """The stop events that this thread listens to."""

    events: tuple[threading.Event, ...] = ()


_heard = _Heard()


@contextmanager
def listening(stop: threading.Event) -> Iterator[None]:
    """Have the waits inside, on this thread, end with `InterruptedReadError` once it is set.

    Example:
        >>> stop = threading.Event()
        >>> stop.set()
        >>> with listening(stop):
        ...     pause(60)
        Traceback (most recent call last):
        rasteret_sql.errors.InterruptedReadError: interrupted
    """
    before = _heard.events
    _heard.events = (*before, stop)
    try:
        yield
    finally:
        _heard.events = before


def check_stop() -> None:
    """Raise if the caller has stopped.

    Raises:
        InterruptedReadError: a stop event was set.
    """
    if any(event.is_set() for event in _heard.events):
        raise InterruptedReadError("interrupted")


def result_of(future: Future[_T], pool: Lanes | None = None) -> _T:
    """What a future holds, or what it raises.

    Args:
        future: of a job on a lane.
        pool: of the lane; it retires if the caller stops, as its lanes may hang.

    Raises:
        InterruptedReadError: the caller stopped; a job that has not begun never will.
    """
    if not _heard.events:
        return future.result()
    while True:
        try:
            return future.result(_POLL_S)
        except TimeoutError:
            if future.done():
                return future.result()
            is_stopped = any(event.is_set() for event in _heard.events)
        except KeyboardInterrupt:  # nothing but this may come out of a statement's callback
            is_stopped = True
        if is_stopped:
            if not future.cancel() and pool is not None:
                pool.retire()
            raise InterruptedReadError("interrupted")


def interruptible(ask: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call what may block, so that the caller can leave it.

    Raises:
        InterruptedReadError: the caller stopped.
    """
    if not _heard.events:
        return ask(*args, **kwargs)
    check_stop()
    return result_of(lanes(_N_LANES).submit(ask, *args, **kwargs))


def within(seconds: float, ask: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `interruptible`, for what has no limit of its own.

    Raises:
        InterruptedReadError: the caller stopped.
        TimeoutError: the time is over.

    Example:
        >>> within(5, max, 1, 2)
        2
        >>> within(0.05, time.sleep, 1)
        Traceback (most recent call last):
        TimeoutError
    """
    over = threading.Event()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    timer.start()
    try:
        with listening(over):
            return interruptible(ask, *args, **kwargs)
    except InterruptedReadError:
        if over.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def pause(seconds: float) -> None:
    """Sleep.

    Raises:
        InterruptedReadError: the caller stopped.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check_stop()
        time.sleep(min(left, _POLL_S) if _heard.events else left)


@contextmanager
def until_signalled() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; for servers, on the main thread."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
