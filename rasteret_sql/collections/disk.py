"""Steps on a disk that happen whole or not at all, and what a disk says when it can't."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasteret_sql.errors import CollectionError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TODO = {
    errno.ENOSPC: ("room on the disk", "free space or choose another folder"),
    errno.EDQUOT: ("room in the quota", "free space or choose another folder"),
    errno.EFBIG: ("files of this size to be allowed", "raise the limit or choose another folder"),
    errno.EROFS: ("a folder that can be written", "choose another with workspace :="),
    errno.EACCES: ("a folder that can be written", "choose another with workspace :="),
    errno.EPERM: ("a folder that can be written", "choose another with workspace :="),
}


@contextmanager
def disk_errors(path: Path, advice: str | None = None) -> Iterator[None]:
    """Turn what the operating system says about a path into one line.

    Args:
        path: Of which it says it.
        advice: What to do, in place of the usual.

    Raises:
        CollectionError: for any `OSError` of the body.
    """
    try:
        yield
    except OSError as error:
        expected, todo = _TODO.get(
            error.errno or 0, ("a local folder that can be written", "check the folder")
        )
        said = os.strerror(error.errno) if error.errno else str(error)
        raise CollectionError.expected(str(path), expected, said, advice or todo) from error


def exchange(one: Path, other: Path) -> bool:
    """Swap what two paths name, in one step; False where the system has no such call.

    Source:
        renameat2(2), RENAME_EXCHANGE: Linux 3.15 and glibc 2.28.
    """
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = (os.fsencode(one), os.fsencode(other))
    if renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):  # a file system without it
        return False
    raise OSError(code, os.strerror(code), str(one))


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` (a folder or a link) where `target` is; `new` then names the old one, if any.

    In one step, save on systems that cannot exchange two paths: there a moment has
    neither, and a crash in it leaves the old folder beside, under a name with a dot.
    """
    if not os.path.lexists(target) or (target.is_symlink() and new.is_symlink()):
        new.replace(target)
        return
    if not exchange(new, target):
        aside = target.parent / f".{target.name}.{uuid.uuid4().hex[:12]}"
        target.rename(aside)
        new.rename(target)
        aside.rename(new)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder, and the folders, to the disk itself."""
    for root, _, files in os.walk(folder):
        for name in (*files, "."):
            _sync(Path(root) / name)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a folder with all in it, or a link or file; missing is fine."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    for attempts_left in (2, 1, 0):
        if not path.exists():
            return
        try:
            shutil.rmtree(path)
        except OSError as error:
            # a reader may just have put its file of records there
            if error.errno != errno.ENOTEMPTY or not attempts_left:
                raise
