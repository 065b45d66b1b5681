"""How far the builds and reads of this process are, for whoever shows it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Count = Literal[
    "records listed",
    "records done",
    "headers",
    "unreadable",
    "rows",
    "requests",
    "bytes",
    "tiles",
    "tiles expected",
    "tiles failed",
]

_RESUME_SECONDS = 2.0
_IDLE_SECONDS = 2.0
"""After this time a read whose rows nobody asks for is no longer running."""


@dataclass(eq=False)
class Progress:
    """Counts of one build or read, which only grow.

    Attributes:
        name: Of the collection, or of the function that reads.
        began: `time.monotonic` at the start, seconds.
        counts: ``records listed`` by the source, all of them before the first is ``done``;
            ``headers`` read, and assets that were ``unreadable``; ``rows`` given; ``tiles``
            that are done, those of them that ``failed``, and those ``expected`` in all.
        more: Counts that are kept elsewhere.
        is_whole: Whether ``records listed`` are all that will come.
        ended: `time.monotonic` at the end of the last piece of work that comes in pieces.
        given: `time.monotonic` when the rows were given that are now used; None while a read
            makes some.
    """

    name: str
    began: float = field(default_factory=time.monotonic)
    counts: Counter[Count] = field(default_factory=Counter)
    more: Callable[[], Mapping[Count, int]] = dict
    is_whole: bool = True
    ended: float = 0.0
    given: float | None = None

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.began

    @property
    def is_idle(self) -> bool:
        """Whether nobody has asked for rows for two seconds: a half-read result stays so."""
        return self.given is not None and time.monotonic() - self.given > _IDLE_SECONDS

    @contextmanager
    def giving(self) -> Iterator[None]:
        """Rows are out of hand until this ends.

        Example:
            >>> read = Progress("rasteret_pixels")
            >>> with read.giving():
            ...     read.is_idle
            False
        """
        self.given = time.monotonic()
        try:
            yield
        finally:
            self.given = None

    def current(self) -> Counter[Count]:
        """All counts, as they are now."""
        return self.counts + Counter(dict(self.more()))


class _Here(threading.local):
    progress: Progress | None = None


_here = _Here()
_running: list[Progress] = []
_paused: dict[object, Progress] = {}
_listeners: list[Callable[[], None]] = []


def on_begin(listener: Callable[[], None]) -> None:
    """Call a function whenever work begins; on any thread."""
    if listener not in _listeners:
        _listeners.append(listener)


@contextmanager
def watched(name: str, *, resume: object = None) -> Iterator[Progress]:
    """Count what this thread does as the build of a collection.

    Args:
        name: Of the collection.
        resume: Work that comes in pieces goes on counting where the last piece of the same
            key ended, up to two seconds before.
    """
    before, own = _here.progress, _resumed(name, resume)
    _here.progress = own
    try:
        with _listed(own):
            yield own
    finally:
        _here.progress = before
        if resume is not None:
            own.ended = time.monotonic()
            _paused[resume] = own


@contextmanager
def reading(name: str, more: Callable[[], Mapping[Count, int]]) -> Iterator[Progress]:
    """List a read, which threads take turns at.

    Args:
        name: Of the function.
        more: What it has counted so far.
    """
    with _listed(Progress(name, more=more)) as own:
        yield own


@contextmanager
def _listed(own: Progress) -> Iterator[Progress]:
    _running.append(own)
    for listener in _listeners:
        listener()
    try:
        yield own
    finally:
        _running.remove(own)


def _resumed(name: str, key: object) -> Progress:
    now = time.monotonic()
    for old in [old for old, one in _paused.items() if now - one.ended > _RESUME_SECONDS]:
        _paused.pop(old, None)
    found = _paused.pop(key, None) if key is not None else None
    return Progress(name, is_whole=key is None) if found is None else found


def add(what: Count, n: int = 1) -> None:
    """Count for the build that this thread is at; nothing without one.

    Example:
        >>> with watched("s2") as progress:
        ...     add("headers", 2)
        ...     print(progress.name, dict(progress.counts), running() == [progress])
        s2 {'headers': 2} True
        >>> add("headers")
    """
    if _here.progress is not None:
        _here.progress.counts[what] += n


def running() -> list[Progress]:
    """The builds and reads of all threads that are at work, the latest last.

    What a build reads by itself comes before it. Reads whose rows nobody asks for are left out.
    """
    at_work = [work for work in _running if not work.is_idle]
    return sorted(at_work, key=lambda work: "records listed" in work.counts)
