"""Whole small objects: STAC documents, Parquet footers."""

from __future__ import annotations

from rasteret_sql.remote.ranges import get_range, get_start

_FIRST_BYTES = 4 * 1024 * 1024


def get_document(href: str) -> bytes:
    """Read a whole object, in one request where it is under 4 MiB.

    Raises:
        ReadError: it is not there, or the bytes did not come.
    """
    start = get_start(href, _FIRST_BYTES)
    if start.size is None or len(start.data) >= start.size:
        return start.data
    rest = get_range(href, len(start.data), start.size - len(start.data))
    return start.data + bytes(rest)
