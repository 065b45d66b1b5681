"""The SIGINT handler that goes in and out while statements run."""

from __future__ import annotations

import ctypes
import gc
import signal
import time
import weakref

import pytest

from rasteret_sql.duck import ctrl_c
from rasteret_sql.duck.ctrl_c import CtrlC


@pytest.mark.any_duckdb
def test_what_is_interrupted_by_its_removal_is_freed_when_it_ends():
    """Python asks between two instructions of anything, such as of a build."""
    handler = CtrlC(lambda: None, lambda: True)

    class Large:
        pass

    def work():
        held = Large()
        alive = weakref.ref(held)
        ctypes.pythonapi.Py_AddPendingCall(handler._leave, None)
        for _ in range(10_000):  # a pending call runs between two of its instructions
            pass
        return alive

    gc.disable()
    try:
        assert work()() is None
    finally:
        gc.enable()
        handler.finish()


@pytest.mark.any_duckdb
def test_what_starts_after_the_keyboard_interrupt_is_stopped_until_the_next_statement(monkeypatch):
    """DuckDB 2.0 gets the interrupt while it waits, and a thread of its own starts a scan then."""
    monkeypatch.setattr(ctrl_c, "_LATE_SECONDS", 60)  # a busy machine takes more than one
    stopped = []
    handler = CtrlC(lambda: stopped.append(1), lambda: True)
    # in the background it is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handler.enter()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        n_at_once, deadline = len(stopped), time.monotonic() + 10
        while len(stopped) < n_at_once + 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        handler.enter()  # another statement is bound
        assert not handler._wakeup.persists()
    finally:
        signal.signal(signal.SIGINT, before)
        handler.finish()
