"""The SIGINT handler that goes in and out while statements run."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest

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
