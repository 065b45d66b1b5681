"""What a long call is at: a line on a terminal, or below the cell of a notebook.

Nothing is shown where stderr is no terminal, as in a pipe, and nothing after `wanted` (False)
or with ``RASTERET_PROGRESS=0`` in the environment. In a Jupyter kernel the line appears by
itself when a call takes longer than a second, and goes when it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rasteret_sql.progress.counts import Progress, on_begin, running

__all__ = ["line", "shown", "shown_in_notebooks", "wanted"]

_PERIOD_S = 0.2
_NOTEBOOK_PERIOD_S = 0.5
_NOTEBOOK_DELAY_S = 1.0
_NOTEBOOK_IDLE = 2
_WHEEL = "|/-\\"
_CLEAR = "\r\x1b[K"
_BAR_WIDTH = 20
_MINUTE_S, _HOUR_S = 60, 3600
_UNITS = ("B", "kB", "MB", "GB", "TB")

_lock = threading.Lock()
_state: dict[str, Any] = {"is_wanted": None, "notebook": None}


def wanted(is_wanted: bool | None) -> None:  # noqa: FBT001 (a switch and nothing else)
    """Switch progress off or on for this process.

    Args:
        is_wanted: None: as ``RASTERET_PROGRESS`` says, on without it.

    Example:
        >>> wanted(False)
    """
    _state["is_wanted"] = is_wanted


def _is_wanted() -> bool:
    chosen = _state["is_wanted"]
    return os.environ.get("RASTERET_PROGRESS", "1") != "0" if chosen is None else bool(chosen)


@contextmanager
def shown(text: str) -> Iterator[None]:
    """Show a text and how far the work is on stderr; nothing where that is no terminal.

    A build lists its records, then reads headers with a bar, then writes its files.
    """
    if not sys.stderr.isatty() or not _is_wanted():
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
        works = running()
        state = f": {line(works[-1])}" if works and line(works[-1]) else ""
        wheel = _WHEEL[number % len(_WHEEL)]
        sys.stderr.write(f"{_CLEAR}{wheel} {text}{state} {duration(elapsed)}")
        sys.stderr.flush()
        number += 1
    if number:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()


def shown_in_notebooks() -> None:
    """From now on show work that takes long below the cell, if this is a Jupyter kernel."""
    if _kernel() is not None:
        on_begin(_begin_in_notebook)


def _kernel() -> Any:  # noqa: ANN401 (IPython is not one of our dependencies)
    """The shell of a Jupyter kernel; None elsewhere, also in IPython's terminal."""
    if "ipykernel" not in sys.modules:
        return None
    found = sys.modules["IPython"].get_ipython()
    return found if found is not None and hasattr(found, "kernel") else None


def _begin_in_notebook() -> None:
    with _lock:
        thread = _state["notebook"]
        if not _is_wanted() or (thread is not None and thread.is_alive()):
            return
        _state["notebook"] = threading.Thread(target=_show_in_notebook, daemon=True)
        _state["notebook"].start()


def _show_in_notebook() -> None:
    time.sleep(_NOTEBOOK_DELAY_S)
    handle = None
    with contextlib.suppress(Exception):  # a kernel that ends; a line is worth no error
        display = sys.modules["IPython"].display.display
        n_idle = 0
        while n_idle < _NOTEBOOK_IDLE:  # work may come in pieces
            works = running()
            n_idle = 0 if works else n_idle + 1
            if not works:
                time.sleep(_NOTEBOOK_PERIOD_S)
                continue
            now = works[-1]
            parts = [now.name, line(now), duration(now.seconds)]
            shown_now = {"text/plain": "  ".join(part for part in parts if part)}
            if handle is None:
                handle = display(shown_now, raw=True, display_id=True)
            else:
                handle.update(shown_now, raw=True)
            time.sleep(_NOTEBOOK_PERIOD_S)
        if handle is not None:
            handle.update({"text/plain": ""}, raw=True)


def line(work: Progress) -> str:
    """How far a build or a read is, with what it does in a second and what failed.

    The time left is told once the number of records, or of tiles, is known and some are done.

    Example:
        >>> build = Progress("s2", began=time.monotonic() - 10)
        >>> build.counts.update({"records listed": 4000, "records done": 1000, "headers": 3000})
        >>> line(build)
        '[#####---------------] 1,000 of 4,000 records, 3,000 headers, 300/s, 30 s left'
        >>> read = Progress("rasteret_pixels", began=time.monotonic() - 2)
        >>> read.counts.update({"rows": 5000, "requests": 12, "bytes": 3_000_000})
        >>> line(read)
        '5,000 rows, 12 requests, 3.0 MB, 1.5 MB/s'
        >>> read.counts.update({"tiles": 40, "tiles expected": 400, "tiles failed": 2})
        >>> line(read)
        '[##------------------] 40 of 400 tiles, 2 failed, 5,000 rows, 12 requests, 3.0 MB, \
1.5 MB/s, 18 s left'
    """
    counts, seconds = work.current(), max(work.seconds, 1e-3)
    found = []
    if counts["records done"]:
        known = counts["records listed"] if work.is_whole else 0
        found.append(_amount("records", counts["records done"], known))
    elif counts["records listed"]:
        rate = counts["records listed"] / seconds
        found.append(f"{counts['records listed']:,} records listed, {rate:,.0f}/s")
    if counts["headers"]:
        found.append(f"{counts['headers']:,} headers, {counts['headers'] / seconds:,.0f}/s")
    if counts["tiles"]:
        found.append(_amount("tiles", counts["tiles"], counts["tiles expected"]))
    if counts["tiles failed"]:
        found.append(f"{counts['tiles failed']:,} failed")
    if counts["unreadable"]:
        found.append(f"{counts['unreadable']:,} unreadable")
    if counts["rows"]:
        found.append(f"{counts['rows']:,} rows")
    if counts["requests"]:
        found.append(f"{counts['requests']:,} requests")
    if counts["bytes"]:
        found.append(f"{size(counts['bytes'])}, {size(counts['bytes'] / seconds)}/s")
    done, known = counts["tiles"], counts["tiles expected"]
    if work.is_whole and counts["records done"]:
        done, known = counts["records done"], counts["records listed"]
    if known > done > 0:
        found.append(f"{duration((known - done) * seconds / done)} left")
    return ", ".join(found)


def _amount(what: str, done: int, known: int) -> str:
    """How many are done, with a bar where it is known how many there are."""
    if known < done:
        return f"{done:,} {what}"
    filled = _BAR_WIDTH * done // known
    bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
    return f"[{bar}] {done:,} of {known:,} {what}"


def size(n_bytes: float) -> str:
    """Bytes in short.

    Example:
        >>> size(812), size(20_400_000), size(3_100_000_000)
        ('812 B', '20.4 MB', '3.1 GB')
    """
    power = 0
    while n_bytes >= 999.5 and power < len(_UNITS) - 1:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.1f} {_UNITS[power]}" if power else f"{n_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Seconds in short.

    Example:
        >>> duration(8.4), duration(250), duration(7300)
        ('8 s', '4 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
