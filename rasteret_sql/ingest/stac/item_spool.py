"""Rows kept on disk between the pass that types them and those that read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_sql.collections.spool import Spool

_CHUNK_BYTES = 1 << 20
_SCHEMA = pa.schema([("json", pa.string())])


class ItemSpool:
    """JSON values in a temporary file, which goes when the object does.

    Args:
        folder: Of the file, as `Spool` has it.

    Example:
        >>> spool = ItemSpool()
        >>> spool.append([1, "a"])
        >>> spool.close()
        >>> list(spool)
        [[1, 'a']]
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._spool = Spool(_SCHEMA, folder=folder)
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
        self._spool.close()

    def _flush(self) -> None:
        self._spool.append(pa.record_batch([self._pending], schema=_SCHEMA))
        self._pending.clear()
        self._pending_bytes = 0

    def __iter__(self) -> Iterator[Any]:
        """Read all values, in order; several readers may be at work."""
        for batch in self._spool:
            for text in batch.column(0).to_pylist():
                yield json.loads(text)
