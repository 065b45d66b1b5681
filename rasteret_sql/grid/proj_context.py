"""PROJ's contexts in threads that Python did not start."""

from __future__ import annotations

import sys

_contexts: dict[int, object] = {}


def keep_context() -> None:
    """Keep PROJ's context of this thread; call it before a foreign thread leaves Python.

    pyproj holds one context per thread twice: in a C slot, which lasts as long as the
    thread, and in a `threading.local`, which frees it. In a thread that Python did not
    start (DuckDB's) the latter ends with each callback, and the next one would use a freed
    context. As long as nobody has imported pyproj there is none.
    """
    get_context_manager = getattr(sys.modules.get("pyproj._context"), "get_context_manager", None)
    manager = get_context_manager() if get_context_manager is not None else None
    if manager is not None:
        _contexts.setdefault(id(manager), manager)
