"""Where collections are kept, which there are and what files are called, without reading one."""

from __future__ import annotations

import os
import re
from pathlib import Path

KINDS = ("stac", "records")
ENVIRONMENT = "RASTERET_WORKSPACE"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""What a collection may be called."""

PARQUET_SUFFIXES = (".parquet", ".geoparquet", ".parq")


def workspace_folder(root: Path | str | None = None) -> Path:
    """The folder of collections, absolute; it need not exist.

    Args:
        root: ``RASTERET_WORKSPACE``, else ``~/rasteret_workspace``, where None.
    """
    chosen = root or os.environ.get(ENVIRONMENT) or Path("~/rasteret_workspace")
    return Path(chosen).expanduser().absolute()


def collection_folders(root: Path) -> list[tuple[str, str]]:
    """Name and kind of each folder that should be a collection, sorted."""
    if not root.is_dir():
        return []
    found = []
    for path in root.iterdir():
        name, _, kind = path.name.rpartition("_")
        if kind in KINDS and NAME.fullmatch(name) and (path.is_dir() or path.is_symlink()):
            found.append((name, kind))
    return sorted(found)


def is_parquet_name(location: str) -> bool:
    """Whether a path or URL is that of a file, not of a folder."""
    return location.split("?", 1)[0].lower().endswith(PARQUET_SUFFIXES)
