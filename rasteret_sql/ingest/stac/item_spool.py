"""Rows kept on disk, compressed, between the pass that types them and those that read them."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.spool_file import SpoolFile
from rasteret_sql.errors import CollectionError

_CHUNK_BYTES = 1 << 20


class ItemSpool:
    """JSON values in a temporary file, which goes when the object does.

    Example:
        >>> spool = ItemSpool()
        >>> spool.append([1, "a"])
        >>> spool.close()
        >>> list(spool)
        [[1, 'a']]
    """

    def __init__(self) -> None:
        file = SpoolFile(".ndjson.zst")
        self._path = file.path
        weakref.finalize(self, file.remove)
        self._sink = pa.CompressedOutputStream(pa.OSFile(str(file.path), "wb"), "zstd")
        self._pending: list[str] = []
        self._pending_bytes = 0

    def append(self, value: object) -> None:
        """Write one more value."""
        text = json.dumps(value, separators=(",", ":"))
        self._pending.append(text)
        self._pending_bytes += len(text)
        if self._pending_bytes > _CHUNK_BYTES:
            self._flush()

    def close(self) -> None:
        """End writing; needed before reading."""
        self._flush()
        self._sink.close()

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._sink.write(("\n".join(self._pending) + "\n").encode())
        except OSError as error:
            raise CollectionError.expected(
                str(self._path), "room for a temporary file", error, "free disk space or set TMPDIR"
            ) from None
        self._pending.clear()
        self._pending_bytes = 0

    def __iter__(self) -> Iterator[Any]:
        """Read all values, in order; several readers may be at work."""
        rest = b""
        with pa.CompressedInputStream(pa.OSFile(str(self._path), "rb"), "zstd") as source:
            while chunk := source.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
