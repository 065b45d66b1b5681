"""How far the builds of this process are, for whoever shows it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Count = Literal["records listed", "records done", "headers", "unreadable"]


@dataclass
class Progress:
    """Counts of one build, which only grow.

    Attributes:
        name: Of the collection.
        began: `time.monotonic` at the start, seconds.
        counts: ``records listed`` by the source, all of them before the first is ``done``;
            ``headers`` read, and assets that were ``unreadable``.
    """

    name: str
    began: float = field(default_factory=time.monotonic)
    counts: Counter[Count] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.began


class _Here(threading.local):
    progress: Progress | None = None


_here = _Here()
_running: list[Progress] = []


@contextmanager
def watched(name: str) -> Iterator[Progress]:
    """Count what this thread does as the build of a collection."""
    before, _here.progress = _here.progress, Progress(name)
    _running.append(_here.progress)
    try:
        yield _here.progress
    finally:
        _running.remove(_here.progress)
        _here.progress = before


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
    """The builds of all threads that have not ended."""
    return list(_running)
