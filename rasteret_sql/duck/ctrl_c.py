"""Ctrl-C while DuckDB runs our Python on threads of its own.

A signal handler of Python's runs on the main thread, which waits inside DuckDB while the
scan runs elsewhere. So while a statement of ours runs, a handler that stops the scans
stands before the one that was there. It goes in when the main thread binds a statement or
starts a scan, and out when the last scan has ended. Others replace the handler as well
(ipykernel does before each cell), so it goes out only where it is still the current one.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from rasteret_sql.duck.stream import is_callback

_LEAVE_SECONDS = 0.2

Handler = Callable[[int, FrameType | None], Any]


class CtrlC:
    """A SIGINT handler for the time that scans run.

    Args:
        stop: Stops the scans.
        is_busy: Whether a scan runs.
    """

    def __init__(self, stop: Callable[[], None], is_busy: Callable[[], bool]) -> None:
        self._stop = stop
        self._is_busy = is_busy
        self._previous: Handler | None = None
        self._leaving: threading.Timer | None = None
        self._is_finished = False
        self._leave = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._restore)

    def enter(self) -> None:
        """Put the handler in, from the main thread; from another one nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        current = signal.getsignal(signal.SIGINT)
        if current != self._on_signal and callable(current):
            with contextlib.suppress(ValueError):  # a subinterpreter: Python forbids it
                signal.signal(signal.SIGINT, self._on_signal)
                self._previous = current
        self.leave()

    def leave(self) -> None:
        """Take the handler out as soon as the main thread is out of DuckDB; from any thread."""
        if self._leaving is None and self._previous is not None and not self._is_finished:
            self._leaving = threading.Timer(_LEAVE_SECONDS, self._ask)
            self._leaving.daemon = True
            try:
                self._leaving.start()
            except RuntimeError:  # the interpreter ends
                self._leaving = None

    def finish(self) -> None:
        """When the interpreter ends: leave no thread that holds objects of DuckDB's."""
        self._is_finished = True
        leaving = self._leaving
        if leaving is not None:
            leaving.cancel()
            leaving.join(1)

    def _ask(self) -> None:
        """Python runs a pending call on the main thread, between two of its instructions."""
        self._leaving = None
        ctypes.pythonapi.Py_AddPendingCall(self._leave, None)

    def _restore(self, _argument: object = None) -> int:
        if not self._is_busy() and self._previous is not None:
            if signal.getsignal(signal.SIGINT) == self._on_signal:
                signal.signal(signal.SIGINT, self._previous)
            self._previous = None
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> Any:  # noqa: ANN401
        previous = self._previous or signal.default_int_handler
        self._stop()
        if frame is not None and is_callback(frame.f_code):
            return None  # the scan ends by itself: "interrupted"
        return previous(number, frame)
