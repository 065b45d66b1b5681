"""Processes of tests that get signals."""

from __future__ import annotations

import sys

_HEED = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def heeding_ctrl_c(*arguments: str) -> list[str]:
    """The command of a Python process that heeds SIGINT.

    A test run in the background of a script inherits an ignored one. ``preexec_fn`` would do,
    but it forks, for which a process of many tests may be too large.
    """
    return [sys.executable, "-c", _HEED, *arguments]
