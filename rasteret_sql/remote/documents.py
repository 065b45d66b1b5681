"""Whole small objects: STAC documents, Parquet footers."""

from __future__ import annotations

import zlib

from rasteret_sql.errors import ReadError, redact
from rasteret_sql.remote.ranges import get_range, get_start

_FIRST_BYTES = 4 * 1024 * 1024
_GZIP = b"\x1f\x8b"
_MAX_BYTES = 1 << 30


def get_document(href: str) -> bytes:
    """Read a whole object, in one request where it is under 4 MiB.

    One that is stored or sent as gzip, whether that was asked for or not, is unpacked.

    Raises:
        ReadError: it is not there, or the bytes did not come.
    """
    start = get_start(href, _FIRST_BYTES)
    data = start.data
    if start.size is not None and len(data) < start.size:
        data += bytes(get_range(href, len(data), start.size - len(data)))
    return _unpacked(data, href) if data.startswith(_GZIP) else data


def _unpacked(data: bytes, href: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, _MAX_BYTES)
    except zlib.error as error:
        raise ReadError.expected(redact(href), "gzip", error, "the document is damaged") from None
    if not unpacker.eof:
        what = f"whole gzip of at most {_MAX_BYTES >> 20} MiB"
        raise ReadError.expected(redact(href), what, "another", "the document is damaged")
    return plain
