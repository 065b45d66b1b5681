"""Temporary files of a build; those of a process that was killed go with the next build."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "rasteret-spool-"


class SpoolFile:
    """A new file in the temporary folder, locked while this object is not closed.

    A process that ends in whatever way lets go of its locks, so that an unlocked file is
    nobody's: making a new one removes those.

    Example:
        >>> file = SpoolFile(".bin")
        >>> file.path.exists()
        True
        >>> file.remove()
        >>> file.path.exists()
        False
    """

    def __init__(self, suffix: str) -> None:
        folder = Path(tempfile.gettempdir())
        _remove_abandoned(folder)
        while True:
            self._lock, name = tempfile.mkstemp(suffix, _PREFIX, folder)
            self.path = Path(name)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.path.exists():  # else another process found it before it was locked
                return
            os.close(self._lock)

    def remove(self) -> None:
        """Delete the file; more than once does no harm."""
        if self._lock >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned(folder: Path) -> None:
    """Delete the files that no process holds; those of other users stay."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            held = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            finally:
                os.close(held)
