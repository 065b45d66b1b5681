"""Code of ours that DuckDB calls, and the Ctrl-C that comes while it runs on the main thread.

An exception of a signal's handler would end there as DuckDB's own error, or be seen by nobody.
So the handler only notes it (`ctrl_c`), and the last callback sends the signal once more.
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import signal
from types import CodeType

_add_pending_call = ctypes.pythonapi.Py_AddPendingCall
_add_pending_call.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
_SET_INTERRUPT = ctypes.cast(ctypes.pythonapi.PyErr_SetInterruptEx, ctypes.c_void_p)
"""Takes the number of a signal, which stands for the pointer that a pending call takes."""


class _OwedInterrupt(int):
    """A SIGINT whose handler ran while DuckDB was in one of our callbacks: it could not raise.

    The last callback sends it once more as its last act. The handler runs where the
    interpreter next looks for signals: after calls and jumps, not after an attribute. So by
    ``send`` it runs in the caller of DuckDB, as the KeyboardInterrupt of the statement.
    After a scalar function DuckDB goes on; ``send_later`` sends it when the interpreter next
    runs Python code. DuckDB 1.5 runs some itself, so there its scalar functions owe nothing.
    """

    is_owed = False
    send = property(_thread.interrupt_main)  # it takes the number
    send_later = property(functools.partial(_add_pending_call, _SET_INTERRUPT))


OWED = _OwedInterrupt(signal.SIGINT)

CALLBACKS: set[CodeType] = set()
"""What DuckDB calls."""

RUNNING: set[object] = set()
"""An object for each scalar function of ours that runs, on any thread."""


def is_callback(code: CodeType) -> bool:
    """Whether DuckDB calls this code; nobody sees an exception that is raised right in it."""
    return code in CALLBACKS
