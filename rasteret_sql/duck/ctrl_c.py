"""Ctrl-C while DuckDB runs our Python on threads of its own.

A signal handler of Python's runs on the main thread. That one may wait inside DuckDB, which
in 2.0 does not look for signals there, while the scan runs elsewhere. So while a statement of
ours runs, a thread listens to the wakeup file descriptor of signals and stops the scans, also
those that the statement is yet to start; then DuckDB returns, and a handler that stands before
the one that was there ends the statement.
Both go in when the main thread binds a statement or starts a scan, and out when the last scan
has ended. Others replace the handler as well (ipykernel does before each cell, asyncio the
file descriptor), so they go out only where they are still the current ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from rasteret_sql.duck.callbacks import CALLBACKS, OWED, is_callback
from rasteret_sql.duck.stream import is_ending

_LEAVE_SECONDS = 0.2
_AGAIN = b"\0"
"""No signal: wakes the thread up."""
_STOP_AGAIN_SECONDS = 0.02
_PERSIST_SECONDS = 5.0
"""How long scans that start after a SIGINT are stopped, unless its statement has ended."""
_LATE_SECONDS = 1.0
"""How long after its KeyboardInterrupt, which DuckDB may get while a scan of it starts."""

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
        self._previous_hook = sys.__excepthook__
        self._leaving: threading.Thread | None = None
        self._leave_at = 0.0
        self._finished = threading.Event()
        self._leave = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._restore)
        self._wakeup = _Wakeup(stop, self._is_in)

    def enter(self) -> None:
        """Put the handler in, from the main thread; from another one nothing happens.

        It stays while the main thread is inside DuckDB, where no pending call runs. Python
        code that DuckDB calls there, and that may take long, calls this when it ends too.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        if self._wakeup.is_late:  # this is another statement
            self._wakeup.settle()
        current = signal.getsignal(signal.SIGINT)
        if current != self._on_signal and callable(current):
            with contextlib.suppress(ValueError):  # a subinterpreter: Python forbids it
                signal.signal(signal.SIGINT, self._on_signal)
                self._previous = current
                if sys.excepthook != self._on_uncaught:
                    self._previous_hook, sys.excepthook = sys.excepthook, self._on_uncaught
                self._wakeup.settle()
                self._wakeup.enter()
        self._leave_at = time.monotonic() + _LEAVE_SECONDS
        self.leave()

    def leave(self) -> None:
        """Take the handler out as soon as the main thread is out of DuckDB; from any thread."""
        if self._previous is None or self._finished.is_set():
            return
        leaving = self._leaving
        if leaving is None or not leaving.is_alive():  # a fork has no such thread
            self._leave_at = max(self._leave_at, time.monotonic() + _LEAVE_SECONDS)
            self._leaving = threading.Thread(target=self._wait, daemon=True)
            try:
                self._leaving.start()
            except RuntimeError:  # the interpreter ends
                self._leaving = None

    def finish(self) -> None:
        """When the interpreter ends: leave no thread that holds objects of DuckDB's."""
        self._finished.set()
        leaving = self._leaving
        if leaving is not None and leaving.is_alive():
            leaving.join(1)
        self._wakeup.finish()

    def _wait(self) -> None:
        """Wait until nothing has begun for a while, then have the main thread take it out.

        One thread for many statements: to start one takes as long as to plan a small read.
        Python runs a pending call on the main thread, between two of its instructions.
        """
        while (left := self._leave_at - time.monotonic()) > 0:
            if self._finished.wait(left):
                return
        self._leaving = None
        ctypes.pythonapi.Py_AddPendingCall(self._leave, None)

    def _restore(self, _argument: object = None) -> int:
        # in a local of its own a frame, and with it all that its callers hold, would stay
        # until the garbage collector finds the cycle
        is_inside = _is_inside(sys._getframe().f_back)  # noqa: SLF001
        has_begun = time.monotonic() < self._leave_at  # since it was asked for
        if is_inside or has_begun or self._wakeup.persists():
            self.leave()
        elif not self._is_busy() and self._previous is not None:
            if self._is_in():
                signal.signal(signal.SIGINT, self._previous)
            if sys.excepthook == self._on_uncaught:
                sys.excepthook = self._previous_hook
            self._previous = None
            self._wakeup.leave()
        if OWED.is_owed and not is_ending():
            OWED.is_owed = False
            OWED.send_later  # noqa: B018 (see there)
        return 0

    def _on_uncaught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Show the KeyboardInterrupt of a statement that ended a script, not DuckDB's error.

        Python calls no handler between DuckDB's return with an error and this function, which
        counts as inside of it: a SIGINT that waits is owed from its first line on.
        """
        if OWED.is_owed:
            OWED.is_owed = False
            self._wakeup.settle()
            kind, error = KeyboardInterrupt, KeyboardInterrupt()
        self._previous_hook(kind, error, trace)

    def _is_in(self) -> bool:
        """Whether the handler of SIGINT is ours; others may have replaced it."""
        return signal.getsignal(signal.SIGINT) == self._on_signal

    def _on_signal(self, number: int, frame: FrameType | None) -> Any:  # noqa: ANN401
        previous = self._previous or signal.default_int_handler
        self._wakeup.take()
        self._stop()
        inside, again = _is_inside(frame), OWED.is_owed
        if inside or (is_ending() and not again):  # an exception would be DuckDB's
            OWED.is_owed = True
            self._wakeup.again()
            return None
        OWED.is_owed = False
        self._wakeup.settle_soon()
        return previous(number, frame)


# an exception of the handler is lost there
CALLBACKS.update(one.__code__ for one in (CtrlC._restore, CtrlC._on_uncaught))  # noqa: SLF001


def _is_inside(frame: FrameType | None) -> bool:
    """Whether DuckDB called what runs."""
    while frame is not None:
        if is_callback(frame.f_code):
            return True
        frame = frame.f_back
    return False


class _Wakeup:
    """Stops the scans as soon as SIGINT arrives, whatever the main thread does.

    The statement may be bound but not have started its scan: what starts is stopped until
    `settle` says that the handler has ended the statement.

    Args:
        stop: Stops the scans.
        settles: Whether `settle` will be called for a SIGINT that arrives now.

    Attributes:
        is_late: Whether the statement got its KeyboardInterrupt, and no other one has begun.

    Source:
        Python library reference, `signal.set_wakeup_fd`: the number of each signal is written
        to a file descriptor at once.
    """

    def __init__(self, stop: Callable[[], None], settles: Callable[[], bool]) -> None:
        self._stop = stop
        self._settles = settles
        self._lock = threading.RLock()  # the handler may interrupt who holds it
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._previous = -1
        self._until = 0.0
        self.is_late = False
        self._thread: threading.Thread | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def enter(self) -> None:
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)  # noqa: FBT003 (its only form)
            self._thread = threading.Thread(target=self._listen, args=(self._ends[0],), daemon=True)
            self._thread.start()
        ours = self._ends[1].fileno()
        previous = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if previous != ours:
            self._previous = previous

    def leave(self) -> None:
        """From the main thread."""
        if self._ends is None:
            return
        with contextlib.suppress(ValueError, OSError):  # what was there may be closed by now
            current = signal.set_wakeup_fd(self._previous, warn_on_full_buffer=False)
            if current != self._ends[1].fileno():
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)

    def take(self) -> bool:
        """Take what has arrived, hand it on to who listened before; whether SIGINT was in it."""
        if self._ends is None:
            return False
        with self._lock:
            try:
                signals = self._ends[0].recv(4096).replace(_AGAIN, b"")
            except OSError:
                return False
            is_interrupt = signal.SIGINT in signals
            if is_interrupt and self._settles():
                self._until = time.monotonic() + _PERSIST_SECONDS
        if self._previous >= 0 and signals:
            with contextlib.suppress(OSError):
                os.write(self._previous, signals)
        return is_interrupt

    def again(self) -> None:
        """Have the thread go on: the statement that is to end may yet start a scan."""
        self._until = time.monotonic() + _PERSIST_SECONDS
        if self._ends is not None:
            with contextlib.suppress(OSError):  # full: the thread wakes up anyway
                self._ends[1].send(_AGAIN)

    def settle_soon(self) -> None:
        """The handler ends the statement; scans that DuckDB starts a moment later are of it."""
        self.again()
        self._until, self.is_late = time.monotonic() + _LATE_SECONDS, True

    def settle(self) -> None:
        """The handler has ended the statement, or there is none."""
        self._until, self.is_late = 0.0, False

    def finish(self) -> None:
        """End the thread."""
        ends, thread = self._ends, self._thread
        if ends is None or thread is None:
            return
        if threading.current_thread() is threading.main_thread():
            self.leave()
        ends[1].close()
        thread.join(1)
        if not thread.is_alive():
            ends[0].close()
        self._forget()

    def _listen(self, end: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(end, selectors.EVENT_READ)
            while not _is_closed(end):
                selector.select(_STOP_AGAIN_SECONDS if self.persists() else None)
                if self.take() or self.persists():
                    self._stop()

    def persists(self) -> bool:
        """Whether a statement is to be ended that may yet start a scan."""
        return time.monotonic() < self._until

    def _forget(self) -> None:
        """A child of `os.fork` has no such thread, and shares the sockets."""
        if self._ends is not None and threading.current_thread() is threading.main_thread():
            self.leave()
        self._ends = self._thread = None
        self._lock = threading.RLock()


def _is_closed(end: socket.socket) -> bool:
    """Whether the other end is closed."""
    try:
        return not end.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
